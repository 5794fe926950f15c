"""The compare command as a user meets it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.sim.cli.test_main import Answer, softbeam
from tests.sim.report.test_html import write_run


@pytest.fixture(autouse=True)
def _work_in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder with two seeds of one codec, one run of another, and one that was stopped."""
    for name, seed, codec in (("a0", 0, "uint8"), ("a1", 1, "uint8"), ("b0", 0, "float16")):
        write_run(tmp_path / "runs" / name, seed=seed, codec=codec)
    (tmp_path / "runs" / "stopped" / "checkpoint").mkdir(parents=True)
    return tmp_path / "runs"


def refusal(answer: Answer) -> str:
    assert (answer.code, answer.out) == (1, "")
    (line,) = answer.err.splitlines()
    return line


def test_a_folder_of_runs_is_compared_and_what_is_left_out_is_told(runs: Path) -> None:
    answer = softbeam("compare", "runs")
    assert answer.code == 0
    assert "street codec=uint8" in answer.out and "street codec=float16" in answer.out
    assert answer.err.splitlines() == ["runs/stopped: left out, the run is not finished: softbeam resume runs/stopped"]


def test_labels_of_the_user_stand_in_the_table_the_json_and_the_files(runs: Path) -> None:
    words = ("compare", "runs", "--label", "eight bits", "--label", "half")
    shown = softbeam(*words, "--out", "t.csv", "--out", "t.md", "--out", "t.tex", "--figure", "f.svg")
    assert shown.code == 0
    assert "eight bits" in shown.out and "codec" not in shown.out
    for name in ("t.csv", "t.md", "t.tex", "f.svg"):
        assert "eight bits" in Path(name).read_text()
        assert str(Path(name).resolve()) in shown.out
    with open("t.csv", newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["eight bits", "eight bits", "half"]
    answer = softbeam(*words, "--json", "--figure", "f.png")
    assert list(json.loads(answer.out)) == ["eight bits", "half"]
    assert str(Path("f.png").resolve()) in answer.err


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--label", "one"], "--label: got 1 for 2 rows, which are in this order: street codec=uint8; street codec=fl"),
        (["--label", "one", "--label", " one "], "--label: each row needs a label of its own, got 'one', 'one'"),
        (["--label", "one", "--label", ""], "--label: each row needs a label of its own"),
        (["--figure", "front.jpg"], "--figure front.jpg: expected a name that ends in .png, .pdf or .svg"),
        (["--out", "table.xls"], "--out table.xls: expected a name that ends in .csv, .md or .tex"),
        (["--page", "page.pdf"], "--page page.pdf: expected a name that ends in .html or .htm"),
        (["--page-figures"], "--page-figures: these are the figures of a page; name it with --page FILE.html"),
        (["--out", "nowhere/table.csv"], "--out nowhere/table.csv: there is no folder nowhere"),
    ],
)
def test_a_mistake_is_refused_in_one_line_and_nothing_is_written(words: list[str], problem: str, runs: Path) -> None:
    (runs / "stopped" / "checkpoint").rmdir()
    (runs / "stopped").rmdir()
    assert problem in refusal(softbeam("compare", "runs", *words))
    assert [path.name for path in Path().iterdir()] == ["runs"]


def test_a_bad_ending_is_refused_before_a_run_is_read() -> None:
    assert "--figure x.doc" in refusal(softbeam("compare", "nowhere", "--figure", "x.doc"))


def test_runs_on_other_data_stand_in_tables_of_their_own(tmp_path: Path) -> None:
    import yaml

    for name, source in (("a", "street"), ("b", "deepsense")):
        run = write_run(tmp_path / name)
        values = yaml.safe_load((run / "experiment.yaml").read_text())
        (run / "experiment.yaml").write_text(yaml.safe_dump({**values, "data": {"source": source}}))
    shown = softbeam("compare", "a", "b")
    assert "Data 1 (source=street)" in shown.out and "Data 2 (source=deepsense)" in shown.out
    compared = json.loads(softbeam("compare", "a", "b", "--json").out)
    assert [group["data"] for group in compared.values()] == [1, 2]
    assert all(group["overview"]["is_front"] for group in compared.values())


def test_a_run_without_controls_is_shown_without_a_dash(tmp_path: Path) -> None:
    write_run(tmp_path / "a", controls=False)
    shown = softbeam("compare", "a")
    assert shown.code == 0
    assert "offline KD" not in shown.out and "local only" not in shown.out
    assert not any("-" in line.split() for line in shown.out.splitlines())


def test_a_page_and_its_figures_are_written_and_named(runs: Path) -> None:
    shown = softbeam(
        "compare", "runs", "--label", "eight bits", "--label", "half", "--page", "c.html", "--page-figures"
    )
    assert shown.code == 0
    assert "eight bits" in Path("c.html").read_text()
    assert sorted(path.name for path in Path("c-figures").glob("leader.*")) == [
        "leader.pdf",
        "leader.png",
        "leader.svg",
    ]
    assert shown.out.splitlines()[-2:] == [str(Path("c.html").resolve()), str(Path("c-figures").resolve())]
