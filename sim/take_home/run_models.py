"""The models that a run left behind: its students, and its teacher.

A student is *kept* in the state that validated best, the teacher in its newest one that held-out passes do not refute,
and both are *latest* as their last round left them. What a client decides by is its kept student or, where
``strategy.keeps`` is ``mixture``, that together with its local self.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clients.data.recording import Recording, open_recording
from clients.learning.risk_curve import WITHIN_DB
from clients.memory import ClientMemory
from clients.models.decider import Decider
from clients.models.own import OwnTracker, build_tracker
from clients.models.own_sensors import add_sensors
from clients.models.tracker import Tracker
from clients.profile import ClientProfile
from clients.told_sets import own_stand_ins
from clients.training import make_student, own_recording
from configs.placement import plugin_folders
from configs.schema import Experiment
from configs.spelling import did_you_mean
from server.checkpoint import Checkpoint, load_checkpoint
from server.recorder import read_rounds
from sim.report.summaries import load_summary
from sim.run_note import is_of_code_of_now, read_run
from strategies.messages.records import Member

log = logging.getLogger(__name__)

State = Literal["kept", "latest"]
TEACHER = "teacher"
# The part of a federation that the teacher learns from.
TEACHER_DATA = "server"
BYTES_PER_NUMBER = 4
# A memory that is newer than the last round of any run.
_AFTER_ALL = 10**6


@dataclass(frozen=True)
class ModelRow:
    """A model of a run.

    Attributes:
        name: the name of the client, or ``teacher``.
        modality: what it senses; several modalities have a plus sign between them.
        kind: ``student``, ``mixture`` of a student and its local self, or ``teacher``.
        is_here: whether its weights are in the run folder; those of real nodes stay on the nodes.
        round: the last round in which it learned; None if it is not here.
        kept_round: the round of the state that is kept, 0 for the one before the federation; None if it is unknown.
        validation: the validation score of the kept state, in (0, 1]; None if it was never validated.
        parameters: the number of learned parameters; those of a mixture are of both trackers.
        bytes: what the weights and scales take in float32; None if the model is not here.
    """

    name: str
    modality: str
    kind: Literal["student", "mixture", "teacher"]
    is_here: bool
    round: int | None
    kept_round: int | None
    validation: float | None
    parameters: int
    bytes: int | None

    def to_dict(self) -> dict[str, Any]:
        """The values by name."""
        return asdict(self)


class RunModels:
    """The models of a finished run; a warning says if the user's own modules are no longer those of the run.

    Args:
        folder: the folder of the run.

    Raises:
        ValueError: the folder is not that of a finished run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.summary: dict[str, Any] = load_summary(self.folder)
        self.experiment: Experiment
        self.experiment, note = read_run(self.folder)
        self.plugins: Sequence[Path] = plugin_folders(note["plugins"])
        self.federation = Path(note.get("federation", ""))
        self.is_of_code_of_now = is_of_code_of_now(self.experiment, note)
        if not self.is_of_code_of_now:
            log.warning("%s: own modules were changed since it ran; its models are built by the new ones", self.folder)
        add_sensors(self.experiment.data.sensors, self.plugins)

    def require_beams(self, command: str) -> None:
        """Refuse a command that is about beams for a run of another task.

        Raises:
            ValueError: the run is of a task of a user's own.
        """
        task = self.experiment.task
        if not task.is_beam_tracking:
            raise ValueError(
                f"{command}: this is about beams, and {self.folder.name} is a run of {task.name}; from Python, "
                "softbeam.load(RUN).students has its models"
            )

    @property
    def names(self) -> list[str]:
        """The names of all models: the clients, then ``teacher``."""
        return [*(one["id"] for one in self.summary["clients"]), TEACHER]

    def rows(self) -> list[ModelRow]:
        """One row for each model, in the order of :attr:`names`."""
        return [self.row(name) for name in self.names]

    def row(self, name: str) -> ModelRow:
        """The row of a model.

        Raises:
            ValueError: there is no such model.
        """
        self._check(name)
        state = self._state(name)
        about = self.summary["teacher"] if name == TEACHER else self._client(name)
        learners = [] if state is None else [state[key] for key in ("learner", "local") if key in state]
        weights = [one["best_model"] for one in learners]
        score = learners[0]["progress"]["best_score"] if learners else None
        if state is not None and len(learners) > 1:
            # Its student was validated alone as well, but it is the mixture that decides.
            score = self._reported(name, state["round"], "validation")
        return ModelRow(
            name=name,
            modality="+".join(self.modalities(name)),
            kind="teacher" if name == TEACHER else "mixture" if len(learners) > 1 else "student",
            is_here=state is not None,
            round=None if state is None else state["round"],
            kept_round=about.get("kept_round"),
            validation=None if score is None or score < 0 else score,
            parameters=about["parameters"] * max(1, len(weights)),
            bytes=sum(map(_bytes_of, weights)) if weights else None,
        )

    def modalities(self, name: str) -> tuple[str, ...]:
        """What a model senses."""
        return self.experiment.data.server_modalities if name == TEACHER else (self._client(name)["modality"],)

    def tracker(self, name: str, *, state: State = "kept") -> Tracker:
        """The tracker of a model alone, without a local self, in evaluation mode.

        Raises:
            ValueError: there is no such model, or its weights are not in the run folder.
        """
        return self._loaded(name, self._needed(name)["learner"], state)

    def decider(self, name: str, *, state: State = "kept") -> Decider:
        """What a client, or the server, decides by.

        Args:
            name: the name of a client, or ``teacher``.
            state: ``kept`` or ``latest``; the latest state of a student stands alone, also where the client decides by
                a mixture, because nobody weighed it.

        Raises:
            ValueError: there is no such model, its weights are not in the run folder, or the weights of its mixture
                were withheld.
        """
        memory = self._needed(name)
        learners, shares = [memory["learner"]], [1.0]
        if "local" in memory and state == "kept":
            share = self._share(name, memory["round"])
            learners, shares = [*learners, memory["local"]], [share, 1.0 - share]
        members = [self._loaded(name, learner, state) for learner in learners]
        key = "best_temperature" if state == "kept" else "confidence_temperature"
        return Decider(members, temperatures=[one["progress"][key] for one in learners], shares=shares)

    def local_self(self, name: str) -> Decider | None:
        """What a client would decide by alone, from its own labels; None if the run kept no such student.

        Raises:
            ValueError: there is no such model, or its weights are not in the run folder.
        """
        learner = self._needed(name).get("local")
        if learner is None:
            return None
        return Decider(
            [self._loaded(name, learner, "kept")], temperatures=[learner["progress"]["best_temperature"]], shares=[1.0]
        )

    def profile(self, name: str) -> ClientProfile:
        """A client on this machine, with its part of the federation."""
        (modality,) = self.modalities(name)
        folder = self.federation
        return ClientProfile(name, modality, folder / "clients" / name, folder / "public", folder / "test")

    def stand_ins(self, name: str) -> dict[float, NDArray[np.uint8]]:
        """Tolerated loss in dB -> which beams (B, B) stand in for which, by the labels of a client or of the server.

        It is empty where the recording is not on this machine, or has no powers.
        """
        if not (self.federation / (TEACHER_DATA if name == TEACHER else f"clients/{name}")).is_dir():
            return {}
        if name == TEACHER:
            own: Recording | None = open_recording(self.federation / TEACHER_DATA)
        else:
            own = own_recording(self.profile(name), self.experiment)
        if own is None or own.power is None:
            return {}
        return dict(zip(WITHIN_DB, own_stand_ins(own, self.experiment.task), strict=True))

    def scores(self, name: str, *, state: State = "kept") -> dict[str, list[float]] | None:
        """The metrics of a model on the common test set, a number for each horizon; None if nobody tested it."""
        about = self.summary["teacher"] if name == TEACHER else self._client(name)
        keys = ("after", "after_now") if name == TEACHER else ("federated", "federated_now")
        found: dict[str, list[float]] | None = about.get(keys[state == "latest"])
        return found

    def _check(self, name: str) -> None:
        if name not in self.names:
            raise ValueError(
                f"{name}: there is no such model in {self.folder}; there are {', '.join(self.names)}"
                f"{did_you_mean(name, self.names)}"
            )

    def _client(self, name: str) -> dict[str, Any]:
        self._check(name)
        found: dict[str, Any] = next(one for one in self.summary["clients"] if one["id"] == name)
        return found

    @cached_property
    def members(self) -> dict[str, Member]:
        """The clients as the server knew them at the end; none where the checkpoint is gone."""
        return {} if self._checkpoint is None else dict(self._checkpoint.federation.members)

    @cached_property
    def _checkpoint(self) -> Checkpoint | None:
        return load_checkpoint(self.folder)

    @cached_property
    def _teacher(self) -> dict[str, Any] | None:
        checkpoint = self._checkpoint
        return None if checkpoint is None else {"learner": checkpoint.teacher, "round": checkpoint.federation.round}

    def _state(self, name: str) -> dict[str, Any] | None:
        """What is remembered of a model, with the round that it is from; None if it is not in the run folder."""
        if name == TEACHER:
            return self._teacher
        memory = ClientMemory(self.folder / "clients" / name)
        state = memory.load(before_round=_AFTER_ALL)
        return None if state is None else {**state, "round": memory.last_round}

    def _needed(self, name: str) -> dict[str, Any]:
        self._check(name)
        state = self._state(name)
        if state is None:
            raise ValueError(
                f"{name}: its weights are not in {self.folder}; it never finished a round here, or they are on its node"
            )
        return state

    def _loaded(self, name: str, learner: dict[str, Any], state: State) -> Tracker:
        tracker = self.fresh(name)
        try:
            tracker.load_state_dict(learner["best_model" if state == "kept" else "model"])
        except RuntimeError as error:
            what, _, first = " ".join(str(error).split()).partition(": ")
            model = type(tracker.model) if isinstance(tracker, OwnTracker) else type(tracker)
            raise ValueError(
                f"{name}: {model.__name__} in {inspect.getfile(model)} has changed since the run, whose weights no "
                f"longer fit it ({first or what}); put back the class of the run"
            ) from None
        return tracker.eval()

    def fresh(self, name: str) -> Tracker:
        """An untrained tracker like that of a model."""
        if name == TEACHER:
            senses = self.experiment.data.server_modalities
            size, task = self.experiment.teacher, self.experiment.task
            return build_tracker(size, senses, task, key=TEACHER, folders=self.plugins)
        modality = self._client(name)["modality"]
        return make_student(self.experiment, client=name, modality=modality, plugins=self.plugins)

    def _reported(self, name: str, round_number: int, key: str) -> float | None:
        """What a client reported after a round; None if it withheld it."""
        found = [
            line["clients"].get(name, {}).get(key) for line in read_rounds(self.folder) if line["round"] == round_number
        ]
        return float(found[0]) if found and found[0] is not None else None

    def _share(self, name: str, round_number: int) -> float:
        """The weight of the federated student in the mixture of a client, as it reported it after a round."""
        share = self._reported(name, round_number, "federated_share")
        if share is not None:
            return share
        raise ValueError(
            f"{name}: it decides by a mixture whose weights were not recorded (they are withheld where "
            "strategy.privacy adds noise), so it cannot be exported; --state latest exports its student alone"
        )


def _bytes_of(weights: dict[str, Tensor]) -> int:
    return sum(BYTES_PER_NUMBER * value.numel() for value in weights.values())
