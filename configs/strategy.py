"""The ``strategy`` section: what is asked, answered, aggregated and published, and how it travels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, model_validator

from configs.recipes import RECIPES, Traits
from configs.section import MAX_ROUNDS, Section


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
        clip: the largest L2 norm of the difference between a soft label and the uniform one; None does not clip.
        noise_multiplier: standard deviation of the noise over the sensitivity ``2 clip``; 0 adds no noise. With noise a
            client does not tell which beams it has seen, so rules with ``coverage`` count it for all.
        delta: the delta at which epsilon is told.
        window_share: share k / n of its windows for training and validation that a client draws once in a run, with
            replacement, and learns from; windows recorded later are not among them. None learns from all.
        reveal: all probabilities, or those of the best beams alone.
        reproducible: whether noise and draw follow from the experiment's seed, so that a run can be repeated to the
            bit. The account is nominal then: whoever knows the seed, as the server does, can work out the noise and
            take it off. For research alone.
    """

    clip: float | None = Field(default=None, gt=0)
    noise_multiplier: float = Field(default=0.0, ge=0)
    delta: float = Field(default=1e-5, gt=0, lt=1)
    window_share: float | None = Field(default=None, gt=0, le=1)
    reveal: Literal["all", "top1"] = "all"
    reproducible: bool = False

    @property
    def has_noise(self) -> bool:
        """Whether there is an account of what soft labels give away."""
        return self.noise_multiplier > 0

    @property
    def has_account(self) -> bool:
        """Whether there is any account; scores on a client's own test passes would break it."""
        return self.has_noise or self.window_share is not None

    @model_validator(mode="after")
    def _noise_fits(self) -> Privacy:
        if self.has_noise and self.clip is None:
            raise ValueError("clip: noise without clipping would protect nothing; give a norm")
        return self


class PairRelations(Section):
    """How the teacher tells clients which public samples it finds alike (`strategies.relations`).

    Attributes:
        pairs: the number of partners of each sample; a partner costs two float16 numbers, a distance and an angle.
        share: the share of the digest steps that learn from relations beside the soft labels of the same samples; the
            others learn from soft labels alone. With 1 no soft labels come down at all, whatever ``publish`` says, so
            relations stand in for them; answers still go up and teach the teacher.
        distance_weight: the weight of the squared errors of distances.
        angle_weight: the weight of the squared errors of angles.
    """

    pairs: int = Field(default=4, ge=1, le=64)
    share: float = Field(default=0.5, gt=0, le=1)
    distance_weight: float = Field(default=1.0, ge=0)
    angle_weight: float = Field(default=1.0, ge=0)

    @model_validator(mode="after")
    def _weighs_something(self) -> PairRelations:
        if self.distance_weight == 0 and self.angle_weight == 0:
            raise ValueError("distance_weight: with this and angle_weight at 0 there is nothing to learn; raise one")
        return self


