"""Clients that compute less, come later, leave earlier or hold a part of the public set, from config to report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.exchanges.base import Exchange
from clients.profile import profiles_of
from clients.training import make_learner
from configs.loading import build_experiment, data_digest
from configs.schema import Experiment
from server.recorder import read_rounds
from sim.cli.preview import cost_of
from sim.experiments import run_experiment
from strategies.registry import find_plugins
from tests.conftest import tiny_values
from tests.federations import assert_same_outcome, place, quiet, run_apps

SLOW = {"modality": "gps", "training": {"first_round_steps": 2, "steps_per_round": 1, "batch_size": 4}}
LATE = {"modality": "gps", "first_round": 2}
LEAVES = {"modality": "lidar", "last_round": 2}
HALF = {"modality": "gps", "public_share": 0.5}
NODES = [SLOW, LATE, LEAVES, HALF]


def values(nodes: list[dict[str, Any]], **strategy: Any) -> dict[str, Any]:
    found = tiny_values(**strategy)
    found["data"] = {**found["data"], "nodes": nodes}
    found["students"] = {name: found["students"][name] for name in {one["modality"] for one in nodes}}
    return found


def experiment(nodes: list[dict[str, Any]], **strategy: Any) -> Experiment:
    return build_experiment(values(nodes, **strategy), origin="test")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTBEAM_HOME", str(home))
        folder = tmp_path_factory.mktemp("runs")
        return run_experiment(experiment(NODES, public_samples=0), plugins=(), out=folder, progress=quiet)


def test_clients_take_part_in_their_rounds_and_keep_what_they_knew_last(run: Path) -> None:
    rounds = read_rounds(run)
    there = [sorted(line["clients"]) for line in rounds]
    everyone = ["000-gps", "001-gps", "002-lidar", "003-gps"]
    assert there == [["000-gps", "002-lidar", "003-gps"], everyone, ["000-gps", "001-gps", "003-gps"]]
    assert not any(entry["problem"] for line in rounds for entry in line["clients"].values())
    summary = json.loads((run / "summary.json").read_text())
    left = summary["clients"][2]
    assert left["federated"] == rounds[1]["clients"]["002-lidar"]["common"]
    assert all(client[arm] for client in summary["clients"] for arm in ("local", "offline_kd", "federated"))


def test_a_client_that_holds_half_of_the_public_passes_answers_for_these_alone(run: Path) -> None:
    asked = {line["round"]: line for line in read_rounds(run)}
    for line in asked.values():
        counts = {client: entry["num_answers"] for client, entry in line["clients"].items()}
        assert counts["000-gps"] == line["num_asked"]
        assert 0 < counts["003-gps"] < counts["000-gps"]


def test_the_report_and_the_summary_say_who_differs_and_how(run: Path) -> None:
    differs = [client["differs"] for client in json.loads((run / "summary.json").read_text())["clients"]]
    assert differs == [{"training": SLOW["training"]}, {"rounds": [2, 3]}, {"rounds": [1, 2]}, {"public_share": 0.5}]
    page = (run / "report.html").read_text()
    for line in (
        "000-gps: 2 steps in its first round; 1 steps in a later round; batches of 4",
        "001-gps: rounds 2 to 3",
        "002-lidar: rounds 1 to 2",
        "003-gps: 50% of the passes of the public set",
    ):
        assert line in page


def test_controls_and_rounds_of_a_client_take_the_steps_of_its_node(tmp_path: Path) -> None:
    plan = experiment(NODES)
    assert plan.training_of("000-gps", "gps").total_steps(plan.expected_rounds("000-gps", "gps")) == 2 + 1 + 1
    assert plan.training_of("001-gps", "gps").total_steps(plan.expected_rounds("001-gps", "gps")) == 4 + 3
    assert plan.training_of("003-gps", "gps") == plan.training
    steps = cost_of(plan, find_plugins(place(plan, tmp_path))[0])["steps"]
    assert steps["client"] == 10
    assert steps["all"] == 3 * (4 + 7 + 7 + 10) + 8 + 9


def test_inputs_are_scaled_by_the_public_passes_that_a_client_holds(tmp_path: Path) -> None:
    placement = place(experiment(NODES), tmp_path)
    profiles = [profiles_of({"partition-id": number}, placement.federation)[0] for number in (1, 3)]
    whole, half = (make_learner(profile, placement.experiment) for profile in profiles)
    held = half.material.held
    assert whole.material.held is None and held is not None
    passes = half.material.public.pass_ids[half.material.public_starts]
    assert set(passes[held]).isdisjoint(np.delete(passes, held)), "whole passes are held"
    scales = [one.model.state_dict()["encoders.gps.standardise.mean"].numpy() for one in (whole, half)]
    assert not np.array_equal(*scales)
    again = make_learner(profiles[1], placement.experiment)
    assert again.material.held is not None
    np.testing.assert_array_equal(again.material.held, held)


def test_targets_of_samples_that_a_client_does_not_hold_teach_it_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placement = place(experiment([HALF, {"modality": "gps"}], teacher_starts=True), tmp_path)
    seen: dict[str, set[int]] = {}
    held: dict[str, set[int]] = {}
    plain = Exchange.make_learner.__func__  # type: ignore[attr-defined]

    def watched(cls: type[Exchange], context: Any, state: Any = None) -> Any:
        learner = plain(cls, context, state)
        name, read = context.profile.id, learner.read
        ids = {int(start): number for number, start in enumerate(learner.material.public_starts)}
        held[name] = set(range(len(ids)) if learner.material.held is None else learner.material.held.tolist())

        def noting(recording: Any, starts: Any) -> Any:
            if recording is learner.material.public:
                seen.setdefault(name, set()).update(ids[int(start)] for start in starts)
            return read(recording, starts)

        learner.read = noting
        return learner

    monkeypatch.setattr(Exchange, "make_learner", classmethod(watched))
    run_apps(placement)
    assert seen["000-gps"] and seen["000-gps"] <= held["000-gps"]
    assert len(held["000-gps"]) < len(held["001-gps"])


def test_a_run_is_the_same_in_any_order_of_replies(tmp_path: Path) -> None:
    for name, seed in (("one", None), ("other", 5)):
        run_apps(place(experiment(NODES), tmp_path / name), shuffle_seed=seed)
    assert_same_outcome(tmp_path / "one", tmp_path / "other")


@pytest.mark.ray
@pytest.mark.usefixtures("running_ray")
def test_ray_gives_the_same_bits(run: Path, tmp_path: Path) -> None:
    found = values(NODES, public_samples=0)
    found["engine"] = {"name": "ray", "workers": 1}
    other = run_experiment(build_experiment(found, origin="test"), plugins=(), out=tmp_path, progress=quiet)
    assert_same_outcome(run, other)


def test_what_learns_and_when_changes_nothing_of_the_data() -> None:
    plain = [{"modality": nodes["modality"]} for nodes in NODES]
    assert data_digest(experiment(plain)) == data_digest(experiment(NODES))


@pytest.mark.parametrize(
    ("nodes", "strategy", "told"),
    [
        ([{**LATE, "first_round": 4}], {}, "data.nodes.0.first_round: strategy.rounds is 3, so round 4 never comes"),
        ([{**LATE, "last_round": 1}], {}, "data.nodes.0.last_round: must be at least first_round (2), got 1"),
        ([LATE], {}, "data.nodes: no client is there in round 1, and 1 must be"),
        (
            [{"modality": "gps"}, LATE],
            {"secure_sum": True, "aggregator": {"name": "mean"}, "codec": "float32", "publish": "ensemble"},
            "data.nodes: 1 client is there in round 1, and 2 must be",
        ),
        ([HALF], {"name": "fedavg"}, "data.nodes.0.public_share: fedavg asks for no soft labels of public samples"),
        ([HALF], {"name": "fd"}, "data.nodes.0.public_share: fd asks for no soft labels of public samples"),
        (
            [HALF, HALF],
            {"secure_sum": True, "aggregator": {"name": "mean"}, "codec": "float32", "publish": "ensemble"},
            "data.nodes.0.public_share: with strategy.secure_sum every client needs every public sample",
        ),
        ([HALF], {"relations": {}}, "data.nodes.0.public_share: with strategy.relations every client needs"),
        ([{**HALF, "public_share": 0.0}], {}, "data.nodes.0.public_share: must be greater than 0"),
        ([{**SLOW, "training": {"steps": 3}}], {}, "data.nodes.0.training.steps: unknown key"),
        ([{**SLOW, "training": {"batch_size": 0}}], {}, "data.nodes.0.training.batch_size: must be greater"),
    ],
)
def test_a_node_that_cannot_be_so_is_refused_by_its_path(
    nodes: list[dict[str, Any]], strategy: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError) as caught:
        experiment(nodes, **strategy)
    assert told in str(caught.value)
