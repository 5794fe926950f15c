"""The example of handwritten digits: another task, three architectures, unlike clients, strategies side by side."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.loading import load_experiment
from configs.recipes import RECIPES
from sim.experiments import run_experiment
from tests.conftest import CHECKOUT
from tests.federations import assert_same_outcome, quiet

pytest.importorskip("sklearn", reason="the example takes its images from scikit-learn: pip install scikit-learn")

EXAMPLE = CHECKOUT / "examples/digits"
# Three clients of each architecture in place of 7, 7 and 6.
SMALL = [f"data.nodes.{number}.count=3" for number in range(3)]
QUICK = [
    *("training.first_round_steps=3", "training.steps_per_round=2", "controls=false", "strategy.rounds=2"),
    *("teaching.pretrain_steps=5", "teaching.first_round_steps=2", "teaching.steps_per_round=2"),
]
# Weights of three architectures cannot be averaged, and nobody knows the labels of the public set.
DO_NOT_APPLY = ("fedavg", "fedgems")


def write(folder: Path, clients: int) -> Path:
    """The example in a folder of its own, with its data dealt to some clients."""
    folder.mkdir()
    for name in ("digits.py", "digits.yaml"):
        shutil.copy(EXAMPLE / name, folder / name)
    runpy.run_path(str(folder / "digits.py"))["write"](folder / "digits-data", clients=clients)
    return folder


def run(folder: Path, *overrides: str, counts: Sequence[str] = SMALL, out: str = "runs") -> Path:
    experiment = load_experiment(folder / "digits.yaml", ["engine.name=inline", *counts, *overrides])
    return run_experiment(experiment, plugins=(folder,), out=folder / out, progress=quiet)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("example") / "digits", clients=9)


@pytest.fixture(scope="module")
def summary(folder: Path) -> dict[str, Any]:
    """What a run of the example left behind, with nine clients."""
    found: dict[str, Any] = json.loads((run(folder) / "summary.json").read_text())
    return found


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The whole example where a client decides by the mixture of its student and its local self."""
    folder = write(tmp_path_factory.mktemp("whole") / "digits", clients=20)
    done = run(folder, "strategy.keeps=mixture", counts=())
    found: dict[str, Any] = json.loads((done / "summary.json").read_text())
    return found


def gains(summary: dict[str, Any], test: str = "") -> list[float]:
    """By how many points each client is better than its local-only student, on the common test set or on its own."""
    arms = [client[test] if test else client for client in summary["clients"]]
    return [100 * (one["federated"]["accuracy"][0] - one["local"]["accuracy"][0]) for one in arms]


def test_the_yaml_names_twenty_clients_of_three_architectures() -> None:
    text = (EXAMPLE / "digits.yaml").read_text()
    assert sum(int(count) for count in re.findall(r"count: (\d+)", text)) == 20
    assert len(set(re.findall(r"student: (\{.*?\})", text))) == 3


def test_clients_are_unlike_and_the_public_set_has_no_labels(folder: Path) -> None:
    data = folder / "digits-data"
    assert not (data / "public/labels.npy").exists()
    shares = []
    for client in sorted((data / "clients").iterdir()):
        labels = np.load(client / "labels.npy")
        shares.append(np.bincount(labels, minlength=10) / len(labels))
    together = np.mean(shares, axis=0)
    assert max(np.abs(one - together).sum() / 2 for one in shares) > 0.5


def test_the_federation_beats_learning_alone_for_the_mean_client_on_both_tests(summary: dict[str, Any]) -> None:
    assert np.mean(gains(summary)) > 5.0
    assert np.mean(gains(summary, "own")) > 0.0


@pytest.mark.parametrize("test", ["", "own"])
def test_with_its_guard_no_client_is_a_point_below_learning_alone_and_the_mean_one_gains(
    test: str, guarded: dict[str, Any]
) -> None:
    assert len(guarded["clients"]) == 20
    assert np.mean(gains(guarded, test)) > 0.2
    assert min(gains(guarded, test)) > -1.0


def test_every_client_has_global_and_personalised_scores_and_its_bytes_are_counted(summary: dict[str, Any]) -> None:
    assert len({client["parameters"] for client in summary["clients"]}) == 3
    for client in summary["clients"]:
        for scores in (client["federated"], client["own"]["federated"], client["own"]["local"]):
            assert set(scores) == {"accuracy", "balanced", "log_loss"}
        assert client["uplink_bytes"] > 0 and client["downlink_bytes"] > 0


@pytest.mark.parametrize("strategy", [name for name in RECIPES if name not in DO_NOT_APPLY])
def test_every_strategy_that_applies_runs(strategy: str, folder: Path) -> None:
    done = run(folder, *QUICK, f"strategy.name={strategy}", out=strategy)
    for client in json.loads((done / "summary.json").read_text())["clients"]:
        assert client["federated"] is not None and client["refused"] == 0


def test_the_page_compares_every_strategy_that_applies() -> None:
    page = (EXAMPLE / "README.md").read_text()
    (names,) = re.findall(r"--strategies (\S+)", page)
    # The baseline of pooled data is no federation.
    assert set(names.split(",")) == set(RECIPES) - {*DO_NOT_APPLY, "centralised"}
    rows = re.findall(r"^\| (\w+) \|", page, flags=re.MULTILINE)
    assert sorted(rows) == sorted([*names.split(","), "strategy"])


def test_to_correct_the_teacher_needs_labels_of_the_public_set(folder: Path) -> None:
    with pytest.raises(ValueError, match="needs the classes of the public set, and the server has none"):
        run(folder, *QUICK, "strategy.name=fedgems", out="fedgems")


def test_weights_of_unlike_students_are_not_averaged(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.nodes\.1\.student: fedavg averages weights, so all image students"):
        run(folder, *QUICK, "strategy.name=fedavg", out="fedavg")


@pytest.mark.ray
@pytest.mark.usefixtures("running_ray")
def test_ray_gives_the_same_bits(folder: Path) -> None:
    inline, ray = (run(folder, *QUICK, f"engine.name={name}", out=f"on-{name}") for name in ("inline", "ray"))
    assert_same_outcome(inline, ray)
