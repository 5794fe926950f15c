"""The tables of ``softbeam bench codecs`` and ``attacks``."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from rich.table import Table

from sim.bench.attack_table import Cell
from sim.bench.codec_cost import CodecCost
from sim.bench.membership import Leak


def codecs_table(costs: Sequence[CodecCost]) -> Table:
    """Bytes a sample as it is, with zlib and with the delta of a later round; what is lost on the way."""
    table = Table("codec", "bytes", "+zlib", "+delta", "worst error", "mean KL", "Top-5 kept", title="a sample")
    for cost in costs:
        sizes = (cost.raw_bytes, cost.zlib_bytes, cost.delta_bytes)
        losses = (f"{cost.worst_error:.1e}", f"{cost.mean_kl:.1e}", f"{100.0 * cost.top5:.1f} %")
        table.add_row(cost.codec, *(f"{size:.0f}" for size in sizes), *losses)
    return table


def leaks_table(leaks: Sequence[Leak]) -> Table:
    """One row a release, mean over the seeds."""
    table = Table("released", "AUC", "caught at 5 %", "Top-5 %", "epsilon", "delta", title="what an audit finds out")
    for name in dict.fromkeys(leak.release for leak in leaks):
        mine = [leak for leak in leaks if leak.release == name]
        auc, caught, top5, epsilon, delta = (
            statistics.fmean(getattr(leak, key) for leak in mine)
            for key in ("auc", "caught", "top5", "epsilon", "delta")
        )
        # An epsilon below ten says something, and what it says lies in its decimals.
        bound = ("-", "-") if math.isinf(epsilon) else (f"{epsilon:,.{2 if epsilon < 10 else 0}f}", f"{delta:.2g}")
        table.add_row(name, f"{auc:.3f}", f"{100 * caught:.1f} %", f"{100 * top5:.1f}", *bound)
    return table


def attacks_table(cells: Sequence[Cell], metric: str) -> Table:
    """One row a rule, one column an attack; a line for each number of attackers; percent, mean over the seeds."""
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


def _percent(cells: Sequence[Cell], metric: str) -> str:
    return f"{100 * statistics.fmean(getattr(cell, metric) for cell in cells):.1f}" if cells else "-"
