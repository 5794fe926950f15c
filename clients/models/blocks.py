"""The building blocks of the trackers of arXiv 2603.16116 and of our lighter ones. U frames, N windows, T steps.

Source: section numbers and sizes as published with arXiv 2603.16116 and arXiv 2509.11419; where these are silent (the
activation inside an attention, the order of dropout and ReLU) we take the usual and say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


def convolution(num_channels: int, out_channels: int, *, stride: int = 1, bias: bool = False) -> list[nn.Module]:
    """3 x 3 convolution, batch norm, ReLU."""
    return [
        nn.Conv2d(num_channels, out_channels, 3, stride=stride, padding=1, bias=bias),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    ]


def separable(num_channels: int, out_channels: int, *, stride: int = 1) -> list[nn.Module]:
    """Depthwise 3 x 3 and pointwise 1 x 1 convolution, each with batch norm and ReLU.

    Source: arXiv 1704.04861.
    """
    return [
        nn.Conv2d(num_channels, num_channels, 3, stride=stride, padding=1, groups=num_channels, bias=False),
        nn.BatchNorm2d(num_channels),
        nn.ReLU(),
        nn.Conv2d(num_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    ]


def perceptron(sizes: Sequence[int], dropouts: Sequence[float] = ()) -> nn.Sequential:
    """Linear layers with ReLU and dropout between them; the last is linear.

    Args:
        sizes: of the input and of every layer.
        dropouts: after the ReLU of each layer but the last; missing ones are none.
    """
    layers: list[nn.Module] = []
    for depth, (num_inputs, num_units) in enumerate(pairwise(sizes)):
        layers.append(nn.Linear(num_inputs, num_units))
        if depth < len(sizes) - 2:
            layers.append(nn.ReLU())
            if depth < len(dropouts) and dropouts[depth] > 0:
                layers.append(nn.Dropout(dropouts[depth]))
    return nn.Sequential(*layers)


class ChannelAttention(nn.Module):
    """Squeeze and excitation: every channel times a gate made of all channel means.

    Source: arXiv 1709.01507, with a hidden layer of half the channels.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.Linear(num_channels, num_channels // 2),
            nn.ReLU(),
            nn.Linear(num_channels // 2, num_channels),
            nn.Sigmoid(),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """(U, C, R, K) to the same shape."""
        gated: Tensor = maps * self.gate(maps.mean(dim=(2, 3)))[:, :, None, None]
        return gated


class SpatialAttention(nn.Module):
    """Every place times a gate made of its 7 x 7 neighbourhood in all channels."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(num_channels, 1, 7, padding=3)

    def forward(self, maps: Tensor) -> Tensor:
        """(U, C, R, K) to the same shape."""
        return maps * torch.sigmoid(self.convolution(maps))


class GlobalPool(nn.Module):
    """Maps to the maximum of each channel, and its mean too where ``with_mean``."""

    def __init__(self, *, with_mean: bool) -> None:
        super().__init__()
        self.with_mean = with_mean

    def forward(self, maps: Tensor) -> Tensor:
        """(U, C, R, K) to (U, C), with the means (U, 2 C)."""
        largest = maps.amax(dim=(2, 3))
        return torch.cat([maps.mean(dim=(2, 3)), largest], dim=1) if self.with_mean else largest


class ColumnPool(nn.Module):
    """Maps to the mean and maximum over the rows of each channel and column: the direction stays, height goes.

    The best beam is a matter of the direction in which the vehicle is, and columns are directions in pictures and radar
    maps alike. A global maximum forgets where it was.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """(U, C, R, K) to (U, 2 C K)."""
        return torch.cat([maps.mean(dim=2), maps.amax(dim=2)], dim=1).flatten(1)


class TimeAttention(nn.Module):
    """Adds to every step the mean of all steps, weighted by a softmax of their scores.

    The score of a step is a perceptron of one hidden layer with tanh.

    Args:
        num_features: of a step.
        num_hidden: of the perceptron.
    """

    def __init__(self, num_features: int, num_hidden: int) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(num_features, num_hidden), nn.Tanh(), nn.Linear(num_hidden, 1))

    def forward(self, states: Tensor) -> Tensor:
        """(N, T, D) to the same shape."""
        weights = torch.softmax(self.score(states), dim=1)
        return states + (weights * states).sum(dim=1, keepdim=True)


class SelfAttention(nn.Module):
    """Multi-head attention of every step to all steps, not only to those before it, added to the step."""

    def __init__(self, num_features: int, *, num_heads: int = 8, dropout: float = 0.1) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(num_features, num_heads, dropout=dropout, batch_first=True)

    def forward(self, states: Tensor) -> Tensor:
        """(N, T, D) to the same shape."""
        attended: Tensor = self.attention(states, states, states, need_weights=False)[0]
        return states + attended


class Memory(nn.Module):
    """Layer norm, a GRU over the steps, and an attention over its states where there is one.

    Args:
        num_features: of a step.
        num_hidden: of a state.
        num_layers: of the GRU, with dropout of a half between two.
        attention: from states to states; None leaves them.
        with_change: whether the GRU sees the change since the step before beside each step, with a learned gain (see
            `clients.models.tracker`).
    """

    def __init__(
        self,
        num_features: int,
        num_hidden: int,
        *,
        num_layers: int = 1,
        attention: nn.Module | None = None,
        with_change: bool = False,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(num_features)
        self.change_gain = nn.Parameter(torch.ones(num_features)) if with_change else None
        self.gru = nn.GRU(
            num_features * (1 + with_change),
            num_hidden,
            num_layers,
            batch_first=True,
            dropout=0.5 if num_layers > 1 else 0.0,
        )
        self.attention = attention

    def forward(self, steps: Tensor) -> Tensor:
        """(N, T, D) to states (N, T, D')."""
        seen = self.norm(steps)
        if self.change_gain is not None:
            change = self.change_gain * torch.diff(seen, dim=1, prepend=seen[:, :1])
            seen = torch.cat([seen, change], dim=-1)
        states: Tensor = self.gru(seen)[0]
        if self.attention is not None:
            states = self.attention(states)
        return states
