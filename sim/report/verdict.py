"""What a federation was worth to its clients, against both controls, with a paired interval; a tie is called a tie.

A difference is paired: each client's federated student against the same client's control, in the same run. The interval
draws runs with replacement, and in each the clients, so it covers both. With one run it does not cover other seeds, and
with few clients it is too narrow.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sim.report.intervals import paired_interval
from sim.report.summaries import Summary, arms_of, score, wording_of

# Smaller changes of the mean of the main metric (Top-5 of beams) are called no clear difference, in points.
CLEAR_POINTS = 0.5


@dataclass(frozen=True)
class Gain:
    """The federated student minus a control in the main metric (Top-5 of beams), in [-1, 1].

    Attributes:
        mean: the mean over runs of the mean over clients.
        low: the lower limit of the 95 % interval; ``high`` is the upper one. Both are the mean if there is one client.
        num_better: the number of clients of all runs that are better than their control.
        num: the number of clients of all runs that have both.
    """

    mean: float
    low: float
    high: float
    num_better: int
    num: int

    @property
    def sign(self) -> int:
        """1 for a clear gain, -1 for a clear loss, and 0 for a tie, which a single client always is."""
        is_clear = self.num > 1 and 100 * abs(self.mean) >= CLEAR_POINTS
        if not is_clear or self.low <= 0 <= self.high:
            return 0
        return 1 if self.mean > 0 else -1


def gain_over(summaries: Sequence[Summary], control: str, *, clients: Collection[str] | None = None) -> Gain | None:
    """The gain over a control, in the runs and clients that have both; None if there is none.

    Args:
        summaries: the runs.
        control: the control.
        clients: the ids of the clients that count; None for all.
    """
    runs = [found for summary in summaries if (found := _differences(summary, control, clients))]
    if not runs:
        return None
    interval = paired_interval(runs, "verdict")
    everything = [value for run in runs for value in run]
    return Gain(
        mean=interval.mean,
        low=interval.low,
        high=interval.high,
        num_better=sum(value > 0 for value in everything),
        num=len(everything),
    )


def verdict_of(summaries: Sequence[Summary]) -> tuple[str, bool]:
    """The verdict in one sentence, and whether the federation was clearly better than both controls."""
    alone, taught = (gain_over(summaries, control) for control in ("local", "offline_kd"))
    if alone is None:
        if arms_of(summaries) == ("federated",):
            return "There are no controls, so what the federation is worth cannot be said.", False
        return "No client finished both local-only training and the federation, so they cannot be compared.", False
    if alone.sign < 0:
        return "The federation hurt the clients.", False
    if alone.sign == 0:
        return "The federation made no clear difference to the clients.", False
    if taught is None:
        return "The clients gained over learning alone; against offline KD they cannot be compared.", False
    return {
        1: ("The federation helped the clients, more than a teacher that does not change.", True),
        0: ("The clients gained over learning alone; the exchange added no clear difference to offline KD.", False),
        -1: ("The clients gained over learning alone, but less than by offline KD.", False),
    }[taught.sign]


def _differences(summary: Summary, control: str, clients: Collection[str] | None) -> list[float]:
    main = wording_of([summary]).main
    members = [one for one in summary["clients"] if clients is None or one["id"] in clients]
    pairs = [(score(client["federated"], main), score(client[control], main)) for client in members]
    return [mine - other for mine, other in pairs if mine is not None and other is not None]
