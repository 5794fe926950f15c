"""The tables of a study: accuracy and cost of trackers, gain of distillation, ablations, and the loss by 8-bit weights.

A published row is directly below ours and is marked. Its DBA is not the official one, so it is in the column K = 3
only.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby

from clients.models.registry import MODELS
from sim.study.cells import Cell, Cells, Setting, cells_of, teachers_of, untaught
from sim.study.published import DATA, Published, published_gain, published_of, published_share
from sim.study.sheets import Line, Sheet
from sim.study.statistics import Interval, Share, closed_share, difference, level
from sim.worksheet import SheetRow

GAINS = ("top1", "top3", "top5", "dba")
GAIN_TITLES = ("Top-1", "Top-3", "Top-5", "DBA")
# Kinds of knowledge that the papers did not try, or not on these trackers; they are compared with kind "response".
OWN_KINDS = ("mixed", "feature", "cross-modal", "power")
# Setting of a cell -> its lines, for each cell that has any.
Lines = dict[Setting, list[Line]]
_WHO = ("tracker", "KD", "L", "J", "seeds")
_INTERVALS = "In brackets 95 % intervals: bootstrap over test passes and, where there are several, over training seeds"
_PUBLISHED = (
    f"Published rows: {DATA}, other test windows than ours, one run, from the results published with the code of "
    "arXiv 2603.16116 (J=3) and arXiv 2509.11419 (J=6); their DBA is the K=3 term alone"
)


def sheets_of(rows: Sequence[SheetRow]) -> list[Sheet]:
    """The tables that have a line, the main one first; none without rows.

    Raises:
        ValueError: two rows are the same tracker, or rows to compare were tested on different windows.
    """
    cells = cells_of(rows)
    sheets = [main_sheet(cells), kd_sheet(cells), ablation_sheet(cells), int8_sheet(cells)]
    return [sheet for sheet in sheets if sheet is not None]


def main_sheet(cells: Cells) -> Sheet | None:
    """The table of accuracy and cost of every cell."""
    titles = ("n", "Top-1", "Top-2", "Top-3", "Top-5", "Top-10", "DBA", "DBA K=3", "loss dB")
    lines = {cell.setting: [_main_line(cell, cells), *_published(cell)] for cell in cells.values()}
    notes = (
        "Percent, mean over horizons and seeds; n: test windows; loss: power lost by the first guess",
        _INTERVALS,
        "MMAC: million multiply-accumulates of a window, every step encoded by itself; kB: weights in float32; "
        "ms: one window on one CPU thread",
        *_data_notes(cells),
    )
    return _sheet("study", "Trackers", (*_WHO, *titles, "params", "MMAC", "kB", "ms"), 2, lines, notes)


def kd_sheet(cells: Cells) -> Sheet | None:
    """The table of the gain of each kind of knowledge over labels alone, and of the share of the gap that it closes."""
    lines: Lines = {}
    for cell in cells.values():
        if (plain := untaught(cells, cell)) is None:
            continue
        gains = [difference(cell, plain, name) for name in GAINS]
        # It is shown without its interval, since a terminal has no room for it.
        dba_k3 = difference(cell, plain, "dba_k3")
        if dba_k3 is None:
            continue
        teacher = teachers_of(cells, cell) if cell.setting.role == "student" else None
        share = closed_share(cell, plain, teacher) if teacher else None
        shown = (*map(show_gain, gains), _signed(dba_k3.value), show_share(share))
        line = Line((*_who(cell, cells, dba_k3.num_seeds), *shown))
        lines[cell.setting] = [line, *_published_gains(cell)]
    notes = (
        "Points over the same tracker with its labels alone, same seeds and test passes",
        _INTERVALS,
        "gap closed: gain in Top-5 as a share of the distance to the teacher; left out (no gap, unclear) where the "
        "teacher is not ahead by half a point, or not surely ahead",
    )
    return _sheet(
        "kd", "Gain of knowledge distillation", (*_WHO, *GAIN_TITLES, "DBA K=3", "gap closed"), 2, lines, notes
    )


def ablation_sheet(cells: Cells) -> Sheet | None:
    """The table of variants that the papers did not try, each compared with the nearest one that they did try."""
    lines: Lines = {}
    for cell in cells.values():
        for against, reference in _references(cells, cell):
            found = [difference(cell, reference, name) for name in GAINS]
            if found[0] is None:
                continue
            macs = cell.first["macs"] / reference.first["macs"]
            ratios = (f"{macs:.2f}", _latency_ratio(cell, reference))
            who = _who(cell, cells, found[0].num_seeds)
            line = Line((who[0], who[1], against, *who[2:], *map(show_gain, found), *ratios))
            lines.setdefault(cell.setting, []).append(line)
    notes = (
        "Points over the tracker named under against, same seeds and test passes; MACs and ms as a ratio to its own",
        _INTERVALS,
    )
    headers = (*_WHO[:2], "against", *_WHO[2:], *GAIN_TITLES, "MACs", "ms")
    return _sheet("ablations", "Ablations", headers, 3, lines, notes)


def int8_sheet(cells: Cells) -> Sheet | None:
    """The table of the bytes that 8-bit weights save and of the accuracy that they lose."""
    lines: Lines = {}
    for cell in cells.values():
        small = [row for row in cell.rows.values() if row["int8_top5"] is not None]
        if not small:
            continue
        whole, packed = (
            100 * statistics.fmean(values)
            for values in ([row["average"]["top5"] for row in small], [row["int8_top5"] for row in small])
        )
        sizes = (cell.first["bytes"], max(row["int8_bytes"] for row in small))
        shown = (
            *(f"{size / 1e3:,.1f}" for size in sizes),
            f"{whole:.2f}",
            f"{packed:.2f}",
            _rounded(packed - whole, 2),
        )
        lines[cell.setting] = [Line((*_who(cell, cells, len(small)), *shown))]
    notes = ("kB int8: the largest file of any seed; Top-5 in percent on the same test windows",)
    return _sheet("int8", "Eight bits", (*_WHO, "kB", "kB int8", "Top-5", "Top-5 int8", "change"), 2, lines, notes)


def show_level(found: Interval) -> str:
    """A level as text, such as ``95.6 [94.9, 96.3]``."""
    return f"{found.value:.1f} [{found.low:.1f}, {found.high:.1f}]"


def show_gain(found: Interval | None) -> str:
    """A gain as text, such as ``+3.9 [2.8, 5.1]``; empty if there is none."""
    if found is None:
        return ""
    return f"{_signed(found.value)} [{_rounded(found.low)}, {_rounded(found.high)}]"


def show_share(share: Share | None) -> str:
    """A share as text, such as ``83 % [60, 105]``; in words if there is no clear gap."""
    if share is None:
        return ""
    if share.closed is None:
        return "no gap" if share.gap.value <= 0 else "unclear"
    value, low, high = (_rounded(100 * part, 0) for part in (share.closed.value, share.closed.low, share.closed.high))
    return f"{value} % [{low}, {high}]"


def _sheet(
    name: str, title: str, headers: tuple[str, ...], num_labels: int, lines: Lines, notes: tuple[str, ...]
) -> Sheet | None:
    """The sheet of these lines, with a rule below each set of sensors and number of slots ahead; None without lines."""
    ruled: list[Line] = []
    for _, settings in groupby(lines, key=lambda one: (one.modality, one.future)):
        group = [line for setting in settings for line in lines[setting]]
        ruled += [*group[:-1], replace(group[-1], ends_group=True)]
    if any(line.is_published for line in ruled):
        notes = (*notes, _PUBLISHED)
    return Sheet(name, title, headers, num_labels, tuple(ruled), notes) if ruled else None


def _main_line(cell: Cell, cells: Cells) -> Line:
    plain = {name: f"{100 * cell.mean(name):.1f}" for name in ("top1", "top2", "top3", "top10", "dba", "dba_k3")}
    return Line(
        (
            *_who(cell, cells, len(cell.rows)),
            str(cell.first["num_windows"]["test"]),
            *(plain[name] for name in ("top1", "top2", "top3")),
            show_level(level(cell, "top5")),
            *(plain[name] for name in ("top10", "dba", "dba_k3")),
            f"{cell.mean('power_loss_db'):.2f}",
            _count(cell.first["parameters"]),
            f"{cell.first['macs'] / 1e6:.1f}",
            f"{cell.first['bytes'] / 1e3:,.0f}",
            "" if cell.latency_ms is None else f"{cell.latency_ms:.1f}",
        )
    )


def _published(cell: Cell) -> list[Line]:
    if (found := published_of(cell.setting)) is None:
        return []
    tops = (f"{found.top1:.1f}", "", f"{found.top3:.1f}", f"{found.top5:.1f}", "")
    costs = (_count(found.parameters), f"{found.mmacs:.1f}", "", "")
    cells = (*_published_who(found), str(found.num_windows), *tops, "", f"{found.dba_k3:.1f}", "", *costs)
    return [Line(cells, is_published=True)]


def _published_gains(cell: Cell) -> list[Line]:
    found = published_of(cell.setting)
    if found is None or published_gain(found, "top5") is None:
        return []
    gains = [published_gain(found, name) for name in ("top1", "top3", "top5", "dba_k3")]
    *tops, dba_k3 = ("" if gain is None else _signed(gain) for gain in gains)
    share = published_share(found)
    closed = "" if share is None else f"{100 * share:.0f} %"
    return [Line((*_published_who(found), *tops, "", dba_k3, closed), is_published=True)]


def _published_who(found: Published) -> tuple[str, ...]:
    return (f"published, {DATA}", "", "", "", "1")


def _who(cell: Cell, cells: Cells, num_seeds: int) -> tuple[str, ...]:
    setting = cell.setting
    parts = [setting.model, *([setting.alignment] if setting.is_realigned else [])]
    namesakes = [other for other in cells if _without_data(other) == _without_data(setting)]
    tells: list[tuple[Callable[[Setting], object], str]] = [
        (lambda one: one.pixels, f"{setting.pixels} px"),
        (lambda one: one.train_share, f"{100 * setting.train_share:.0f} % train"),
    ]
    parts += [text for of, text in tells if len({of(one) for one in namesakes}) > 1]
    return (", ".join(parts), setting.kd, str(setting.input_length), str(setting.future), str(num_seeds))


def _without_data(setting: Setting) -> Setting:
    return replace(setting, pixels=0, train_share=0.0)


def _data_notes(cells: Cells) -> list[str]:
    found = dict.fromkeys((one.future, one.train_share, one.pixels) for one in cells)
    return [
        f"J={future}: {100 * share:.0f} % of the passes to train on, masks of {pixels} pixels"
        for future, share, pixels in found
    ]


def _references(cells: Cells, cell: Cell) -> list[tuple[str, Cell]]:
    """The cells that a cell is compared with as an ablation, each with its name."""
    setting = cell.setting
    found: list[tuple[str, Setting]] = []
    if setting.is_realigned:
        own = MODELS[setting.model].alignment
        found.append((f"{own} aligned", replace(setting, alignment=own)))
    if setting.is_ours and not setting.is_realigned:
        papers = [one for one in cells if not (one.is_ours or one.is_realigned)]
        found += [
            (paper.model, paper)
            for paper in papers
            if replace(paper, model=setting.model, alignment=setting.alignment) == setting
        ]
    if setting.kd in OWN_KINDS:
        found.append(("response", replace(setting, kd="response")))
    return [(name, cells[other]) for name, other in found if other in cells]


def _latency_ratio(cell: Cell, reference: Cell) -> str:
    ours, theirs = cell.latency_ms, reference.latency_ms
    return "" if ours is None or theirs is None else f"{ours / theirs:.2f}"


def _count(parameters: int) -> str:
    return f"{parameters / 1e6:.2f}M" if parameters >= 1_000_000 else f"{parameters / 1e3:.1f}k"


def _signed(points: float) -> str:
    shown = _rounded(points)
    return shown if shown.startswith("-") else f"+{shown}"


def _rounded(value: float, decimals: int = 1) -> str:
    """A number with that many decimals, without a minus sign before zero."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}"