class Strategy(Section):
    """The protocol of the federation; keys that the YAML leaves out come from the recipe of its name, if it has one.

    Attributes:
        name: a short name, or the ``"module:Class"`` of a `DistillationStrategy`.
        options: keyword arguments of the class.
        rounds: the number of rounds.
        participation: share of the clients that is invited to a round, at least one; drawn anew in each.
        public_samples: public samples drawn in a round; 0 takes all.
        asks: which of the drawn samples a client answers: ``all``, or those that were recorded at its ``own_site``.
            Clients of other sites know little of these, so they have no vote on them, and answers are shorter. A client
            that names no site answers all.
        own_site_share: share of a client's digest batches of soft labels that are drawn from the targets of its own
            site alone; the others are drawn from all. A client that names no site, or has no labels, learns from all
            alike. The control *offline KD* does the same.
        ask_cached: whether drawn samples whose target is fresh are asked again.
        target_lifetime: the rounds after its own in which a target is fresh; nobody learns from stale ones. None: all.
        answer_filter: whether clients answer everything, what they are certain of, or what looks like their own data.
        answer_share: share of its own held-out windows that a client's filter would let through.
        aggregator: how contributions become the ensemble.
        sharpen: the ensemble's rows p become softmax(p / sharpness) or p^sharpness / sum, or stay.
        sharpness: see ``sharpen``.
        codec: how soft labels travel up and, unless ``downlink_codec`` says otherwise, down.
        downlink_codec: how targets travel; None takes ``codec``.
        temperature: the temperature of all soft labels on the wire, and of the distillation loss.
        publish: what the server broadcasts: the ensemble, the teacher's answer, their mix, or the teacher's answer
            where it names the best beam and the ensemble elsewhere (``corrected``; needs a labelled public set).
        teacher_starts: whether the pretrained teacher's soft labels for the public set are the targets of round 1.
        teacher_votes: whether the teacher's own answer is one of the contributions.
        mix: share of the teacher's outputs in the targets when ``publish`` is ``mix``.
        hindsight: whether targets for future slots are corrected by what later windows of the public set say of those
            slots, since it is recorded (`strategies.hindsight`). It holds for the teacher's answers as well, and so for
            the control *offline KD*.
        relations: the relations between public samples that come down beside targets or instead of them; None for none.
        keeps: what a client decides by: its ``federated`` student alone, or the ``mixture`` of it with its local self,
            in which the better one on own labels weighs more (`clients.learning.mixture`). The local self learns from
            own labels, beside the student and with as many steps, so a client computes twice as much. The control
            *offline KD* gets the same mixture.
        mixture_windows: the number of independent windows that all own labels count for when the mixture is weighed.
            At 0 both students weigh alike; the larger it is, the more weighs the one that fits own labels better, which
            is mostly the local self. Without the mixture it has no meaning.
        privacy: what clients do to their soft labels before they leave.
        secure_sum: whether the server learns only the sum of the clients' soft labels
            (`strategies.methods.secure_sum`).
        late_rounds: the number of rounds by which an answer may be late and still count; 0 drops what misses its round.
        patience: a round waits for late clients at most this many times as long as ``quorum`` of the clients took.
            Their answers may still count later (``late_rounds``). None waits for all, up to ``round_timeout_s``. With
            patience the clock decides which answers are in time, so such a run is not reproducible to the bit.
        quorum: the share of the clients asked in a round that must have answered before ``patience`` counts.
        round_timeout_s: the seconds after which a client that has not answered is recorded as missing.
        evaluate_every: learners are scored on test sets in every round whose number this divides, in the last one, and
            in the last one in which a client is there. A round between has no scores, which spares work; what is
            learned, validated and kept is the same. In the summary, a client has no scores
            where it last took part in a round between, as may be with ``participation`` below 1.
    """

    name: str = "distillation"
    options: dict[str, Any] = Field(default_factory=dict)
    rounds: int = Field(default=8, ge=1, le=MAX_ROUNDS)
    participation: float = Field(default=1.0, gt=0, le=1)
    public_samples: int = Field(default=0, ge=0, le=1_000_000_000)
    asks: Literal["all", "own_site"] = "all"
    own_site_share: float = Field(default=0.0, ge=0, le=1)
    ask_cached: bool = True
    target_lifetime: int | None = Field(default=None, ge=1, le=MAX_ROUNDS)
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
    hindsight: bool = False
    relations: PairRelations | None = None
    keeps: Literal["federated", "mixture"] = "federated"
    mixture_windows: float = Field(default=2.0, ge=0, le=1000)
    privacy: Privacy = Privacy()
    secure_sum: bool = False
    late_rounds: int = Field(default=0, ge=0, le=MAX_ROUNDS)
    patience: float | None = Field(default=None, ge=1)
    quorum: float = Field(default=0.5, gt=0, le=1)
    round_timeout_s: float = Field(default=600.0, gt=0)
    evaluate_every: int = Field(default=1, ge=1, le=MAX_ROUNDS)

    @model_validator(mode="before")
    @classmethod
    def _follow_recipe(cls, values: Any) -> Any:
        name = values.get("name") if isinstance(values, Mapping) else None
        if not isinstance(name, str) or name not in RECIPES:
            return values
        return {**RECIPES[values["name"]].values, **values}

    @model_validator(mode="after")
    def _parts_fit(self) -> Strategy:
        if self.ask_cached is False and self.target_lifetime is None:
            raise ValueError("target_lifetime: without it no cached sample would ever be asked again; give a number")
        if self.privacy.has_noise and self.answer_filter != "none":
            raise ValueError(
                f"privacy.noise_multiplier: which samples pass answer_filter {self.answer_filter} says something of a "
                "client's data that no noise covers; use answer_filter: none"
            )
        if not self.sends_targets:
            self._check_without_targets()
        if self.name in RECIPES:
            check_traits(self, RECIPES[self.name].traits)
        if self.secure_sum:
            self._check_summable()
        return self

    def _check_without_targets(self) -> None:
        """Refuse keys about targets where no targets come down."""
        ignored = {
            "ask_cached": not self.ask_cached,
            "target_lifetime": self.target_lifetime is not None,
            "downlink_codec": self.downlink_codec is not None,
        }
        for key in (key for key, is_given in ignored.items() if is_given):
            raise ValueError(
                f"{key}: with relations.share 1 no soft labels come down; leave it out, or give a share below 1"
            )

    def _check_summable(self) -> None:
        if self.aggregator.name != "mean":
            raise ValueError(
                f"secure_sum: {self.aggregator.name} needs the answer of each client, and a sum has none; "
                "use aggregator: {name: mean}"
            )
        if self.answer_filter != "none" or self.asks != "all" or self.late_rounds or self.patience is not None:
            raise ValueError(
                "secure_sum: all must answer all samples in time; leave answer_filter, asks, late_rounds and patience "
                "out"
            )

    @property
    def sends_targets(self) -> bool:
        """Whether soft labels come down."""
        return self.relations is None or self.relations.share < 1

    def is_scored(self, round_number: int) -> bool:
        """Whether all learners are scored on test sets in a round."""
        return round_number % self.evaluate_every == 0 or round_number == self.rounds

    @property
    def codec_down(self) -> str:
        """The codec of targets."""
        return self.downlink_codec or self.codec


