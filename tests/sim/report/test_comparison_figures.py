"""Figures of a comparison: what each shows is said, what is missing is left out, and many rows stay readable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.report.comparison_figures import MAX_LABEL, MAX_PANELS, Shown, draw_all_of
from sim.report.pairs import contenders_of
from sim.report.strategies import comparisons_of
from sim.report.style import GAIN, LOSS, MUTED
from sim.report.summaries import load_summary, with_labels
from tests.sim.report.test_html import write_run

CODECS = ("uint8", "float16", "float32", "uint4", "top8", "top16", "argmax", "uint8+zlib", "uint8+delta")


def drawn(runs: list[Path], *labels: str) -> dict[str, Shown]:
    summaries: list[dict[str, Any]] = [load_summary(run) for run in runs]
    (comparison,) = comparisons_of(with_labels(summaries, labels) if labels else summaries)
    return draw_all_of(comparison, contenders_of(comparison))


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Shown]:
    folder = tmp_path_factory.mktemp("runs")
    levels = {"uint8": 0.7, "float16": 0.6, "uint4": 0.698}
    return drawn(
        [
            write_run(folder / f"{codec}-{seed}", seed=seed, federated=level + 0.01 * seed, codec=codec, rounds=3)
            for codec, level in levels.items()
            for seed in (0, 1)
        ]
    )


def test_each_row_is_drawn_against_the_first_in_the_colour_of_what_it_is(figures: dict[str, Shown]) -> None:
    (axis,) = figures["leader"].figure.axes
    colours = {line.get_marker(): line.get_color() for line in axis.lines if line.get_marker() not in ("None", "")}
    assert colours == {"o": MUTED, "v": LOSS}
    assert [text.get_text() for text in axis.texts] == ["-0.2", "-10.0"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["2 street codec=uint4", "3 street codec=float16"]
    assert axis.get_xlabel() == "Top-5, points"
    assert "1 tie, 1 worse" in figures["leader"].caption and "flatters" in figures["leader"].caption


def test_a_row_is_drawn_against_its_own_controls(figures: dict[str, Shown]) -> None:
    alone, taught = figures["controls"].figure.axes
    assert [axis.get_title() for axis in (alone, taught)] == ["against local only", "against offline KD"]
    assert [text.get_text() for text in alone.texts] == ["+20.5", "+20.3", "+10.5"]
    assert {line.get_color() for line in alone.lines if line.get_marker() == "^"} == {GAIN}
    assert "against local only 3 better; against offline KD 3 better" in figures["controls"].caption


def test_scores_have_a_panel_for_all_each_kind_and_the_teacher_with_each_seed(figures: dict[str, Shown]) -> None:
    axes = figures["scores"].figure.axes
    assert [axis.get_title() for axis in axes] == ["all clients", "camera", "radar", "gps", "teacher"]
    means = [float(np.asarray(line.get_xdata())[0]) for line in axes[0].lines if line.get_marker() == "o"]
    assert means == pytest.approx([70.5, 70.3, 60.5])
    seeds = [list(map(float, line.get_xdata())) for line in axes[0].lines if line.get_marker() == "."]
    assert seeds[0] == pytest.approx([70.0, 71.0])
    assert "10.0 points apart, between 60.5 and 70.5 %" in figures["scores"].caption


def test_each_row_has_a_panel_by_round_with_the_others_behind(figures: dict[str, Shown]) -> None:
    axes = figures["curves"].figure.axes
    assert [axis.get_title() for axis in axes] == [
        "1 street codec=uint8",
        "2 street codec=uint4",
        "3 street codec=float16",
    ]
    assert all(len(axis.lines) == 4 for axis in axes)
    assert "From the first round to the last it changes by +0.0 points in each." in figures["curves"].caption


def test_the_front_is_named_under_the_bytes(figures: dict[str, Shown]) -> None:
    assert "fewer bytes than 1 (street codec=uint8)." in figures["bytes"].caption


def test_one_row_has_no_figure_of_differences_or_rounds_and_no_round_has_no_curves(tmp_path: Path) -> None:
    assert list(drawn([write_run(tmp_path / "one", controls=False)])) == ["scores", "bytes"]
    runs = [write_run(tmp_path / codec, codec=codec, controls=False) for codec in ("uint8", "float16")]
    assert list(drawn(runs)) == ["leader", "scores", "curves", "bytes"]
    for run in runs:
        (run / "rounds.jsonl").write_text("")
    assert list(drawn(runs)) == ["leader", "scores", "bytes"]


def test_many_rows_have_panels_for_the_best_alone_and_labels_that_fit(tmp_path: Path) -> None:
    count = MAX_PANELS + 2
    runs = [write_run(tmp_path / str(i), federated=0.4 + 0.01 * i, codec="uint8", rounds=2) for i in range(count)]
    for i, run in enumerate(runs):
        text = (run / "experiment.yaml").read_text().replace("name: street", f"name: street-{i}")
        (run / "experiment.yaml").write_text(text)
        summary = (run / "summary.json").read_text().replace('"street"', f'"street-{i}"')
        (run / "summary.json").write_text(summary)
    figures = drawn(runs, *(f"a label that is much too long to stand beside an axis $x$ {i}" for i in range(count)))
    assert len(figures["curves"].figure.axes) == MAX_PANELS
    assert "Shown are the best 12; 2 more are not." in figures["curves"].caption
    (axis,) = figures["leader"].figure.axes
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert len(labels) == count - 1 and max(map(len, labels)) <= MAX_LABEL + 5
