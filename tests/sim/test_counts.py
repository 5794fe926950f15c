"""What a round costs, counted: messages, bytes, files, learners, optimizer steps, decodings and processes.

Seconds depend on the machine and on what else runs there; counts do not. Whoever raises one of these has to say here
what for.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from clients.app import build_app as build_client_app
from clients.data.recording import open_recording
from clients.learning.learner import Learner
from clients.learning.optimizer import Adam
from clients.memory import KEPT
from configs.loading import build_experiment
from configs.placement import Placement
from configs.schema import Experiment
from server.recorder import read_rounds
from strategies.cache import CachedLabels
from strategies.codecs.encoding import Encoding
from strategies.messages.wire import bytes_by_client
from tests.conftest import tiny_values
from tests.federations import place, run_apps

GPS = ["000-gps", "001-gps", "002-gps", "003-gps"]
CLIENTS = [*GPS, "004-lidar", "005-lidar"]
ROUNDS = 3
ASKED = 24
"""The number of public samples that are asked for in a round."""
NUM_NODES = {1: 6, 4: 2, "auto": 4}
"""The nodes that carry the six clients, by the size of a cohort."""
PROCESS_EVENTS = ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.spawn", "os.system")
HEADER_BYTES = 600
"""The most that the ids, rounds and array headers of an answer or of a publication may add to its rows."""


@dataclass
class Counts:
    """What was counted in one run.

    Attributes:
        run: the run folder.
        messages: by kind.
        learners: the number of learners built, by owner.
        steps: the number of optimizer steps.
        decoded: the number of decodings, by the number of rows.
        hashed: how often targets were hashed.
        swapped: the number of times that each file of the run folder was put in its place, complete.
        opened: the number of times that each path of the run folder was opened for writing, temporary ones included.
        processes: what was started.
        round_bytes: (round, client) -> bytes of the arrays that the message really carried.
    """

    run: Path
    messages: Counter[str] = field(default_factory=Counter)
    learners: Counter[str] = field(default_factory=Counter)
    steps: int = 0
    decoded: Counter[int] = field(default_factory=Counter)
    hashed: int = 0
    swapped: Counter[str] = field(default_factory=Counter)
    opened: Counter[str] = field(default_factory=Counter)
    processes: list[str] = field(default_factory=list)
    round_bytes: dict[tuple[int, str], int] = field(default_factory=dict)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Count what Python's audit hooks tell about files and processes."""
        if event in PROCESS_EVENTS:
            self.processes.append(f"{event} {arguments[:1]}")
        elif event == "os.rename" and (name := self._within(arguments[1])):
            self.swapped[name] += 1
        elif event == "open" and isinstance(arguments[2], int):
            writes = arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if writes and (name := self._within(arguments[0])):
                self.opened[name] += 1

    def _within(self, path: Any) -> str:
        inside = isinstance(path, str | os.PathLike) and Path(path).is_relative_to(self.run)
        return Path(path).relative_to(self.run).as_posix() if inside else ""


class CountingApp(ClientApp):
    """Counts messages, and the bytes of the arrays in those that begin a round."""

    def __init__(self, inner: ClientApp, counts: Counts) -> None:
        super().__init__()
        self.inner, self.counts = inner, counts

    def __call__(self, message: Message, context: Context) -> Message:
        kind = message.metadata.message_type
        self.counts.messages[kind] += 1
        if kind == "train.round":
            number = int(message.content["header"]["round"])
            for client, size in bytes_by_client(message.content).items():
                self.counts.round_bytes[number, client] = size
        return self.inner(message, context)


Counted = tuple[Placement, Counts]
_listeners: list[Counts] = []


def _tell(event: str, arguments: tuple[Any, ...]) -> None:
    for one in _listeners:
        one.hear(event, arguments)


sys.addaudithook(_tell)  # Python has no way to take one away again


@contextmanager
def counting(run: Path) -> Iterator[Counts]:
    """Count what happens in this process while the context lasts."""
    counts = Counts(run)
    build, step, decode, digest = Learner.__init__, Adam.step, Encoding.decode, CachedLabels.digest

    def built(self: Learner, *arguments: Any, **settings: Any) -> None:
        counts.learners[settings["name"]] += 1
        build(self, *arguments, **settings)

    def stepped(self: Adam) -> None:
        counts.steps += 1
        step(self)

    def decoded(self: Encoding, cached: Any, temperature: float) -> Any:
        counts.decoded[len(cached)] += 1
        return decode(self, cached, temperature)

    def hashed(self: CachedLabels) -> str:
        counts.hashed += 1
        return digest(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CachedLabels, "digest", hashed)
        patch.setattr(Learner, "__init__", built)
        patch.setattr(Adam, "step", stepped)
        patch.setattr(Encoding, "decode", decoded)
        _listeners.append(counts)
        try:
            yield counts
        finally:
            _listeners.remove(counts)


