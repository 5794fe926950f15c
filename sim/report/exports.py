"""Comparisons as files for spreadsheets and papers: CSV with one row per run, Markdown and LaTeX with one per label."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from configs.files import as_bytes, plain_cell, write_durably
from server.recorder import OWN_TEST
from sim.report.destinations import check_destination
from sim.report.sites import shown_parts, site_spread
from sim.report.strategies import Comparison, cells_of, has_gains, notes_of, site_tests
from sim.report.summaries import Summary, arms_of, group_by_settings, own_test_spread, score, spread, wording_of
from sim.study.sheets import Line, Sheet, as_latex, as_markdown

ENDINGS = (".csv", ".md", ".tex")


def save_table(comparisons: Sequence[Comparison], path: Path) -> None:
    """Write the comparisons, whole or not at all; the ending of the name says the format.

    Raises:
        ValueError: the name is not one of a table, or no run has a client that was scored.
    """
    check_destination("--out", path, ENDINGS)
    if path.suffix.lower() == ".csv":
        write_durably(path, as_bytes(as_csv(comparisons)))
        return
    sheets = [_sheet(number, one) for number, one in enumerate(comparisons, start=1) if one.rows]
    if not sheets:
        raise ValueError(f"--out {path}: no run has a client that was scored; look at the problems in its rounds.jsonl")
    is_markdown = path.suffix.lower() == ".md"
    shown = [as_markdown(_marked_down(sheet)) if is_markdown else as_latex(sheet) for sheet in sheets]
    write_durably(path, as_bytes("\n".join(shown)))


def as_csv(comparisons: Sequence[Comparison]) -> str:
    """One header, then one row per run: who it was, its scores over the clients, its bytes per client, its seconds.

    Scores are of the federated students on the common test set, mean over horizons and clients, in the units of
    ``summary.json``. A control that no run has gets no column.
    """
    summaries = [summary for comparison in comparisons for summary in comparison.summaries]
    controls = [arm for arm in arms_of(summaries) if arm != "federated"]
    parts = [part for part in shown_parts(summaries) if part != "all_sites"]
    has_own_test = any(OWN_TEST in client for summary in summaries for client in summary["clients"])
    rows = [
        {"data": number, "label": label, **_values(run, controls, parts, has_own_test=has_own_test)}
        for number, comparison in enumerate(comparisons, start=1)
        for label, group in group_by_settings(comparison.summaries).items()
        for run in group
    ]
    text = io.StringIO()
    # Runs of different tasks have columns of their own.
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: plain_cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _marked_down(sheet: Sheet) -> Sheet:
    """The sheet with names that Markdown shows as they are; bars are the sheet's own matter."""
    lines = [
        replace(line, cells=(*map(_escape, line.cells[: sheet.num_labels]), *line.cells[sheet.num_labels :]))
        for line in sheet.lines
    ]
    return replace(sheet, title=_escape(sheet.title), lines=tuple(lines), notes=tuple(map(_escape, sheet.notes)))


def _escape(text: str) -> str:
    """Text as Markdown shows it; underscores within a word are no marks, and stay readable."""
    escaped = re.sub(r"([\\`*\[\]])", r"\\\1", text).replace("<", "&lt;")
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", escaped)


def _values(run: Summary, controls: Sequence[str], parts: Sequence[str], *, has_own_test: bool) -> dict[str, Any]:
    clients, teacher, wording = run["clients"], run["teacher"], wording_of([run])
    main = wording.main
    worst = min((value for client in clients if (value := score(client["federated"], main)) is not None), default=None)
    own = {arm: own_test_spread([run], arm, main) for arm in ("federated", *controls)} if has_own_test else {}
    return {
        "experiment": run["experiment"],
        "strategy": run.get("settings", {}).get("strategy.name"),
        "seed": run["seed"],
        "engine": run["engine"],
        "clients": len(clients),
        "rounds": run["rounds"],
        **{name: _mean(clients, "federated", name) for name in wording.metrics},
        f"worst_{main}": worst,
        **{f"{arm}_{main}": _mean(clients, arm, main) for arm in controls},
        **{f"own_test_{arm}_{main}": found.mean if found else None for arm, found in own.items()},
        **{
            f"{part}_{arm}_{main}": found.mean if (found := site_spread([run], part, arm, main)) else None
            for part in parts
            for arm in ("federated", *controls)
        },
        f"teacher_before_{main}": score(teacher["before"], main),
        f"teacher_after_{main}": score(teacher["after"], main),
        "uplink_bytes": _mean_of(client["uplink_bytes"] for client in clients),
        "downlink_bytes": _mean_of(client["downlink_bytes"] for client in clients),
        "seconds": run["seconds"]["total"],
        "run": run.get("folder"),
    }


def _mean(clients: Sequence[Mapping[str, Any]], arm: str, name: str) -> float | None:
    return _mean_of(score(client[arm], name) for client in clients)


def _mean_of(values: Any) -> float | None:
    found = spread(values)
    return found.mean if found else None


def _sheet(number: int, comparison: Comparison) -> Sheet:
    rows, title = comparison.rows, comparison.wording.main_metric.title
    gains = ("gain mean", "gain worst") if has_gains(rows) else ()
    sites = tuple(site_tests(rows).values())
    headers = ("run", "experiment", "strategy", "seeds", f"{title} %", "worst client", *gains, *sites, "teacher %")
    lines = [
        Line(
            (
                ("* " if row.is_front else "") + row.label,
                row.experiment,
                row.strategy,
                ", ".join(str(seed) for seed in row.seeds),
                *cells_of(row, rows, comparison.wording),
            )
        )
        for row in rows
    ]
    headers = (*headers, "bytes up", "bytes down", "s")
    notes = tuple(note.rstrip(".") for note in notes_of(rows, comparison.wording))
    return Sheet(f"compare-{number}", comparison.title or "Comparison", headers, 4, tuple(lines), notes)
