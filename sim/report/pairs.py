"""Rows of a comparison against each other: paired differences, who is clearly ahead, and by how much.

A difference is paired: the same client with the same seed, under one setting minus under the other. The interval is
that of the report: it draws seeds with replacement, and in each the clients. For one kind of clients a difference is
paired by test pass instead, for a kind often has two clients only. What is not clearly different is a tie.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim.report.gains import MARKS, PassScores, read_passes
from sim.report.intervals import paired_interval
from sim.report.strategies import Comparison, StrategyRow
from sim.report.summaries import Row, Summary, group_by_settings, score, table_rows, wording_of
from sim.report.verdict import Gain

# What a verdict or a caption names at most; of more, the number is told.
MAX_NAMED = 4


@dataclass(frozen=True)
class Contender:
    """A row of a comparison with the runs that it is made of.

    Attributes:
        number: its place by the mean score, from 1.
        row: the row.
        runs: its runs.
        passes: for each run, its scores by test pass; empty where the run has none.
    """

    number: int
    row: StrategyRow
    runs: tuple[Summary, ...]
    passes: tuple[PassScores, ...]

    @property
    def label(self) -> str:
        """What tells the row from the others."""
        return self.row.label

    @property
    def by_seed(self) -> dict[int, tuple[Summary, PassScores]]:
        """Seed -> the first run with it, and its scores by test pass."""
        found: dict[int, tuple[Summary, PassScores]] = {}
        for run, passes in zip(self.runs, self.passes, strict=True):
            found.setdefault(int(run["seed"]), (run, passes))
        return found


def contenders_of(comparison: Comparison) -> list[Contender]:
    """The rows of a comparison with their runs, the best first."""
    groups = group_by_settings(comparison.summaries)
    return [
        Contender(number, row, tuple(runs := groups[row.label]), tuple(_passes_of(run) for run in runs))
        for number, row in enumerate(comparison.rows, start=1)
    ]


def paired_gain(one: Contender, other: Contender) -> Gain | None:
    """One row minus another in the main metric, paired by seed and client; None if they have no such pair."""
    main, mine, theirs = wording_of(one.runs).main, one.by_seed, other.by_seed
    groups = []
    for seed in sorted(mine.keys() & theirs.keys()):
        first, second = (
            {client["id"]: score(client["federated"], main) for client in run["clients"]}
            for run in (mine[seed][0], theirs[seed][0])
        )
        found = [
            value - reference
            for client, value in first.items()
            if value is not None and (reference := second.get(client)) is not None
        ]
        groups += [np.array(found)] if found else []
    return _gain(groups)


def paired_gain_of_kind(one: Contender, other: Contender, clients: Collection[str]) -> Gain | None:
    """One row minus another for clients of one kind, paired by seed and test pass; None if they have no such pair."""
    mine, theirs = one.by_seed, other.by_seed
    groups = []
    for seed in sorted(mine.keys() & theirs.keys()):
        first, second = mine[seed][1], theirs[seed][1]
        found = [
            np.subtract(values, references)
            for client in clients
            if (values := _federated(first, client)) and (references := _federated(second, client))
            if len(values) == len(references)
        ]
        groups += [np.mean(found, axis=0)] if found else []
    return _gain(groups)


def kinds_of(contenders: Sequence[Contender]) -> list[Row]:
    """The kinds of clients that all runs have together."""
    return table_rows([run for one in contenders for run in one.runs], by_client=False)


def gains_to(leader: Contender, others: Sequence[Contender]) -> dict[int, Gain]:
    """Number of each other row -> that row minus the leader; rows without a seed and client in common are left out."""
    found = {one.number: paired_gain(one, leader) for one in others}
    return {number: gain for number, gain in found.items() if gain is not None}


def verdict_of_pairs(contenders: Sequence[Contender]) -> tuple[str, bool]:
    """Who is ahead of whom in a sentence or two, and whether one row is clearly ahead of all others.

    Args:
        contenders: the rows, the best first; at least one.
    """
    leader, others = contenders[0], contenders[1:]
    title = wording_of(leader.runs).main_metric.title
    if not others:
        return f"There is one row only, {leader.label}, so there is nothing to compare it with.", False
    gains = gains_to(leader, others)
    by_sign = {
        sign: [one for one in others if one.number in gains and gains[one.number].sign == sign] for sign in MARKS
    }
    behind, tied, ahead = by_sign[-1], by_sign[0], by_sign[1]
    unpaired = [one for one in others if one.number not in gains]
    said = []
    if behind and not (tied or ahead or unpaired):
        nearest = gains[behind[0].number]
        others_in_words = "the other row" if len(others) == 1 else f"each of the {len(others)} other rows"
        by = f"{-100 * nearest.mean:.1f} points of {title} (95 % interval {-100 * nearest.high:.1f} to "
        by += f"{-100 * nearest.low:.1f})"
        before = "" if len(others) == 1 else f" before {behind[0].label}"
        return f"{leader.label} wins: it is clearly ahead of {others_in_words}, by {by}{before}.", True
    said.append(f"There is no clear winner: {leader.label} has the highest mean {title}")
    if tied:
        said[-1] += f", and ties with {_named(tied)}"
    if behind:
        said.append(f"Clearly behind: {_named(behind)}")
    if ahead:
        said.append(f"Clearly ahead of it where seeds and clients are the same: {_named(ahead)}")
    if unpaired:
        said.append(f"No seed and client in common with it: {_named(unpaired)}")
    return ". ".join(said) + ".", False


def counts_in_words(gains: Mapping[int, Gain]) -> str:
    """How many of some gains are better, a tie and worse, such as ``2 tie, 1 worse``."""
    signs = [gain.sign for gain in gains.values()]
    return ", ".join(f"{signs.count(sign)} {MARKS[sign][2]}" for sign in (1, 0, -1) if sign in signs) or "none"


def _named(contenders: Sequence[Contender]) -> str:
    hidden = len(contenders) - MAX_NAMED
    names = [one.label for one in contenders[: MAX_NAMED if hidden > 0 else None]]
    return ", ".join(names) + (f" and {hidden} more" if hidden > 0 else "")


def _passes_of(run: Summary) -> PassScores:
    """The scores by test pass of a run that has a folder; what is chosen from several runs has none."""
    return read_passes(Path(run["folder"])) if "folder" in run else {}


def _federated(passes: PassScores, client: str) -> Sequence[float] | None:
    found: Sequence[float] | None = passes.get(client, {}).get("federated")
    return found


def _gain(groups: Sequence[NDArray[np.float64]]) -> Gain | None:
    if not groups:
        return None
    interval = paired_interval(groups, "compare")
    everything = np.concatenate(groups)
    return Gain(interval.mean, interval.low, interval.high, int((everything > 0).sum()), len(everything))
