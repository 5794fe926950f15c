"""What an experiment is: frozen, checked when built, trusted after.

Every section is a pydantic model that refuses unknown keys. Options of a plug-in
(`options:`) are the keyword arguments of the class that `name:` points to and are
checked beside that class, not here.
"""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, model_validator

from configs.data import (
    DealtPasses,
    DeepSenseData,
    Faults,
    MeasuredSite,
    ModalityName,
    Nodes,
    Passes,
    StreetData,
    StreetModality,
)
from configs.models import Model
from configs.recipes import RECIPES, Traits
from configs.section import Section
from configs.strategy import Aggregation, Plugin, Strategy
from configs.world import World

__all__ = [
    "Aggregation",
    "DealtPasses",
    "DeepSenseData",
    "Engine",
    "Experiment",
    "Faults",
    "MeasuredSite",
    "ModalityName",
    "Model",
    "Nodes",
    "Passes",
    "Plugin",
    "Section",
    "Strategy",
    "StreetData",
    "Task",
    "Teaching",
    "Training",
    "World",
]

EngineName = Literal["ray", "inline", "deployment"]
SplitName = Literal["train", "validation", "test"]


class Task(Section):
    """Beam tracking: from the last ``num_frames`` frames the best beam now and in ``num_future`` slots.

    Source: arXiv 2603.16116 (L = 8, J = 3, 64 beams).
    """

    num_frames: int = Field(default=8, ge=1, le=64)
    num_future: int = Field(default=3, ge=0, le=32)
    num_beams: int = Field(default=64, ge=2, le=1024)

    @property
    def num_horizons(self) -> int:
        """The current slot and the future ones."""
        return 1 + self.num_future


