"""The section of a report about faults: which answers did not count, how often and why, and all other events."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from server.recorder import faults_of
from sim.report.figures import Run
from sim.report.page import table
from sim.report.summaries import ARM_TITLES, Summary, arms_of

MAX_ROWS_SHOWN = 100
MAX_LINES_SHOWN = 20
KIND_TITLES = {
    "away": "its node was not connected",
    "missing": "no answer in time",
    "failed": "said that it failed",
    "refused": "answer refused",
    "late": "answer came late, and counted",
    "warning": "warned",
    "absent": "could not take part",
}


def fault_lines(summaries: Sequence[Summary]) -> list[str]:
    """What went wrong, for the terminal: a line for each client and kind, and one for each control that failed."""
    lines = []
    for summary in summaries:
        for fault in summary.get("faults", []):
            first, last = fault["first_round"], fault["last_round"]
            rounds = f"round {first}" if first == last else f"rounds {first} to {last}"
            kind = KIND_TITLES.get(fault["kind"], fault["kind"])
            lines.append(
                f"{fault['client']}: {kind} ({fault['times']} of {summary['rounds']}, {rounds}): {fault['reason']}"
            )
        lines += [
            f"{event['who']}: {event['text']}" for event in summary.get("events", []) if event["kind"] == "failed"
        ]
    hidden = len(lines) - MAX_LINES_SHOWN
    return lines if hidden <= 0 else [*lines[:MAX_LINES_SHOWN], f"and {hidden} more; the report has all of them"]


def faults_section(runs: Sequence[Run]) -> str:
    """HTML with three tables: the faults of every client, the faults of every round, and the other events."""
    return _faults(runs) + _every_round(runs) + _events(runs)


def _faults(runs: Sequence[Run]) -> str:
    lines = []
    for run in runs:
        seed, num_rounds = str(run.summary["seed"]), len(run.rounds)
        for fault in run.summary.get("faults", faults_of(run.rounds)):
            first, last = fault["first_round"], fault["last_round"]
            rounds = str(first) if first == last else f"{first} to {last}"
            times = f"{fault['times']} of {num_rounds}"
            cells = (fault["client"], KIND_TITLES.get(fault["kind"], fault["kind"]), times, rounds, fault["reason"])
            lines.append([seed, *cells])
        for client in run.summary["clients"]:
            lacking = [arm for arm in arms_of([run.summary]) if not client[arm]]
            lines += [[seed, client["id"], f"no result for {ARM_TITLES[arm]}", "", "", ""] for arm in lacking]
    if not lines and not any(run.rounds for run in runs):
        return "<p>None is known: no round was recorded.</p>"
    if not lines:
        return "<p>None: every client that was asked answered in every round, and no answer was refused.</p>"
    intro = "<p>An answer that was refused or missing changes nothing: the round goes on with the others.</p>"
    return intro + _table(["Seed", "Client", "What was wrong", "Rounds", "Which rounds", "Last reason"], lines)


def _every_round(runs: Sequence[Run]) -> str:
    lines = [
        [str(run.summary["seed"]), str(line["round"]), client, entry["problem"]]
        for run in runs
        for line in run.rounds
        for client, entry in line["clients"].items()
        if entry["problem"]
    ]
    if not lines:
        return ""
    body = _table(["Seed", "Round", "Client", "Why it did not count"], lines)
    return f"<details><summary>Round by round ({len(lines):,})</summary>{body}</details>"


def _events(runs: Sequence[Run]) -> str:
    lines = [
        [str(run.summary["seed"]), str(event["round"]), event["who"], event["kind"], event["text"]]
        for run in runs
        for event in run.summary.get("events", [])
    ]
    if not lines:
        return ""
    return "<h3>Other events</h3>" + _table(["Seed", "Round", "Who", "What", "In words"], lines)


def _table(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [(False, [escape(cell) for cell in line]) for line in lines[:MAX_ROWS_SHOWN]]
    hidden = len(lines) - len(rows)
    more = f"<p>And {hidden:,} more.</p>" if hidden else ""
    return table([(title, "") for title in titles], rows, numeric=set()) + more
