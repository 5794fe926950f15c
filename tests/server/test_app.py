"""The ServerApp from start to end: who is let in, what is told meanwhile, and what a run with bad nodes leaves."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID

from clients.app import build_app as build_client_app
from clients.learning.learner import Learner
from configs.files import held_alone
from configs.placement import Placement
from server.app import build_app as build_server_app
from server.recorder import read_rounds
from sim.inline import FIRST_NODE_ID, InlineGrid
from sim.report.html import write_report
from tests.conftest import tiny_experiment
from tests.federations import place, run_apps

CLIENTS = ["000-gps", "001-gps", "002-lidar"]


def read(path: Path) -> Any:
    return json.loads(path.read_text())


class Spoilt(ClientApp):
    """A ClientApp whose replies, those of one node to one kind of message, are spoilt."""

    def __init__(self, inner: ClientApp, spoil: Callable[[Message], Message], *, node: int, kind: str) -> None:
        super().__init__()
        self.inner, self.spoil, self.node, self.kind = inner, spoil, node, kind

    def __call__(self, message: Message, context: Context) -> Message:
        reply = self.inner(message, context)
        here = context.node_config["partition-id"] == self.node and message.metadata.message_type == self.kind
        return self.spoil(reply) if here else reply


def not_a_number(reply: Message) -> Message:
    for name, record in reply.content.array_records.items():
        if name.endswith("/labels"):
            record["values"] = Array(np.full_like(record["values"].numpy(), np.nan))
    return reply


def test_a_run_leaves_its_status_and_its_metrics(tmp_path: Path) -> None:
    placement = place(tiny_experiment(rounds=2), tmp_path / "run")
    run_apps(placement)
    status = read(placement.run / "status.json")
    del status["time"]
    assert status == {
        "state": "finished", "phase": "federation", "done": 6, "total": 6, "round": 2, "rounds": 2, "error": "",
        "pid": os.getpid(),
    }  # fmt: skip
    text = (placement.run / "metrics.prom").read_text()
    assert "softbeam_rounds_total 2.0" in text
    assert 'softbeam_answers_total{client="002-lidar"} 2.0' in text
    summary = read(placement.run / "summary.json")
    assert (summary["faults"], summary["events"]) == ([], [])


def test_a_run_that_raises_leaves_failed_with_the_error(tmp_path: Path) -> None:
    placement = place(tiny_experiment(), tmp_path / "run")
    app = ClientApp()  # it answers no hello
    with pytest.raises(ValueError, match="no client can take part"):
        run_apps(placement, client_app=app)
    status = read(placement.run / "status.json")
    assert (status["state"], status["phase"]) == ("failed", "teacher")
    assert status["error"].startswith("ValueError: no client can take part; the first of 3 problems: node 1000:")
    assert "\n" not in status["error"]


def test_a_mistake_in_the_register_of_nodes_ends_the_run_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placement = place(tiny_experiment(), tmp_path / "run")
    monkeypatch.setenv("SOFTBEAM_NODES", str(tmp_path / "missing.json"))
    with pytest.raises(ValueError, match=r"^SOFTBEAM_NODES: .*missing\.json"):
        run_apps(placement)
    assert read(placement.run / "status.json")["state"] == "failed"
    assert not (placement.run / "experiment.yaml").exists()


def register(path: Path, *entries: tuple[int, str, str]) -> None:
    nodes = [
        {"node_id": str(node), "name": f"mast-{node}", "client": client, "modality": modality}
        for node, client, modality in entries
    ]
    path.write_text(json.dumps({"nodes": nodes}))


def test_only_those_take_part_whose_key_is_registered_for_what_they_say_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placement = place(tiny_experiment(rounds=2), tmp_path / "run")
    nodes = tmp_path / "nodes.json"
    # The second node is not registered; the third says lidar and has the key of a camera.
    register(nodes, (FIRST_NODE_ID, "000-gps", "gps"), (FIRST_NODE_ID + 2, "002-lidar", "camera"))
    monkeypatch.setenv("SOFTBEAM_NODES", str(nodes))
    run_apps(placement)
    summary = read(placement.run / "summary.json")
    assert [client["id"] for client in summary["clients"]] == ["000-gps"]
    assert [(event["kind"], event["who"], event["round"]) for event in summary["events"]] == [
        ("refused", "node 1001", 0), ("refused", "client 002-lidar", 0),
    ]  # fmt: skip
    assert "mast-1002 has the key of 002-lidar (camera)" in summary["events"][1]["text"]
    assert all(list(line["clients"]) == ["000-gps"] for line in read_rounds(placement.run))


def test_a_run_with_a_client_that_answers_garbage_in_every_round_ends_and_its_report_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placement = place(tiny_experiment(codec="float16"), tmp_path / "run")
    run_apps(placement, Spoilt(build_client_app(placement), not_a_number, node=1, kind="train.round"))
    summary = read(placement.run / "summary.json")
    (fault,) = summary["faults"]
    assert "finite" in fault.pop("reason")
    assert fault == {"client": "001-gps", "kind": "refused", "times": 3, "first_round": 1, "last_round": 3}
    assert [client["refused"] for client in summary["clients"]] == [0, 3, 0]
    assert [line["clients"]["001-gps"]["fault"] for line in read_rounds(placement.run)] == ["refused"] * 3
    assert (
        'softbeam_refusals_total{client="001-gps",reason="refused"} 3.0' in (placement.run / "metrics.prom").read_text()
    )
    monkeypatch.setattr("sim.report.html.draw_all", lambda runs: {})
    write_report([placement.run], placement.run / "report.html")
    report = (placement.run / "report.html").read_text()
    assert "answer refused" in report
    assert "3 of 3" in report


def test_a_client_that_warns_counts_and_its_warning_is_recorded(tmp_path: Path) -> None:
    placement = place(tiny_experiment(rounds=1), tmp_path / "run")

    def warns(reply: Message) -> Message:
        reply.content["002-lidar/facts"]["warning"] = "its disk is\nfull"
        return reply

    run_apps(placement, Spoilt(build_client_app(placement), warns, node=2, kind="train.round"))
    (line,) = read_rounds(placement.run)
    assert (line["clients"]["002-lidar"]["warning"], line["clients"]["002-lidar"]["problem"]) == (
        "its disk is full",
        "",
    )
    assert [fault["kind"] for fault in read(placement.run / "summary.json")["faults"]] == ["warning"]


class LateGrid(InlineGrid):
    """The last node comes once somebody has taken part in a round."""

    has_begun = False

    def get_node_ids(self) -> list[int]:
        return sorted(super().get_node_ids())[: None if self.has_begun else -1]

    def push_messages(self, messages: Any) -> Any:
        messages = list(messages)
        self.has_begun |= any(message.metadata.message_type == "train.round" for message in messages)
        return super().push_messages(messages)


def run_on(grid: InlineGrid, placement: Placement) -> None:
    build_server_app(placement)(grid, Context(grid.run.run_id, SUPERLINK_NODE_ID, {}, RecordDict(), {}))


def test_a_node_that_comes_after_the_start_is_in_the_rounds_from_then_on_and_in_the_summary(tmp_path: Path) -> None:
    placement = place(tiny_experiment(round_timeout_s=0.5), tmp_path / "run")
    run_on(LateGrid(build_client_app(placement), num_nodes=3), placement)
    assert [list(line["clients"]) for line in read_rounds(placement.run)] == [CLIENTS[:2], CLIENTS, CLIENTS]
    summary = read(placement.run / "summary.json")
    assert [client["id"] for client in summary["clients"]] == CLIENTS
    assert summary["clients"][2]["local"] is None
    assert summary["clients"][2]["federated"] is not None
    assert [(event["kind"], event["who"]) for event in summary["events"]] == [("joined", "002-lidar")]


def test_who_was_away_when_the_server_came_back_is_still_a_member(tmp_path: Path) -> None:
    placement = place(tiny_experiment(round_timeout_s=0.5), tmp_path / "run")
    run_apps(placement)
    (placement.run / "summary.json").unlink()
    run_on(LateGrid(build_client_app(placement), num_nodes=3), placement)
    summary = read(placement.run / "summary.json")
    assert [client["id"] for client in summary["clients"]] == CLIENTS
    assert [event["kind"] for event in summary["events"]] == ["resumed"]


def test_a_second_server_is_kept_off_a_run_that_goes_on(tmp_path: Path) -> None:
    placement = place(tiny_experiment(rounds=1), tmp_path / "run")
    with held_alone(placement.run), pytest.raises(ValueError, match="another server works on this run"):
        run_apps(placement)
    assert not (placement.run / "rounds.jsonl").exists()
    run_apps(placement)
    assert (placement.run / "summary.json").is_file()


def test_a_run_in_which_nothing_is_kept_after_the_first_round_says_so_beside_what_each_round_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validate = Learner._validate

    def only_the_first_is_best(self: Learner, prefers_newest: bool) -> None:
        validate(self, False)
        self.progress.best_score = 2.0  # more than any score

    monkeypatch.setattr(Learner, "_validate", only_the_first_is_best)
    placement = place(tiny_experiment(rounds=3), tmp_path / "run")
    run_apps(placement)
    first, *later = read_rounds(placement.run)
    summary = read(placement.run / "summary.json")
    assert (first["teacher"]["kept"], summary["teacher"]["kept_round"]) == (False, 0)
    assert summary["teacher"]["after"] == summary["teacher"]["before"] == first["teacher"]["common"]
    assert summary["teacher"]["after_now"] == later[-1]["teacher"]["common_now"] != summary["teacher"]["after"]
    for client in summary["clients"]:
        entries = [line["clients"][client["id"]] for line in (first, *later)]
        assert [entry["kept"] for entry in entries] == [True, False, False]
        assert [entry["common"] for entry in entries] == [entries[0]["common_now"]] * 3
        assert client["kept_round"] == 1
        assert client["federated_now"] == entries[2]["common_now"]


def test_a_client_that_adds_noise_does_not_say_which_state_its_validation_chose(tmp_path: Path) -> None:
    noise = {"clip": 0.5, "noise_multiplier": 0.2}
    placement = place(tiny_experiment(rounds=1, privacy=noise, codec="float32"), tmp_path / "run")
    run_apps(placement)
    for entry in read_rounds(placement.run)[0]["clients"].values():
        assert entry["kept"] is entry["validation"] is None
        assert entry["common_now"] is not None
