"""Trackers for a live stream: every frame is encoded once, when it comes, and every slot gets an answer.

A window shares all its frames but one with the previous window. So a slot only needs the encoding of the newest frame,
the steps that contain it, the GRU and the classifier. The answers equal those of whole windows up to rounding.

T steps, H horizons, B beams, F features of a step, R rows and C columns of a picture.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from clients.data.modalities import MODALITIES
from clients.data.motion import PIXELS, MotionDetector
from clients.data.radar_maps import unscaled_maps
from clients.models.complexity import empty_frames, macs_of
from clients.models.step_tracker import StepTracker

# For each modality, the frame in a step: the number of the frame since the pass began, or None for the empty frame.
Slots = tuple[int | None, ...]


class StreamingTracker:
    """A tracker that takes one frame at a time.

    Args:
        tracker: the tracker, on a CPU; it is put into evaluation mode. Its weights must not change while it streams.
    """

    def __init__(self, tracker: StepTracker) -> None:
        self.tracker = tracker.eval()
        with torch.inference_mode():
            empty = empty_frames(tracker, 1)
            self._empty = {name: tracker.encode(name, frames)[0] for name, frames in empty.items()}
        self.reset()

    def reset(self) -> None:
        """Forget all frames; the next frame begins another pass."""
        length = self.tracker.task.num_frames
        self._features: dict[str, deque[Tensor]] = {name: deque(maxlen=length) for name in self.tracker.modalities}
        self._steps: dict[Slots, Tensor] = {}
        self._count = 0

    def push(self, frames: Mapping[str, NDArray[np.generic]]) -> Tensor | None:
        """Take the frames of a slot, and answer for this slot.

        Args:
            frames: modality -> frame (*frame_shape) as in a recording, for every modality that the tracker senses.

        Returns:
            (H, B) logits; None until there are as many frames as a window has.

        Raises:
            ValueError: a modality is missing, or a frame has another shape; the slot does not count then.
        """
        if missing := [name for name in self.tracker.modalities if name not in frames]:
            raise ValueError(f"there is no frame of {', '.join(missing)}; this tracker needs all of its sensors")
        for name in self.tracker.modalities:
            if (found := np.shape(frames[name])) != MODALITIES[name].frame_shape:
                raise ValueError(f"a frame of {name} has shape {found}, expected {MODALITIES[name].frame_shape}")
        with torch.inference_mode():
            # All frames are encoded before one is kept: if one is refused, no sensor must be ahead of another.
            encoded = {
                name: self.tracker.encode(name, torch.from_numpy(np.asarray(frames[name]))[None])[0]
                for name in self.tracker.modalities
            }
            for name, features in encoded.items():
                self._features[name].append(features)
            self._count += 1
            if self._count < self.tracker.task.num_frames:
                return None
            steps = torch.stack(self._fused()).unsqueeze(0)
            logits: Tensor = self.tracker.decide(self.tracker.states_of(steps).flatten(1))[0]
            return logits

    def _fused(self) -> list[Tensor]:
        """T features (F,); those that the previous slot had too are not computed again."""
        tracker, length = self.tracker, self.tracker.task.num_frames
        begin = self._count - length
        firsts = [tracker.first_frame(name) for name in tracker.modalities]
        wanted: list[Slots] = [
            tuple(begin + first + step if first + step < length else None for first in firsts)
            for step in range(tracker.num_steps)
        ]
        before, self._steps = self._steps, {}
        for slots in wanted:
            if slots not in self._steps:
                self._steps[slots] = before[slots] if slots in before else self._fuse(slots, begin)
        return [self._steps[slots] for slots in wanted]

    def _fuse(self, slots: Slots, begin: int) -> Tensor:
        parts = [
            self._empty[name] if slot is None else self._features[name][slot - begin]
            for name, slot in zip(self.tracker.modalities, slots, strict=True)
        ]
        fused: Tensor = self.tracker.fuse(torch.cat(parts)[None])[0]
        return fused


class LiveTracker:
    """A tracker that takes the raw data of a camera and a radar, processes them and answers for every slot.

    Args:
        tracker: the tracker, on a CPU; it is put into evaluation mode. Its weights must not change while it streams.

    Example:
        A window of this task has two frames, so the second picture is the first that gets an answer.

        >>> from clients.models.registry import make_tracker
        >>> from configs.schema import Task
        >>> task = Task(num_frames=2, num_future=1, num_beams=64)
        >>> live = LiveTracker(make_tracker("image-light", task, seed=0))
        >>> picture = np.zeros((540, 960, 3), np.uint8)
        >>> live.push(picture=picture) is None
        True
        >>> logits = live.push(picture=picture)
        >>> tuple(logits.shape)  # now and one slot ahead, 64 beams each
        (2, 64)
    """

    def __init__(self, tracker: StepTracker) -> None:
        self._stream = StreamingTracker(tracker)
        self._detector = MotionDetector()

    def reset(self) -> None:
        """Forget all frames; the next ones begin another pass."""
        self._stream.reset()
        self._detector.reset()

    def push(
        self, *, picture: NDArray[np.uint8] | None = None, cube: NDArray[np.complex64] | None = None
    ) -> Tensor | None:
        """Take the data of the sensors in a slot, and answer for this slot.

        If the data of a slot are lost, call :meth:`reset`, because a window consists of frames without a gap.

        Args:
            picture: (R, C, 3) RGB picture of any size; None if the tracker does not use the camera.
            cube: (4, 256, C) raw radar samples; None if the tracker does not use the radar.

        Returns:
            (H, B) logits; None until there are as many frames as a window has.

        Raises:
            ValueError: data that the tracker needs are missing, or are not a picture or a cube.
        """
        frames: dict[str, NDArray[np.generic]] = {}
        if cube is not None:
            frames["maps"] = unscaled_maps(cube)
        if picture is not None:
            small = Image.fromarray(picture).resize((PIXELS, PIXELS), Image.Resampling.BOX)
            frames["motion"] = np.packbits(self._detector.push(np.asarray(small)), axis=-1)
        return self._stream.push(frames)


def count_slot_macs(tracker: StepTracker) -> int:
    """The multiply-accumulates of one slot of a stream, after its first window."""
    stream = StreamingTracker(tracker)
    frames = {name: values[0].numpy() for name, values in empty_frames(tracker, 1).items()}
    for _ in range(tracker.task.num_frames):
        stream.push(frames)
    return macs_of(tracker, lambda: stream.push(frames))
