"""The arms of the benchmark of speed; each turn of an arm is a process of its own, ``python -m sim.speed.arms``.

A turn takes all rounds of a script. It tells for each round after the first one, which pays for imports, the seconds
and the CPU-seconds of its whole process tree, and it keeps the soft labels that its clients gave in the last round.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clients.app import build_app as build_client_app
from clients.memory import ClientMemory
from clients.profile import client_folders, cohorts_of, even_parts
from configs.files import write_whole
from configs.placement import Placement
from configs.schema import Engine
from server.app import build_app as build_server_app
from server.recorder import read_rounds
from server.session import Watch
from sim.bench.warm_cost import cpu_seconds
from sim.launch import launch
from sim.speed.plain_flower import NotingApp, null_app, run_plain_flower
from sim.speed.work import (
    LABELS,
    ROUNDS,
    Labels,
    Note,
    Script,
    answers_of,
    learner_of,
    read_script,
    read_targets,
    take_part,
    write_targets,
)
from strategies.codecs.encoding import EncodedLabels, Encoding
from strategies.labels import SoftLabels
from strategies.messages.wire import Request

NUM_PROCESSES = 2
"""The processes of the plain loop, one for each core that a laptop has at least."""


class RoundTimes:
    """The seconds and CPU-seconds of each round, as told by :meth:`note`."""

    def __init__(self) -> None:
        self._marks: dict[int, tuple[float, float]] = {}

    def note(self, number: int) -> None:
        """Note that a round has ended; 0 when the first one begins. The last call for a round counts."""
        self._marks[number] = (time.monotonic(), cpu_seconds(os.getpid(), None).total)

    def rounds(self) -> list[tuple[float, float]]:
        """(seconds, CPU-seconds) of each round."""
        marks = [self._marks[number] for number in sorted(self._marks)]
        return [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(marks)]


def run_ours(script: Script, folder: Path, note: Note) -> Labels:
    """The rounds of Softbeam on the engine of the experiment."""
    with _finished(script, note, build_client_app) as run:
        return _remembered(script, run)


def run_null(script: Script, folder: Path, note: Note) -> Labels:
    """The rounds of Softbeam with clients that answer at once."""
    strategy, task, size = script.experiment.strategy, script.experiment.task, script.experiment.engine.cohort
    # There are no recordings of these clients, so their number alone says how they are spread.
    everyone = range(script.num_clients)
    cohorts = even_parts(len(everyone)) if size == "auto" else [everyone[at : at + size] for at in everyone[::size]]
    with _finished(script, note, lambda placement: null_app(strategy, task, cohorts), num_nodes=len(cohorts)):
        return []


@contextmanager
def _finished(
    script: Script,
    note: Note,
    client_app: Callable[[Placement], Any],
    *,
    engine: Engine | None = None,
    num_nodes: int = 0,
) -> Iterator[Path]:
    """The folder of a run of Softbeam that has finished, in which every client counted in every round.

    Args:
        script: the script.
        note: a callable that is told of each round.
        client_app: a function that builds the app of the clients.
        engine: the engine; None takes that of the experiment.
        num_nodes: the number of nodes; 0 takes as many as the recordings of the clients need.

    Raises:
        RuntimeError: a client failed.
    """
    with tempfile.TemporaryDirectory() as name:
        experiment = script.experiment if engine is None else script.experiment.model_copy(update={"engine": engine})
        placement = Placement(experiment, script.federation, Path(name), ())
        num_nodes = num_nodes or len(cohorts_of(script.federation, experiment))
        server_app = build_server_app(placement, _watch(script, note, num_nodes))
        launch(server_app, client_app(placement), num_nodes=num_nodes, engine=experiment.engine)
        for line in read_rounds(placement.run):
            for client, entry in line["clients"].items():
                if entry["problem"]:
                    raise RuntimeError(f"{client} failed in round {line['round']}: {entry['problem']}")
        yield placement.run


def _watch(script: Script, note: Note, num_nodes: int) -> Watch:
    """Tell of each round that has ended, by the progress of the run."""

    def progress(phase: str, done: int, total: int) -> None:
        # The last call for a round comes after its record and checkpoint.
        if phase == "federation" and done % script.num_clients == 0:
            note(done // script.num_clients)

    return Watch(progress=progress, num_nodes=num_nodes)


def _remembered(script: Script, run: Path) -> Labels:
    """The soft labels of the students as the clients remember them."""
    found = []
    for partition, client in enumerate(client_folders(script.federation)):
        state = ClientMemory(run / "clients" / client.name).load(before_round=script.num_rounds + 1)
        if state is None:
            raise RuntimeError(f"{client.name} remembers nothing")
        found.append(answers_of(script, learner_of(script, partition, state["learner"])))
    return found


def run_reference(script: Script, folder: Path, note: Note) -> Labels:
    """Softbeam in one process; it writes the targets of each round into the folder, for all other arms."""
    targets: dict[int, SoftLabels] = {}
    strategy, task = script.experiment.strategy, script.experiment.task
    encoding = Encoding(strategy.codec_down, task.num_horizons, task.num_classes)

    def note_request(number: int, request: Request) -> None:
        if number not in targets and isinstance(request.targets, EncodedLabels):
            targets[number] = encoding.decode(encoding.unpack(request.targets), strategy.temperature)

    def noting(placement: Placement) -> NotingApp:
        return NotingApp(build_client_app(placement), note_request)

    with _finished(script, note, noting, engine=Engine(name="inline")) as run:
        write_targets(folder, targets)
        return _remembered(script, run)


def run_bare(script: Script, folder: Path, note: Note) -> Labels:
    """Two plain processes, each of which trains half of the students one after the other, without a framework."""
    spawn = multiprocessing.get_context("spawn")
    parts = [range(script.num_clients)[number::NUM_PROCESSES] for number in range(NUM_PROCESSES)]
    workers = []
    for part in parts:
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=_train_part, args=(folder, part, theirs), daemon=True)
        process.start()
        workers.append((process, ours))
    for _, pipe in workers:
        pipe.recv()
    note(0)
    for number in range(1, script.num_rounds + 1):
        for _, pipe in workers:
            pipe.send(number)
        for _, pipe in workers:
            pipe.recv()
        note(number)
    found: dict[int, NDArray[np.float32]] = {}
    for part, (process, pipe) in zip(parts, workers, strict=True):
        pipe.send(None)
        found |= dict(zip(part, pipe.recv(), strict=True))
        process.join()
    return [found[partition] for partition in sorted(found)]


def _train_part(folder: Path, partitions: Sequence[int], pipe: Connection) -> None:
    torch.set_num_threads(1)
    script = read_script(folder)
    targets = read_targets(folder, script.experiment.strategy.temperature)
    learners = [learner_of(script, partition) for partition in partitions]
    answers: list[NDArray[np.float32]] = []
    pipe.send("ready")
    while (number := pipe.recv()) is not None:
        answers = [take_part(script, learner, targets.get(number)) for learner in learners]
        pipe.send(number)
    pipe.send(answers)


def run_tuned(script: Script, folder: Path, note: Note) -> Labels:
    """Stock Flower with one core for each client, and one thread."""
    return run_plain_flower(script, folder, note, is_tuned=True)


def run_default(script: Script, folder: Path, note: Note) -> Labels:
    """Stock Flower with the resources and threads that nobody has chosen."""
    return run_plain_flower(script, folder, note, is_tuned=False)


ARMS: Mapping[str, Callable[[Script, Path, Note], Labels]] = {
    "reference": run_reference,
    "ours": run_ours,
    "flower-tuned": run_tuned,
    "flower-default": run_default,
    "bare-2proc": run_bare,
    "null": run_null,
}
"""Arm -> what takes its rounds."""


def take_turn(arm: str, folder: Path, out: Path) -> None:
    """Take the rounds of the script in a folder, and write times and soft labels into another folder."""
    if arm != "flower-default":
        torch.set_num_threads(1)
    times = RoundTimes()
    answers = ARMS[arm](read_script(folder), folder, times.note)
    np.save(out / LABELS, np.array(answers, np.float32), allow_pickle=False)
    write_whole(out / ROUNDS, json.dumps(times.rounds()))


if __name__ == "__main__":
    take_turn(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
