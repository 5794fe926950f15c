"""The page of a comparison: whole, true to its runs, safe, and apart for other data."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from sim.report.comparison_page import write_comparison
from sim.report.strategies import comparisons_of
from sim.report.summaries import load_summary, with_labels
from tests.sim.report.test_html import Page, visible, write_run


def written(folder: Path, runs: list[Path], *labels: str, with_files: bool = False) -> str:
    summaries = [load_summary(run) for run in runs]
    page = folder / "page.html"
    write_comparison(
        comparisons_of(with_labels(summaries, labels) if labels else summaries), page, with_files=with_files
    )
    return page.read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("comparison")


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    levels = {"uint8": 0.7, "float16": 0.6, "uint4": 0.698}
    runs = [
        write_run(folder / f"{codec}-{seed}", seed=seed, federated=level + 0.01 * seed, codec=codec, problem="no reply")
        for codec, level in levels.items()
        for seed in (0, 1)
    ]
    return written(folder, runs, "eight <bits>", "half", "four", with_files=True)


def test_the_page_is_whole_and_asks_for_nothing_from_outside(page: str) -> None:
    found = Page(page)
    assert found.open == [] and len(set(found.ids)) == len(found.ids)
    assert not re.search(r"""(src|href)=["']?(?!#|data:)[^"'\s>]""", page.replace("xmlns:xlink=", ""))
    assert "default-src 'none'" in page and "<script" not in page


def test_the_verdict_every_pair_and_the_settings_are_on_it(page: str) -> None:
    shown = visible(page)
    assert "There is no clear winner: eight &lt;bits&gt; has the highest mean Top-5, and ties with four" in shown
    assert "Clearly behind: half." in shown
    assert "▲ +10.0" in shown and "▼ -10.0" in shown and "● +0.2" in shown
    assert "strategy.codec" in shown and "float16" in shown
    assert "3 rows of 6 runs; mean±s.d. over 2 seeds" in shown
    assert "--page compare.html" in shown


def test_labels_and_reasons_are_never_markup(page: str) -> None:
    assert "eight &lt;bits&gt;" in page and "<bits>" not in page


def test_its_figures_lie_beside_it_on_request(folder: Path, page: str) -> None:
    assert page.count("<figure>") == 5
    stems = {path.stem for path in (folder / "page-figures").iterdir()}
    assert stems == {"leader", "scores", "controls", "curves", "bytes"}
    assert len(list((folder / "page-figures").iterdir())) == 15


def test_a_winner_is_said_in_the_colour_of_a_gain(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / codec, federated=level, codec=codec) for codec, level in (("a", 0.7), ("b", 0.6))]
    shown = written(tmp_path, runs)
    assert 'class="verdict helped"' in shown and "by 10.0 points of Top-5" in shown
    assert "Every pair" not in shown  # the figure says it


def test_other_data_has_a_section_of_its_own(tmp_path: Path) -> None:
    runs = []
    for name, source in (("a", "street"), ("b", "deepsense")):
        runs.append(run := write_run(tmp_path / name))
        values = yaml.safe_load((run / "experiment.yaml").read_text())
        (run / "experiment.yaml").write_text(yaml.safe_dump({**values, "data": {"source": source}}))
    page = written(tmp_path, runs)
    shown = visible(page)
    assert "on 2 data sets, which are not compared with each other" in shown
    assert shown.count("There is one row only") == 2
    assert "Data 1 (source=street)" in shown and "Data 2 (source=deepsense)" in shown
    assert len(set(Page(page).ids)) == len(Page(page).ids)


def test_a_page_without_any_score_or_with_a_bad_name_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", rounds=0)
    with pytest.raises(ValueError, match="--page: no run has a client that was scored"):
        written(tmp_path, [run])
    with pytest.raises(ValueError, match=r"expected a name that ends in \.html or \.htm"):
        write_comparison([], tmp_path / "page.pdf")
    assert not (tmp_path / "page.html").exists()
