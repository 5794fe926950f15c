"""Beam sets of finished runs: how many beams are swept for a guaranteed loss, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from sim.report.page import table
from sim.report.summaries import Spread, Summary, spread

SETS = "beam_sets"


@dataclass(frozen=True)
class SetRow:
    """The sets for one tolerated loss and one alpha, mean over the clients, and then over runs.

    Attributes:
        within_db: the loss that is tolerated, in dB.
        alpha: the share of missed windows that is tolerated.
        is_possible: whether the passes of all clients can guarantee that by less than all beams, in every run.
        coverage: the share of windows of the common test set that were not missed, in [0, 1].
        beams: the number of beams in a set.
        saved: the share of a sweep of all beams that is saved, in [0, 1).
        beams_alone: the number of beams in a set where each client calibrates by its own passes only.
    """

    within_db: float
    alpha: float
    is_possible: bool
    coverage: Spread
    beams: Spread
    saved: Spread
    beams_alone: Spread

    def to_dict(self) -> dict[str, Any]:
        """The values by name."""
        return asdict(self)


def set_rows(summaries: Sequence[Summary]) -> list[SetRow]:
    """The sets of the runs that have some; empty if none has."""
    by_kind: dict[tuple[float, float], list[dict[str, Any]]] = {}
    for summary in summaries:
        for row in (summary.get(SETS) or {}).get("rows", ()):
            by_kind.setdefault((row["within_db"], row["alpha"]), []).append(row)
    found = []
    for (within_db, alpha), rows in by_kind.items():
        spreads = {name: spread(row[name] for row in rows) for name in ("coverage", "beams", "saved", "beams_alone")}
        known = {name: one for name, one in spreads.items() if one is not None}
        found.append(SetRow(within_db, alpha, all(row["is_possible"] for row in rows), **known))
    return found


def set_sentences(summaries: Sequence[Summary]) -> list[str]:
    """What is swept at the levels that can be guaranteed, in a line for one experiment; none if no run has sets."""
    rows = [row for row in set_rows(summaries) if row.is_possible]
    if not rows:
        return []
    parts = [
        f"within {row.within_db:g} dB at {100 * (1 - row.alpha):g} % {row.beams.mean:.1f} beams "
        f"({100 * row.saved.mean:.0f} % of a sweep saved, realised {100 * row.coverage.mean:.1f} %)"
        for row in rows
    ]
    return [f"beam sets, calibrated by {_num_passes(summaries)} passes of all clients: {'; '.join(parts)}"]


def sets_aggregate(summaries: Sequence[Summary]) -> dict[str, Any]:
    """The sets of one experiment for scripts; empty if no run has some."""
    rows = [row.to_dict() for row in set_rows(summaries)]
    return {SETS: {"passes": _num_passes(summaries), "rows": rows}} if rows else {}


def _num_passes(summaries: Sequence[Summary]) -> int:
    return max(int(summary[SETS]["passes"]) for summary in summaries if SETS in summary)


def sets_section(summaries: Sequence[Summary]) -> str:
    """The section of a report; empty if no run has sets."""
    rows = set_rows(summaries)
    if not rows:
        return ""
    lines = [
        (
            False,
            [
                f"{row.within_db:g} dB",
                f"{100 * (1 - row.alpha):g} %" + ("" if row.is_possible else ", all beams"),
                f"{100 * row.coverage.mean:.1f} %",
                f"{row.beams.mean:.1f}",
                f"{100 * row.saved.mean:.0f} %",
                f"{row.beams_alone.mean:.1f}",
            ],
        )
        for row in rows
    ]
    header = [("Within", ""), ("Wanted", ""), ("Realised", "test passes"), ("Beams", "federated students")]
    shown = table(
        [*header, ("Saved", "of a full sweep"), ("Beams alone", "own passes only")], lines, numeric={2, 3, 4, 5}
    )
    sentence = (
        "A set takes up next the beam that adds most to the probability of one within the loss, and holds as many as "
        "are needed so that the expected share of windows without such a beam is bounded, for the next pass of a "
        f"client drawn at random. It is calibrated by {_num_passes(summaries)} passes of all clients, of which each "
        "told only how much sets of fixed thresholds miss."
    )
    return f"<p>{escape(sentence)}</p>{shown}"
