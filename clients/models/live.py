"""A model at work on a live stream, with frames that are missing and frames that come late. It needs numpy only.

A window is the last L slots of every sensor. Where the frame of a slot is missing, the one before it stands in for it,
for a few slots; a sensor that is silent for longer is *lost*, and counts again once it has given a whole window. A
model that tolerates absence goes on with the sensors that count, and any other one pauses. A late frame takes the
place of its stand-in, so that later answers are as if it had come in time. A frame with a value that is not finite
counts as missing, with a warning in the log: it would spoil every window that it is in.

L frames of a window, H horizons, B beams, D features of a frame.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clients.data.modalities import MODALITIES

HOLD = 2
"""For how many slots in a row the last frame of a sensor stands in for missing ones, unless another number is given."""

log = logging.getLogger(__name__)

Frames = Mapping[str, NDArray[Any]]
State = dict[str, NDArray[Any]]


class Stepper(Protocol):
    """A model that takes one slot at a time.

    Attributes:
        modalities: the sensors.
        num_frames: L.
        tolerates_absence: whether it answers without some of its sensors.
    """

    modalities: tuple[str, ...]
    num_frames: int
    tolerates_absence: bool

    def fresh_state(self) -> State:
        """Modality -> (L - 1, ...) what it remembers of each slot before, oldest first; zeros at the beginning."""

    def step(self, frames: Frames, state: State, present: Mapping[str, bool]) -> tuple[NDArray[np.float32], State]:
        """(H, B) logits for the slot of these frames, and the state for the next slot; nothing is changed in place.

        Args:
            frames: modality -> frame (*frame_shape), for every modality.
            state: the state after the slot before.
            present: modality -> whether it counts.
        """


@dataclass(frozen=True)
class LiveAnswer:
    """What a model says in a slot.

    Attributes:
        slot: the number of the slot.
        logits: (H, B) calibrated logits.
        held: the sensors whose frame was missing, so that an older one stood in for it.
        absent: the sensors that did not count.
    """

    slot: int
    logits: NDArray[np.float32]
    held: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()

    @property
    def probs(self) -> NDArray[np.float32]:
        """(H, B) probabilities of the beams."""
        return probs_of(self.logits)

    def beams(self, count: int = 5) -> NDArray[np.int64]:
        """(H, count) the most probable beams, the best first; of equal ones the smaller number comes first."""
        found: NDArray[np.int64] = np.argsort(-self.logits, axis=-1, kind="stable")[:, :count]
        return found


def probs_of(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """(..., B) the softmax of logits."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    found: NDArray[np.float32] = shifted / shifted.sum(axis=-1, keepdims=True)
    return found


