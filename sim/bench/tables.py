"""Tables of the benchmarks, with published values beside them. Their rows are those of `sim.worksheet`."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table

from sim.bench.attack_table import AttackCell
from sim.bench.codec_cost import CodecCost
from sim.bench.membership import Leak
from sim.worksheet import SheetRow

# Published Top-1/3/5 in percent on scenario 9. "One frame" means that every frame of a pass is tested, also the easy
# first and last ones, where the beam at the edge stays the same; windows leave these out.
# Source: gps: single-frame networks on the calibrated positions of DeepSense 6G scenario 9, split by pass (`softbeam
# data check`); radar: arXiv 2111.09676; lidar: arXiv 2203.05548 (scenario 8); camera and all: the results published
# with the code of arXiv 2603.16116 (teacher with self-distillation; camera and radar).
PUBLISHED: Mapping[str, str] = {
    "gps": "34-40/61-69/75-85 (one frame)",
    "lidar": "-/-/95.6 now (scenario 8)",
    "radar": "45.4/80.6/92.7 (one frame)",
    "camera": "45.2/80.9/93.7 mean",
    "all": "50.2/87.0/96.8 mean (camera, radar)",
}
TOPS = ("top1", "top3", "top5")
BenchMetrics = Mapping[str, Sequence[float]]


def learning_table(rows: Sequence[SheetRow]) -> Table:
    """Top-1/3/5 by world, inputs and length: now, mean of the slots and last slot; mean ± s.d. over seeds."""
    table = Table("world", "inputs", "L", "seeds", "now", "mean of slots", "last slot", "published", "CPU s")
    for (world, inputs, length), group in _grouped(rows, "world", "inputs", "num_frames").items():
        metrics = [row["metrics"]["test"] for row in group]
        known = PUBLISHED.get(inputs, "") if world == "s9" else ""
        seconds = f"{statistics.fmean(row['cpu_seconds'] for row in group):.0f}"
        cells = [tops(metrics, _now), tops(metrics, statistics.fmean), tops(metrics, _last)]
        table.add_row(world, inputs, str(length), str(len(group)), *cells, known, seconds)
    return table


def conditions_table(rows: Sequence[SheetRow]) -> Table | None:
    """Top-1/3/5, mean of the slots, of trackers under each condition; None if there is no condition."""
    names = list(dict.fromkeys(name for row in rows for name in row["metrics"] if name != "test"))
    if not names:
        return None
    table = Table("world", "inputs", "L", *names)
    for (world, inputs, length), group in _grouped(rows, "world", "inputs", "num_frames").items():
        cells = [
            tops([row["metrics"][name] for row in group if name in row["metrics"]], statistics.fmean) for name in names
        ]
        table.add_row(world, inputs, str(length), *cells)
    return table


def distillation_table(rows: Sequence[SheetRow]) -> Table:
    """The node of each sensor with own labels alone and with the teacher, and the gain in points; mean ± s.d."""
    table = Table("world", "node", "seeds", "own labels", "and the teacher", "gain", title="Top-1/3/5, mean of slots")
    for (world,), group in _grouped(rows, "world").items():
        for node in group[0]["students"]:
            local = [row["students"][node]["local"] for row in group]
            distilled = [row["students"][node]["distilled"] for row in group]
            gains = [
                {name: [b - a for a, b in zip(before[name], after[name], strict=True)] for name in TOPS}
                for before, after in zip(local, distilled, strict=True)
            ]
            cells = [tops(metrics, statistics.fmean) for metrics in (local, distilled, gains)]
            table.add_row(world, node, str(len(group)), *cells)
        table.add_row(world, "teacher", str(len(group)), "", tops([row["teacher"] for row in group], statistics.fmean))
    return table


def generation_table(costs: Mapping[str, Mapping[str, float]]) -> Table:
    """CPU milliseconds per frame by preset, with one column for each part."""
    parts = list(next(iter(costs.values()), {}))
    table = Table("preset", *parts, title="CPU ms a frame, one thread, median over passes")
    for preset, cost in costs.items():
        table.add_row(preset, *(f"{cost[part]:.2f}" for part in parts))
    return table


def tops(metrics: Sequence[BenchMetrics], at: Callable[[Sequence[float]], float]) -> str:
    """Top-1/3/5 in percent, such as ``44.6/81.3/93.6 ±0.5/0.4/0.3``; a dash where there is nothing."""
    if not metrics:
        return "-"
    columns = [[100.0 * at(entry[name]) for entry in metrics] for name in TOPS]
    means = "/".join(f"{statistics.fmean(column):.1f}" for column in columns)
    if len(metrics) == 1:
        return means
    return f"{means} ±" + "/".join(f"{statistics.stdev(column):.1f}" for column in columns)


def _now(slots: Sequence[float]) -> float:
    return slots[0]


def _last(slots: Sequence[float]) -> float:
    return slots[-1]


def _grouped(rows: Sequence[SheetRow], *names: str) -> dict[tuple[Any, ...], list[SheetRow]]:
    groups: dict[tuple[Any, ...], list[SheetRow]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups


def codecs_table(costs: Sequence[CodecCost]) -> Table:
    """The bytes of a sample without suffix, with +zlib and with +delta in a later round, and the loss of the codec."""
    table = Table("codec", "bytes", "+zlib", "+delta", "worst error", "mean KL", "Top-5 kept", title="a sample")
    for cost in costs:
        sizes = (cost.raw_bytes, cost.zlib_bytes, cost.delta_bytes)
        losses = (f"{cost.worst_error:.1e}", f"{cost.mean_kl:.1e}", f"{100.0 * cost.top5:.1f} %")
        table.add_row(cost.codec, *(f"{size:.0f}" for size in sizes), *losses)
    return table


def leaks_table(leaks: Sequence[Leak]) -> Table:
    """One row per release, mean over the seeds."""
    table = Table("released", "AUC", "caught at 5 %", "Top-5 %", "epsilon", "delta", title="what an audit finds out")
    for name in dict.fromkeys(leak.release for leak in leaks):
        mine = [leak for leak in leaks if leak.release == name]
        auc, caught, top5, epsilon, delta = (
            statistics.fmean(getattr(leak, key) for leak in mine)
            for key in ("auc", "caught", "top5", "epsilon", "delta")
        )
        # An epsilon below ten is a useful bound, and its decimals matter.
        bound = ("-", "-") if math.isinf(epsilon) else (f"{epsilon:,.{2 if epsilon < 10 else 0}f}", f"{delta:.2g}")
        table.add_row(name, f"{auc:.3f}", f"{100 * caught:.1f} %", f"{100 * top5:.1f}", *bound)
    return table


def attacks_table(cells: Sequence[AttackCell], metric: str) -> Table:
    """One row per rule, one column per attack, a line per number of attackers; percent, mean over the seeds."""
    counts = [count for count in dict.fromkeys(cell.num_attackers for cell in cells) if count]
    lines = ", ".join(map(str, counts))
    title = f"{metric.replace('top', 'Top-')} of the ensemble on the public set, %; one line each for {lines} attackers"
    table = Table(title=title)
    table.add_column("rule", overflow="fold", min_width=16)
    attacks = list(dict.fromkeys(cell.attack for cell in cells))
    for attack in attacks:
        # Spaces let a narrow terminal break the name.
        table.add_column(attack.replace("_", " ") or "clean", justify="right")
    for rule in dict.fromkeys(cell.rule for cell in cells):
        row = []
        for attack in attacks:
            here = [cell for cell in cells if (cell.rule, cell.attack) == (rule, attack)]
            by_count = [[cell for cell in here if cell.num_attackers == count] for count in (counts if attack else [0])]
            row.append("\n".join(_percent(found, metric) for found in by_count))
        table.add_row(rule, *row)
    return table


def _percent(cells: Sequence[AttackCell], metric: str) -> str:
    return f"{100 * statistics.fmean(getattr(cell, metric) for cell in cells):.1f}" if cells else "-"
