"""The style of figures and pages: colours, line styles and settings of Matplotlib.

One colour per modality in every figure (palette of Okabe and Ito, safe for colour-blind readers); arms differ in line
style and fill, never in colour alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clients.data.modalities import MODALITIES, SHIPPED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#1b1f24", "#6b7280", "#d4d7dc"
# What is clearly better, and what is clearly worse.
GAIN, LOSS = "#00704f", "#b3261e"


class _Palette(dict[str, str]):
    """Modality -> its colour; a sensor of a user's own that this process does not know is drawn like muted text."""

    def __missing__(self, name: str) -> str:
        return MODALITIES[name].colour if name in MODALITIES else MUTED


PALETTE = _Palette({name: row.colour for name, row in MODALITIES.items() if name in SHIPPED})
STYLES = {"local": "--", "offline_kd": ":", "federated": "-"}
STRENGTHS = {"local": 0.25, "offline_kd": 0.55, "federated": 1.0}
SETTINGS: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "svg.hashsalt": "softbeam",
    "pdf.fonttype": 42,
}


@contextmanager
def drawing() -> Iterator[None]:
    """Matplotlib with our settings, for figures that go into files.

    What ``MPLBACKEND`` says is for windows and notebooks, where it names modules that our environment may not have. So
    the variable is out of sight while Matplotlib is loaded, and is there again afterwards.
    """
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    with matplotlib.rc_context(SETTINGS):
        yield


def panels(
    rows: int,
    columns: int,
    *,
    height: float,
    left: float = 0.6,
    right: float = 0.12,
    between: float = 0.4,
    above: float = 0.35,
    below: float = 0.5,
    width: float = 8.2,
    ratios: Sequence[float] | None = None,
    share_y: bool = False,
) -> tuple[Figure, list[Axes]]:
    """A figure with panels at fixed places, row by row: Matplotlib's own layout would take half of the drawing time.

    Args:
        rows: the number of rows of panels.
        columns: the number of panels in a row.
        height: the height of a panel in inches; all other lengths are in inches too.
        left: the room to the left of the first panel, for the label of its axis.
        right: the room to the right of the last panel.
        between: the room between two panels of a row.
        above: the room above each row, for titles.
        below: the room below each row, for the labels of its axes.
        width: the width of the figure.
        ratios: the widths of the columns, in any unit; None makes them equal.
        share_y: whether all panels have one vertical scale.
    """
    from matplotlib.figure import Figure

    whole = rows * (above + height + below)
    figure = Figure(figsize=(width, whole))
    inside = (width - left - right - (columns - 1) * between) / columns
    grid = figure.subplots(
        rows,
        columns,
        squeeze=False,
        sharey=share_y,
        gridspec_kw={
            "left": left / width,
            "right": 1.0 - right / width,
            "top": 1.0 - above / whole,
            "bottom": below / whole,
            "wspace": between / inside,
            "hspace": (above + below) / height,
            "width_ratios": ratios,
        },
    )
    return figure, list(grid.flat)


def tinted(strength: NDArray[np.float64], colour: str) -> NDArray[np.float64]:
    """(..., 4) one colour whose opacity is the strength, in [0, 1]: fit for a light page and for a dark one."""
    channels = [int(colour[place : place + 2], 16) / 255.0 for place in (1, 3, 5)]
    return np.stack([*(np.full(strength.shape, channel) for channel in channels), strength], axis=-1)
