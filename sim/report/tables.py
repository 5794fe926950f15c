"""Tables for the terminal, and values for scripts, of summaries that are averaged over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from clients.learning.baselines import SWEPT
from server.recorder import ARMS
from sim.report.sites import sites_aggregate
from sim.report.strategies import comparisons_of
from sim.report.summaries import (
    ARM_TITLES,
    METRICS,
    Row,
    Spread,
    Summary,
    arm_spread,
    arms_of,
    baseline_spread,
    baselines_of,
    bytes_spread,
    format_bytes,
    group_by_settings,
    is_better,
    show,
    spread,
    table_rows,
    teacher_spread,
)

# With more clients than this, the terminal shows modalities.
MAX_CLIENTS_SHOWN = 16
_CAPTION = "common test set, mean over horizons"
_GREEN = "; green: federated beats local only at equal steps"
# DBA with K = 3 is shown in the report and in `compare` only; the terminal has no room for it.
_TERMINAL_METRICS = tuple(name for name in METRICS if name != "dba_k3")


def compare(summaries: Sequence[Summary]) -> dict[str, Any]:
    """All values of the tables and more, for scripts: label of `group_by_settings` -> aggregate."""
    overview: dict[int, dict[str, Any]] = {}
    for number, comparison in enumerate(comparisons_of(summaries), start=1):
        rows = {row.label: row for row in comparison.rows}
        for label, group in group_by_settings(comparison.summaries).items():
            row = rows.get(label)
            more = {"seeds": list(row.seeds), "bytes_per_client": row.bytes_per_client} if row else {}
            found = asdict(row) | more if row else None
            overview[id(group[0])] = {"data": number, "overview": found}
    return {
        label: {
            "experiment": group[0]["experiment"],
            "strategy": group[0].get("settings", {}).get("strategy.name"),
            **_aggregate(group),
            **overview[id(group[0])],
        }
        for label, group in group_by_settings(summaries).items()
    }


def results_table(summaries: Sequence[Summary]) -> Table:
    """One row per client and arm; for many clients or several experiments one per modality and arm."""
    groups = numbered(summaries)
    by_client = len(groups) == 1 and len(table_rows(summaries, by_client=True)) <= MAX_CLIENTS_SHOWN
    titles = [f"{number}{label}, {_seeds(group)}" for number, label, group in groups]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title=Text("\n".join(titles)))
    table.caption = _CAPTION + (_GREEN if "local" in arms_of(summaries) else "")
    table.title_justify = table.caption_justify = "left"
    for title in ("client", "modality", "params", "arm"):
        table.add_column(title, no_wrap=True, justify="right" if title == "params" else "left")
    for name in _TERMINAL_METRICS:
        header = f"{METRICS[name].title} {METRICS[name].unit}".replace(" ", "\n", 1)
        table.add_column(header, justify="right", no_wrap=True)
    for number, _, group in groups:
        for row in table_rows(group, by_client=by_client):
            _add_arms(table, group, row, number=number)
    return table


def teacher_lines(summaries: Sequence[Summary]) -> list[str]:
    """The scores of the teacher before and after the federation, in one line per experiment."""
    lines = []
    for number, _, group in numbered(summaries):
        changes = []
        for name in _TERMINAL_METRICS:
            before, after = (show(teacher_spread(group, when, name), name) for when in ("before", "after"))
            changes.append(f"{METRICS[name].title} {before} -> {after} {METRICS[name].unit}")
        lines.append(f"{number}teacher ({group[0]['teacher']['parameters']:,} parameters): {', '.join(changes)}")
    return lines


def baseline_lines(summaries: Sequence[Summary]) -> list[str]:
    """The scores of what needs no training and what each measures for them, in one line per baseline and experiment."""
    groups = numbered(summaries)
    found_in = [_baselines_of_group(group) for _, _, group in groups]
    if all(found == found_in[0] for found in found_in):
        # Runs on the same data have the same baselines, which are said once.
        return found_in[0]
    return [number + line for (number, _, _), found in zip(groups, found_in, strict=True) for line in found]


def _baselines_of_group(group: Sequence[Summary]) -> list[str]:
    lines = []
    clients = [row.title for row in table_rows(group, by_client=True)]
    for baseline in baselines_of(group):
        found = (baseline_spread(group, baseline, name, clients=clients) for name in _TERMINAL_METRICS)
        scores = (
            f"{METRICS[name].title} {show(one, name)} {METRICS[name].unit}"
            for name, one in zip(_TERMINAL_METRICS, found, strict=True)
        )
        lines.append(f"without learning, {baseline.replace('_', ' ')} (needs {SWEPT[baseline]}): {', '.join(scores)}")
    return lines


def bytes_lines(summaries: Sequence[Summary]) -> list[str]:
    """The bytes that were sent, and where they cost more than weights, in two lines per experiment."""
    lines = []
    for number, _, group in numbered(summaries):
        rows = table_rows(group, by_client=True)
        everyone = [row.title for row in rows]
        up, down = (bytes_spread(group, way, clients=everyone) for way in ("uplink", "downlink"))
        if up and down:
            lines.append(
                f"{number}bytes per client and round: {format_bytes(up.mean)} up, {format_bytes(down.mean)} down"
            )
        smallest = min(row.parameters for row in rows)
        lines.append(
            f"{number}break-even: a message of more than {group[0]['break_even_samples']:,} public samples costs more "
            f"than the smallest student's weights ({smallest:,} parameters in float32, {format_bytes(4 * smallest)})"
        )
    return lines


def numbered(summaries: Sequence[Summary]) -> list[tuple[str, str, list[Summary]]]:
    """The prefix that numbers it (empty if there is one experiment only), the label and the runs of each experiment."""
    groups = group_by_settings(summaries)
    return [(f"({i}) " if len(groups) > 1 else "", *item) for i, item in enumerate(groups.items(), start=1)]


def _seeds(summaries: Sequence[Summary]) -> str:
    seeds = ", ".join(str(summary["seed"]) for summary in summaries)
    return f"seed {seeds}" if len(summaries) == 1 else f"mean±s.d. over {len(summaries)} runs, seeds {seeds}"


def _add_arms(table: Table, summaries: Sequence[Summary], row: Row, *, number: str) -> None:
    arms = arms_of(summaries)
    for arm in arms:
        cells = []
        for name in _TERMINAL_METRICS:
            found, control = (arm_spread(summaries, a, name, clients=row.clients) for a in (arm, "local"))
            is_gain = arm == "federated" and is_better(name, found, control)
            cells.append(Text(show(found, name), style="bold green" if is_gain else ""))
        who = (number + row.title, row.modality, f"{row.parameters:,}") if arm == arms[0] else ("", "", "")
        table.add_row(*who, ARM_TITLES[arm], *cells, end_section=arm == arms[-1])


def _aggregate(group: Sequence[Summary]) -> dict[str, Any]:
    def plain(found: Spread | None) -> dict[str, float | None] | None:
        return asdict(found) if found else None

    rows = table_rows(group, by_client=False)
    everyone = [client for row in rows for client in row.clients]
    modalities: dict[str, dict[str, Any]] = {}
    for row in rows:
        modalities[row.modality] = {"clients": len(row.clients), "parameters": row.parameters}
        for arm in ARMS:
            found = {name: plain(arm_spread(group, arm, name, clients=row.clients)) for name in METRICS}
            modalities[row.modality][arm] = found
        modalities[row.modality]["baselines"] = {
            baseline: {name: plain(baseline_spread(group, baseline, name, clients=row.clients)) for name in METRICS}
            for baseline in baselines_of(group)
        }
    teacher = {
        when: {name: plain(teacher_spread(group, when, name)) for name in METRICS} for when in ("before", "after")
    }
    return {
        "runs": len(group),
        "seeds": [summary["seed"] for summary in group],
        "rounds": [summary["rounds"] for summary in group],
        "seconds": plain(spread(summary["seconds"]["total"] for summary in group)),
        "modalities": modalities,
        "teacher": {"parameters": group[0]["teacher"]["parameters"], **teacher},
        **({"sites": by_site} if (by_site := sites_aggregate(group)) else {}),
        "uplink_bytes_per_client_round": plain(bytes_spread(group, "uplink", clients=everyone)),
        "downlink_bytes_per_client_round": plain(bytes_spread(group, "downlink", clients=everyone)),
        "break_even_samples": group[0]["break_even_samples"],
        "faults": [{"seed": summary["seed"], **fault} for summary in group for fault in summary.get("faults", [])],
        "refused": sum(client["refused"] for summary in group for client in summary["clients"]),
    }
