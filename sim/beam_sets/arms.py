"""What decides about the windows of a recording: the models of a run, and baselines from a client's own labels.

N windows, H horizons, B beams, P passes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clients.data.recording import Recording, open_recording
from clients.learning.baselines import beam_history, nearest_position
from clients.learning.beam_sets import RankedBeams
from clients.models.decider import Decider
from clients.training import make_learner
from configs.files import EXPERIMENT
from configs.loading import build_experiment, load_experiment, to_values
from configs.progress import PhaseProgress
from configs.schema import Task
from sim.bench.experiments import under
from sim.data.federation import ensure_federation
from sim.experiments import run_experiment
from sim.take_home.run_models import TEACHER, RunModels
from sim.take_home.verification import torch_logits

ARMS = ("federated", "local", "teacher", "beam history", "nearest position")
"""The arms that are measured unless others are named."""
ENSEMBLE = "ensemble"
"""The mean of what all measured clients say, which needs every sensor in one place; measured where it is named."""
ALL_ARMS = (*ARMS[:3], ENSEMBLE, *ARMS[3:])


@dataclass(frozen=True)
class Arm:
    """What decides about the windows of a recording.

    Attributes:
        name: a name of `ALL_ARMS`.
        owner: the client whose model or labels it has, ``teacher`` or ``ensemble``.
        ranked: the beams of every window by probability, or by score, for each horizon: those of Top-K.
        covering: tolerated loss in dB -> the beams in the order in which sets take them up, for each horizon; a loss
            that is not there has the order of Top-K.
    """

    name: str
    owner: str
    ranked: tuple[RankedBeams, ...]
    covering: Mapping[float, tuple[RankedBeams, ...]] = field(default_factory=dict)

    def sets(self, within_db: float) -> tuple[RankedBeams, ...]:
        """The beams of every window in the order in which sets for a tolerated loss take them up, for each horizon."""
        return self.covering.get(within_db, self.ranked)


@dataclass(frozen=True)
class SweptPasses:
    """The windows of a recording, with what they lose.

    Attributes:
        power: (N, H, B) linear receive power.
        pass_of_window: (N,) the place of the pass of each window, from 0.
        num_passes: the number of passes.
        arms: what decides about them.
    """

    power: NDArray[np.float32]
    pass_of_window: NDArray[np.int64]
    num_passes: int
    arms: tuple[Arm, ...]

    def mean_by_pass(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """(P, ...) the means over the windows of each pass of values (N, ...)."""
        counts = np.bincount(self.pass_of_window, minlength=self.num_passes)
        sums = np.zeros((self.num_passes, *values.shape[1:]))
        np.add.at(sums, self.pass_of_window, values)
        found: NDArray[np.float64] = sums / counts.reshape(-1, *(1,) * (values.ndim - 1))
        return found


def chosen_clients(models: RunModels, wanted: Sequence[str]) -> list[str]:
    """The clients of a run that are measured: those that are named, or all.

    Raises:
        ValueError: there is no such client.
    """
    there = [name for name in models.names if name != TEACHER]
    if unknown := [name for name in wanted if name not in there]:
        raise ValueError(f"--client {unknown[0]}: there is no such client; there are {', '.join(there)}")
    return list(wanted) or there


def local_decider(models: RunModels, name: str) -> Decider:
    """The student that a client learns from its own labels alone, as the control *local only* does.

    A run keeps it only where ``strategy.keeps`` is ``mixture``; where it does not, it is trained again.

    Raises:
        ValueError: the recording of the client is not on this machine, or has no labels.
    """
    stored = models.local_self(name)
    if stored is not None:
        return stored
    experiment, profile = models.experiment, models.profile(name)
    learner = make_learner(profile, experiment, plugins=models.plugins)
    if not learner.material.is_labelled:
        raise ValueError(f"{name}: has no labels, so it cannot learn alone")
    rounds, training = experiment.expected_rounds(name, profile.modality), learner.training
    for number in range(1, rounds + 1):
        learner.learn(None, num_steps=training.steps(number), total_steps=training.total_steps(rounds))
    learner.model.load_state_dict(learner.best_model)
    return Decider([learner.model], temperatures=[learner.progress.best_temperature], shares=[1.0])


Ranking = tuple[tuple[RankedBeams, ...], Mapping[float, tuple[RankedBeams, ...]]]
"""The fields `Arm.ranked` and `Arm.covering`."""
Decide = Callable[[Recording, NDArray[np.int64]], Ranking]


@dataclass(frozen=True)
class ArmSource:
    """An arm before it is asked about a recording; the fields are those of `Arm`."""

    name: str
    owner: str
    decide: Decide


def arm_sources(models: RunModels, clients: Sequence[str], arms: Sequence[str] = ARMS) -> Iterator[ArmSource]:
    """The arms of a run: of every client the federated student, the local one and the baselines; teacher and ensemble.

    Args:
        models: the run.
        clients: names of clients.
        arms: the names of `ALL_ARMS` that are wanted; the nearest position is there for clients with positions only.

    Raises:
        ValueError: there is no such arm, or the weights of a model are not in the run folder.
    """
    if unknown := [name for name in arms if name not in ALL_ARMS]:
        raise ValueError(f"--arm {unknown[0]!r}: there is no such arm; use {', '.join(ALL_ARMS)}")
    for client in clients:
        for arm in ARMS:
            decide = None if arm not in arms or arm == TEACHER else _decision(models, client, arm)
            if decide is not None:
                yield ArmSource(arm, client, decide)
    if TEACHER in arms:
        yield ArmSource(TEACHER, TEACHER, _by_models([models.decider(TEACHER)], models.stand_ins(TEACHER)))
    if ENSEMBLE in arms:
        deciders = [models.decider(client) for client in clients]
        yield ArmSource(ENSEMBLE, ENSEMBLE, _by_models(deciders, models.stand_ins(TEACHER)))


def _decision(models: RunModels, client: str, arm: str) -> Decide | None:
    """How an arm of a client decides; None if the client lacks what it needs."""
    if arm == "federated":
        return _by_models([models.decider(client)], models.stand_ins(client))
    if arm == "local":
        return _by_models([local_decider(models, client)], models.stand_ins(client))
    own, task = open_recording(models.federation / "clients" / client), models.experiment.task
    if arm == "beam history":
        return _by_baseline(beam_history, own, task)
    return _by_baseline(nearest_position, own, task) if "gps" in own.sensors else None


def _by_models(deciders: Sequence[Decider], stand_ins: Mapping[float, NDArray[np.uint8]]) -> Decide:
    """By the mean of the calibrated probabilities of some models, or of one."""

    def decide(recording: Recording, starts: NDArray[np.int64]) -> Ranking:
        logits = [torch.from_numpy(torch_logits(one, recording, starts)).double() for one in deciders]
        probs = np.mean([torch.softmax(one, dim=-1).numpy() for one in logits], axis=0)
        covering = {
            within_db: tuple(RankedBeams.by_cover(one, table) for one in probs.swapaxes(0, 1))
            for within_db, table in stand_ins.items()
        }
        return tuple(RankedBeams.by_probability(one) for one in probs.swapaxes(0, 1)), covering

    return decide


def _by_baseline(score: Callable[..., NDArray[np.floating]], own: Recording, task: Task) -> Decide:
    known = np.concatenate(
        [own.window_starts(task.num_frames, task.num_future, split) for split in ("train", "validation")]
    )
    known.sort()

    def decide(recording: Recording, starts: NDArray[np.int64]) -> Ranking:
        scores = score(own, known, recording, starts, task)
        return tuple(RankedBeams.by_rank(scores[:, horizon]) for horizon in range(scores.shape[1])), {}

    return decide


def swept(recording: Recording, sources: Sequence[ArmSource], task: Task) -> SweptPasses:
    """The windows of a recording with the decisions of all arms."""
    starts = recording.window_starts(task.num_frames, task.num_future)
    passes, place = np.unique(recording.pass_ids[starts], return_inverse=True)
    arms = tuple(Arm(one.name, one.owner, *one.decide(recording, starts)) for one in sources)
    power = recording.powers(starts, task.num_frames, task.num_future)
    return SweptPasses(power, place.astype(np.int64), len(passes), arms)


def passes_to_judge(models: RunModels, num_passes: int | None, condition: str | None = None) -> Recording:
    """The common test set of a run or, on a street, new passes of the same stream.

    Args:
        models: the run.
        num_passes: the number of passes; None takes the test set of the run as it is.
        condition: a name of `sim.bench.experiments.CONDITIONS` that all passes are in; None leaves the street as it is.

    Raises:
        ValueError: more passes or a condition are asked of a measured scenario.
    """
    experiment = models.experiment
    if num_passes is None and condition is None:
        return open_recording(models.federation / "test")
    if experiment.data.source != "street":
        raise ValueError("--passes and --drift: only a street can be asked for other passes, and this was measured")
    if condition is not None:
        experiment = under(experiment, condition)
    values = to_values(experiment)
    values["data"]["passes"] |= {"server": 1, "client": 1, "public": 1, "client_test": 0}
    if num_passes is not None:
        values["data"]["passes"]["test"] = num_passes
    return open_recording(ensure_federation(build_experiment(values, origin="--passes"))[0] / "test")


@contextmanager
def opened_models(place: Path, overrides: Sequence[str], progress: PhaseProgress) -> Iterator[RunModels]:
    """The models of a finished run, or those of a federation on a measured scenario that is run for this.

    Args:
        place: the folder of a run or of a scenario.
        overrides: entries ``dotted.path=value`` for the experiment of a scenario.
        progress: is called with the phase of the federation, the work that is done and the whole work.

    Raises:
        ValueError: the run has not finished, overrides are given for a run, or the scenario cannot be read.
    """
    if not (place / EXPERIMENT).is_file():
        fixed = [f"data.folder={place.resolve()}", "engine.name=inline", "controls=false"]
        experiment = load_experiment("deepsense", [*fixed, *overrides])
        with tempfile.TemporaryDirectory() as name:
            yield RunModels(run_experiment(experiment, plugins=(), out=Path(name), progress=progress))
        return
    if overrides:
        raise ValueError(f"--set: {place} is a run, which is measured as it is; leave --set out")
    models = RunModels(place)
    models.require_beams("softbeam bench sets")
    yield models
