"""The section of a report about time: where the seconds of a run went, and how long the clients worked.

The phases add up to the total, because whatever no clock of its own measured is told as a rest. The making of the
report comes afterwards and is not in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from sim.report.figures import Run
from sim.report.page import table
from sim.report.summaries import Spread, spread, table_rows

PHASES: Mapping[str, str] = {
    "data": "making the data, unless it was there",
    "start": "starting the engine, training the teacher, meeting the clients",
    "controls": "clients train their controls",
    "clients": "rounds: clients learn, are scored and answer; the server waits",
    "conclude": "rounds: the server checks, aggregates, teaches the teacher and publishes",
    "rest": "rounds: the server scores the teacher, records and writes checkpoints",
}
"""Phase -> what happens in it, in the order of a run."""
# Phases of a round that are measured in each round (`strategies.methods.base.Choreography.run_round`).
_LAPS = ("clients", "conclude")


def seconds_by_phase(run: Run) -> dict[str, float]:
    """Phase of `PHASES` -> wall-clock seconds; they add up to the total of the run.

    What a stopped server had begun and did again counts as ``rest``, as does all that lies outside of the phases.
    """
    seconds = run.summary["seconds"]
    found = {phase: float(seconds.get(phase, 0.0)) for phase in ("data", "start", "controls")}
    found |= {phase: sum(line.get("seconds", {}).get(phase, 0.0) for line in run.rounds) for phase in _LAPS}
    return {**found, "rest": max(0.0, float(seconds["total"]) - sum(found.values()))}


def profile_section(runs: Sequence[Run]) -> str:
    """HTML with two tables: the seconds of the phases, and the seconds that clients worked in a round."""
    by_run = [seconds_by_phase(run) for run in runs]
    total = spread(sum(found.values()) for found in by_run)
    if total is None or total.mean <= 0:
        return ""
    lines = []
    for phase, title in PHASES.items():
        found = spread(one[phase] for one in by_run)
        if found is not None and found.mean > 0:
            lines.append((False, [escape(title), _show(found, 1), f"{100 * found.mean / total.mean:.0f}"]))
    lines.append((True, ["total", _show(total, 1), "100"]))
    header = [("Phase", ""), ("Time", "s of wall-clock"), ("Share", "%")]
    return table(header, lines, numeric={1, 2}) + _work_of_clients(runs)


def _work_of_clients(runs: Sequence[Run]) -> str:
    """How long a client of each modality worked in a round; nothing where no client said."""
    lines, all_work = [], [0.0 for _ in runs]
    for row in table_rows([run.summary for run in runs], by_client=False):
        worked = [_worked(run, row.clients) for run in runs]
        all_work = [one + sum(seconds) for one, seconds in zip(all_work, worked, strict=True)]
        each = spread(sum(seconds) / len(seconds) for seconds in worked if seconds)
        if each is not None and each.mean > 0:
            lines.append((False, [escape(row.title), escape(row.modality), _show(each, 2)]))
    waited = sum(seconds_by_phase(run)["clients"] for run in runs)
    if not lines or waited <= 0:
        return ""
    header = [("Clients", ""), ("Modality", ""), ("Work", "s per client and round")]
    note = (
        f'<p class="note">While the server waited for them, {sum(all_work) / waited:.1f} clients worked at a time on '
        "average; what is missing to the number of workers went into messages and into waiting for the last one.</p>"
    )
    return table(header, lines, numeric={2}) + note


def _worked(run: Run, clients: Sequence[str]) -> list[float]:
    """The seconds that some clients worked, one number for each answer that says it."""
    entries: list[Mapping[str, Any]] = [
        line["clients"][client] for line in run.rounds for client in clients if client in line["clients"]
    ]
    return [float(entry["seconds"]) for entry in entries if entry.get("seconds")]


def _show(found: Spread, decimals: int) -> str:
    deviation = "" if found.sd is None else f" ± {found.sd:.{decimals}f}"
    return f"{found.mean:.{decimals}f}{deviation}"