@dataclass(frozen=True)
class Use:
    """What gives a key of the ``strategy`` section a meaning.

    Attributes:
        trait: the attribute of `Traits` that a method needs for it.
        idle: the value with which the key says nothing.
        why: why a method without the trait has no use for it, after the name of the method.
    """

    trait: str
    idle: object
    why: str


_NO_TARGETS = "publishes no targets for public samples"
_NO_ENSEMBLE = "aggregates no soft labels"
_NO_STUDENT = "has no student that targets could mislead"
USES: Mapping[str, Use] = {
    "answer_filter": Use("asks_samples", "none", "asks for no public samples"),
    "asks": Use("asks_samples", "all", "asks for no public samples"),
    "own_site_share": Use("asks_samples", 0.0, _NO_TARGETS),
    "publish": Use("asks_samples", "ensemble", _NO_TARGETS),
    "hindsight": Use("asks_samples", False, _NO_TARGETS),
    "aggregator": Use("sends_labels", Aggregation(), _NO_ENSEMBLE),
    "sharpen": Use("sends_labels", "none", _NO_ENSEMBLE),
    "sharpness": Use("sends_labels", 1.0, _NO_ENSEMBLE),
    "relations": Use("relates", None, "has no public samples to relate"),
    "keeps": Use("sends_labels", "federated", _NO_STUDENT),
    "mixture_windows": Use("sends_labels", 2.0, _NO_STUDENT),
}
"""The keys that some methods have no use for, and that nothing is lost without."""


NO_USE = "the method has no use for it"
SAYS_ITSELF = "the method says it itself"
"""Why a method that takes the place of another is not told a key."""


def keys_left_out(section: Mapping[str, Any], name: str) -> dict[str, str]:
    """The keys of a ``strategy`` section that a strategy is not told which takes the place of the section's own.

    These are the keys that it has no use for, and those that it says itself: DS-FL sharpens as its paper does, whatever
    suits the strategy that the section was written for.

    Args:
        section: the section as a YAML file has it.
        name: the name of the other strategy; nothing is known of a user's own class here, so it is told everything.

    Returns:
        Key -> the reason, `NO_USE` or `SAYS_ITSELF`.

    Example:
        >>> keys_left_out({"rounds": 3, "keeps": "mixture"}, "fedavg")
        {'keeps': 'the method has no use for it'}
        >>> keys_left_out({"sharpen": "power"}, "dsfl")
        {'sharpen': 'the method says it itself'}
    """
    if name not in RECIPES or name == section.get("name", Strategy.model_fields["name"].default):
        return {}
    recipe = RECIPES[name]
    own = {key: SAYS_ITSELF for key in section if key in recipe.values}
    idle = [key for key in section if key in USES and not getattr(recipe.traits, USES[key].trait)]
    return own | dict.fromkeys(idle, NO_USE)


def check_traits(settings: Strategy, traits: Traits) -> None:
    """Refuse settings that a method would ignore or could not keep.

    The schema calls this for the strategies that it knows; `strategies.registry.find_plugins` calls it for a user's own
    class, which declares its own traits.

    Args:
        settings: the ``strategy`` section.
        traits: the traits of its method.

    Raises:
        ValueError: a setting does not fit the traits; the message begins with its key within the section.
    """
    name, privacy = settings.name, settings.privacy
    # Recipes say what they publish. A user's own class has no recipe, so nobody chose the default of the section.
    is_left_as_it_is = name not in RECIPES and settings.publish == Strategy.model_fields["publish"].default
    for key, use in USES.items():
        is_given = getattr(settings, key) != use.idle and not (key == "publish" and is_left_as_it_is)
        if is_given and not getattr(traits, use.trait):
            raise ValueError(f"{key}: {name} {use.why}; leave it out")
    refusals = [
        (
            not traits.summable and settings.secure_sum,
            f"secure_sum: {name} does not sum soft labels of public samples",
        ),
        (
            traits.needs_targets and not settings.sends_targets,
            f"relations.share: {name} mixes soft labels for each client, and none come down at 1; give less",
        ),
        (
            not traits.sends_labels and (privacy.clip is not None or privacy.reveal != "all"),
            f"privacy: {name} sends no soft labels, so there is nothing to protect in them",
        ),
        (
            traits.pools and privacy.window_share is not None,
            f"privacy.window_share: {name} pools whole recordings, of which nothing is drawn",
        ),
        (
            traits.tells_classes and privacy.has_noise,
            f"privacy.noise_multiplier: {name} tells which beams a client has seen, which no noise covers",
        ),
    ]
    for is_refused, reason in refusals:
        if is_refused:
            raise ValueError(reason)
