"""Tables for the terminal that show what is in a folder of data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sim.bench.world_statistics import statistics_rows
from sim.data.cache import CacheEntry

MAX_COLUMNS = 5
MAX_PROBLEMS = 10
MAX_BEARINGS = 12


def show_inspection(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print the rows of `sim.data.inspection.inspect_folder`, and the passes of a row that has ``each_pass``."""
    show_recordings(rows, console)
    for row in rows:
        if "each_pass" in row:
            console.print(_passes(row))
    if any(row["bearing"] for row in rows):
        console.print(_bearings(rows))
    labelled = [row for row in rows if row["statistics"] is not None]
    # A federation has too many clients for columns, so server and test come first.
    labelled.sort(key=lambda row: row["part"].startswith("clients/"))
    if labelled:
        columns = {"scenario 9": labelled[0]["scenario_9"]}
        columns |= {row["part"]: row["statistics"] for row in labelled[:MAX_COLUMNS]}
        table = Table("statistic", title="Statistics beside those measured in DeepSense 6G scenario 9")
        for name in columns:
            table.add_column(name, justify="right")
        for line in statistics_rows(columns):
            table.add_row(*line)
        console.print(table)
        if len(labelled) > MAX_COLUMNS:
            console.print(f"{len(labelled) - MAX_COLUMNS} more recordings have statistics: see --json")
    for row in rows:
        for problem in row["problems"][:MAX_PROBLEMS]:
            console.print(f"{row['part']}: {problem}", markup=False, highlight=False, soft_wrap=True)
        if len(row["problems"]) > MAX_PROBLEMS:
            console.print(f"{row['part']}: {len(row['problems']) - MAX_PROBLEMS} more problems: see --json")


def show_recordings(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print one row per recording, with its passes, skew and hash, and then the hash of all recordings."""
    names = ("part", "modalities", "passes", "frames", "windows", "labelled", "best / 2nd dB", "skew bit", "sha256")
    table = Table(*names, "problems")
    for row in rows:
        gap, skew = row["best_to_second_db"], row["skew_bits"]
        shown = [row["part"], ", ".join(row["modalities"]), row["passes"], row["frames"], row["windows"]]
        shown += ["yes" if row["labelled"] else "no", "" if gap is None else f"{gap:.2f}"]
        shown += ["" if skew is None else f"{skew:.3f}", row["sha256"], len(row["problems"])]
        table.add_row(*(str(value) for value in shown))
    console.print(table)
    console.print(f"sha256 of labels and passes: {rows[0]['folder_sha256']}", highlight=False)


def show_cache(entries: Sequence[CacheEntry], home: Path, console: Console) -> None:
    """Print a line for each entry of the cache, and the sum."""
    if not entries:
        console.print(f"{home}: no data yet", markup=False, highlight=False, soft_wrap=True)
        return
    table = Table("name", "kind", "made by", title=None)
    for name in ("size", "last used", "in use"):
        table.add_column(name, justify="right")
    for entry in entries:
        used = datetime.fromtimestamp(entry.used).strftime("%Y-%m-%d %H:%M")
        cells = (entry.name, entry.kind, entry.made_by, size_text(entry.num_bytes), used, "yes" if entry.in_use else "")
        table.add_row(*(Text(cell) for cell in cells))
    console.print(table)
    total = size_text(sum(entry.num_bytes for entry in entries))
    console.print(f"{home}: {total}", markup=False, highlight=False, soft_wrap=True)


def size_text(num_bytes: int) -> str:
    """A size for people, in powers of ten.

    >>> [size_text(number) for number in (0, 999, 12_345, 3_400_000, 5_600_000_000)]
    ['0 B', '999 B', '12.3 kB', '3.4 MB', '5.6 GB']
    """
    if num_bytes < 1000:
        return f"{num_bytes} B"
    size, unit = num_bytes / 1000, "kB"
    for larger in ("MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.1f} {unit}"


def _bearings(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Where the vehicles were, as the base station sees them; server and test come before the clients."""
    table = Table("part", title="Where the vehicles were (5 %, median, 95 %)")
    for name in ("bearing deg", "range m", "correlation", "beams / degree"):
        table.add_column(name, justify="right")
    for row in sorted(rows, key=lambda row: str(row["part"]).startswith("clients/"))[:MAX_BEARINGS]:
        if (fit := row["bearing"]) is None:
            continue
        spans = (", ".join(f"{value:.0f}" for value in fit[name]) for name in ("bearing_deg", "range_m"))
        follows = (
            "" if (value := fit[name]) is None else f"{value:.2f}" for name in ("correlation", "beams_per_degree")
        )
        table.add_row(row["part"], *spans, *follows)
    table.caption = "The correlation is that of the best beam with the bearing; measured: 0.80 to 0.99."
    return table


def _passes(row: Mapping[str, Any]) -> Table:
    table = Table("pass", "frames", "beams", "split", title=f"{row['part']}: share of frames missing per modality")
    for name in row["modalities"]:
        table.add_column(name, justify="right")
    for entry in row["each_pass"]:
        beams = "" if entry["first_beam"] is None else f"{entry['first_beam']} -> {entry['last_beam']}"
        missing = (f"{100 * entry['missing'][name]:.0f} %" for name in row["modalities"])
        table.add_row(str(entry["pass"]), str(entry["frames"]), beams, entry["split"] or "", *missing)
    return table
