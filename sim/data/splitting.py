"""Deals the passes of any table to clients: evenly, by a column, or by a Dirichlet draw over labels. N passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Dealt:
    """What is known of each of the N passes that are dealt.

    Attributes:
        labels: (N,) the label that most rows of the pass have.
        columns: name of a column -> (N,) its value in the pass.
    """

    labels: NDArray[np.int64]
    columns: dict[str, NDArray[np.generic]]


class ClientSplit(Protocol):
    """A way to deal passes to clients."""

    def deal(self, passes: Dealt, rng: np.random.Generator) -> list[tuple[str, list[int]]]:
        """Name and passes of each client; every pass goes to one client, and every client has one.

        Raises:
            ValueError: there are too few passes, or no such column.
        """


@dataclass(frozen=True)
class Even:
    """The same number of passes for each client, give or take one, drawn at random.

    Attributes:
        num_clients: the number of clients, >= 1.
    """

    num_clients: int

    def deal(self, passes: Dealt, rng: np.random.Generator) -> list[tuple[str, list[int]]]:
        """Deal a random order of the passes in equal parts."""
        _check(self.num_clients, len(passes.labels))
        drawn = rng.permutation(len(passes.labels))
        return [("", sorted(hand.tolist())) for hand in np.array_split(drawn, self.num_clients)]


@dataclass(frozen=True)
class By:
    """A client for each value of a column, such as the city, in the order of the values.

    Attributes:
        column: the name of the column; all rows of a pass have the same value.
    """

    column: str

    def deal(self, passes: Dealt, rng: np.random.Generator) -> list[tuple[str, list[int]]]:
        """Give every value its own client."""
        if self.column not in passes.columns:
            raise ValueError(f"split: no column {self.column!r}; there are {', '.join(passes.columns) or 'none'}")
        values = passes.columns[self.column]
        return [(str(value), np.flatnonzero(values == value).tolist()) for value in np.unique(values)]


@dataclass(frozen=True)
class Dirichlet:
    """Label skew: the passes of each label are dealt in shares that are drawn from a Dirichlet distribution.

    A client that would get nothing takes a pass from the one that has most.

    Source: M. Yurochkin et al., arXiv:1905.12022, and the same split in NIID-Bench, arXiv:2102.02079; with passes,
    each under the label that most of its rows have, in place of examples.

    Attributes:
        num_clients: the number of clients, >= 1.
        alpha: the concentration, > 0; 100 is nearly even, 0.1 gives most clients few labels.
    """

    num_clients: int
    alpha: float

    def deal(self, passes: Dealt, rng: np.random.Generator) -> list[tuple[str, list[int]]]:
        """Draw shares for each label, and deal its passes by them."""
        _check(self.num_clients, len(passes.labels))
        if not self.alpha > 0:
            raise ValueError(f"split: alpha must be > 0, got {self.alpha}")
        hands: list[list[int]] = [[] for _ in range(self.num_clients)]
        for label in np.unique(passes.labels):
            mine = rng.permutation(np.flatnonzero(passes.labels == label))
            shares = rng.dirichlet(np.full(self.num_clients, self.alpha))
            bounds = np.rint(np.cumsum(shares)[:-1] * len(mine)).astype(np.int64)
            for hand, part in zip(hands, np.split(mine, bounds), strict=True):
                hand.extend(part.tolist())
        for hand in hands:
            if not hand:
                hand.append(max(hands, key=len).pop())
        return [("", sorted(hand)) for hand in hands]


def _check(num_clients: int, num_passes: int) -> None:
    if num_clients < 1 or num_passes < num_clients:
        raise ValueError(f"split: {num_passes} passes cannot be dealt to {num_clients} clients; give fewer clients")


def majority(labels: NDArray[np.int64], pass_ids: NDArray[np.int32], order: Sequence[int]) -> NDArray[np.int64]:
    """(N,) the label that most rows of each pass have; of equally many, the smallest.

    Args:
        labels: (F,) the label of each row, >= 0.
        pass_ids: (F,) the pass of each row.
        order: the N passes.
    """
    return np.array([int(np.bincount(labels[pass_ids == one]).argmax()) for one in order], np.int64)
