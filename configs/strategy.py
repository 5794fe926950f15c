"""The ``strategy`` section: what is asked, answered, aggregated and published, and how it travels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from configs.recipes import RECIPES
from configs.section import Section


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
    codec: str = "float16"
    downlink_codec: str | None = None
    temperature: float = Field(default=2.0, gt=0, le=100)
    publish: Literal["teacher", "ensemble", "mix", "corrected"] = "ensemble"
    teacher_starts: bool = True
    teacher_votes: bool = True
    mix: float = Field(default=0.5, ge=0, le=1)
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
        return self

    @property
    def codec_down(self) -> str:
        """The codec of targets."""
        return self.downlink_codec or self.codec

    @property
    def expected_rounds(self) -> int:
        """Rounds in which a client takes part, on average; its learning-rate schedule ends with the last."""
        return max(1, round(self.participation * self.rounds))