class Training(Section):
    """How a learner spends its optimizer steps; the controls of a client get exactly the same number.

    Attributes:
        first_round_steps: optimizer steps in round 1, when there are no targets yet and all go to own labels: nodes
            that answer before they have learned something teach nobody.
        steps_per_round: optimizer steps in every later round, own and public batches together.
        digest_share: the share of those steps that learn from targets on the public set.
        batch_size: the number of windows in a batch.
        learning_rate: the learning rate of AdamW at the start.
        schedule: ``constant``, ``cosine`` (to zero over all rounds) or ``plateau`` (halved when validation stalls).
        weight_decay: the weight decay of AdamW.
        task_loss: ``cross_entropy`` or ``focal`` (gamma 2) on own labels.
        power_temperature_db: learn own labels from the measured power too: half from the best beam, half from
            the softmax of the power in dB over this temperature; None takes the best beam alone.
        max_grad_norm: gradients are clipped to this norm.
        perturbed_share: the share of own windows that are learned at another speed, between backwards and as recorded,
            with positions moved a little (`clients.learning.speed`). A learner of few passes gains by it. It has no
            effect where a sensor's frames show motion: ``doppler``, ``motion`` and ``maps``.
    """

    first_round_steps: int = Field(default=240, ge=1)
    steps_per_round: int = Field(default=60, ge=1)
    digest_share: float = Field(default=0.5, ge=0, le=1)
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    schedule: Literal["constant", "cosine", "plateau"] = "cosine"
    weight_decay: float = Field(default=1e-2, ge=0)
    task_loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    power_temperature_db: float | None = Field(default=None, gt=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    perturbed_share: float = Field(default=0.0, ge=0, le=1)

    def steps(self, round_number: int) -> int:
        """The optimizer steps in a round; rounds are counted from 1."""
        return self.first_round_steps if round_number == 1 else self.steps_per_round

    def total_steps(self, rounds: int) -> int:
        """The optimizer steps of the first ``rounds`` rounds."""
        return sum(self.steps(number) for number in range(1, rounds + 1))


class Teaching(Training):
    """How the server trains its teacher; the attributes of `Training` mean the same, with the ensemble as target.

    Attributes:
        pretrain_steps: optimizer steps on the server's own labelled passes before the federation.
        modality_dropout: chance that a modality is hidden from a training window, so that its absence is tolerated.
    """

    pretrain_steps: int = Field(default=480, ge=1)
    first_round_steps: int = Field(default=60, ge=1)
    modality_dropout: float = Field(default=0.25, ge=0, lt=1)


class Hostility(Section):
    """Virtual clients that lie about their soft labels: for experiments on robust rules, in simulation only.

    Attributes:
        attack: a key of `strategies.attacks.ATTACKS`.
        clients: how many lie; these are the clients with the most labelled windows.
    """

    attack: str
    clients: int = Field(ge=1)


class Engine(Section):
    """What runs the virtual clients.

    Attributes:
        name: ``ray`` (Flower's simulation runtime), ``inline`` (this process, one after the other) or ``deployment``
            (real machines; `softbeam run --on` sets it).
        workers: the number of Ray actors at a time, one CPU each; 0 takes every core.
    """

    name: EngineName = "ray"
    workers: int = Field(default=0, ge=0)


class Experiment(Section):
    """A whole experiment: the same experiment gives the same results, whatever the engine.

    Attributes:
        name: the name, of lower-case letters, digits and hyphens.
        seed: the seed of everything that is drawn.
        task: what is predicted from what.
        data: the federation.
        students: the student of each modality; those not named are our tracker in its default size.
        teacher: the teacher.
        training: how students spend their steps.
        teaching: how the teacher spends its steps.
        strategy: the protocol.
        hostility: the clients that lie; None if none does.
        controls: whether every client also trains *local only* and *offline KD* with the same steps; a run without
            them takes a third of the time, but does not say what the federation is worth.
        engine: what runs the clients.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    seed: int = Field(default=0, ge=0)
    task: Task = Task()
    data: StreetData | DeepSenseData = Field(discriminator="source")
    students: dict[str, Model] = Field(default_factory=dict)
    teacher: Model = Model(width=12, features=96, hidden=128)
    training: Training = Training()
    teaching: Teaching = Teaching()
    strategy: Strategy = Strategy()
    hostility: Hostility | None = None
    controls: bool = True
    engine: Engine = Engine()

    @model_validator(mode="after")
    def _parts_fit(self) -> Experiment:
        names = self.modalities
        known = get_args(StreetModality)
        lacking = [name for name in names if name not in known]
        if self.data.source == "street" and lacking:
            raise ValueError(f"data.nodes: the street has no sensor {lacking[0]!r}; use {', '.join(known)}")
        if self.task.num_beams != 64:
            raise ValueError(f"task.num_beams: the street and DeepSense 6G have 64 beams, got {self.task.num_beams}")
        unknown = set(self.students) - set(names)
        if unknown:
            raise ValueError(
                f"students.{sorted(unknown)[0]}: no such modality in data.nodes; there are {', '.join(names)}"
            )
        strategy, num_clients = self.strategy, sum(nodes.count for nodes in self.data.groups)
        if strategy.name in RECIPES:
            self.check_hostility(RECIPES[strategy.name].traits)
        if strategy.secure_sum and round(strategy.participation * num_clients) < 2:
            raise ValueError(
                f"strategy.participation: {strategy.participation:g} of {num_clients} clients are fewer than two in a "
                "round, and with secure_sum the sum of one would show its answer; invite more"
            )
        return self

    def check_hostility(self, traits: Traits) -> None:
        """Refuse clients that lie in a method without soft labels, in which there is nothing to lie about.

        Raises:
            ValueError: the method with these traits sends no soft labels.
        """
        if self.hostility is not None and not traits.sends_labels:
            raise ValueError(f"hostility: {self.strategy.name} sends no soft labels, so there is nothing to lie about")

    @property
    def modalities(self) -> tuple[ModalityName, ...]:
        """The modalities of the clients, in the order of the YAML."""
        return self.data.modalities

    def student_size(self, modality: str, client: str = "") -> Model:
        """The student of a client: that of its node if the node names one, or else that of its modality.

        Args:
            modality: the modality that it senses.
            client: the id of the client, which begins with its number among the nodes.
        """
        every = [nodes for nodes in self.data.groups for _ in range(nodes.count)]
        number = client.partition("-")[0]
        nodes = every[int(number)] if number.isdigit() and int(number) < len(every) else None
        if nodes is not None and nodes.student is not None and nodes.modality == modality:
            return nodes.student
        return self.students.get(modality, Model())
