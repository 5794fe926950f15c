"""Federations whose nodes carry several clients end like those of one client on each node, on every engine."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID

import clients.handlers
from clients.app import build_app as build_client_app
from clients.context import ClientContext
from clients.learning.state import unpack_state
from clients.profile import cohorts_of
from configs.loading import build_experiment
from configs.schema import Engine, Experiment
from server.app import build_app as build_server_app
from server.recorder import read_rounds
from server.session import Watch
from sim.inline import InlineGrid
from sim.launch import launch
from tests.conftest import tiny_values
from tests.federations import assert_same_outcome, outcome, place, run_apps

GPS = ["000-gps", "001-gps", "002-gps", "003-gps"]
CLIENTS = [*GPS, "004-lidar", "005-lidar"]
TOLERANCE = 1e-5


def experiment(cohort: int | str, **strategy: Any) -> Experiment:
    """Four GPS clients and two LiDAR clients; soft labels travel as they are."""
    values = tiny_values(codec="float32", **strategy)
    values["data"]["nodes"] = [{"modality": "gps", "count": 4}, {"modality": "lidar", "count": 2}]
    values["engine"]["cohort"] = cohort
    return build_experiment(values, origin="test")


@pytest.fixture(scope="module")
def finished(home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int | str, Path]:
    """The run folders by the size of a cohort."""
    runs = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTBEAM_HOME", str(home))
        for cohort in (1, 4, "auto"):
            placement = place(experiment(cohort), tmp_path_factory.mktemp(f"cohort-{cohort}") / "tiny")
            run_apps(placement)
            runs[cohort] = placement.run
    return runs


def states(run: Path) -> dict[str, Any]:
    """What each client remembers of the last round."""
    return {client: unpack_state(max((run / "clients" / client).glob("*.state")).read_bytes()) for client in CLIENTS}


@pytest.mark.parametrize("cohort", [4, "auto"])
def test_a_federation_of_cohorts_is_that_of_single_clients_within_1e_5(
    finished: dict[int | str, Path], cohort: int | str
) -> None:
    (one, lines), (other, other_lines) = outcome(finished[1]), outcome(finished[cohort])
    for (name, wanted), (other_name, found) in zip(one, other, strict=True):
        assert name == other_name
        np.testing.assert_allclose(found, wanted, atol=TOLERANCE)
    for line, other_line in zip(lines, other_lines, strict=True):
        assert line["clients"].keys() == other_line["clients"].keys() == set(CLIENTS)
        for client, entry in line["clients"].items():
            assert entry["problem"] == other_line["clients"][client]["problem"] == ""
            for part in ("downlink_bytes", "uplink_bytes", "num_answers"):
                assert entry[part] == other_line["clients"][client][part]
    wanted, found = states(finished[1]), states(finished[cohort])
    for client in CLIENTS:
        weights, others = (state[client]["learner"]["model"] for state in (wanted, found))
        for name, value in weights.items():
            torch.testing.assert_close(others[name], value, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("cohort", [4, "auto"])
def test_the_same_cohorts_give_the_same_bits_with_nodes_and_replies_shuffled(
    finished: dict[int | str, Path], tmp_path: Path, cohort: int | str
) -> None:
    placement = place(experiment(cohort), tmp_path / "shuffled")
    run_apps(placement, shuffle_seed=5)
    assert_same_outcome(finished[cohort], placement.run)


@pytest.mark.ray
@pytest.mark.parametrize("workers", [1, 2])
def test_ray_gives_the_same_bits_for_the_same_cohorts(
    finished: dict[int | str, Path], tmp_path: Path, workers: int, request: pytest.FixtureRequest
) -> None:
    if workers == 2:
        request.getfixturevalue("running_ray")
    engine = Engine(name="ray", workers=workers, cohort="auto")
    placement = place(experiment("auto").model_copy(update={"engine": engine}), tmp_path / "ray")
    num_nodes = len(cohorts_of(placement.federation, placement.experiment))
    server_app = build_server_app(placement, Watch(num_nodes=num_nodes))
    launch(server_app, build_client_app(placement), num_nodes=num_nodes, engine=engine)
    assert_same_outcome(finished["auto"], placement.run)


class NotingApp(ClientApp):
    """Counts messages by their kind, and raises when a round begins if it is told to."""

    def __init__(self, inner: ClientApp, *, stops_in: int = 0) -> None:
        super().__init__()
        self.inner, self.stops_in = inner, stops_in
        self.messages: Counter[str] = Counter()

    def __call__(self, message: Message, context: Context) -> Message:
        kind = message.metadata.message_type
        self.messages[kind] += 1
        if kind == "train.round" and message.content["header"]["round"] == self.stops_in:
            raise Stopped
        return self.inner(message, context)


class Stopped(BaseException):
    """What ends the server without a chance to tidy up."""


@pytest.mark.parametrize(("cohort", "num_nodes"), [(1, 6), (4, 2), (6, 1), ("auto", 4)])
def test_one_message_goes_to_each_cohort_and_each_client_keeps_one_file_a_round(
    tmp_path: Path, cohort: int | str, num_nodes: int
) -> None:
    placement = place(experiment(cohort), tmp_path / "counted")
    app = NotingApp(build_client_app(placement))
    run_apps(placement, client_app=app)
    assert app.messages == {"query.hello": num_nodes, "train.controls": num_nodes, "train.round": 3 * num_nodes}
    for client in CLIENTS:
        files = sorted((placement.run / "clients" / client).iterdir())
        assert [path.name for path in files] == ["000001.state", "000002.state", "000003.state"]


def test_a_run_of_cohorts_that_is_stopped_and_resumed_ends_as_if_nothing_had_happened(
    finished: dict[int | str, Path], tmp_path: Path
) -> None:
    placement = place(experiment(4), tmp_path / "stopped")
    with pytest.raises(Stopped):
        run_apps(placement, client_app=NotingApp(build_client_app(placement), stops_in=3))
    assert [line["round"] for line in read_rounds(placement.run)] == [1, 2]
    run_apps(placement)
    assert_same_outcome(finished[4], placement.run)


def test_a_member_that_fails_in_a_round_is_left_out_alone(
    finished: dict[int | str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placement = place(experiment(4), tmp_path / "failing")
    memory = ClientContext.memory

    def failing(context: ClientContext) -> Any:
        if context.profile.id == "001-gps" and context.header.round == 2:
            raise OSError("its disk is gone")
        return memory(context)

    monkeypatch.setattr(clients.handlers.ClientContext, "memory", failing)
    run_apps(placement)
    problems = [
        {client: entry["problem"] for client, entry in line["clients"].items() if entry["problem"]}
        for line in read_rounds(placement.run)
    ]
    assert problems == [{}, {"001-gps": "OSError: its disk is gone"}, {}]
    wanted, found = read_rounds(finished[4])[1], read_rounds(placement.run)[1]
    for client in ("000-gps", "002-gps", "004-lidar"):
        assert found["clients"][client]["loss"] == pytest.approx(wanted["clients"][client]["loss"], abs=TOLERANCE)


class LateGrid(InlineGrid):
    """The answers of the second node to the first round come one round late."""

    now = 0

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        rounds = [one.content["header"]["round"] for one in messages if one.metadata.message_type == "train.round"]
        self.now = max([self.now, *rounds])
        return super().push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        late = {
            key
            for key in message_ids
            if (reply := self._replies.get(key)) is not None
            and not reply.has_error()
            and reply.metadata.message_type == "train.round"
            and "004-lidar" in reply.content["header"]["clients"]
            and reply.content["header"]["round"] == self.now == 1
        }
        return super().pull_messages([key for key in message_ids if key not in late])


def test_a_cohort_that_answers_late_counts_in_the_next_round_with_all_its_clients(tmp_path: Path) -> None:
    settings = {"late_rounds": 1, "round_timeout_s": 1.0}
    placement = place(experiment(4, **settings), tmp_path / "late")
    grid = LateGrid(build_client_app(placement), num_nodes=2)
    server_app = build_server_app(placement, Watch(num_nodes=2))
    server_app(grid, Context(grid.run.run_id, SUPERLINK_NODE_ID, {}, RecordDict(), {}))
    lines = read_rounds(placement.run)
    late = {client: lines[0]["clients"][client]["problem"] for client in ("004-lidar", "005-lidar")}
    assert late == {"004-lidar": "no answer in time", "005-lidar": "no answer in time"}
    for client in late:
        entry = lines[1]["clients"][client]
        assert (entry["problem"], entry["rounds_late"]) == ("", 1)
    assert all(not entry["problem"] for entry in lines[2]["clients"].values())


def test_the_summary_of_cohorts_names_every_client(finished: dict[int | str, Path]) -> None:
    summary = json.loads((finished["auto"] / "summary.json").read_text())
    assert [client["id"] for client in summary["clients"]] == CLIENTS
    assert not summary["faults"]