def experiment(cohort: int | str) -> Experiment:
    """Four GPS clients and two LiDAR clients; soft labels travel as they are."""
    values = tiny_values(codec="float32", rounds=ROUNDS, public_samples=ASKED)
    values["data"]["nodes"] = [{"modality": "gps", "count": 4}, {"modality": "lidar", "count": 2}]
    values["engine"]["cohort"] = cohort
    return build_experiment(values, origin="test")


@pytest.fixture(scope="module", params=list(NUM_NODES), ids=[f"cohort={cohort}" for cohort in NUM_NODES])
def counted(request: pytest.FixtureRequest, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counted]:
    """An experiment with its run folder, and what was counted in its run in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTBEAM_HOME", str(home))
        placement = place(experiment(request.param), tmp_path_factory.mktemp("counted") / "tiny")
        with counting(placement.run) as counts:
            run_apps(placement, client_app=CountingApp(build_client_app(placement), counts))
        yield placement, counts


def num_public(placement: Placement) -> int:
    """The number of public samples; the teacher publishes targets for all of them before the first round."""
    task = placement.experiment.task
    return len(open_recording(placement.federation / "public").window_starts(task.num_frames, task.num_future))


def test_each_node_gets_one_message_for_each_phase_and_round(counted: Counted) -> None:
    placement, counts = counted
    num_nodes = NUM_NODES[placement.experiment.engine.cohort]
    assert counts.messages == {
        "query.hello": num_nodes,
        "train.controls": num_nodes,
        "train.round": ROUNDS * num_nodes,
    }


def test_a_client_gets_only_the_targets_that_it_lacks_and_sends_only_what_it_was_asked_for(counted: Counted) -> None:
    placement, counts = counted
    task = placement.experiment.task
    row_bytes = task.num_horizons * task.num_classes * np.dtype(np.float32).itemsize
    for line in read_rounds(placement.run):
        # The first round brings what the teacher knows of all samples, a later one what the last round has made.
        num_new = num_public(placement) if line["round"] == 1 else ASKED
        assert set(line["clients"]) == set(CLIENTS)
        for client, entry in line["clients"].items():
            assert entry["downlink_bytes"] == counts.round_bytes[line["round"], client]
            assert 0 <= entry["downlink_bytes"] - num_new * row_bytes <= HEADER_BYTES
            assert 0 <= entry["uplink_bytes"] - ASKED * row_bytes <= HEADER_BYTES


def test_a_client_writes_one_file_a_round_and_no_file_of_a_client_is_written_twice(counted: Counted) -> None:
    _, counts = counted
    wanted = {
        f"clients/{client}/{number:06d}.state": 1 for client in CLIENTS for number in range(1, min(ROUNDS, KEPT) + 1)
    }
    assert {name: count for name, count in counts.swapped.items() if name.startswith("clients/")} == wanted
    opened = {name: count for name, count in counts.opened.items() if name.startswith("clients/")}
    assert len(opened) == len(wanted) and set(opened.values()) == {1}


def test_the_server_writes_each_of_its_files_once_a_round_or_once_a_run(counted: Counted) -> None:
    _, counts = counted
    # The checkpoint before the first round keeps the pretrained teacher and what the controls have cost.
    assert counts.swapped["checkpoint/newest.state"] == ROUNDS + 1
    assert counts.opened["rounds.jsonl"] == ROUNDS
    # Whoever follows a run looks at the status: at its start, its end and each phase and round, with one to spare.
    assert ROUNDS <= counts.swapped["status.json"] <= 2 * ROUNDS + sum(counts.messages.values()) + 3
    for name in ("experiment.yaml", "environment.json", "summary.json", "summary.csv", "passes.json"):
        assert counts.swapped[name] == 1, name


def test_a_client_builds_one_learner_for_a_message_and_two_for_the_two_controls(counted: Counted) -> None:
    _, counts = counted
    # Any worker may serve the next message, so a learner lives as long as one; hello asks for its parameters and data.
    assert counts.learners == {**dict.fromkeys(CLIENTS, 1 + 2 + ROUNDS), "teacher": 1}


def test_students_take_the_same_steps_in_the_federation_and_in_each_control(counted: Counted) -> None:
    placement, counts = counted
    training, teaching = placement.experiment.training, placement.experiment.teaching
    of_students = len(CLIENTS) * 3 * training.total_steps(ROUNDS)
    assert counts.steps == of_students + teaching.pretrain_steps + teaching.total_steps(ROUNDS)


def test_a_process_decodes_the_targets_of_a_round_once_for_all_its_clients(counted: Counted) -> None:
    placement, counts = counted
    # The first round has the targets that the controls had: before it nothing else was published.
    assert num_public(placement) != ASKED
    assert counts.decoded[num_public(placement)] == ROUNDS
    # The server decodes each answer once.
    assert counts.decoded[ASKED] == ROUNDS * len(CLIENTS)


def test_targets_are_hashed_once_a_round_by_the_server_and_once_by_a_process_for_all_its_clients(
    counted: Counted,
) -> None:
    _, counts = counted
    # For the controls each client hashes what it got.
    assert counts.hashed == len(CLIENTS) + 2 * ROUNDS


def test_an_inline_run_starts_no_process(counted: Counted) -> None:
    _, counts = counted
    assert counts.processes == []
