"""What an experiment is: frozen, checked when built, trusted after.

Every section is a pydantic model that refuses unknown keys. Options of a plug-in
(`options:`) are the keyword arguments of the class that `name:` points to and are
checked beside that class, not here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from configs.data import (
    DealtPasses,
    DeepSenseData,
    Faults,
    FolderData,
    MeasuredSite,
    ModalityName,
    Nodes,
    Passes,
    StreetData,
    StreetModality,
)
from configs.models import Model
from configs.recipes import RECIPES, Traits
from configs.section import MAX_BATCH, MAX_STEPS, Section
from configs.strategy import Aggregation, Plugin, Strategy
from configs.world import MAX_BEAMS, MIN_BEAMS, World

__all__ = [
    "Aggregation",
    "DealtPasses",
    "DeepSenseData",
    "Engine",
    "Experiment",
    "Faults",
    "FolderData",
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


BEAMS = "beams"


class Task(Section):
    """What is decided from what: beam tracking, or the class of a row in a task of a user's own.

    Beam tracking decides from the last ``num_frames`` frames for the best beam now and in ``num_future`` slots. A task
    of a user's own decides from ``num_frames`` rows for the class of the last one, now.

    Attributes:
        name: ``beams``, or a class of a user's own as ``"module:Class"`` (`clients.learning.classification`).
        options: the keyword arguments of that class.
        num_frames: the number L of frames of a window; where a task of a user's own says nothing, an item is one row.
        num_future: the number J of future slots, decided for beside the current one; a task of a user's own has none.
        num_classes: the number of beams, and in a task of a user's own, where the key is ``num_classes``, that of
            classes. It is that of the data, and an experiment takes it from there.

    Source: arXiv 2603.16116 (L = 8, J = 3, 64 beams).
    """

    model_config = ConfigDict(populate_by_name=True)

    name: str = BEAMS
    options: dict[str, Any] = Field(default_factory=dict)
    num_frames: int = Field(default=8, ge=1, le=64)
    num_future: int = Field(default=3, ge=0, le=32)
    num_classes: int = Field(default=64, ge=MIN_BEAMS, le=MAX_BEAMS, alias="num_beams")

    @model_validator(mode="before")
    @classmethod
    def _items_are_rows(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("name", BEAMS) != BEAMS:
            return {"num_frames": 1, "num_future": 0, **values}
        return values

    @model_validator(mode="after")
    def _kinds_of_task_fit(self) -> Task:
        if self.is_beam_tracking and self.options:
            raise ValueError("options: these are of a task of your own; beam tracking has none")
        if not self.is_beam_tracking and ":" not in self.name:
            raise ValueError(f'name: must be {BEAMS}, or "module:Class" for a task of your own, got {self.name!r}')
        if not self.is_beam_tracking and self.num_future:
            raise ValueError(f"num_future: {self.name} decides for now, without slots ahead; leave it out")
        return self

    @model_serializer(mode="wrap")
    def _as_a_yaml_says_it(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        if self.is_beam_tracking:
            words = {"num_frames": "num_frames", "num_future": "num_future", "num_classes": "num_beams"}
            values = {word: values[name] for name, word in words.items() if name in values}
        return values

    def __hash__(self) -> int:
        # Options may hold lists and mappings, so they take no part in it.
        return hash((self.name, self.num_frames, self.num_future, self.num_classes))

    @property
    def is_beam_tracking(self) -> bool:
        """Whether the classes are beams."""
        return self.name == BEAMS

    @property
    def num_beams(self) -> int:
        """The number of beams, for what is about beams only."""
        return self.num_classes

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

    first_round_steps: int = Field(default=240, ge=1, le=MAX_STEPS)
    steps_per_round: int = Field(default=60, ge=1, le=MAX_STEPS)
    digest_share: float = Field(default=0.5, ge=0, le=1)
    batch_size: int = Field(default=32, ge=1, le=MAX_BATCH)
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

    pretrain_steps: int = Field(default=480, ge=1, le=MAX_STEPS)
    first_round_steps: int = Field(default=60, ge=1, le=MAX_STEPS)
    modality_dropout: float = Field(default=0.25, ge=0, lt=1)


class Hostility(Section):
    """Virtual clients that lie about their soft labels: for experiments on robust rules, in simulation only.

    Attributes:
        attack: a key of `strategies.attacks.ATTACKS`.
        clients: how many lie; these are the clients with the most labelled windows.
    """

    attack: str
    clients: int = Field(ge=1, le=100_000)


def _cohort(value: object) -> object:
    """Refuse a wrong size in one line; pydantic would name both types that it may have.

    Raises:
        ValueError: it is neither ``auto`` nor a whole number from 1.
    """
    if value != "auto" and (type(value) is not int or value < 1):
        raise ValueError(f"must be auto or a whole number from 1, got {value!r}")
    return value


class Engine(Section):
    """What runs the virtual clients.

    Attributes:
        name: ``ray`` (Flower's simulation runtime), ``inline`` (this process, one after the other) or ``deployment``
            (real machines; `softbeam run --on` sets it).
        workers: the number of Ray actors at a time, one CPU each; 0 takes every core.
        address: a running Ray cluster, as ``host:port`` of its head or ``auto``; all of its cores are used. Its
            machines need this checkout and the data at the same paths. ``local`` starts a Ray of this machine alone,
            and so does None unless the environment has ``RAY_ADDRESS``.
        cohort: the number of virtual clients on one node of a simulation, or ``auto`` (`clients.profile.cohorts_of`).
            Clients of one node whose students have the same architecture learn as one stacked model, which is faster
            for GPS, boxes, past power and other vectors. It adds numbers in another order: results are the same to
            about 1e-5 and, for the same cohorts, to the bit. 1 gives the bits of real machines.
        device: where students and the teacher compute: ``cpu``, ``cuda`` (a GPU, or an error) or ``auto`` (a GPU in
            each process whose torch sees one, else the CPU). States and answers are the same kind of file everywhere;
            the same seed gives the same bits on one device only.
        gpu_per_worker: the share of a GPU that Ray sets aside for each worker, as 0.25 for four on one; needs a device
            that may be a GPU. 0 sets nothing aside: every worker may use the GPU.
    """

    name: EngineName = "ray"
    workers: int = Field(default=0, ge=0, le=10_000)
    address: str | None = Field(default=None, pattern=r"^(auto|local|[^\s/:]+:\d+)$")
    cohort: Annotated[int | Literal["auto"], BeforeValidator(_cohort)] = 1
    device: Literal["cpu", "auto", "cuda"] = "cpu"
    gpu_per_worker: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _share_has_a_device(self) -> Engine:
        if self.gpu_per_worker and self.device == "cpu":
            raise ValueError(
                f"engine.gpu_per_worker: {self.gpu_per_worker:g} of a GPU is of no use with engine.device=cpu; set "
                "engine.device=auto or cuda, or leave the share out"
            )
        return self


class Experiment(Section):
    """A whole experiment: the same experiment gives the same results, whatever the engine.

    Attributes:
        name: the name, of at most 100 lower-case letters, digits and hyphens.
        seed: the seed of everything that is drawn.
        task: what is decided from what.
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
        track: the trackers that get the numbers of each round while the run lasts: ``tensorboard``, ``mlflow``,
            ``wandb``, ``trackio``, or a class of your own as ``"module:Class"``. They change nothing of the run.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=100)
    seed: int = Field(default=0, ge=0)
    task: Task = Task()
    data: StreetData | DeepSenseData | FolderData = Field(discriminator="source")
    students: dict[str, Model] = Field(default_factory=dict)
    teacher: Model = Model(width=12, features=96, hidden=128)
    training: Training = Training()
    teaching: Teaching = Teaching()
    strategy: Strategy = Strategy()
    hostility: Hostility | None = None
    controls: bool = True
    engine: Engine = Engine()
    track: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _parts_fit(self) -> Experiment:
        names = self.modalities
        known = get_args(StreetModality)
        lacking = [name for name in names if name not in known]
        if self.data.source == "street" and lacking:
            raise ValueError(f"data.nodes: the street has no sensor {lacking[0]!r}; use {', '.join(known)}")
        self._check_task()
        if len(set(self.track)) < len(self.track):
            raise ValueError(f"track: each tracker once, got {', '.join(self.track)}")
        unknown = set(self.students) - set(names)
        if unknown:
            raise ValueError(
                f"students.{sorted(unknown)[0]}: no such modality in data.nodes; there are {', '.join(names)}"
            )
        strategy, num_clients = self.strategy, sum(nodes.count for nodes in self.data.groups)
        if strategy.name in RECIPES:
            self.check_hostility(RECIPES[strategy.name].traits)
            self.check_shares(RECIPES[strategy.name].traits)
            self.check_students(RECIPES[strategy.name].traits)
        if strategy.hindsight and not self.task.num_future:
            raise ValueError(
                "strategy.hindsight: the task decides for now alone, of which later windows say nothing; leave it out"
            )
        if strategy.asks == "own_site" and not self.data.has_sites:
            raise ValueError("strategy.asks: this federation names no sites; leave it out")
        if strategy.own_site_share > 0 and not self.data.has_sites:
            raise ValueError("strategy.own_site_share: this federation names no sites; leave it out")
        if strategy.secure_sum and round(strategy.participation * num_clients) < 2:
            raise ValueError(
                f"strategy.participation: {strategy.participation:g} of {num_clients} clients are fewer than two in a "
                "round, and with secure_sum the sum of one would show its answer; invite more"
            )
        return self

    @model_validator(mode="after")
    def _somebody_is_there(self) -> Experiment:
        rounds, groups = self.strategy.rounds, self.data.groups
        for number, nodes in enumerate(self.data.nodes):
            if nodes.first_round > rounds:
                raise ValueError(
                    f"data.nodes.{number}.first_round: strategy.rounds is {rounds}, so round {nodes.first_round} never "
                    "comes; give fewer, or more rounds"
                )
        needed = 2 if self.strategy.secure_sum else 1
        # There are fewest clients at the beginning, or after one has left.
        ends = {nodes.last_round + 1 for nodes in groups if nodes.last_round is not None}
        for number in sorted(one for one in {1, *ends} if one <= rounds):
            there = sum(nodes.count for nodes in groups if number in nodes.rounds(rounds))
            if there < needed:
                raise ValueError(
                    f"data.nodes: {there or 'no'} client is there in round {number}, and {needed} must be; "
                    "change first_round or last_round"
                )
        return self

    def check_students(self, traits: Traits) -> None:
        """Refuse unlike students of one modality where their weights are averaged.

        Raises:
            ValueError: the method with these traits exchanges weights, and an entry of ``data.nodes`` has a student of
                its own that differs from those of the entries before it.
        """
        students: dict[str, Model] = {}
        for number, nodes in enumerate(self.data.nodes if traits.exchange == "weights" else ()):
            student = nodes.student or self.student_size(nodes.modality)
            if students.setdefault(nodes.modality, student) != student:
                raise ValueError(
                    f"data.nodes.{number}.student: {self.strategy.name} averages weights, so all {nodes.modality} "
                    "students must be alike; make them so, or choose another strategy"
                )

    def check_shares(self, traits: Traits) -> None:
        """Refuse clients that hold a part of the public set where each must answer for all of it, or for none.

        Raises:
            ValueError: the method with these traits asks for no public samples, or its settings need all answers.
        """
        for number, nodes in enumerate(self.data.nodes):
            if nodes.public_share == 1:
                continue
            key, strategy = f"data.nodes.{number}.public_share", self.strategy
            if not (traits.asks_samples and traits.sends_labels):
                raise ValueError(f"{key}: {strategy.name} asks for no soft labels of public samples; leave it out")
            if strategy.secure_sum or strategy.relations is not None:
                name = "secure_sum" if strategy.secure_sum else "relations"
                raise ValueError(f"{key}: with strategy.{name} every client needs every public sample; leave one out")

    def _check_task(self) -> None:
        """Refuse data that the task cannot be learned from, and settings that mean nothing in it."""
        task, num_beams = self.task, self.data.num_beams
        if not task.is_beam_tracking:
            if self.data.source != "folder":
                raise ValueError(f"task.name: {task.name} reads labels from a folder, and this is a {self.data.source}")
            for path, training in (("training", self.training), ("teaching", self.teaching)):
                for key in ("task_loss", "power_temperature_db", "perturbed_share"):
                    if getattr(training, key) != Training.model_fields[key].default:
                        raise ValueError(f"{path}.{key}: this is about beams, and {task.name} has its own loss")
            return
        if num_beams is None:
            raise ValueError(
                "task.name: the rows of data.folder have classes, not the power of beams; name the task that they are "
                'for: "module:Class" (docs/tutorials/task.md)'
            )
        if task.num_beams != num_beams:
            raise ValueError(
                f"task.num_beams: {self.data.beams_are_from}, got {task.num_beams}; leave it out to follow it"
            )
        if "past_power" in self.modalities and task.num_beams != 64:
            raise ValueError(
                f"data.nodes: a sweep of past_power has 64 beams, and here there are {task.num_beams}; "
                "use other sensors"
            )

    def check_hostility(self, traits: Traits) -> None:
        """Refuse clients that lie in a method without soft labels, in which there is nothing to lie about.

        Raises:
            ValueError: the method with these traits sends no soft labels.
        """
        if self.hostility is not None and not traits.sends_labels:
            raise ValueError(f"hostility: {self.strategy.name} sends no soft labels, so there is nothing to lie about")

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities of the clients, in the order of the YAML."""
        return self.data.modalities

    def nodes_of(self, client: str, modality: str) -> Nodes | None:
        """The entry of ``data.nodes`` that a virtual client belongs to; None if it belongs to none.

        Args:
            client: the id of the client, which begins with its number among the nodes, such as ``002-radar``.
            modality: the modality that it senses.
        """
        number = client.partition("-")[0]
        left = int(number) if number.isdigit() else 0
        for nodes in self.data.groups if number.isdigit() else ():
            if left < nodes.count:
                return nodes if nodes.modality == modality else None
            left -= nodes.count
        return None

    def student_size(self, modality: str, client: str = "") -> Model:
        """The student of a client: that of its node if the node names one, or else that of its modality."""
        nodes = self.nodes_of(client, modality)
        if nodes is not None and nodes.student is not None:
            return nodes.student
        return self.students.get(modality, Model())

    def training_of(self, client: str, modality: str) -> Training:
        """How a client spends its steps: as ``training`` says, but for what its node says itself."""
        nodes = self.nodes_of(client, modality)
        return self.training if nodes is None else self.training.model_copy(update=nodes.training.given)

    def rounds_of(self, client: str, modality: str) -> range:
        """The rounds of the experiment in which a client is there to be invited."""
        nodes = self.nodes_of(client, modality)
        return range(1, self.strategy.rounds + 1) if nodes is None else nodes.rounds(self.strategy.rounds)

    def is_there(self, client: str, modality: str, round_number: int) -> bool:
        """Whether a client is there to be invited to a round, which may be one beyond those of the experiment."""
        nodes = self.nodes_of(client, modality)
        return nodes is None or nodes.first_round <= round_number <= (nodes.last_round or round_number)

    def is_scored(self, client: str, modality: str, round_number: int) -> bool:
        """Whether a client is scored on test sets in a round: also in the last one in which it is there."""
        return self.strategy.is_scored(round_number) or round_number == self.rounds_of(client, modality)[-1]

    def expected_rounds(self, client: str, modality: str) -> int:
        """The average number of rounds in which a client takes part; its learning-rate schedule ends with the last."""
        return max(1, round(self.strategy.participation * len(self.rounds_of(client, modality))))

    def differences_of(self, client: str, modality: str) -> dict[str, Any]:
        """What the node of a client says of ``training``, ``rounds`` (first, last) and ``public_share``, if it does."""
        nodes, rounds = self.nodes_of(client, modality), self.rounds_of(client, modality)
        if nodes is None:
            return {}
        found = {
            "training": nodes.training.given,
            "rounds": [rounds[0], rounds[-1]] if len(rounds) < self.strategy.rounds else None,
            "public_share": nodes.public_share if nodes.public_share < 1 else None,
        }
        return {name: value for name, value in found.items() if value}

    def public_share(self, client: str, modality: str) -> float:
        """The share of the passes of the public set that a client holds."""
        nodes = self.nodes_of(client, modality)
        return 1.0 if nodes is None else nodes.public_share
