"""Trackers for a live stream: every frame is encoded once, when it comes, and every slot gets an answer.

A window shares all its frames but one with the previous window. So a slot only needs the encoding of the newest frame,
the steps that contain it, the GRU and the classifier. The answers equal those of whole windows up to rounding.

T steps, H horizons, B beams, F features of a step, R rows and C columns of a picture.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from clients.data.modalities import MODALITIES
from clients.data.motion import PIXELS, MotionDetector
from clients.data.radar_maps import doppler_angle_map, range_angle_map, unscaled_maps
from clients.models.complexity import empty_frames, macs_of
from clients.models.decider import Decider
from clients.models.live import HOLD, LiveModel, State
from clients.models.step_tracker import StepTracker
from clients.models.tracker import BeamTracker, Tracker, Windows

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


class DeciderStepper:
    """A decider that takes one slot at a time and encodes every frame once.

    Of a model of a user's own nothing is known but whole windows, so the frames themselves are remembered.

    Args:
        decider: the decider, on a CPU; its weights must not change while it streams.
    """

    def __init__(self, decider: Decider) -> None:
        self.modalities, self.num_frames = decider.modalities, decider.task.num_frames
        first = decider.members[0]
        self.tolerates_absence = isinstance(first, BeamTracker) and len(decider.modalities) > 1
        self._decider = decider
        self._parts = [_part_of(member) for member in decider.members]

    def fresh_state(self) -> State:
        """Modality -> (L - 1, ...) what is remembered of each slot before; zeros at the beginning."""
        nothing = {name: MODALITIES[name] for name in self.modalities}
        return {
            name: np.zeros_like(self._row(name, np.zeros(row.frame_shape, row.dtype))).repeat(
                self.num_frames - 1, axis=0
            )
            for name, row in nothing.items()
        }

    def step(
        self, frames: Mapping[str, NDArray[Any]], state: State, present: Mapping[str, bool]
    ) -> tuple[NDArray[np.float32], State]:
        """(H, B) logits, and the state for the next slot."""
        rows = {name: self._row(name, frames[name]) for name in self.modalities}
        seen = {name: np.concatenate([state[name], rows[name]]) for name in self.modalities}
        counts = torch.tensor([[present[name] for name in self.modalities]])
        with torch.inference_mode():
            logits = []
            for place, part in enumerate(self._parts):
                mine = {name: torch.from_numpy(self._of(place, name, values)) for name, values in seen.items()}
                logits.append(part.decide(mine, counts if self.tolerates_absence else None))
            found: NDArray[np.float32] = self._decider.joined(logits)[0].numpy()
        return found, {name: values[1:] for name, values in seen.items()}

    def _row(self, name: str, frame: NDArray[Any]) -> NDArray[Any]:
        """(1, ...) what is remembered of a frame: the features of each member side by side, or the frame."""
        with torch.inference_mode():
            encoded = [part.encode(name, torch.from_numpy(np.array(frame))[None]) for part in self._parts]
        return encoded[0].numpy() if encoded[0].dim() > 2 else torch.cat(encoded, dim=1).numpy()

    def _of(self, place: int, name: str, values: NDArray[Any]) -> NDArray[Any]:
        """The part of what is remembered that belongs to a member."""
        if len(self._parts) == 1 or values.ndim > 2:  # frames are the same for every member
            return values
        width = values.shape[1] // len(self._parts)
        return values[:, place * width : (place + 1) * width]


class _Part(Protocol):
    """A tracker cut in two: what it makes of a frame, and what it makes of a window of that."""

    def encode(self, name: str, frames: Tensor) -> Tensor:
        """(1, ...) what is remembered of a frame (1, *frame_shape)."""

    def decide(self, seen: Mapping[str, Tensor], present: Tensor | None) -> Tensor:
        """(1, H, B) logits from what is remembered (L, ...) of each modality."""


class _BeamPart:
    def __init__(self, tracker: BeamTracker) -> None:
        self._tracker = tracker

    def encode(self, name: str, frames: Tensor) -> Tensor:
        found: Tensor = self._tracker.encoders[name](frames)
        return found

    def decide(self, seen: Mapping[str, Tensor], present: Tensor | None) -> Tensor:
        shape = (1, self._tracker.task.num_frames)
        encoded = {name: values[None] for name, values in seen.items()}
        return self._tracker.decide(self._tracker.features_of(encoded, shape, present))


class _StepPart:
    def __init__(self, tracker: StepTracker) -> None:
        self._tracker = tracker
        with torch.inference_mode():
            self._empty = {name: tracker.encode(name, frames) for name, frames in empty_frames(tracker, 1).items()}

    def encode(self, name: str, frames: Tensor) -> Tensor:
        return self._tracker.encode(name, frames)

    def decide(self, seen: Mapping[str, Tensor], present: Tensor | None) -> Tensor:
        tracker, parts = self._tracker, []
        for name in tracker.modalities:
            used = seen[name][tracker.first_frame(name) :][: tracker.num_steps]
            parts.append(torch.cat([used, self._empty[name].expand(tracker.num_steps - len(used), -1)]))
        steps: Tensor = tracker.fuse(torch.cat(parts, dim=-1)).unsqueeze(0)
        return tracker.decide(tracker.states_of(steps).flatten(1))


class _WindowPart:
    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def encode(self, name: str, frames: Tensor) -> Tensor:
        # A further axis tells frames from features, whatever the shape of a frame is.
        return frames.unsqueeze(1)

    def decide(self, seen: Mapping[str, Tensor], present: Tensor | None) -> Tensor:
        rows = torch.arange(self._tracker.task.num_frames)[None]
        logits: Tensor = self._tracker(Windows({name: values.squeeze(1) for name, values in seen.items()}, rows))
        return logits


def _part_of(member: nn.Module) -> _Part:
    if isinstance(member, BeamTracker):
        return _BeamPart(member)
    if isinstance(member, StepTracker):
        return _StepPart(member)
    return _WindowPart(cast(Tracker, member))


class LiveTracker:
    """A tracker that takes the raw data of the sensors of a node, processes them and answers for every slot.

    What happens where data are missing or late, `clients.models.live` says.

    Args:
        tracker: a tracker or a decider, on a CPU; it is put into evaluation mode. Its weights must not change while it
            streams.
        hold: for how many slots in a row an older frame may stand in for missing ones.

    Attributes:
        live: the stream behind it.

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

    def __init__(self, tracker: Tracker | Decider, *, hold: int = HOLD) -> None:
        decider = tracker if isinstance(tracker, Decider) else Decider([tracker], temperatures=[1.0], shares=[1.0])
        self.live = LiveModel(DeciderStepper(decider), hold=hold)
        self._modalities = decider.modalities
        self._detector = MotionDetector()

    def reset(self) -> None:
        """Forget all frames; the next ones begin another pass."""
        self.live.reset()
        self._detector.reset()

    def push(
        self,
        *,
        picture: NDArray[np.uint8] | None = None,
        cube: NDArray[np.complex64] | None = None,
        frames: Mapping[str, NDArray[Any]] | None = None,
        slot: int | None = None,
    ) -> Tensor | None:
        """Take the data of the sensors in a slot, and answer for this slot.

        Args:
            picture: (R, C, 3) RGB picture of any size; None if there is none in this slot.
            cube: (4, 256, C) raw radar samples; None if there are none in this slot.
            frames: modality -> frame as a recording holds it, such as ``gps`` or ``lidar``.
            slot: the number of the slot, as `clients.models.live.LiveModel.push` takes it. Masks of motion are made of
                successive pictures, so a late picture makes none.

        Returns:
            (H, B) logits; None until there are as many frames as a window has, or for data that come late.

        Raises:
            ValueError: data are not a picture, a cube or a frame; the slot does not count then.
        """
        given = {name: frame for name, frame in (frames or {}).items() if name in self._modalities}
        makers = {"radar": range_angle_map, "doppler": doppler_angle_map, "maps": unscaled_maps}
        if cube is not None:
            given |= {name: make(cube) for name, make in makers.items() if name in self._modalities}
        newest = self.live.newest_slot
        is_late = slot is not None and newest is not None and slot <= newest
        if picture is not None:
            given |= self._of_picture(picture, is_late=is_late)
        elif not is_late:
            self._detector.reset()
        answer = self.live.push(given, slot=slot)
        return None if answer is None else torch.from_numpy(answer.logits)

    def _of_picture(self, picture: NDArray[np.uint8], *, is_late: bool) -> dict[str, NDArray[Any]]:
        image, found = Image.fromarray(picture), dict[str, NDArray[Any]]()
        if "camera" in self._modalities:
            rows, columns, _ = MODALITIES["camera"].frame_shape
            found["camera"] = np.asarray(image.resize((columns, rows), Image.Resampling.BOX))
        if "motion" in self._modalities and not is_late:
            small = np.asarray(image.resize((PIXELS, PIXELS), Image.Resampling.BOX))
            found["motion"] = np.packbits(self._detector.push(small), axis=-1)
        return found


def count_slot_macs(tracker: StepTracker) -> int:
    """The multiply-accumulates of one slot of a stream, after its first window."""
    stream = StreamingTracker(tracker)
    frames = {name: values[0].numpy() for name, values in empty_frames(tracker, 1).items()}
    for _ in range(tracker.task.num_frames):
        stream.push(frames)
    return macs_of(tracker, lambda: stream.push(frames))
