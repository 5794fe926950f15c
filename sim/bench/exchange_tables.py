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
    """One row a rule, one column an attack with its number of attackers; percent, mean over the seeds."""
    columns = list(dict.fromkeys((cell.attack, cell.num_attackers) for cell in cells))
    title = f"{metric.replace('top', 'Top-')} of the ensemble on the public set, %"
    table = Table("rule", title=title)
    for attack, count in columns:
        table.add_column(f"{attack or 'clean'}\n{count or ''}", justify="right")
    for rule in dict.fromkeys(cell.rule for cell in cells):
        row = []
        for column in columns:
            mine = [cell for cell in cells if cell.rule == rule and (cell.attack, cell.num_attackers) == column]
            found = [getattr(cell, metric) for cell in mine]
            row.append(f"{100 * statistics.fmean(found):.1f}" if found else "-")
        table.add_row(rule, *row)
    return table
