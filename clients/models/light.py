"""Our own trackers, which need fewer operations than those of arXiv 2603.16116 and are therefore faster on a CPU.

They differ in three ways. The first convolution takes patches (its stride equals its kernel), so every pixel is read
once and there are no large maps to keep; on a CPU these maps, not the multiplications, take the time. The columns of
the last maps are kept apart, because both columns and beams are directions. The GRU gets changes beside features, as in
`clients.models.tracker`.
"""

from __future__ import annotations

from torch import nn

from clients.data.motion import PIXELS
from clients.models.blocks import ColumnPool, Memory, convolution, perceptron
from clients.models.step_tracker import Alignment, StepTracker
from configs.schema import Task

# The size of the GRU's state. It is the published one, so that two trackers can be compared state by state.
HIDDEN = 64
# The channels of the convolutions for the picture, then for the radar; None if the tracker has no such sensor.
_Channels = tuple[tuple[int, int, int] | None, tuple[int, int] | None]


def image_light(task: Task, pixels: int, alignment: Alignment) -> StepTracker:
    """A student for a camera's motion masks."""
    return _tracker(((12, 24, 32), None), task, pixels, alignment, num_features=48, dropout=0.1)


def radar_light(task: Task, pixels: int, alignment: Alignment) -> StepTracker:
    """A student for radar maps."""
    return _tracker((None, (16, 24)), task, pixels, alignment, num_features=48, dropout=0.1)


def fusion_light(task: Task, pixels: int, alignment: Alignment) -> StepTracker:
    """A student for motion masks and radar maps."""
    return _tracker(((8, 16, 20), (16, 24)), task, pixels, alignment, num_features=48, dropout=0.1)


def image_wide(task: Task, pixels: int, alignment: Alignment) -> StepTracker:
    """A teacher for motion masks."""
    return _tracker(((24, 48, 64), None), task, pixels, alignment, num_features=96, dropout=0.3)


def fusion_wide(task: Task, pixels: int, alignment: Alignment) -> StepTracker:
    """A teacher for motion masks and radar maps."""
    return _tracker(((24, 48, 64), (32, 64)), task, pixels, alignment, num_features=96, dropout=0.3)


def _tracker(
    channels: _Channels, task: Task, pixels: int, alignment: Alignment, *, num_features: int, dropout: float
) -> StepTracker:
    encoders: dict[str, nn.Module] = {}
    num_inputs = 0
    image, radar = channels
    if image is not None:
        encoders["motion"] = _image(image, pixels)
        num_inputs += 2 * image[-1] * 14
    if radar is not None:
        encoders["maps"] = _radar(radar)
        num_inputs += 2 * radar[-1] * 8
    return StepTracker(
        encoders,
        fuse=nn.Sequential(nn.Linear(num_inputs, num_features), nn.ReLU(), nn.Dropout(dropout)),
        memory=Memory(num_features, HIDDEN, with_change=True),
        classifier=perceptron([HIDDEN, HIDDEN, task.num_classes], [dropout]),
        task=task,
        pixels=pixels,
        alignment=alignment,
    )


def _image(channels: tuple[int, int, int], pixels: int) -> nn.Module:
    """The image encoder: it takes patches of 8 x 4 pixels at full size, so that 14 columns are left."""
    side = pixels * 8 // PIXELS
    first, second, third = channels
    return nn.Sequential(
        *_patches(1, first, (max(side, 1), max(side // 2, 1))),
        *convolution(first, second, stride=2),
        *convolution(second, third, stride=2),
        ColumnPool(),
    )


def _radar(channels: tuple[int, int]) -> nn.Module:
    """The radar encoder: it takes patches of 8 x 4 cells, so that 8 directions are left."""
    first, second = channels
    return nn.Sequential(*_patches(2, first, (8, 4)), *convolution(first, second, stride=2), ColumnPool())


def _patches(num_channels: int, out_channels: int, patch: tuple[int, int]) -> list[nn.Module]:
    return [
        nn.Conv2d(num_channels, out_channels, patch, stride=patch, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    ]
