"""Writes a sheet of values, tables and figures from the rows of a study. The same rows give the same bytes."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from configs.files import write_whole
from sim.study.cells import cells_of
from sim.study.figures import ENDINGS, draw_all, render
from sim.study.scores import METRICS
from sim.study.sheets import as_latex, as_markdown, as_rich, escape_latex
from sim.study.tables import sheets_of
from sim.worksheet import SheetRow

NOTHING = "No tracker of this study is trained yet."
# The columns of the sheet of values before the metrics and after them.
_WHO = (
    *("key", "model", "modality", "role", "input_length", "future", "kd", "teacher"),
    *("alignment", "pixels", "train_share", "seed"),
)
_COSTS = (
    *("parameters", "macs", "window_macs", "bytes", "latency_ms", "int8_bytes", "int8_top5"),
    *("epochs", "best_epoch", "validation", "seconds", "device"),
)
_SPLITS = ("train", "validation", "test")


def write_outputs(rows: Sequence[SheetRow], folder: Path, *, title: str) -> list[Path]:
    """Write ``study.csv``, ``tables.md``, ``tables.tex`` and the figures, each whole or not at all.

    Args:
        rows: the rows of a study, which may be unfinished; their order does not matter.
        folder: the folder of the results; it is made if absent.
        title: the heading of the tables.

    Returns:
        The files that were written.

    Raises:
        ValueError: two rows are the same tracker, or rows to compare were tested on different windows.
        OSError: the disk is full.
    """
    sheets = sheets_of(rows)
    markdown = "\n".join(map(as_markdown, sheets)) if sheets else f"{NOTHING}\n"
    latex = "\n".join(map(as_latex, sheets)) if sheets else f"% {NOTHING}\n"
    contents = {
        "study.csv": _csv(rows).encode(),
        "tables.md": f"# {title}\n\n{markdown}".encode(),
        "tables.tex": f"% {escape_latex(title)}; needs booktabs\n{latex}".encode(),
    }
    for name, figure in draw_all(rows).items():
        contents |= {f"figures/{name}.{ending}": render(figure, ending) for ending in ENDINGS}
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_whole(folder / name, content)
    return [folder / name for name in contents]


def show(rows: Sequence[SheetRow], console: Console) -> None:
    """Print the tables, or say that no tracker is trained yet."""
    for sheet in sheets_of(rows):
        console.print(as_rich(sheet))
    if not rows:
        console.print(NOTHING)


def _csv(rows: Sequence[SheetRow]) -> str:
    """One line per row; averages as ``top5``, horizons as ``top5_0`` and so on, empty if a row has fewer horizons."""
    ordered = [row for cell in cells_of(rows).values() for row in cell.rows.values()]
    horizons = range(max((row["future"] + 1 for row in ordered), default=0))
    slots = [(name, horizon) for name in METRICS for horizon in horizons]
    header = [*_WHO, *METRICS, *(f"{name}_{horizon}" for name, horizon in slots), *_COSTS]
    header += [f"{split}_windows" for split in _SPLITS]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in ordered:
        values: list[Any] = [row[name] for name in _WHO]
        values += [row["average"][name] for name in METRICS]
        values += [row["metrics"][name][slot] if slot <= row["future"] else None for name, slot in slots]
        values += [row[name] for name in _COSTS]
        writer.writerow([*values, *(row["num_windows"][split] for split in _SPLITS)])
    return text.getvalue()
