"""What a study is: the trackers that are trained, the knowledge that they learn from, and the passes.

A study is centralised, as in arXiv 2603.16116: all data on one machine, a teacher, then students that learn from it.
Models are named as in `clients.models.registry`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from configs.section import MAX_BATCH, MAX_EPOCHS, MAX_PASSES, Section
from configs.world import World

Kd = Literal["none", "self", "response", "feature", "relational", "mixed", "cross-modal", "power"]


class StreetPasses(Section):
    """Passes of the synthetic street, in the order in which they are made.

    Attributes:
        source: ``street`` says that the passes are these.
        world: the street; the preset ``s9`` is like scenario 9.
        passes: the number of passes.
        seed: the seed of everything that is drawn in making them.
    """

    source: Literal["street"]
    world: World = World(preset="s9")
    passes: int = Field(default=136, ge=4, le=MAX_PASSES)
    seed: int = Field(default=0, ge=0)


class ScenarioPasses(Section):
    """Passes of a DeepSense 6G scenario with camera and radar, in its own order.

    Attributes:
        source: ``deepsense`` says that the passes are these.
        folder: the folder of the release, relative to the checkout.
    """

    source: Literal["deepsense"]
    folder: str


StudyPasses = Annotated[StreetPasses | ScenarioPasses, Field(discriminator="source")]


class StudyPart(Section):
    """Trackers that answer for the same slots.

    Attributes:
        future: the number J of slots ahead.
        train_share: the first ``int(share * passes)`` passes are trained on, the others tested on.
        teachers: the names of the teacher models.
        born_again: the teachers that learn once more, from themselves; None takes all.
        students: each learns from the teacher with its sensors that validated best.
    """

    future: int = Field(default=3, ge=1, le=32)
    train_share: float = Field(default=0.7, gt=0, lt=1)
    teachers: tuple[str, ...] = Field(min_length=1)
    born_again: tuple[str, ...] | None = None
    students: tuple[str, ...]

    @model_validator(mode="after")
    def _names_once(self) -> StudyPart:
        for path, names in (("teachers", self.teachers), ("students", self.students)):
            if len(set(names)) != len(names):
                raise ValueError(f"{path}: name each model once, got {', '.join(names)}")
        return self


class Ablation(Section):
    """Students beside the grid: every model with every kind of knowledge, in the parts where it has a teacher.

    Attributes:
        models: the names of the student models.
        kd: the kinds of knowledge; ``cross-modal`` learns from the teacher with the most sensors.
        alignment: how radar maps are put beside pictures (`clients.models.step_tracker`); None takes the model's own.
        lengths: the numbers L of frames; empty takes the first length of the study.
        futures: the slots ahead of the parts to take; empty takes all.
    """

    models: tuple[str, ...] = Field(min_length=1)
    kd: tuple[Kd, ...] = ("none",)
    alignment: Literal["paper", "newest"] | None = None
    lengths: tuple[int, ...] = ()
    futures: tuple[int, ...] = ()


class TrainingRecipe(Section):
    """How one tracker learns.

    Attributes:
        learning_rate: the learning rate of Adam at the start.
        weight_decay: the weight decay of Adam, as an L2 penalty.
        temperature: the temperature tau of the response.
        weight: the share a of distillation in the loss.
        distance_weight: the weight w_d of distances in the relations.
        angle_weight: the weight w_a of angles in the relations.
        relation_share: the share of the relations beside the response in ``mixed``.
        power_temperature_db: the temperature of the soft labels from beam power in ``power``.
        epochs: the largest number of epochs; None takes that of `Fitting`.
    """

    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    temperature: float = Field(default=4.0, gt=0)
    weight: float = Field(default=0.3, ge=0, le=1)
    distance_weight: float = Field(default=10.0, ge=0)
    angle_weight: float = Field(default=10.0, ge=0)
    relation_share: float = Field(default=0.1, ge=0)
    power_temperature_db: float = Field(default=1.0, gt=0)
    epochs: int | None = Field(default=None, ge=1, le=MAX_EPOCHS)


class Fitting(Section):
    """How long a tracker learns, and what is kept.

    Attributes:
        epochs: the largest number of epochs.
        patience: the number of epochs without a better validation after which a tracker stops.
        batch_size: the number of windows in a batch.
        schedule: ``restarts`` (cosine over 10, 20, 40, ... epochs) or ``cosine`` (to zero over all epochs).
        warm_up_epochs: epochs over which the rate rises to its value; published recipes have none, short ones need it.
        max_grad_norm: gradients are clipped to this norm.
        num_partners: the number k of partners of a sample in the relations.
        validation_share: the share of the training passes that is set aside to choose the epoch.
    """

    epochs: int = Field(default=100, ge=1, le=MAX_EPOCHS)
    patience: int = Field(default=20, ge=1)
    batch_size: int = Field(default=32, ge=2, le=MAX_BATCH)
    schedule: Literal["restarts", "cosine"] = "restarts"
    warm_up_epochs: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=10.0, gt=0)
    num_partners: int = Field(default=4, ge=1)
    validation_share: float = Field(default=0.15, gt=0, lt=1)


class Study(Section):
    """A whole study.

    Attributes:
        name: the name, of lower-case letters, digits and hyphens.
        seeds: the seeds of weights, batches and validation passes; the test passes stay the same.
        data: the passes.
        lengths: the numbers L of frames that students see; the first is the longest, and the length of the teachers.
        kd: the kinds of knowledge of every student at the first length.
        short_kd: the kinds of knowledge of every student at the other lengths.
        pixels: the side of the motion masks, which are averaged down to it.
        parts: the parts of the grid of trackers.
        ablations: the students beside the grid.
        fitting: how every tracker is fitted.
        recipes: model -> kind of knowledge -> how it learns; ``any`` stands for every kind that is not named.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    data: StudyPasses
    lengths: tuple[int, ...] = (8, 5, 3)
    kd: tuple[Kd, ...] = ("none", "response", "relational", "mixed")
    short_kd: tuple[Kd, ...] = ("none", "response", "relational", "mixed")
    pixels: Literal[224, 112, 56] = 224
    parts: tuple[StudyPart, ...] = Field(min_length=1)
    ablations: tuple[Ablation, ...] = ()
    fitting: Fitting = Fitting()
    recipes: dict[str, dict[Kd | Literal["any"], TrainingRecipe]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _parts_fit(self) -> Study:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: name each once, got {', '.join(map(str, self.seeds))}")
        lengths = [*self.lengths, *(length for ablation in self.ablations for length in ablation.lengths)]
        if not self.lengths or min(lengths) < 2 or max(lengths) > self.lengths[0]:
            raise ValueError(f"lengths: the first must be the longest and all at least 2, got {lengths}")
        futures = [part.future for part in self.parts]
        if len(set(futures)) != len(futures):
            raise ValueError(f"parts: one for each number of future slots, got {futures}")
        if "self" in (*self.kd, *self.short_kd, *(kd for ablation in self.ablations for kd in ablation.kd)):
            raise ValueError("kd: self is for teachers (parts.born_again), not for students; leave it out")
        for number, ablation in enumerate(self.ablations):
            if unknown := set(ablation.futures) - set(futures):
                raise ValueError(f"ablations.{number}.futures: no part has {min(unknown)} future slots")
        return self

    def fitting_of(self, model: str, kd: str) -> Fitting:
        """How long a model learns with a kind of knowledge."""
        epochs = self.recipe(model, kd).epochs
        return self.fitting if epochs is None else self.fitting.model_copy(update={"epochs": epochs})

    def recipe(self, model: str, kd: str) -> TrainingRecipe:
        """How a model learns with a kind of knowledge."""
        known: Mapping[Any, TrainingRecipe] = self.recipes.get(model, {})
        return known.get(kd) or known.get("any") or TrainingRecipe()
