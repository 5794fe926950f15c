"""Exported weights, read back into torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clients.models.decider import Decider
from clients.models.live import Frames, Stepper
from clients.models.own import build_tracker
from clients.models.streaming import DeciderStepper
from clients.models.tracker import Windows
from clients.models.weights import unpack_tensors
from clients.serving.beam_model import BeamModel
from clients.serving.manifest import WEIGHTS, Manifest
from configs.models import Model
from configs.schema import Task


class TorchModel(BeamModel):
    """An exported model in torch. The class of a model of a user's own is looked for beside its weights.

    Args:
        folder: its folder.
        manifest: what the folder says.

    Raises:
        ValueError: the weights cannot be read, or are of another tracker.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        super().__init__(folder, manifest)
        task = Task(num_frames=manifest.num_frames, num_future=manifest.horizons[-1], num_classes=manifest.num_beams)
        path = folder / manifest.files[WEIGHTS]
        members = []
        for size, weights in zip(manifest.trackers, _weights_in(path), strict=True):
            tracker = build_tracker(Model(**size), manifest.modalities, task, key=manifest.name, folders=(folder,))
            try:
                tracker.load_state_dict(weights)
            except RuntimeError as error:
                raise ValueError(f"{path}: not the weights of this tracker ({error}); export it again") from None
            members.append(tracker.eval())
        self.decider = Decider(members, temperatures=manifest.temperatures, shares=manifest.shares)

    def logits(self, frames: Frames, present: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """(N, H, B) calibrated logits for whole windows, as `BeamModel.logits` says."""
        whole, counts = self.whole(frames, present)
        count, length = len(counts), self.manifest.num_frames
        flat = {name: torch.from_numpy(np.array(one)).flatten(0, 1) for name, one in whole.items()}
        windows = Windows(flat, torch.arange(count * length).view(count, length))
        with torch.inference_mode():
            logits: Tensor = self.decider(
                windows, torch.from_numpy(counts) if self.manifest.tolerates_absence else None
            )
        found: NDArray[np.float32] = logits.numpy()
        return found

    def stepper(self) -> Stepper:
        """The trackers, which encode every frame once."""
        return DeciderStepper(self.decider)


def _weights_in(path: Path) -> list[dict[str, Tensor]]:
    try:
        content = path.read_bytes()
        if path.suffix == ".safetensors":
            return unpack_tensors(content)
        members: list[dict[str, Tensor]] = torch.load(path, weights_only=True)["members"]
        return members
    except Exception as error:  # torch has many kinds of errors for a broken file
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: not the weights of a model ({reason}); export it again") from None
