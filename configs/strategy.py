"""The ``strategy`` section: what is asked, answered, aggregated and published, and how it travels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from configs.recipes import RECIPES
from configs.section import Section

# What they exchange cannot be summed, or is made for one client alone.
_NOT_SUMMABLE = ("personal", "fd", "fedproto", "fedavg", "local", "centralised")


class Plugin(Section):
    """A class named in YAML, and its keyword arguments.

    Attributes:
        name: a short name of `strategies.registry`, or ``"module:Class"``; the module may lie beside the user's YAML.
        options: keyword arguments of the class.
    """

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


class Aggregation(Plugin):
    """The aggregator; a YAML that gives options alone means the default one."""

    name: str = "entropy_mean"


class Privacy(Section):
    """What a client does to its soft labels before they leave (`strategies.privacy`).

    Attributes:
        clip: L2 norm of what a soft label may differ from the uniform one; None does not clip.
        noise_multiplier: standard deviation of the noise over the sensitivity ``2 clip``; 0 adds none.
        delta: at which epsilon is told.
        window_share: share k / n of its windows that a client draws, with replacement, to train on; None trains on all.
        reveal: all probabilities, or those of the best beams alone.
    """

    clip: float | None = Field(default=None, gt=0)
    noise_multiplier: float = Field(default=0.0, ge=0)
    delta: float = Field(default=1e-5, gt=0, lt=1)
    window_share: float | None = Field(default=None, gt=0, le=1)
    reveal: Literal["all", "top1"] = "all"

    @model_validator(mode="after")
    def _noise_fits(self) -> Privacy:
        if self.noise_multiplier > 0 and self.clip is None:
            raise ValueError("clip: noise without it would protect nothing; give a norm")
        return self


class Strategy(Section):
    """The protocol of the federation; ``name`` fills in what its recipe (`configs.recipes`) says and the YAML does not.

    Attributes:
        name: short name, or ``"module:Class"`` of a `DistillationStrategy`.
        options: keyword arguments of the class.
        rounds: number of rounds.
        participation: share of the clients that is invited to a round, at least one; drawn anew in each.
        public_samples: public samples drawn in a round; 0 takes all.
        ask_cached: whether drawn samples whose target is fresh are asked again.
        target_lifetime: rounds after its own in which a target is fresh; stale ones are not learned from. None: always.
        answer_filter: clients answer everything, what they are certain of, or what looks like their own data.
        answer_share: share of its own held-out windows that a client's filter would let through.
        aggregator: how contributions become the ensemble.
        sharpen: the ensemble's rows p become softmax(p / sharpness) or p^sharpness / sum, or stay.
        sharpness: see ``sharpen``.
        codec: how soft labels travel up and, unless ``downlink_codec`` says otherwise, down.
        downlink_codec: how targets travel; None takes ``codec``.
        temperature: of all soft labels on the wire, and of the distillation loss.
        publish: what the server broadcasts: the ensemble, the teacher's answer, their mix, or the teacher's answer
            where it names the best beam and the ensemble elsewhere (``corrected``; needs a labelled public set).
        teacher_starts: whether the pretrained teacher's soft labels for the public set are the targets of round 1.
        teacher_votes: whether the teacher's own answer is one of the contributions.
        mix: share of the teacher's outputs in the targets when ``publish`` is ``mix``.
        privacy: what clients do to their soft labels before they leave.
        secure_sum: whether the server learns the sum of the clients' soft labels only (`strategies.secure_sum`).
        late_rounds: an answer may come so many rounds late and still count; 0 drops what misses its round.
        round_timeout_s: after this long a client that has not answered is recorded as missing.
    """

    name: str = "distillation"
    options: dict[str, Any] = Field(default_factory=dict)
    rounds: int = Field(default=8, ge=1)
    participation: float = Field(default=1.0, gt=0, le=1)
    public_samples: int = Field(default=0, ge=0)
    ask_cached: bool = True
    target_lifetime: int | None = Field(default=None, ge=1)
    answer_filter: Literal["none", "confidence", "density"] = "none"
    answer_share: float = Field(default=0.8, gt=0, le=1)
    aggregator: Aggregation = Aggregation()
    sharpen: Literal["none", "softmax", "power"] = "none"
    sharpness: float = Field(default=1.0, gt=0)
    codec: str = "top8-uint4+delta"
    downlink_codec: str | None = None
    temperature: float = Field(default=2.0, gt=0, le=100)
    publish: Literal["teacher", "ensemble", "mix", "corrected"] = "mix"
    teacher_starts: bool = True
    teacher_votes: bool = True
    mix: float = Field(default=0.5, ge=0, le=1)
    privacy: Privacy = Privacy()
    secure_sum: bool = False
    late_rounds: int = Field(default=0, ge=0)
    round_timeout_s: float = Field(default=600.0, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _follow_recipe(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or values.get("name") not in RECIPES:
            return values
        return {**RECIPES[values["name"]].values, **values}

    @model_validator(mode="after")
    def _parts_fit(self) -> Strategy:
        if self.ask_cached is False and self.target_lifetime is None:
            raise ValueError("target_lifetime: without it no cached sample would ever be asked again; give rounds")
        if self.secure_sum:
            self._check_summable()
        return self

    def _check_summable(self) -> None:
        if self.aggregator.name != "mean":
            raise ValueError(
                f"secure_sum: {self.aggregator.name} needs the answer of each client, and a sum has none; "
                "use aggregator: {name: mean}"
            )
        if self.name in _NOT_SUMMABLE:
            raise ValueError(f"secure_sum: {self.name} does not sum soft labels of public samples")
        if self.answer_filter != "none" or self.late_rounds:
            raise ValueError("secure_sum: all must answer all samples in time; leave answer_filter and late_rounds out")

    @property
    def codec_down(self) -> str:
        """The codec of targets."""
        return self.downlink_codec or self.codec

    @property
    def expected_rounds(self) -> int:
        """Rounds in which a client takes part, on average; its learning-rate schedule ends with the last."""
        return max(1, round(self.participation * self.rounds))
