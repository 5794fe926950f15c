"""Intervals for the numbers of the study, by a bootstrap over test passes and training seeds.

Windows of one pass overlap and share a vehicle, so passes are drawn with replacement, not windows; training seeds are
drawn with replacement too, independently of the passes. The draws depend only on the number of passes and on the
seeds, so two cells get the same draws, and the difference of their replicates is that of a paired bootstrap.
R replicates, S seeds, P passes.

Source: percentile intervals: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13; two crossed
factors: Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1(2), 2007. With few seeds S the variance that
comes from training is too small by a factor of about (S - 1) / S, and with one seed it is not in the interval at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from configs.seeding import rng_for
from sim.study.cells import Cell
from sim.worksheet import SheetRow

NUM_REPLICATES = 2000
TAILS = (0.025, 0.975)
# A share of a smaller gap than this (in points) has no meaning: it is six windows of the 1267 in the paper's test set.
SMALLEST_GAP = 0.5
# A share is given only if the gap is above zero in all but this part of the replicates, too few to reach the tails.
DOUBT = 0.005


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval.

    Attributes:
        value: the number from the rows themselves.
        low: the lower limit; ``high`` is the upper one.
        num_seeds: the number of seeds that it covers.
    """

    value: float
    low: float
    high: float
    num_seeds: int


@dataclass(frozen=True)
class Share:
    """How much of the distance between a student and its teacher a kind of knowledge closes.

    Attributes:
        gap: the teacher minus the untaught student, in points.
        closed: the taught minus the untaught student as a share of the gap, 1 is all of it; None if the gap is not
            positive, below `SMALLEST_GAP`, or not above zero in nearly all replicates (`DOUBT`): then it means nothing.
    """

    gap: Interval
    closed: Interval | None


def level(cell: Cell, metric: str) -> Interval:
    """The mean of a metric of a cell over horizons, in percent (power loss in dB)."""
    return _interval(_replicates(list(cell.rows.values()), metric), len(cell.rows))


def difference(cell: Cell, reference: Cell, metric: str) -> Interval | None:
    """``cell`` minus ``reference`` in points (power loss in dB), over the seeds that both have; None without any.

    Raises:
        ValueError: the cells were tested on different windows.
    """
    if not (seeds := _common_seeds(cell, reference)):
        return None
    ours, theirs = _paired([cell, reference], seeds, metric)
    return _interval(ours - theirs, len(seeds))


def closed_share(cell: Cell, plain: Cell, teacher: Cell, metric: str = "top5") -> Share | None:
    """The share of the gap between ``plain`` and ``teacher`` that ``cell`` closes; None without a common seed.

    Each replicate is a ratio of means, over the seeds that all three have.

    Args:
        cell: the taught student.
        plain: the same student with its labels alone.
        teacher: the teacher of ``cell``, row by row.
        metric: the name of a metric that is a fraction; larger is better.

    Raises:
        ValueError: the cells were tested on different windows.
    """
    if not (seeds := _common_seeds(cell, plain, teacher)):
        return None
    taught, untaught, best = _paired([cell, plain, teacher], seeds, metric)
    gain, gap = taught - untaught, best - untaught
    found = _interval(gap, len(seeds))
    if found.value < SMALLEST_GAP or np.quantile(gap[1:], DOUBT) <= 0:
        return Share(found, None)
    # Without a gap the share is infinite, with the sign of the gain.
    ratio = np.divide(gain, gap, out=np.copysign(np.full_like(gain, np.inf), gain), where=gap > 0)
    return Share(found, _interval(ratio, len(seeds)))


def _common_seeds(*cells: Cell) -> list[int]:
    return sorted(set.intersection(*(set(cell.rows) for cell in cells)))


def _paired(cells: Sequence[Cell], seeds: Sequence[int], metric: str) -> list[NDArray[np.float64]]:
    rows = [[cell.rows[seed] for seed in seeds] for cell in cells]
    _check_same_windows([row for group in rows for row in group])
    return [_replicates(group, metric) for group in rows]


def _check_same_windows(rows: Sequence[SheetRow]) -> None:
    for row in rows[1:]:
        if row["by_pass"]["windows"] != rows[0]["by_pass"]["windows"]:
            raise ValueError(f"{row['key']}: its test windows are not those of {rows[0]['key']}; compare other rows")


def _replicates(rows: Sequence[SheetRow], metric: str) -> NDArray[np.float64]:
    """(1 + R,) a metric in percent or dB: first that of the rows themselves, then that of each replicate."""
    _check_same_windows(rows)
    sums = np.array([row["by_pass"][metric] for row in rows], np.float64)
    windows = np.array(rows[0]["by_pass"]["windows"], np.float64)
    passes = _weights("passes", len(windows))
    seeds = _weights("seeds", len(rows), *(row["seed"] for row in rows)) / len(rows)
    scale = 1.0 if metric == "power_loss_db" else 100.0
    found: NDArray[np.float64] = scale * ((seeds @ sums) * passes).sum(axis=1) / (passes @ windows)
    return found


@lru_cache(maxsize=64)
def _weights(what: str, count: int, *names: int) -> NDArray[np.float64]:
    """(1 + R, count) how often each is drawn in a replicate; once each in the first row, which is not a replicate."""
    drawn = rng_for(0, "study", what, *names).multinomial(count, np.full(count, 1.0 / count), size=NUM_REPLICATES)
    return np.vstack([np.ones(count), drawn])


def _interval(values: NDArray[np.float64], num_seeds: int) -> Interval:
    low, high = np.quantile(values[1:], TAILS)
    return Interval(float(values[0]), float(low), float(high), num_seeds)
