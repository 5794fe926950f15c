"""Conducts the benchmark of speed: which arms work on what, in which order, and what their rounds cost.

The arms of a *family* take turns on one script, forwards and then backwards (A B B A), so that a machine that slows
down slows all of them. The soft labels of each turn must be those of the reference, or its time does not count.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from configs.loading import load_experiment
from configs.schema import Experiment
from configs.yaml_files import checkout_folder
from sim.data.federation import ensure_federation
from sim.launch import offline_environment
from sim.speed.work import LABELS, ROUNDS, Script

TOLERANCE = 1e-4
"""How far soft labels of an arm may be from those of the reference; two threads sum in another order."""
TURN_LIMIT_S = 3600.0
AGAIN = "bare-2proc again"
"""The plain loop a second time: the ratio of the two says how noisy the machine is."""
LEAN = (
    *("controls=false", "data.amount_spread=0.0", "teaching.pretrain_steps=1", "teaching.first_round_steps=1"),
    *("teaching.steps_per_round=1", "strategy.publish=ensemble", "strategy.teacher_votes=false"),
    "strategy.aggregator={name: mean}",
    "engine.cohort=auto",
)
"""A server that does little, so that a round is the work of the clients and what carries it."""
EXACT = "strategy.codec=float32"
"""All arms send the same bytes, and owe the same soft labels."""
TellTurn = Callable[[str], None]


@dataclass(frozen=True)
class Size:
    """How much a student works in a round.

    Attributes:
        clients: the number of clients.
        passes: the passes of each client.
        public_passes: the passes of the public set.
        steps: the optimizer steps in a round, with batches of 32.
        rounds: the rounds of a turn, of which the first one does not count.
    """

    clients: int
    passes: int
    public_passes: int
    steps: int
    rounds: int


@dataclass(frozen=True)
class Family:
    """Arms that work on one script.

    Attributes:
        name: the name of the family.
        modality: what its clients sense.
        size: how much they work.
        arms: the arms in their order.
        overrides: entries ``dotted.path=value`` that come last.
    """

    name: str
    modality: str
    size: Size
    arms: tuple[str, ...]
    overrides: tuple[str, ...] = ()

    @property
    def experiment(self) -> Experiment:
        """The experiment of the family.

        Raises:
            ValueError: an override is wrong.
        """
        size = self.size
        passes = f"{{server: 2, public: {size.public_passes}, test: 1, client: {size.passes}, client_test: 0"
        given = [
            f"data.nodes=[{{modality: {self.modality}, count: {size.clients}}}]",
            f"data.passes={passes}, validation_share: 0.25}}",
            *(f"training.first_round_steps={size.steps}", f"training.steps_per_round={size.steps}"),
            *("strategy.public_samples=0", f"strategy.rounds={size.rounds}"),
        ]
        return load_experiment("quickstart", [*LEAN, *given, *self.overrides])


@dataclass(frozen=True)
class Turn:
    """What one turn of an arm cost.

    Attributes:
        arm: the arm.
        seconds: the median seconds of a steady round.
        cpu_s: the median CPU-seconds of a steady round, of all processes.
        first_s: the seconds of the first round.
        total_s: the seconds of the whole turn, with start and end.
    """

    arm: str
    seconds: float
    cpu_s: float
    first_s: float
    total_s: float


Repetition = Mapping[tuple[str, str], Turn]
"""One turn of each arm, by family and arm."""


def conduct(families: Sequence[Family], *, pairs: int, progress: TellTurn = lambda text: None) -> list[Repetition]:
    """Let the arms of some families take turns.

    Args:
        families: the families, whose ratios are to be compared.
        pairs: the number of times that each arm takes its turn.
        progress: is called with a text that says what is being done.

    Returns:
        The turns of each repetition.

    Raises:
        ValueError: the data cannot be made, or an arm gave other soft labels than the reference.
        RuntimeError: an arm failed.
    """
    arms = [(family.name, arm) for family in families for arm in family.arms]
    with tempfile.TemporaryDirectory() as name:
        wanted = {}
        for family in families:
            folder = Path(name) / family.name
            folder.mkdir()
            progress(f"{family.name}: data and reference")
            script_of(family).write(folder)
            if "null" not in family.arms:
                _, wanted[family.name] = take_turn("reference", folder)
        repetitions = list[Repetition]()
        for number, order in enumerate(orders(arms, pairs), 1):
            turns = {}
            for family_name, arm in order:
                progress(f"{family_name}: {arm}, turn {number} of {pairs}")
                turn, labels = take_turn(arm, Path(name) / family_name)
                if family_name in wanted:
                    check_equal(f"{family_name}, {arm}", labels, wanted[family_name])
                turns[family_name, arm] = turn
            repetitions.append(turns)
    return repetitions


def orders(arms: Sequence[tuple[str, str]], pairs: int) -> list[list[tuple[str, str]]]:
    """The order of the arms in each repetition: forwards, backwards, forwards and so on."""
    return [list(arms) if number % 2 == 0 else list(reversed(arms)) for number in range(pairs)]


def script_of(family: Family) -> Script:
    """The script of a family; its data is made unless it is there. Clients of no work need no recordings."""
    experiment = family.experiment
    recorded = experiment
    if "null" in family.arms:
        recorded = replace(family, size=replace(family.size, clients=1)).experiment
    federation, _ = ensure_federation(recorded)
    return Script(experiment, federation)


def check_equal(
    what: str,
    labels: NDArray[np.float32],
    wanted: NDArray[np.float32],
) -> None:
    """Check that an arm did the work of the reference.

    Args:
        what: the name of the arm.
        labels: (C, N, H, B) the soft labels of its clients.
        wanted: (C, N, H, B) those of the reference.

    Raises:
        ValueError: they are not equal within `TOLERANCE`.
    """
    if labels.shape != wanted.shape:
        raise ValueError(f"{what}: it answered {labels.shape} soft labels, the reference {wanted.shape}")
    worst = float(np.abs(labels - wanted).max(initial=0.0))
    if not worst <= TOLERANCE:
        raise ValueError(
            f"{what}: its soft labels are up to {worst:.1g} from those of the reference, more than {TOLERANCE:g}; it "
            "did other work, so its time does not count"
        )


def take_turn(arm: str, folder: Path) -> tuple[Turn, NDArray[np.float32]]:
    """Let an arm work on the script in a folder, in a process of its own.

    Returns:
        What it cost, and (C, N, H, B) the soft labels of its clients.

    Raises:
        RuntimeError: it failed, or took longer than `TURN_LIMIT_S`.
    """
    with tempfile.TemporaryDirectory() as name:
        out, begin = Path(name), time.monotonic()
        command = [sys.executable, "-m", "sim.speed.arms", arm.removesuffix(" again"), str(folder), name]
        with (out / "log").open("w") as log:
            done = subprocess.run(
                command, env=_environment(arm), stdout=log, stderr=log, timeout=TURN_LIMIT_S, check=False
            )
        total_s = time.monotonic() - begin
        if done.returncode:
            lines = (out / "log").read_text(errors="replace").strip().splitlines() or ["it said nothing"]
            raise RuntimeError(f"the arm {arm} failed: {lines[-1]}")
        (first_s, _), *steady = json.loads((out / ROUNDS).read_text())
        labels = np.load(out / LABELS, allow_pickle=False)
    seconds, cpu_s = (median(values) for values in zip(*steady, strict=True))
    return Turn(arm, seconds, cpu_s, first_s, total_s), labels


def _environment(arm: str) -> Mapping[str, str]:
    """The environment of a turn: nobody is called, and one thread except where the arm is to choose."""
    root = checkout_folder() or Path(__file__).resolve().parents[2]
    path = os.pathsep.join(part for part in (str(root), os.environ.get("PYTHONPATH", "")) if part)
    environment = {**os.environ, **offline_environment(), "RAY_ADDRESS": "local", "PYTHONPATH": path}
    if arm == "flower-default":
        del environment["OMP_NUM_THREADS"]
    return environment
