"""The laws that every strategy keeps, held over each recipe: three rounds on the inline engine."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from clients.app import build_app as build_client_app
from clients.data.recording import PUBLIC_POWER
from configs.loading import build_experiment
from configs.placement import HOME_VARIABLE
from configs.recipes import RECIPES
from configs.schema import Experiment
from server.checkpoint import load_checkpoint
from server.recorder import read_rounds
from strategies.registry import STRATEGIES
from tests.conftest import tiny_values
from tests.federations import assert_same_outcome, place, run_apps

YARDSTICKS = {"local", "centralised", "fedavg"}


def experiment(name: str, *, controls: bool = False, **strategy: Any) -> Experiment:
    return build_experiment({**tiny_values(name=name, **strategy), "controls": controls}, origin="test")


@pytest.fixture(scope="module")
def runs(home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of every strategy."""
    out = tmp_path_factory.mktemp("strategies")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOME_VARIABLE, str(home))
        for name in RECIPES:
            run_apps(place(experiment(name, controls=name == "local"), out / name))
    return {name: out / name for name in RECIPES}


@lru_cache
def summary(run: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((run / "summary.json").read_text())
    return found


def test_every_strategy_has_a_recipe_and_a_class() -> None:
    assert set(STRATEGIES) == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_nobody_is_refused_and_everybody_is_scored_in_every_round(name: str, runs: dict[str, Path]) -> None:
    lines = read_rounds(runs[name])
    assert len(lines) == 3
    for line in lines:
        assert set(line["clients"]) == {"000-gps", "001-gps", "002-lidar"}
        for client in line["clients"].values():
            assert client["problem"] == ""
            assert client["common"] is not None
            assert np.isfinite(client["loss"])


@pytest.mark.parametrize("name", RECIPES)
def test_the_same_strategy_gives_the_same_bits_with_nodes_and_replies_shuffled(
    name: str, runs: dict[str, Path], tmp_path: Path
) -> None:
    placement = place(experiment(name), tmp_path / "shuffled")
    run_apps(placement, shuffle_seed=7)
    assert_same_outcome(runs[name], placement.run)


@pytest.mark.parametrize("name", sorted(set(RECIPES) - {"local", "centralised"}))
def test_a_run_that_is_killed_and_resumed_ends_as_if_nothing_had_happened(
    name: str, runs: dict[str, Path], tmp_path: Path
) -> None:
    class Killed(BaseException):
        pass

    placement = place(experiment(name), tmp_path / "killed")
    inner = build_client_app(placement)

    class Dies(ClientApp):
        def __call__(self, message: Message, context: Context) -> Message:
            if message.metadata.message_type == "train.round" and message.content["header"]["round"] == 3:
                raise Killed
            return inner(message, context)

    with pytest.raises(Killed):
        run_apps(placement, client_app=Dies())
    run_apps(placement)
    assert_same_outcome(runs[name], placement.run)


MASKED = {"name": "distillation", "secure_sum": True, "aggregator": {"name": "mean"}}


@pytest.mark.parametrize("strategy", [*({"name": name} for name in RECIPES), MASKED], ids=[*RECIPES, "masked"])
def test_a_reply_that_is_lost_costs_its_client_that_answer_and_no_other(
    strategy: dict[str, Any], tmp_path: Path
) -> None:
    placement = place(experiment(**strategy, rounds=4), tmp_path / "lossy")
    inner = build_client_app(placement)

    class Loses(ClientApp):
        def __call__(self, message: Message, context: Context) -> Message:
            reply = inner(message, context)
            is_first = context.node_config["partition-id"] == 0 and message.metadata.message_type == "train.round"
            if is_first and message.content["header"]["round"] == 2:
                return Message(Error(1, "the node went away"), reply_to=message)
            return reply

    run_apps(placement, client_app=Loses())
    problems = [line["clients"]["000-gps"]["problem"] for line in read_rounds(placement.run)]
    assert [bool(problem) for problem in problems] == [False, True, False, False]
    checkpoint = load_checkpoint(placement.run)
    assert checkpoint is not None
    # It holds what the others hold.
    assert len(set(checkpoint.federation.known_rounds.values())) <= 1


@pytest.mark.parametrize("name", sorted(set(RECIPES) - {"local", "centralised"}))
def test_knowledge_goes_both_ways(name: str, runs: dict[str, Path]) -> None:
    first, second, third = read_rounds(runs[name])
    for client in second["clients"]:
        assert first["clients"][client]["uplink_bytes"] > 0
        assert second["clients"][client]["downlink_bytes"] > 0
        assert third["clients"][client]["downlink_bytes"] > 0


@pytest.mark.parametrize("name", sorted(set(RECIPES) - YARDSTICKS))
def test_neither_weights_nor_frames_travel(name: str, tmp_path: Path) -> None:
    placement = place(experiment(name), tmp_path / "watched")
    inner = build_client_app(placement)
    seen: list[Message] = []

    class Watches(ClientApp):
        def __call__(self, message: Message, context: Context) -> Message:
            reply = inner(message, context)
            seen.extend((message, reply))
            return reply

    run_apps(placement, client_app=Watches())
    names = {key.rpartition("/")[2] for message in seen for key in message.content.array_records}
    assert names <= {"targets", "ask", "labels", *(["arrays"] if name == "fedproto" else [])}
    arrays = {
        key
        for message in seen
        for record_name, record in message.content.array_records.items()
        if record_name.endswith("/arrays")
        for key in record
    }
    assert arrays <= {"classes", "features", "counts"}


def test_a_strategy_of_nobody_s_is_the_local_control(runs: dict[str, Path]) -> None:
    clients = summary(runs["local"])["clients"]
    assert isinstance(clients, list)
    for client in clients:
        assert client["federated"] == client["local"]
        assert client["uplink_bytes"] == client["downlink_bytes"] == 0


def test_fedgems_asks_for_less_than_it_publishes(runs: dict[str, Path]) -> None:
    # A teacher of a few steps gets hardly a sample right; how many it asks for is proved in `test_distillation`.
    for line in read_rounds(runs["fedgems"]):
        assert line["num_asked"] <= line["num_targets"] == 24


def test_best_beams_that_are_missing_are_noticed_before_the_teacher_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placement = place(experiment("fedgems"), tmp_path / "run")
    federation = shutil.copytree(placement.federation, tmp_path / "federation")
    (federation / PUBLIC_POWER).unlink()
    monkeypatch.setattr("server.session.pretrain", lambda *arguments: pytest.fail("trained a teacher for nothing"))
    with pytest.raises(ValueError, match=r"^strategy\.publish: corrected needs the classes of the public set"):
        run_apps(replace(placement, federation=federation))


def test_the_centralised_yardstick_costs_the_recordings(runs: dict[str, Path]) -> None:
    clients = summary(runs["centralised"])["clients"]
    assert isinstance(clients, list)
    gps, _, lidar = clients
    assert lidar["uplink_bytes"] > gps["uplink_bytes"] > 0
