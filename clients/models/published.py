"""The six trackers of arXiv 2603.16116 and of its sibling arXiv 2509.11419, layer by layer.

Features and states have the size 64. "Long-term" trackers are those of arXiv 2509.11419 (J = 6 slots ahead). Every
builder takes the task, the side of the masks in pixels (224 as published) and the alignment of the radar maps.
"""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from clients.models.blocks import (
    ChannelAttention,
    GlobalPool,
    Memory,
    SelfAttention,
    SpatialAttention,
    TimeAttention,
    convolution,
    perceptron,
    separable,
)
from clients.models.step_tracker import Alignment, StepTracker
from configs.schema import Task

SIZE = 64
# The cells (rows x columns) that four convolutions of stride two leave of the maps (128, 64).
_MAP_CELLS = 8 * 4


def image_teacher(task: Task, pixels: int, alignment: Alignment) -> StepTracker:
    """The image teacher: five convolutions with channel and spatial attention, a GRU, an attention over time."""
    return StepTracker(
        {"motion": _deep_image(pixels, attention=True)},
        fuse=nn.Identity(),
        memory=Memory(SIZE, SIZE, attention=TimeAttention(SIZE, 128)),
        classifier=_deep_classifier(task),
        task=task,
        pixels=pixels,
        alignment=alignment,
    )


def image_student(task: Task, pixels: int, alignment: Alignment) -> StepTracker:
    """The image student: depthwise-separable convolutions, a GRU, an attention over time."""
    return StepTracker(
        {"motion": _pooled_image()},
        fuse=nn.Identity(),
        memory=Memory(SIZE, SIZE, attention=TimeAttention(SIZE, SIZE)),
        classifier=perceptron([SIZE, SIZE, task.num_classes], [0.3]),
        task=task,
        pixels=pixels,
        alignment=alignment,
    )


def fusion_teacher(task: Task, pixels: int, alignment: Alignment) -> StepTracker:
    """The fusion teacher: image and radar, two GRU layers, self-attention."""
    radar: list[nn.Module] = []
    for num_channels, out_channels in ((2, 4), (4, 16), (16, 32), (32, 64)):
        radar += convolution(num_channels, out_channels, stride=2, bias=True)
    head = perceptron([64 * _MAP_CELLS, 512, 128, SIZE, SIZE], [0.5, 0.3, 0.2])
    return StepTracker(
        {
            "motion": _deep_image(pixels, attention=False),
            "maps": nn.Sequential(*radar, nn.Flatten(), head),
        },
        fuse=nn.Sequential(nn.Linear(2 * SIZE, SIZE), nn.ReLU(), nn.Dropout(0.3)),
        memory=Memory(SIZE, SIZE, num_layers=2, attention=SelfAttention(SIZE)),
        classifier=_deep_classifier(task),
        task=task,
        pixels=pixels,
        alignment=alignment,
    )


def fusion_student(task: Task, pixels: int, alignment: Alignment) -> StepTracker:
    """The fusion student: depthwise-separable convolutions of stride two for image and radar, a GRU."""
    return StepTracker(
        {"motion": _strided([1, 12, 16, 24, 40, 96]), "maps": _strided([2, 12, 16, 24, 96])},
        fuse=perceptron([4 * 96, 128, SIZE], [0.3]),
        memory=Memory(SIZE, SIZE),
        classifier=_deep_classifier(task),
        task=task,
        pixels=pixels,
        alignment=alignment,
    )


def long_term_teacher(task: Task, pixels: int, alignment: Alignment) -> StepTracker:
    """The image teacher without attention in its encoder, but with two GRU layers and self-attention."""
    return StepTracker(
        {"motion": _deep_image(pixels, attention=False)},
        fuse=nn.Identity(),
        memory=Memory(SIZE, SIZE, num_layers=2, attention=SelfAttention(SIZE)),
        classifier=_deep_classifier(task),
        task=task,
        pixels=pixels,
        alignment=alignment,
    )


def long_term_student(task: Task, pixels: int, alignment: Alignment) -> StepTracker:
    """The image student with self-attention."""
    return StepTracker(
        {"motion": _pooled_image()},
        fuse=nn.Identity(),
        memory=Memory(SIZE, SIZE, attention=SelfAttention(SIZE)),
        classifier=perceptron([SIZE, SIZE, task.num_classes], [0.3]),
        task=task,
        pixels=pixels,
        alignment=alignment,
    )


def _deep_image(pixels: int, *, attention: bool) -> nn.Module:
    layers: list[nn.Module] = []
    for num_channels, out_channels in ((1, 4), (4, 8), (8, 16), (16, 32), (32, 64)):
        layers += [*convolution(num_channels, out_channels, bias=True), nn.MaxPool2d(2)]
    if attention:
        layers += [ChannelAttention(64), SpatialAttention(64)]
    head = perceptron([64 * (pixels // 32) ** 2, 512, 128, SIZE, SIZE], [0.5, 0.3, 0.2])
    return nn.Sequential(*layers, nn.Flatten(), head)


def _pooled_image() -> nn.Module:
    layers: list[nn.Module] = [*convolution(1, 18, stride=2), nn.MaxPool2d(3, 2, 1)]
    for num_channels, out_channels in ((18, 36), (36, 72), (72, 144)):
        layers += [*separable(num_channels, out_channels), nn.MaxPool2d(3, 2, 1)]
    layers += [ChannelAttention(144), SpatialAttention(144), GlobalPool(with_mean=False)]
    return nn.Sequential(*layers, perceptron([144, SIZE, SIZE]))


def _strided(channels: list[int]) -> nn.Module:
    layers = convolution(channels[0], channels[1], stride=2)
    for num_channels, out_channels in pairwise(channels[1:]):
        layers += separable(num_channels, out_channels, stride=2)
    return nn.Sequential(*layers, GlobalPool(with_mean=True))


def _deep_classifier(task: Task) -> nn.Module:
    return perceptron([SIZE, SIZE, SIZE, task.num_classes], [0.5, 0.3])
