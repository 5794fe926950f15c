"""What every exported model can do, whatever computes it: answer for whole windows, and slot by slot.

N windows, L frames of a window, M modalities, H horizons, B beams.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.data.modalities import MODALITIES
from clients.models.live import HOLD, Frames, LiveModel, State, Stepper, probs_of
from clients.serving.manifest import Manifest


class BeamModel(ABC):
    """An exported model.

    Args:
        folder: its folder.
        manifest: what the folder says.

    Attributes:
        folder: its folder.
        manifest: what the folder says: sensors, labels, scores, provenance.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest

    @abstractmethod
    def logits(self, frames: Frames, present: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """(N, H, B) calibrated logits for whole windows.

        Args:
            frames: modality -> (N, L, *frame_shape) as a recording holds them, oldest first.
            present: (N, M) whether each sensor counts, in the order of ``manifest.modalities``; None counts those
                that there are frames of.

        Raises:
            ValueError: a sensor is missing that the model needs, or frames have another shape.
        """

    @abstractmethod
    def stepper(self) -> Stepper:
        """The model as one that takes one slot at a time."""

    def predict(self, frames: Frames, present: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """(N, H, B) probabilities of the beams; the arguments are those of :meth:`logits`."""
        return probs_of(self.logits(frames, present))

    def live(self, *, hold: int = HOLD) -> LiveModel:
        """The model on a stream of its own; ``hold`` is how many missing frames in a row an older one stands in for."""
        return LiveModel(self.stepper(), hold=hold)

    def whole(self, frames: Frames, present: NDArray[np.bool_] | None) -> tuple[dict[str, NDArray[Any]], Any]:
        """The frames of every sensor, zeros for those that are missing, and which count in each window.

        Raises:
            ValueError: the reasons are those of :meth:`logits`.
        """
        names, length = self.manifest.modalities, self.manifest.num_frames
        given = [name for name in names if name in frames]
        if not given or (len(given) < len(names) and not self.manifest.tolerates_absence):
            missing = ", ".join(name for name in names if name not in frames)
            raise ValueError(f"there are no frames of {missing}; {self.manifest.name} needs them")
        count = len(frames[given[0]])
        found = {}
        for name in names:
            row = MODALITIES[name]
            expected = (count, length, *row.frame_shape)
            values = np.asarray(frames[name]) if name in given else np.zeros(expected)
            if values.shape != expected:
                raise ValueError(f"frames of {name} have the shape {values.shape}, expected {expected}")
            found[name] = values.astype(row.dtype, copy=False)
        if present is None:
            present = np.tile(np.isin(names, given), (count, 1))
        return found, present


class WindowStepper:
    """A model of whole windows as one that takes one slot at a time; what it remembers are the frames.

    Args:
        model: the model.
    """

    def __init__(self, model: BeamModel) -> None:
        self.modalities, self.num_frames = model.manifest.modalities, model.manifest.num_frames
        self.tolerates_absence = model.manifest.tolerates_absence
        self._model = model

    def fresh_state(self) -> State:
        """Modality -> (L - 1, *frame_shape) zeros."""
        rows = {name: MODALITIES[name] for name in self.modalities}
        return {name: np.zeros((self.num_frames - 1, *row.frame_shape), row.dtype) for name, row in rows.items()}

    def step(self, frames: Frames, state: State, present: Mapping[str, bool]) -> tuple[NDArray[np.float32], State]:
        """(H, B) logits, and the state for the next slot."""
        seen = {name: np.concatenate([state[name], np.asarray(frames[name])[None]]) for name in self.modalities}
        counts = np.array([[present[name] for name in self.modalities]])
        logits = self._model.logits({name: one[None] for name, one in seen.items()}, counts)
        return logits[0], {name: one[1:] for name, one in seen.items()}
