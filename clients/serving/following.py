"""Serves a stream from the current version of a store, and goes over to a new one between two slots.

A new version is loaded beside the stream, whose slots the old one goes on answering. The state of a stream is what the
encoder of a version made of the last frames, which is of no use to another version. So the frames of the last slots are
kept, and the new version takes them in, late ones and missing ones as they came, before it answers for the next slot:
it says then what it would have said if it had been there from the beginning of the pass. No slot is lost, and none is
answered twice.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.models.live import HOLD, Frames, LiveAnswer, LiveModel, is_whole
from clients.serving.beam_model import BeamModel
from clients.serving.loading import load_model
from clients.serving.manifest import Manifest
from clients.serving.model_store import ModelStore


class FollowedModel:
    """The current version of a store.

    Args:
        store: the folder of the store.
        precision: ``float32`` or ``int8``.
        tell: takes a sentence when a version takes the place of another, or cannot.

    Raises:
        ValueError: the store has no current version, or it cannot be read.
    """

    def __init__(
        self, store: Path, *, precision: str = "float32", tell: Callable[[str], object] = lambda line: None
    ) -> None:
        self._store, self._precision, self._tell = ModelStore(store), precision, tell
        self._seen = self._mark()
        self.version = self._store.current().name
        self.model = self._loaded(self.version)
        self._loading: threading.Thread | None = None
        self._next: tuple[str, BeamModel | None, str] | None = None

    @property
    def manifest(self) -> Manifest:
        """What the current version says of itself; sensors, window, horizons and beams are those of every version."""
        return self.model.manifest

    def live(self, *, hold: int = HOLD) -> FollowedLive:
        """The store on a stream of its own; the argument is that of `BeamModel.live`."""
        return FollowedLive(self, hold=hold)

    def look(self) -> bool:
        """Whether another version has taken the place of the one that was served; it costs microseconds where not."""
        if self._loading is None:
            mark = self._mark()
            if mark != self._seen:
                self._seen = mark
                self._loading = threading.Thread(target=self._load, daemon=True)
                self._loading.start()
            return False
        if self._loading.is_alive():
            return False
        self._loading, found, self._next = None, self._next, None
        if found is None:
            return False
        name, model, trouble = found
        if model is None:
            self._tell(f"version {name} is not served, {self.version} goes on: {trouble}")
            return False
        self._tell(f"version {name} is served now, after {self.version}")
        self.version, self.model = name, model
        return True

    def _load(self) -> None:
        """Load the version that is current now, in a thread of its own."""
        name = "?"
        try:
            name = self._store.current().name
            if name != self.version:
                self._next = (name, self._loaded(name), "")
        except Exception as error:  # a file may be broken in any way, and the old version goes on
            self._next = (name, None, " ".join(str(error).split()))

    def _loaded(self, name: str) -> BeamModel:
        """A version that has answered once, so that the first slot does not wait for its graph."""
        model = load_model(self._store.version(name), precision=self._precision)
        model.live().push({one.modality: np.zeros(one.frame_shape, one.dtype) for one in model.manifest.inputs})
        return model

    def _mark(self) -> tuple[int, int] | None:
        """What changes whenever the file of the store is replaced."""
        try:
            found = os.stat(self._store.file)
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns


class FollowedLive:
    """A stream that the versions of a store answer one after the other, as `LiveModel` does with one model.

    Args:
        followed: the store.
        hold: for how many slots in a row an older frame may stand in for missing ones.
    """

    def __init__(self, followed: FollowedModel, *, hold: int = HOLD) -> None:
        self._followed, self._hold = followed, hold
        self._live: LiveModel = followed.model.live(hold=hold)
        self._kept: list[tuple[dict[str, NDArray[Any]], int]] = []

    @property
    def version(self) -> str:
        """The version that answers."""
        return self._followed.version

    @property
    def newest_slot(self) -> int | None:
        """The number of the newest slot; None before the first."""
        return self._live.newest_slot

    def reset(self) -> None:
        """Forget all frames; the next ones begin another pass."""
        self._live.reset()
        self._kept.clear()

    def push(self, frames: Frames, *, slot: int | None = None) -> LiveAnswer | None:
        """Take what the sensors gave in a slot, and answer for it, as `LiveModel.push` does."""
        if self._followed.look():
            self._live = self._followed.model.live(hold=self._hold)
            for earlier, number in self._kept:
                self._live.push(earlier, slot=number)
        answer = self._live.push(frames, slot=slot)
        newest = self._live.newest_slot
        if newest is not None:
            number = newest if slot is None else slot
            whole = {name: np.array(frame) for name, frame in frames.items() if is_whole(name, frame)}
            self._kept.append((whole, number))
            # A window and the slots before it in which a stand-in may have been seen.
            oldest = newest - (self._followed.manifest.num_frames + self._hold)
            self._kept = [one for one in self._kept if one[1] > oldest]
        return answer
