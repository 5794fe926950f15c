"""The building blocks of the trackers of arXiv 2603.16116 and of our lighter ones.

U frames, N windows, T steps, C channels, R rows and K columns of a map, D features.

Source: sizes as published with arXiv 2603.16116 and arXiv 2509.11419. Where these do not say (the activation inside an
attention, the order of dropout and ReLU) we take the usual choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


def convolution(num_channels: int, out_channels: int, *, stride: int = 1, bias: bool = False) -> list[nn.Module]:
    """The layers of a 3 x 3 convolution, with batch norm and ReLU."""
    return [
        nn.Conv2d(num_channels, out_channels, 3, stride=stride, padding=1, bias=bias),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    ]


def separable(num_channels: int, out_channels: int, *, stride: int = 1) -> list[nn.Module]:
    """The layers of a depthwise 3 x 3 and a pointwise 1 x 1 convolution, each with batch norm and ReLU.

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
    """Linear layers with ReLU and dropout between them; nothing follows the last layer.

    Args:
        sizes: the number of inputs, then the number of units of every layer.
        dropouts: the dropout after the ReLU of each layer but the last; where the list is shorter there is no dropout.
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
    """Squeeze and excitation: every channel is multiplied by a gate, which is computed from all channel means.

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
        """Maps (U, C, R, K) to gated maps of the same shape."""
        gated: Tensor = maps * self.gate(maps.mean(dim=(2, 3)))[:, :, None, None]
        return gated


class SpatialAttention(nn.Module):
    """Every place is multiplied by a gate, which is computed from its 7 x 7 neighbourhood in all channels."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(num_channels, 1, 7, padding=3)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (U, C, R, K) to gated maps of the same shape."""
        return maps * torch.sigmoid(self.convolution(maps))


class GlobalPool(nn.Module):
    """Reduces maps to the maximum of each channel and, if ``with_mean``, also to its mean."""

    def __init__(self, *, with_mean: bool) -> None:
        super().__init__()
        self.with_mean = with_mean

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (U, C, R, K) to features (U, C), or (U, 2 C) with the means."""
        largest = maps.amax(dim=(2, 3))
        return torch.cat([maps.mean(dim=(2, 3)), largest], dim=1) if self.with_mean else largest


class ColumnPool(nn.Module):
    """Reduces maps to the mean and the maximum over the rows of each channel and column: it keeps the direction.

    The best beam depends on the direction of the vehicle, and in pictures as well as in radar maps a column is a
    direction. A global maximum would lose the direction.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (U, C, R, K) to features (U, 2 C K)."""
        return torch.cat([maps.mean(dim=2), maps.amax(dim=2)], dim=1).flatten(1)


class TimeAttention(nn.Module):
    """Adds to every step the mean of all steps, weighted by a softmax of their scores.

    A perceptron with one hidden layer and tanh computes the score of a step.

    Args:
        num_features: the number of features of a step.
        num_hidden: the number of hidden units of the perceptron.
    """

    def __init__(self, num_features: int, num_hidden: int) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(num_features, num_hidden), nn.Tanh(), nn.Linear(num_hidden, 1))

    def forward(self, states: Tensor) -> Tensor:
        """States (N, T, D) to states of the same shape."""
        weights = torch.softmax(self.score(states), dim=1)
        return states + (weights * states).sum(dim=1, keepdim=True)


class SelfAttention(nn.Module):
    """Adds to every step its multi-head attention to all steps, later ones included."""

    def __init__(self, num_features: int, *, num_heads: int = 8, dropout: float = 0.1) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(num_features, num_heads, dropout=dropout, batch_first=True)

    def forward(self, states: Tensor) -> Tensor:
        """States (N, T, D) to states of the same shape."""
        attended: Tensor = self.attention(states, states, states, need_weights=False)[0]
        return states + attended


class Memory(nn.Module):
    """Layer norm, a GRU over the steps and, optionally, an attention over its states.

    Args:
        num_features: the number of features of a step.
        num_hidden: the size of a state.
        num_layers: the number of layers of the GRU; between two layers there is a dropout of 0.5.
        attention: a module from states to states; None leaves the states unchanged.
        with_change: whether the GRU also gets the change of the features since the previous step, with a learned gain
            (see `clients.models.tracker`).
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
        """Steps (N, T, D) to states (N, T, D')."""
        seen = self.norm(steps)
        if self.change_gain is not None:
            change = self.change_gain * torch.diff(seen, dim=1, prepend=seen[:, :1])
            seen = torch.cat([seen, change], dim=-1)
        states: Tensor = self.gru(seen)[0]
        if self.attention is not None:
            states = self.attention(states)
        return states
