"""A comparison as CSV, Markdown and LaTeX: who, how good and at what cost in every row, whatever the names hold."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from configs.files import plain_cell
from sim.report.exports import as_csv, save_table
from sim.report.strategies import Comparison, comparisons_of
from sim.report.summaries import load_summary, with_labels
from tests.sim.report.test_html import write_run

WILD = 'a, "b" | _c_ & 50% $x$ #1 {y} \\ ~^ <z>'


def compared(tmp_path: Path, *labels: str, **more: Any) -> list[Comparison]:
    """Two seeds of one strategy, and one of another."""
    runs = [
        write_run(tmp_path / "a0", codec="uint8", **more),
        write_run(tmp_path / "a1", seed=1, federated=0.7, codec="uint8", **more),
        write_run(tmp_path / "b0", federated=0.5, name="fedmd", **more),
    ]
    summaries = [load_summary(run) for run in runs]
    return comparisons_of(with_labels(summaries, labels) if labels else summaries)


def rows_of(comparisons: list[Comparison]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(as_csv(comparisons))))


def test_the_csv_has_one_row_per_run_with_everything_that_a_figure_needs(tmp_path: Path) -> None:
    rows = rows_of(compared(tmp_path))
    assert [(row["experiment"], row["seed"]) for row in rows] == [("street", "0"), ("street", "1"), ("street", "0")]
    assert rows[2]["strategy"] == "fedmd"
    first = rows[0]
    assert float(first["top5"]) == pytest.approx(0.6) and float(first["power_loss_db"]) == pytest.approx(4.0)
    assert float(first["local_top5"]) == 0.5
    assert (float(first["uplink_bytes"]), float(first["downlink_bytes"])) == (4000, 2000)
    assert len({row["label"] for row in rows}) == 2
    assert all(None not in row and None not in row.values() for row in rows)  # every line has every column


def test_without_controls_the_csv_has_no_column_of_them(tmp_path: Path) -> None:
    assert not any(name.startswith(("local", "offline")) for name in rows_of(compared(tmp_path, controls=False))[0])


@pytest.mark.parametrize("label", [WILD, "two\nlines", "=1+1", "-2", "@sum", "+3"])
def test_the_csv_gives_back_what_a_name_holds_and_no_spreadsheet_takes_it_for_a_formula(
    label: str, tmp_path: Path
) -> None:
    rows = rows_of(compared(tmp_path, label, "other"))
    assert rows[0]["label"] == plain_cell(" ".join(label.split()))
    assert not rows[0]["label"].startswith(("=", "+", "-", "@"))
    assert len(rows) == 3


def test_numbers_are_never_taken_for_formulas() -> None:
    assert [plain_cell(value) for value in (-0.5, None, "a=b", 3)] == [-0.5, None, "a=b", 3]


@pytest.mark.parametrize("ending", [".md", ".tex"])
def test_a_table_for_a_paper_has_seeds_experiment_strategy_and_bytes_in_every_row(ending: str, tmp_path: Path) -> None:
    save_table(compared(tmp_path), tmp_path / f"table{ending}")
    text = (tmp_path / f"table{ending}").read_text()
    lines = [line for line in text.splitlines() if "street" in line]
    assert len(lines) == 2
    assert ["0, 1" in line for line in lines] == [True, False]
    assert all("4.0 kB" in line and "2.0 kB" in line for line in lines)
    assert "fedmd" in lines[1]


def test_markdown_keeps_its_columns_whatever_a_label_holds(tmp_path: Path) -> None:
    save_table(compared(tmp_path, WILD, "other"), tmp_path / "table.md")
    table = [line for line in (tmp_path / "table.md").read_text().splitlines() if line.startswith("|")]
    columns = [line.replace(r"\|", "").count("|") for line in table]
    assert len(table) == 4 and len(set(columns)) == 1
    (line,) = [line for line in table if "50%" in line]
    for escaped in (r"\|", r"\_c\_", r"\\", "&lt;z>"):
        assert escaped in line


def test_latex_escapes_every_sign_that_it_would_take_for_its_own(tmp_path: Path) -> None:
    save_table(compared(tmp_path, WILD, "other"), tmp_path / "table.tex")
    text = (tmp_path / "table.tex").read_text()
    assert r"\_c\_ \& 50\% \$x\$ \#1 \{y\} \textbackslash{} \textasciitilde{}\textasciicircum{}" in text
    assert "±" not in text and r"$\pm$" in text
    assert r"\begin{tabular}{@{}llll" in text


@pytest.mark.parametrize("name", ["table.xlsx", "table", "folder.csv", "nowhere/table.csv"])
def test_a_table_that_could_not_be_written_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ValueError, match=f"--out .*{name}"):
        save_table([], tmp_path / name)
