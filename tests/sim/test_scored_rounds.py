"""With ``strategy.evaluate_every`` learners are scored in some rounds only, and learn what they learn without it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from configs.loading import build_experiment
from server.recorder import read_rounds, without_stale
from sim.report.captions import captions_of
from sim.report.figures import Run, draw_learning_curves
from tests.conftest import tiny_values
from tests.federations import place, run_apps

SCORES = ("common", "common_now", "own")
ROUNDS = 5


def run(folder: Path, evaluate_every: int, **strategy: Any) -> Path:
    values = tiny_values(rounds=ROUNDS, evaluate_every=evaluate_every, **strategy)
    values["controls"] = False
    # A LiDAR client that leaves after a round that would not be scored.
    values["data"]["nodes"] = [{"modality": "gps", "count": 2}, {"modality": "lidar", "count": 1, "last_round": 3}]
    placement = place(build_experiment(values, origin="test"), folder)
    run_apps(placement)
    return placement.run


@pytest.fixture(scope="module")
def runs(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A run that is scored in every round, and the same one that is scored in every second one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTBEAM_HOME", str(home))
        folder = tmp_path_factory.mktemp("scored")
        yield run(folder / "one", 1), run(folder / "two", 2)


def test_rounds_between_have_no_scores_and_all_others_have_those_of_a_run_that_scores_always(
    runs: tuple[Path, Path],
) -> None:
    for always, sometimes in zip(*map(read_rounds, runs), strict=True):
        number = always["round"]
        teacher, other = sometimes["teacher"], always["teacher"]
        assert (teacher["kept"], teacher["validation"]) == (other["kept"], other["validation"])
        is_scored = number in (2, 4, 5)
        assert (teacher["common"], teacher["common_now"]) == (
            (other["common"], other["common_now"]) if is_scored else (None, None)
        )
        assert set(sometimes["clients"]) == set(always["clients"])
        for client, entry in sometimes["clients"].items():
            other = always["clients"][client]
            same = entry.keys() - {*SCORES, "passes_top5", "seconds"}
            assert {name: entry[name] for name in same} == {name: other[name] for name in same}
            is_scored = number in (2, 4, 5) or (client == "002-lidar" and number == 3)
            for name in SCORES:
                assert entry[name] == (other[name] if is_scored else None), (number, client, name)


def test_the_summary_is_that_of_a_run_that_scores_always(runs: tuple[Path, Path]) -> None:
    one, two = (json.loads((folder / "summary.json").read_text()) for folder in runs)
    for client, other in zip(two["clients"], one["clients"], strict=True):
        assert client == other
        assert client["federated"] is not None
    assert two["teacher"] == one["teacher"]
    assert json.loads((runs[1] / "passes.json").read_text()) == json.loads((runs[0] / "passes.json").read_text())


def test_the_curves_connect_the_scored_rounds_and_their_caption_says_so(runs: tuple[Path, Path]) -> None:
    always, sometimes = (Run(json.loads((folder / "summary.json").read_text()), read_rounds(folder)) for folder in runs)
    said = "Learners were scored in these rounds only"
    assert said not in captions_of([always])["learning-curves"]
    assert said in captions_of([sometimes])["learning-curves"]
    assert "A gap is" not in captions_of([sometimes])["learning-curves"]
    axis = draw_learning_curves([sometimes]).axes[0]
    curve = next(line for line in axis.lines if line.get_label() == "federated, kept")
    assert list(curve.get_xdata()) == [2, 4, 5]


def test_a_client_that_last_took_part_in_a_round_without_scores_has_none_in_the_summary(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOFTBEAM_HOME", str(home))
    folder = run(tmp_path / "drawn", 5, participation=0.67)
    last = {client: line["round"] for line in read_rounds(folder) for client in line["clients"]}
    summary = json.loads((folder / "summary.json").read_text())
    scored = {client["id"]: client["federated"] is not None for client in summary["clients"]}
    is_current = {client: number == 5 or (client == "002-lidar" and number == 3) for client, number in last.items()}
    assert {client: scored[client] for client in last} == is_current
    assert set(is_current.values()) == {True, False}


@pytest.mark.parametrize("part", ["common", "own"])
def test_scores_on_any_test_of_the_last_round_are_not_stale(part: str) -> None:
    """A node without the common test set is scored on its own test alone."""
    scored = {"problem": "", "common": None, "own": None, part: {"top5": [0.5]}}
    between = {"problem": "", "common": None, "own": None}
    assert list(without_stale([between, scored])) == [between, scored]
    assert list(without_stale([scored, between])) == []
    assert list(without_stale([scored, {**between, "problem": "away"}])) != []
