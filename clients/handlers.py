"""What a client does with each kind of message: says hello, trains the controls, takes part in a round.

A handler may raise; `clients.app` makes a reply of it.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from clients.desk import Desk
from clients.exchange import BehindError, Facts, own_beams
from clients.exchanges import EXCHANGES
from clients.hostility import attack_of
from clients.masked_exchange import own_key
from clients.secrecy import drawn_material, window_bound
from clients.sensing.by_beam import count_beams
from clients.sensing.learner import Learner
from clients.sensing.lessons import Lesson, public_lesson
from clients.sensing.recording import open_recording
from clients.sensing.tracker import count_parameters
from clients.training import make_learner, make_pooled_learner, own_recording
from strategies.codecs.encoding import Encoding
from strategies.messages.wire import Reply, Request, WireError

log = logging.getLogger(__name__)


def introduce(desk: Desk, request: Request) -> Reply:
    """Say what this client senses, how much it has and which beams it knows."""
    learner = _learner(desk)
    return Reply(
        facts={
            "modality": desk.profile.modality,
            "num_parameters": count_parameters(learner.model),
            **_possessions(learner, desk),
            **({"public_key": own_key(desk).public.hex()} if desk.header.kind == "masked" else {}),
        }
    )


def train_controls(desk: Desk, request: Request) -> Reply:
    """Train the two controls with the steps of the whole federation: *local only* and *offline KD*.

    The targets of the request are those of the teacher before the federation.
    """
    metrics: dict[str, float | list[float]] = {}
    strategy, task = desk.placement.experiment.strategy, desk.placement.experiment.task
    taught = None
    if request.targets is not None:
        encoding = Encoding(strategy.codec_down, task.num_horizons, task.num_beams)
        taught = encoding.decode(encoding.unpack(request.targets), strategy.temperature)
    for arm, targets in (("local", None), ("offline_kd", taught)):
        learner = make_learner(desk.profile, desk.placement.experiment, choose=partial(drawn_material, desk))
        for _ in range(strategy.expected_rounds):
            _learn(learner, public_lesson(targets), desk)
        metrics |= _evaluate(learner, desk, prefix=f"{arm}.")
    return Reply(metrics=metrics)


def take_round(desk: Desk, request: Request) -> Reply:
    """Digest what is new, revisit the own beams, answer, remember.

    What cannot be remembered is answered all the same, with a fact ``warning`` that says why.
    """
    memory, learner = desk.memory(), _learner(desk)
    state = memory.load(before_round=desk.header.round) or {}
    if state:
        learner.load_state(state["learner"])
    try:
        exchange = EXCHANGES[desk.header.kind](desk, learner, request, state.get("exchange", {}))
    except BehindError as error:
        return Reply(error=str(error), facts={"known_round": error.known_round})
    loss = _learn(learner, exchange.lesson(), desk)
    said = exchange.answer()
    metrics = {**said.metrics, **window_bound(desk), **_evaluate(learner, desk, prefix="")}
    if not desk.placement.experiment.strategy.privacy.has_noise:
        metrics["loss"] = loss
    facts: Facts = said.facts
    try:
        memory.save({"learner": learner.state(), "exchange": exchange.state()}, round_number=desk.header.round)
    except OSError as error:
        log.warning("%s: memory of round %d not written: %s", desk.profile.id, desk.header.round, error)
        facts = {**exchange.facts_unsaved(facts), "warning": f"memory not written: {error.strerror or error}"}
    return Reply(
        labels=said.labels, arrays=said.arrays, metrics=metrics, facts={**facts, **_possessions(learner, desk)}
    )


def _possessions(learner: Learner, desk: Desk) -> dict[str, int | list[int]]:
    """How much a client has to learn from, which changes where its recording grows."""
    splits = learner.material.recording.splits
    attack = attack_of(desk.placement, desk.profile.id)
    counts: dict[str, int | list[int]] = {
        "num_passes": len(splits.get("train", ())) + len(splits.get("validation", ())),
        "num_examples": len(learner.material.train) * (1 if attack is None else attack.exaggeration),
    }
    if desk.placement.experiment.strategy.privacy.has_noise:
        return counts  # The noise does not cover which beams it has seen.
    seen = count_beams(own_beams(learner), desk.placement.experiment.task.num_beams) > 0
    return {**counts, "seen": seen.astype(int).tolist()}


def _learner(desk: Desk) -> Learner:
    """The client's learner before its first message."""
    kind, profile, experiment = desk.header.kind, desk.profile, desk.placement.experiment
    if kind not in EXCHANGES:
        raise WireError(f"cannot exchange {kind!r}; this client knows {', '.join(EXCHANGES)}")
    if kind == "pooled":
        return make_pooled_learner(profile, experiment, desk.placement.federation)
    # Averaged weights need one starting point for all students of a modality.
    start = profile.modality if kind == "weights" else profile.id
    return make_learner(profile, experiment, start=start, choose=partial(drawn_material, desk))


def _learn(learner: Learner, lesson: Lesson | None, desk: Desk) -> float:
    """The steps of the client's next round; its first is the longer one, whichever round of the federation that is."""
    training, rounds = learner.training, desk.placement.experiment.strategy.expected_rounds
    num_steps = training.steps(learner.progress.round + 1)
    return learner.learn(lesson, num_steps=num_steps, total_steps=training.total_steps(rounds))


def _evaluate(learner: Learner, desk: Desk, *, prefix: str) -> dict[str, float | list[float]]:
    """Scores on the common test set and the own test passes; the validation score that chose the student.

    Of these a client withholds what its privacy account does not cover (`strategies.privacy`).
    """
    experiment, privacy = desk.placement.experiment, desk.placement.experiment.strategy.privacy
    lengths = (experiment.task.num_frames, experiment.task.num_future)
    metrics: dict[str, float | list[float]] = {}
    if not privacy.has_noise:
        metrics[f"{prefix}validation"] = learner.progress.best_score
    places: list[tuple[str, Any, Any]] = []
    own = own_recording(desk.profile, experiment)
    if own is not None and own.power is not None and not privacy.has_account:
        places.append(("own", own, own.window_starts(*lengths, "test")))
    if desk.profile.test is not None:
        common = open_recording(desk.profile.test)
        places.append(("common", common, common.window_starts(*lengths)))
    for name, recording, starts in places:
        if len(starts):
            scores = learner.evaluate(recording, starts).to_dict()
            metrics |= {f"{prefix}{name}.{metric}": values for metric, values in scores.items()}
    return metrics