class LiveModel:
    """Answers for every slot of a stream.

    Args:
        stepper: the model.
        hold: for how many slots in a row an older frame may stand in for missing ones; 0 for none.

    Attributes:
        num_too_late: how many frames came after their slot had left the window, or had no place in it any more.
    """

    def __init__(self, stepper: Stepper, *, hold: int = HOLD) -> None:
        if hold < 0:
            raise ValueError(f"hold: must be at least 0, got {hold}")
        self._stepper, self._hold = stepper, hold
        self.reset()

    @property
    def newest_slot(self) -> int | None:
        """The number of the newest slot; None before the first."""
        return self._slot

    def reset(self) -> None:
        """Forget all frames; the next ones begin another pass."""
        names, before = self._stepper.modalities, self._stepper.num_frames - 1
        self._state = self._stepper.fresh_state()
        self._slot: int | None = None
        self._newest: dict[str, NDArray[Any]] = {}
        self._held = dict.fromkeys(names, 0)
        # Slots in a row, up to the newest, in which a sensor gave a frame or had a stand-in.
        self._length = dict.fromkeys(names, 0)
        # The slot that the frame in each row of the state is from.
        self._origins: dict[str, deque[int]] = {name: deque([-1] * before, maxlen=before) for name in names}
        self.num_too_late = 0

    def push(self, frames: Frames, *, slot: int | None = None) -> LiveAnswer | None:
        """Take what the sensors gave in a slot, and answer for it.

        Args:
            frames: modality -> frame (*frame_shape) as a recording holds it; a missing one is left out, and one with a
                value that is not finite as float32 counts as missing (four NaN of a box mean that there is none).
                Sensors that the model does not have are not looked at.
            slot: the number of the slot; None is the one after the newest. Numbers that are left out are slots without
                any frame. The number of a slot that was answered before marks frames that come late.

        Returns:
            The answer; None as long as there is no window of which one could be given, for frames that come late, and
            where values so large that the model cannot compute with them leave no finite answer.

        Raises:
            ValueError: a frame has another shape than its modality; the slot does not count then.
        """
        mine = {name: _checked(name, frames[name]) for name in self._stepper.modalities if name in frames}
        newest = -1 if self._slot is None else self._slot
        if slot is None or self._slot is None:
            slot = newest + 1 if slot is None else slot
        mine = {name: frame for name, frame in mine.items() if self._counts(name, frame, slot)}
        if self._slot is not None and slot <= newest:
            self._correct(mine, slot)
            return None
        # After a gap as long as a window everything is forgotten, whatever its length.
        for skipped in range(max(newest + 1, slot - self._stepper.num_frames), slot) if self._slot is not None else ():
            self._take({}, skipped)
        return self._take(mine, slot)

    @staticmethod
    def _counts(name: str, frame: NDArray[Any], slot: int) -> bool:
        if is_whole(name, frame):
            return True
        log.warning("slot %d: %s has values that are not finite; the frame counts as missing", slot, name)
        return False

    def _take(self, frames: Frames, slot: int) -> LiveAnswer | None:
        names, length = self._stepper.modalities, self._stepper.num_frames
        for name in names:
            self._admit(name, frames.get(name), slot)
        present = {name: self._length[name] >= length for name in names}
        used = {name: self._newest.get(name, _nothing(name)) for name in names}
        logits, self._state = self._stepper.step(used, self._state, present)
        self._slot = slot
        counts = any if self._stepper.tolerates_absence else all
        if not counts(present.values()):
            return None
        if not np.isfinite(logits).all():
            log.warning("slot %d: the answer is not finite, so none is given; are values far out of range?", slot)
            return None
        held = tuple(name for name in names if present[name] and name not in frames)
        return LiveAnswer(slot, logits, held, tuple(name for name in names if not present[name]))

    def _admit(self, name: str, frame: NDArray[Any] | None, slot: int) -> None:
        """Note the frame of a sensor in a new slot, or its stand-in, or that it is lost."""
        origin = slot
        if frame is not None:
            self._newest[name], self._held[name] = frame, 0
        elif name in self._newest and self._held[name] < self._hold:
            origins = self._origins[name]
            # Of a model of one frame nothing is remembered, and any older frame will do.
            origin = origins[-1] if origins else slot - 1
            self._held[name] += 1
        else:
            self._newest.pop(name, None)
            origin = -1
        self._length[name] = self._length[name] + 1 if name in self._newest else 0
        self._origins[name].append(origin)

    def _correct(self, frames: Frames, slot: int) -> None:
        """Put frames that come late in the place of their stand-ins."""
        for name, frame in frames.items():
            origins = self._origins[name]
            row = len(origins) - 1 - ((self._slot or 0) - slot)
            if row < 0 or self._length[name] <= (self._slot or 0) - slot:
                self.num_too_late += 1
                continue
            if origins[row] == slot:
                continue  # it was there in time
            used = {one: frame if one == name else _nothing(one) for one in self._stepper.modalities}
            _, state = self._stepper.step(used, self._state, dict.fromkeys(used, True))
            rows = self._state[name].copy()
            for later in range(row, len(origins)):
                if origins[later] < slot:
                    origins[later], rows[later] = slot, state[name][-1]
            self._state = {**self._state, name: rows}
            if origins[-1] == slot:
                self._newest[name] = frame


def is_whole(name: str, frame: NDArray[Any]) -> bool:
    """Whether all values of a frame are finite as float32, in which models compute, or it is a box that is absent.

    >>> is_whole("gps", np.array([3.1, np.nan])), is_whole("box", np.full(4, np.nan)), is_whole("gps", np.zeros(2))
    (False, True, True)
    """
    with np.errstate(over="ignore"):
        finite = np.isfinite(np.asarray(frame).astype(np.float32))
    return bool(finite.all() or (name == "box" and np.isnan(frame).all()))


def _checked(name: str, frame: NDArray[Any]) -> NDArray[Any]:
    row, found = MODALITIES[name], np.asarray(frame)
    if found.shape != row.frame_shape:
        raise ValueError(f"a frame of {name} has the shape {found.shape}, expected {row.frame_shape} ({row.unit})")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and counts as missing
        return found.astype(row.dtype, copy=False)


def _nothing(name: str) -> NDArray[Any]:
    return np.zeros(MODALITIES[name].frame_shape, MODALITIES[name].dtype)
