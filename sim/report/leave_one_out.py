"""What each client and each modality gives to the ensemble: its Top-5 with all members, minus that without one.

The members are the kept students, and the teacher where it votes; the rule is that of the run. They answer for the
common test set, which has labels; the public set has none. N windows, H horizons, B beams, P test passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clients.learning.metrics import top5_by_pass
from sim.report.gains import MARKS, plot_gains
from sim.report.intervals import paired_interval
from sim.report.style import panels
from sim.report.verdict import CLEAR_POINTS, Gain
from strategies.aggregation import Aggregator
from strategies.labels import Contribution

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# More members than these are too many rows; then only their kinds have one.
MAX_ROWS = 24
# So many windows are aggregated at most, evenly spread: every member left out is an aggregation of its own.
MAX_WINDOWS = 600


@dataclass(frozen=True)
class LeaveOneOut:
    """The Top-5 of the ensemble on each test pass, mean of the horizons, in [0, 1], with all members and without some.

    Attributes:
        rule: the name of the aggregation rule.
        everyone: (P,) with all members.
        without_kind: kind of members -> (P,) without any of that kind; kinds that are the only one are left out.
        without_member: id of a client, or ``teacher`` -> (P,) without it.
    """

    rule: str
    everyone: NDArray[np.float32]
    without_kind: Mapping[str, NDArray[np.float32]]
    without_member: Mapping[str, NDArray[np.float32]]

    @property
    def names(self) -> list[Any]:
        """The rule, and the kinds and members in the order of :attr:`table`, as plain values."""
        return [self.rule, list(self.without_kind), list(self.without_member)]

    @property
    def table(self) -> NDArray[np.float32]:
        """(1 + kinds + members, P) all scores."""
        return np.stack([self.everyone, *self.without_kind.values(), *self.without_member.values()])

    @classmethod
    def of(cls, names: Sequence[Any], table: NDArray[np.float32]) -> LeaveOneOut:
        """The inverse of :attr:`names` and :attr:`table`."""
        rule, kinds, members = names
        rows = iter(table)
        everyone = next(rows)
        return cls(rule, everyone, {kind: next(rows) for kind in kinds}, {member: next(rows) for member in members})


def leave_one_out(
    aggregator: Aggregator,
    answers: Sequence[Contribution],
    kinds: Mapping[str, str],
    *,
    rule: str,
    power: NDArray[np.floating],
    pass_of_window: NDArray[np.integer],
) -> LeaveOneOut:
    """Aggregate the answers of all members, of all but each kind, and of all but each member.

    Args:
        aggregator: the rule.
        answers: the answer of each member for the same N windows.
        kinds: member -> its kind.
        rule: what the rule is called.
        power: (N, H, B) linear receive power.
        pass_of_window: (N,) the test pass of each window.

    Raises:
        ValueError: the rule refuses the answers.
    """

    def scored(members: Sequence[Contribution]) -> NDArray[np.float32]:
        probs = aggregator.aggregate(members).probs
        return np.array(top5_by_pass(probs, power, pass_of_window), np.float32)

    without_kind, without_member = {}, {}
    for kind in dict.fromkeys(kinds[one.client] for one in answers):
        others = [one for one in answers if kinds[one.client] != kind]
        if others:
            without_kind[kind] = scored(others)
    for member in answers if len(answers) > 1 else ():
        alone_of_kind = sum(kinds[one.client] == kinds[member.client] for one in answers) == 1
        others = [one for one in answers if one.client != member.client]
        without_member[member.client] = without_kind[kinds[member.client]] if alone_of_kind else scored(others)
    return LeaveOneOut(rule, scored(answers), without_kind, without_member)


def draw_leave_one_out(runs: Sequence[LeaveOneOut]) -> Figure | None:
    """Draw how much Top-5 the ensemble loses without each kind and each member; None where nobody can be left out."""
    sides = [("a kind", _losses([run.without_kind for run in runs], runs))]
    members = _losses([run.without_member for run in runs], runs)
    if len(members) <= MAX_ROWS:
        sides.append(("one member", members))
    sides = [(title, losses) for title, losses in sides if losses]
    if not sides:
        return None
    longest = [max(map(len, losses)) for _, losses in sides]
    rows = max(len(losses) for _, losses in sides)
    figure, axes = panels(
        *(1, len(sides)), height=0.28 * rows + 0.25, left=0.35 + 0.075 * longest[0], between=0.4 + 0.075 * longest[-1]
    )
    for axis, (title, losses) in zip(axes, sides, strict=True):
        plot_gains(axis, dict(enumerate(losses.values())), places=len(losses))
        axis.set(title=f"without {title}", xlabel="Top-5 that the ensemble loses, points")
        axis.set_yticks(range(len(losses)), list(losses))
    return figure


def leave_one_out_caption(runs: Sequence[LeaveOneOut]) -> str:
    """What is to be seen in :func:`draw_leave_one_out`."""
    everyone = 100 * float(np.mean([run.everyone.mean() for run in runs]))
    kinds = _losses([run.without_kind for run in runs], runs)
    members = _losses([run.without_member for run in runs], runs)
    told = [_most_in_words(losses, what) for losses, what in ((kinds, "kinds"), (members, "members")) if losses]
    return (
        f"What each gives to the ensemble: all members together, by the rule {runs[0].rule}, have a Top-5 of "
        f"{everyone:.1f} % on the common test set. {' '.join(told)} Members are the students that are kept"
        f"{', and the teacher, which votes' if 'teacher' in runs[0].without_member else ''}; 95 % interval over test "
        f"passes. Grey is a tie: the interval holds 0, or the mean is below {CLEAR_POINTS} points."
    )


def _most_in_words(losses: Mapping[str, Gain], what: str) -> str:
    signs = [gain.sign for gain in losses.values()]
    names = {1: "help it", 0: MARKS[0][2], -1: "hurt it"}
    counts = ", ".join(f"{signs.count(sign)} {names[sign]}" for sign in (1, 0, -1) if sign in signs)
    most = max(losses, key=lambda name: losses[name].mean)
    points = 100 * losses[most].mean
    lost = (
        f"without {most} it loses most, {points:.1f} points"
        if points > 0
        else "it loses nothing without any one of them"
    )
    return f"Of {len(losses)} {what} {counts}; {lost}."


def _losses(without: Sequence[Mapping[str, NDArray[np.float32]]], runs: Sequence[LeaveOneOut]) -> dict[str, Gain]:
    """Who is left out -> what the ensemble loses, paired by run and test pass."""
    found = {}
    for name in dict.fromkeys(name for one in without for name in one):
        groups = [
            (run.everyone - one[name]).astype(np.float64) for run, one in zip(runs, without, strict=True) if name in one
        ]
        interval, everything = paired_interval(groups, "leave one out"), np.concatenate(groups)
        found[name] = Gain(interval.mean, interval.low, interval.high, int((everything > 0).sum()), len(everything))
    return found
