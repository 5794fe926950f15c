"""The style of figures and pages: colours, line styles and settings of Matplotlib.

One colour per modality in every figure (palette of Okabe and Ito, safe for colour-blind readers); arms differ in line
style and fill, never in colour alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from clients.data.modalities import MODALITIES

INK, MUTED, GRID = "#1b1f24", "#6b7280", "#d4d7dc"
PALETTE = {name: row.colour for name, row in MODALITIES.items()}
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
