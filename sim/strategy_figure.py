"""Top-5 against bytes for every strategy, with the front of those that nothing beats on both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sim.figures import INK, MUTED, SETTINGS
from sim.strategy_table import StrategyRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FRONT = "#0072b2"
# Points nearer than this, in the ratio of their bytes and in Top-5, share a label.
SAME_BYTES, SAME_SHARE = 1.15, 0.002


def draw_strategies(rows: Sequence[StrategyRow]) -> Figure:
    """One point a strategy: mean Top-5 and one s.d. over seeds against bytes per client, on a logarithmic axis.

    Strategies without any exchange are level lines: they have no place on that axis.
    """
    import matplotlib

    matplotlib.use("agg", force=False)
    from matplotlib.figure import Figure

    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(7.2, 4.6), layout="constrained")
        axes = figure.add_subplot()
        exchanging = [row for row in rows if row.bytes_per_client > 0]
        for row in rows:
            if row.bytes_per_client == 0:
                axes.axhline(100 * row.mean.mean, color=MUTED, linestyle="--", linewidth=1)
                axes.annotate(
                    row.label, (1.0, 100 * row.mean.mean), xycoords=("axes fraction", "data"), ha="right", va="bottom"
                )
        for row in exchanging:
            colour = FRONT if row.is_front else MUTED
            x, y = row.bytes_per_client / 1e6, 100 * row.mean.mean
            axes.errorbar(x, y, yerr=100 * (row.mean.sd or 0.0), fmt="o", color=colour, capsize=2, markersize=5)
        for together in _at_one_place(exchanging):
            x, y = together[0].bytes_per_client / 1e6, 100 * together[0].mean.mean
            text = ",\n".join(row.label for row in together)
            axes.annotate(text, (x, y), xytext=(5, 4), textcoords="offset points", fontsize=7.5, color=INK)
        front = sorted((row for row in exchanging if row.is_front), key=lambda row: row.bytes_per_client)
        axes.plot(
            [row.bytes_per_client / 1e6 for row in front], [100 * row.mean.mean for row in front], color=FRONT, zorder=0
        )
        axes.set_xscale("log")
        axes.set_xlabel("bytes per client, up and down, whole run / MB")
        axes.set_ylabel("Top-5 of the students / %")
    return figure


def _at_one_place(rows: Sequence[StrategyRow]) -> list[list[StrategyRow]]:
    """Rows whose labels would cover each other, together."""
    places: list[list[StrategyRow]] = []
    for row in rows:
        for place in places:
            ratio = row.bytes_per_client / place[0].bytes_per_client
            if 1 / SAME_BYTES < ratio < SAME_BYTES and abs(row.mean.mean - place[0].mean.mean) < SAME_SHARE:
                place.append(row)
                break
        else:
            places.append([row])
    return places


def save_strategies(rows: Sequence[StrategyRow], path: Path) -> None:
    """Write the figure; the ending of the name says the format.

    Raises:
        ValueError: the ending is not png, pdf or svg, or there is nothing to draw.
    """
    if not rows:
        raise ValueError("--figure: no run has a client that was scored; look at the problems in its rounds.jsonl")
    if path.suffix not in (".png", ".pdf", ".svg"):
        raise ValueError(f"--figure {path}: expected a name that ends in .png, .pdf or .svg")
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_strategies(rows).savefig(path, dpi=160)
