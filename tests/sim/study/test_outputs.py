"""Tables, values and figures of a study, read back from rows with known answers."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from rich.console import Console

from sim.study.cells import KINDS, cells_of
from sim.study.figures import LOOKS, draw_all
from sim.study.outputs import show, write_outputs
from sim.study.published import PUBLISHED, published_gain, published_share
from sim.study.sheets import Line, Sheet, as_latex, as_markdown, escape_latex
from sim.study.statistics import Interval
from sim.study.tables import ablation_sheet, int8_sheet, kd_sheet, main_sheet, show_gain
from tests.study_rows import row


def level(top5: float, *args: Any, **others: Any) -> dict[str, Any]:
    """A tracker that is as good in every pass."""
    return row(*args, top5=(top5, top5), **others)


def study() -> list[dict[str, Any]]:
    taught = {"teacher": "image-teacher self"}
    return [
        level(0.92, "image-teacher", parameters=1_762_458, macs=181_400_000),
        level(
            0.94,
            "image-teacher",
            "self",
            validation=0.6,
            teacher="image-teacher none",
            parameters=1_762_458,
            macs=181_400_000,
        ),
        level(0.90),
        level(0.93, kd="response", validation=0.6, **taught),
        level(0.92, kd="mixed", validation=0.7, **taught),
        level(0.86, input_length=3, macs=47_000_000),
        level(0.88, kd="response", input_length=3, macs=47_000_000, **taught),
        level(0.91, "image-light", macs=18_860_000, latency_ms=4.0),
        level(0.935, "fusion-student"),
        level(0.95, "fusion-student", alignment="newest"),
    ]


def lines(sheet: Sheet | None) -> list[dict[str, str]]:
    assert sheet is not None
    return [dict(zip(sheet.headers, line.cells, strict=True)) for line in sheet.lines]


def found(sheet: Sheet | None, **wanted: str) -> dict[str, str]:
    (line,) = [line for line in lines(sheet) if wanted.items() <= line.items()]
    return line


def beneath(sheet: Sheet | None, **wanted: str) -> dict[str, str]:
    everything = lines(sheet)
    return everything[everything.index(found(sheet, **wanted)) + 1]


# Published


def test_published_shares_of_the_teacher_gap_are_those_of_the_fact_sheet() -> None:
    assert published_share(PUBLISHED["image-student", 3, 8, "response"]) == pytest.approx(0.83, abs=0.005)
    assert published_share(PUBLISHED["fusion-student", 3, 8, "response"]) == pytest.approx(0.633, abs=0.0005)
    assert published_gain(PUBLISHED["long-term-student", 6, 3, "response"], "top3") == pytest.approx(10.48)
    assert published_gain(PUBLISHED["image-student", 3, 8, "none"], "top5") is None
    assert published_share(PUBLISHED["image-teacher", 3, 8, "self"]) is None


def test_what_was_published_for_one_model_has_one_size_and_one_test_set() -> None:
    assert len(PUBLISHED) == 17
    for (model, future, length, _), entry in PUBLISHED.items():
        same = [one for key, one in PUBLISHED.items() if key[:2] == (model, future)]
        assert {one.parameters for one in same} == {entry.parameters}
        assert {one.mmacs for one in same if one.input_length == length} == {entry.mmacs}
        assert entry.num_windows == {3: 1267, 6: 774}[future]
        assert entry.top1 < entry.top3 < entry.top5


# Tables


def test_eight_bits_are_told_with_what_they_save_and_lose() -> None:
    rows = [
        level(0.92, int8_top5=0.918, int8_bytes=98_000),
        level(0.94, seed=1, int8_top5=0.94, int8_bytes=99_500),
        level(0.95, "image-teacher", int8_top5=None, int8_bytes=None),
    ]
    sheet = int8_sheet(cells_of(rows))
    assert sheet is not None
    (line,) = sheet.lines
    assert line.cells[-5:] == ("379.1", "99.5", "93.00", "92.90", "-0.10")
    assert int8_sheet(cells_of(rows[2:])) is None


def test_ours_is_the_mean_over_seeds_and_the_published_row_stands_beneath_it() -> None:
    sheet = main_sheet(cells_of([level(0.90), level(0.94, seed=1)]))
    ours = found(sheet, tracker="image-student")
    assert (ours["Top-5"], ours["Top-1"], ours["Top-10"]) == ("92.0 [90.0, 94.0]", "89.0", "91.0")
    assert (ours["DBA"], ours["DBA K=3"], ours["loss dB"]) == ("90.0", "89.0", "0.88")
    assert (ours["seeds"], ours["n"], ours["params"], ours["MMAC"]) == ("2", "40", "94.8k", "94.3")
    assert (ours["kB"], ours["ms"]) == ("379", "20.0")
    published = beneath(sheet, tracker="image-student")
    assert published["tracker"] == "published, scenario 9"
    assert (published["n"], published["Top-3"], published["Top-5"]) == ("1267", "75.9", "90.2")


def test_a_published_dba_is_never_in_the_official_column() -> None:
    rows = [
        level(0.9, model, kd, future=future, input_length=length)
        for model, future, length, kd in PUBLISHED
        if model.startswith(("image", "fusion", "long-term"))
    ]
    cells = cells_of(rows)
    for sheet in (main_sheet(cells), kd_sheet(cells)):
        published = [line for line in lines(sheet) if line["tracker"].startswith("published")]
        assert published and all(line["DBA"] == "" and line["DBA K=3"] != "" for line in published)
        assert all(line["DBA"] != "" for line in lines(sheet) if line not in published)
    assert sum(line.is_published for line in main_sheet(cells).lines) == len(rows)


def test_the_gain_and_its_share_of_the_gap_stand_above_the_published_ones() -> None:
    sheet = kd_sheet(cells_of(study()))
    ours = found(sheet, tracker="image-student", KD="response", L="8")
    assert (ours["Top-5"], ours["DBA K=3"], ours["gap closed"]) == ("+3.0 [3.0, 3.0]", "+3.0", "75 % [75, 75]")
    published = beneath(sheet, tracker="image-student", KD="response", L="8")
    assert [published[name] for name in ("Top-1", "Top-3", "Top-5", "DBA K=3")] == ["+3.9", "+3.7", "+2.8", "+2.1"]
    assert published["gap closed"] == "83 %"
    assert found(sheet, L="3")["gap closed"] == "25 % [25, 25]"  # two points of eight
    assert found(sheet, KD="self")["gap closed"] == ""


@pytest.mark.parametrize(("teacher", "words"), [(0.89, "no gap"), (0.904, "unclear")])
def test_a_teacher_that_is_not_ahead_leaves_no_share(teacher: float, words: str) -> None:
    rows = [
        level(teacher, "image-teacher"), level(0.90), level(0.93, kd="response", teacher="image-teacher none")
    ]  # fmt: skip
    assert found(kd_sheet(cells_of(rows)), KD="response")["gap closed"] == words


def test_no_gain_is_shown_as_minus_zero() -> None:
    assert show_gain(Interval(-0.04, -0.2, -0.01, num_seeds=1)) == "+0.0 [-0.2, 0.0]"


def test_ablations_are_compared_with_the_nearest_thing_of_the_paper() -> None:
    sheet = ablation_sheet(cells_of(study()))
    light = found(sheet, tracker="image-light")
    assert (light["against"], light["Top-5"]) == ("image-student", "+1.0 [1.0, 1.0]")
    assert (light["MACs"], light["ms"]) == ("0.20", "0.20")
    assert found(sheet, tracker="fusion-student, newest")["Top-5"] == "+1.5 [1.5, 1.5]"
    assert found(sheet, KD="mixed")["Top-5"] == "-1.0 [-1.0, -1.0]"
    assert len(lines(sheet)) == 3


def test_realigned_radar_has_no_published_row_and_other_pixels_are_told_apart() -> None:
    sheet = main_sheet(cells_of([*study(), level(0.5, pixels=56)]))
    assert beneath(sheet, tracker="fusion-student")["tracker"].startswith("published")
    assert lines(sheet)[-1]["tracker"] == "fusion-student, newest"
    assert found(sheet, tracker="image-student, 56 px")["Top-5"] == "50.0 [50.0, 50.0]"


def test_a_study_in_progress_shows_what_there_is() -> None:
    cells = cells_of([level(0.93, kd="response", teacher="image-teacher self", latency_ms=None)])
    assert found(main_sheet(cells), KD="response")["ms"] == ""
    assert kd_sheet(cells) is None and ablation_sheet(cells) is None
    found_without_teacher = kd_sheet(cells_of([level(0.9), *(one.first for one in cells.values())]))
    assert found(found_without_teacher, KD="response")["gap closed"] == ""


def printed(rows: list[dict[str, Any]]) -> str:
    console = Console(width=140, color_system=None)
    with console.capture() as capture:
        show(rows, console)
    return capture.get()


def test_the_terminal_shows_all_tables_without_cutting_anything_off() -> None:
    text = printed(study())
    assert "Trackers" in text and "Gain of knowledge distillation" in text and "Ablations" in text
    assert "93.0 [93.0, 93.0]" in text and "75 % [75, 75]" in text and "…" not in text
    assert printed([]) == "No tracker of this study is trained yet.\n"


# Files


def test_special_characters_of_latex_are_escaped() -> None:
    assert escape_latex("a_b & 5 % of #1 {x} $2 ~^\\") == (
        r"a\_b \& 5 \% of \#1 \{x\} \$2 \textasciitilde{}\textasciicircum{}\textbackslash{}"
    )
    assert escape_latex("-0.3 [-1.2, +0.4], Top-1") == "$-$0.3 [$-$1.2, +0.4], Top-1"


def test_latex_tables_have_a_cell_for_each_column_and_a_table_for_each_group() -> None:
    sheet = Sheet(
        "x", "All_of it", ("who", "DBA K=3"), 1,
        (Line(("a&b", "1"), ends_group=True), Line(("p", "2"), is_published=True, ends_group=True)), ("50 %",),
    )  # fmt: skip
    first, second = as_latex(sheet).split("\n\n")
    assert r"\caption{All\_of it. 50 \%.}" in first and r"\caption{All\_of it.}" in second
    assert r"\begin{tabular}{@{}lr@{}}" in first and first.endswith(r"\end{table*}")
    assert re.findall(r"^.* & .*$", first, re.MULTILINE) == [" & DBA \\\\", "who & K=3 \\\\", r"a\&b & 1 \\"]
    assert r"\emph{p} & 2 \\" in second
    assert "| *p* | 2 |" in as_markdown(sheet) and "| a&b | 1 |" in as_markdown(sheet)


def test_the_sheet_of_values_has_a_line_for_each_row_and_a_column_for_each_horizon(tmp_path: Path) -> None:
    rows = [level(0.9, future=6, model="long-term-student"), level(0.8)]
    write_outputs(rows, tmp_path, title="t")
    with (tmp_path / "study.csv").open() as file:
        image, long_term = csv.DictReader(file)
    assert (image["model"], float(image["top5"]), float(image["top5_3"])) == ("image-student", 0.8, 0.8)
    assert (image["top5_4"], float(long_term["top5_6"]), long_term["teacher"]) == ("", 0.9, "")
    assert (image["macs"], image["test_windows"], float(image["dba_k3_0"])) == ("94300000", "40", pytest.approx(0.77))


def test_the_same_rows_in_any_order_give_the_same_bytes(tmp_path: Path) -> None:
    first = write_outputs(study(), tmp_path / "a", title="A study")
    second = write_outputs(study()[::-1], tmp_path / "b", title="A study")
    assert [path.relative_to(tmp_path / "a") for path in first] == [path.relative_to(tmp_path / "b") for path in second]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert sorted(path.name for path in first if path.parent.name == "figures") == [
        f"{stem}.{ending}"
        for stem in ("accuracy-by-horizon", "accuracy-by-macs", "gain-by-length")
        for ending in ("pdf", "png")
    ]
    assert (tmp_path / "a/tables.md").read_text().startswith("# A study\n\n## Trackers\n")


def test_without_rows_the_files_say_so(tmp_path: Path) -> None:
    assert [path.name for path in write_outputs([], tmp_path, title="t")] == ["study.csv", "tables.md", "tables.tex"]
    assert "No tracker of this study is trained yet." in (tmp_path / "tables.md").read_text()
    assert (tmp_path / "tables.tex").read_text().startswith("%")


# Figures


def drawn(name: str) -> Figure:
    return draw_all(study())[name]


def test_no_two_kinds_of_knowledge_are_told_apart_by_colour_alone() -> None:
    assert set(LOOKS) == set(KINDS)
    for parts in zip(*((look.colour, look.marker, look.hatch) for look in LOOKS.values()), strict=True):
        # Teachers alone learn from themselves, and the gain of no knowledge has no bar.
        assert len(set(parts)) >= len(KINDS) - 1


def test_the_figure_by_horizon_shows_the_best_validated_teacher_and_the_longest_student_of_each_kind() -> None:
    image, fusion = drawn("accuracy-by-horizon").axes
    assert [axes.get_title() for axes in (image, fusion)] == ["image, J = 3", "image+radar, J = 3"]
    values = {line.get_label(): list(line.get_ydata()) for line in image.lines}
    assert set(values) == {"teacher", "student, none", "student, response", "student, mixed"}
    assert values["teacher"] == pytest.approx([94.0] * 4)
    assert values["student, none"] == pytest.approx([90.0] * 4)
    assert [tick.get_text() for tick in image.get_xticklabels()] == ["now", "+1", "+2", "+3"]


def test_the_figure_by_macs_shows_each_tracker_plain_and_as_it_validated_best() -> None:
    (axes,) = drawn("accuracy-by-macs").axes
    assert axes.get_xscale() == "log"
    points = {(to_hex(bar.lines[0].get_color()), *map(float, bar.lines[0].get_xydata()[0])) for bar in axes.containers}
    kinds = {(kd, x, round(y, 6)) for colour, x, y in points for kd, look in LOOKS.items() if look.colour == colour}
    assert {kd for kd, x, _ in kinds if x == 94.3} == {"none", "mixed"}
    assert ("none", 181.4, 92.0) in kinds and ("self", 181.4, 94.0) in kinds and ("response", 47.0, 88.0) in kinds
    hollow = {tuple(line.get_xydata()[0]) for line in axes.lines if line.get_markerfacecolor() == "white"}
    assert hollow >= {(94.3, 90.23), (94.3, 93.07), (181.4, 93.65), (39.8, 93.57)}
    names = {text.get_text() for text in axes.texts}
    assert names == {"image-teacher", "image-student", "image-light", "fusion-student"}


def test_bars_show_the_gain_at_each_length_with_the_published_one() -> None:
    (axes,) = drawn("gain-by-length").axes
    assert axes.get_title() == "image-student, J = 3"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["L = 8", "L = 3"]
    heights = {round(bar.get_x() + bar.get_width() / 2, 6): bar.get_height() for bar in axes.patches}
    assert heights == pytest.approx({-0.2: 3.0, 0.2: 2.0, 1.0: 2.0})
    (hollow,) = [line for line in axes.lines if line.get_markerfacecolor() == "white"]
    assert tuple(hollow.get_xydata()[0]) == pytest.approx((-0.2, 2.84))
