"""Tables for the terminal, and values for scripts, of summaries that are averaged over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from clients.data.modalities import MODALITIES
from clients.learning.baselines import SWEPT
from clients.learning.task import Metric, Wording
from server.recorder import ARMS
from sim.report.beam_sets import sets_aggregate
from sim.report.sites import sites_aggregate
from sim.report.strategies import comparisons_of
from sim.report.summaries import (
    ARM_TITLES,
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
    own_test_spread,
    show,
    spread,
    table_rows,
    teacher_spread,
    wording_of,
)

# With more clients than this, the terminal shows modalities.
MAX_CLIENTS_SHOWN = 16
_GREEN = "; green: federated beats local only at equal steps"
# DBA with K = 3 is shown in the report and in `compare` only; the terminal has no room for it.
_LEFT_OUT = ("dba_k3",)


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
    """One row per client and arm; for many clients or several experiments one per modality and arm.

    All runs must have one task (`sim.report.summaries.by_task`).
    """
    groups, wording = numbered(summaries), wording_of(summaries)
    by_client = len(groups) == 1 and len(table_rows(summaries, by_client=True)) <= MAX_CLIENTS_SHOWN
    titles = [f"{number}{label}, {_seeds(group)}" for number, label, group in groups]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title=Text("\n".join(titles)))
    table.caption = f"common test set{over_horizons(wording)}" + (_GREEN if "local" in arms_of(summaries) else "")
    table.title_justify = table.caption_justify = "left"
    for title in ("client", "modality", "params", "arm"):
        table.add_column(title, no_wrap=True, justify="right" if title == "params" else "left")
    for metric in _metrics_in_terminal(wording).values():
        header = f"{metric.title} {metric.unit}".replace(" ", "\n", 1)
        table.add_column(header, justify="right", no_wrap=True)
    for number, _, group in groups:
        for row in table_rows(group, by_client=by_client):
            _add_arms(table, group, row, number=number)
    return table


def over_horizons(wording: Wording, *, and_more: str = "") -> str:
    """What a score is the mean of, for the end of a sentence: ``, mean over horizons`` where a task has several.

    Args:
        wording: what the task is called.
        and_more: what the mean is over besides, such as ``the clients``.
    """
    over = [*(["horizons"] if wording.is_of_beams else []), *([and_more] if and_more else [])]
    return f", mean over {' and '.join(over)}" if over else ""


def _metrics_in_terminal(wording: Wording) -> dict[str, Metric]:
    return {name: metric for name, metric in wording.metrics.items() if name not in _LEFT_OUT}


def teacher_lines(summaries: Sequence[Summary]) -> list[str]:
    """The scores of the teacher before and after the federation, in one line per experiment."""
    lines = []
    for number, _, group in numbered(summaries):
        changes, wording = [], wording_of(group)
        for name, metric in _metrics_in_terminal(wording).items():
            before, after = (show(teacher_spread(group, when, name), name, wording) for when in ("before", "after"))
            changes.append(f"{metric.title} {before} -> {after} {metric.unit}")
        lines.append(f"{number}teacher ({group[0]['teacher']['parameters']:,} parameters): {', '.join(changes)}")
    return lines


def own_test_lines(summaries: Sequence[Summary]) -> list[str]:
    """The scores of the clients on their own tests, in one line per experiment whose clients have any."""
    lines = []
    for number, _, group in numbered(summaries):
        wording = wording_of(group)
        metric = wording.main_metric
        found = {arm: own_test_spread(group, arm, wording.main) for arm in arms_of(group)}
        if any(found.values()):
            shown = ", ".join(f"{ARM_TITLES[arm]} {show(one, wording.main, wording)}" for arm, one in found.items())
            lines.append(f"{number}on each client's own test, {metric.title}: {shown} {metric.unit}")
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
    lines, metrics = [], _metrics_in_terminal(wording_of(group))
    clients = [row.title for row in table_rows(group, by_client=True)]
    for baseline in baselines_of(group):
        found = {name: baseline_spread(group, baseline, name, clients=clients) for name in metrics}
        scores = (f"{metric.title} {show(found[name], name)} {metric.unit}" for name, metric in metrics.items())
        lines.append(f"without learning, {baseline.replace('_', ' ')} (needs {SWEPT[baseline]}): {', '.join(scores)}")
    return lines


def measuring_lines(summaries: Sequence[Summary]) -> list[str]:
    """A line for every modality that has to measure something over the air; other students measure nothing."""
    named = dict.fromkeys(str(client.get("modality")) for one in summaries for client in one["clients"])
    rows = [MODALITIES[name] for name in named if name in MODALITIES and MODALITIES[name].measures != "nothing"]
    return [f"students of {row.name} need {row.measures}" for row in rows]


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
    arms, wording = arms_of(summaries), wording_of(summaries)
    for arm in arms:
        cells = []
        for name in _metrics_in_terminal(wording):
            found, control = (arm_spread(summaries, a, name, clients=row.clients) for a in (arm, "local"))
            is_gain = arm == "federated" and is_better(name, found, control, wording)
            cells.append(Text(show(found, name, wording), style="bold green" if is_gain else ""))
        who = (number + row.title, row.modality, f"{row.parameters:,}") if arm == arms[0] else ("", "", "")
        table.add_row(*who, ARM_TITLES[arm], *cells, end_section=arm == arms[-1])


def _aggregate(group: Sequence[Summary]) -> dict[str, Any]:
    def plain(found: Spread | None) -> dict[str, float | None] | None:
        return asdict(found) if found else None

    rows, metrics = table_rows(group, by_client=False), wording_of(group).metrics
    everyone = [client for row in rows for client in row.clients]
    modalities: dict[str, dict[str, Any]] = {}
    for row in rows:
        modalities[row.kind] = {"clients": len(row.clients), "parameters": row.parameters}
        for arm in ARMS:
            found = {name: plain(arm_spread(group, arm, name, clients=row.clients)) for name in metrics}
            modalities[row.kind][arm] = found
        modalities[row.kind]["baselines"] = {
            baseline: {name: plain(baseline_spread(group, baseline, name, clients=row.clients)) for name in metrics}
            for baseline in baselines_of(group)
        }
    teacher = {
        when: {name: plain(teacher_spread(group, when, name)) for name in metrics} for when in ("before", "after")
    }
    own = {arm: {name: plain(own_test_spread(group, arm, name)) for name in metrics} for arm in arms_of(group)}
    return {
        "runs": len(group),
        "seeds": [summary["seed"] for summary in group],
        "rounds": [summary["rounds"] for summary in group],
        "seconds": plain(spread(summary["seconds"]["total"] for summary in group)),
        "modalities": modalities,
        "teacher": {"parameters": group[0]["teacher"]["parameters"], **teacher},
        **({"own_test": own} if any(one for by_name in own.values() for one in by_name.values()) else {}),
        **({"sites": by_site} if (by_site := sites_aggregate(group)) else {}),
        **sets_aggregate(group),
        "uplink_bytes_per_client_round": plain(bytes_spread(group, "uplink", clients=everyone)),
        "downlink_bytes_per_client_round": plain(bytes_spread(group, "downlink", clients=everyone)),
        "break_even_samples": group[0]["break_even_samples"],
        "faults": [{"seed": summary["seed"], **fault} for summary in group for fault in summary.get("faults", [])],
        "refused": sum(client["refused"] for summary in group for client in summary["clients"]),
    }
