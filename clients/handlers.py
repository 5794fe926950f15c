"""What a client does with each kind of message: it introduces itself, trains the controls, takes part in a round.

A handler may raise an exception; `clients.app` turns it into a reply. Where a client learns, its handler is a generator
(`clients.cohort.Work`), so that clients of one node can learn at once.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.adversary import attack_of
from clients.cohort import Work
from clients.context import ClientContext
from clients.data.by_class import count_classes
from clients.data.recording import Recording, open_recording
from clients.exchanges.base import BehindError, Exchange, Facts, own_classes
from clients.exchanges.labels import decode_targets
from clients.exchanges.table import EXCHANGES
from clients.learning.cohort import Learning
from clients.learning.learner import Learner, Lesson, WindowsToPredict
from clients.learning.lessons import client_lesson
from clients.learning.mixture import Mixture, weigh
from clients.models.tracker import count_parameters
from clients.privacy import window_bound
from clients.told_sets import told_sets
from clients.training import own_recording
from strategies.codecs.encoding import Encoding
from strategies.messages.wire import Reply, Request, WireError

log = logging.getLogger(__name__)

MetricValues = dict[str, float | list[float]]


def introduce(context: ClientContext, request: Request) -> Reply:
    """Say what this client senses, how much data it has and which beams it has seen."""
    exchange = _exchange_of(context)
    learner = exchange.make_learner(context)
    return Reply(
        facts={
            "modality": context.profile.modality,
            "num_parameters": count_parameters(learner.model),
            **({"site": ", ".join(sites)} if (sites := learner.material.recording.sites) else {}),
            **_possessions(learner, context),
            **exchange.introduction(context),
        }
    )


def train_controls(context: ClientContext, request: Request) -> Work:
    """Train the two controls, *local only* and *offline KD*, with as many steps as in the whole federation.

    The targets of the request are the soft labels of the teacher before the federation.
    """
    metrics: MetricValues = {}
    strategy, task = context.placement.experiment.strategy, context.placement.experiment.task
    taught = None
    if request.targets is not None:
        encoding = Encoding(strategy.codec_down, task.num_horizons, task.num_classes)
        sent = encoding.unpack(request.targets)
        taught = decode_targets(encoding, sent, strategy.temperature, digest=sent.digest())
    learners: list[Learner] = []
    for targets in (None, taught):
        learner = Exchange.make_learner(context)
        lesson = client_lesson(targets, learner.material, strategy.own_site_share)
        for _ in range(_expected_rounds(context)):
            yield _next_round(learner, lesson, context)
        learners.append(learner)
    local, offline = learners
    metrics |= _evaluate(local, context, prefix="local.")
    kept = _kept(offline, local if strategy.keeps == "mixture" else None, context)
    metrics |= _evaluate(kept, context, prefix="offline_kd.")
    return Reply(metrics={**metrics, **_baselines(local, context)})


def _baselines(learner: Learner, context: ClientContext) -> MetricValues:
    """The scores on the common test set of what needs no training, only the client's own labels."""
    if context.profile.test is None:
        return {}
    material, task = learner.material, context.placement.experiment.task
    common = open_recording(context.profile.test)
    starts = common.window_starts(task.num_frames, task.num_future)
    if len(starts) == 0:
        return {}
    own = np.sort(np.concatenate([material.train, material.validation]))
    # Of the common test set a client may use what it senses itself.
    mine = replace(common, sensors={name: common.sensors[name] for name in learner.model.modalities})
    truth = learner.truth(common, starts)
    return {
        f"{name}.common.{metric}": values
        for name, decisions in learner.task.baselines(material.recording, own, mine, starts, task).items()
        for metric, values in learner.task.evaluate(decisions, truth).to_dict().items()
    }


def take_round(context: ClientContext, request: Request) -> Work:
    """Digest new targets, revisit the client's own labels, answer, and save the state.

    If the state cannot be saved, the client answers nevertheless, with a fact ``warning`` that says why.
    """
    memory, kind = context.memory(), _exchange_of(context)
    state = memory.load(before_round=context.header.round) or {}
    learner = kind.make_learner(context, state.get("learner"))
    try:
        exchange = kind(context, learner, request, state.get("exchange", {}))
    except BehindError as error:
        return Reply(error=str(error), facts={"known_round": error.known_round})
    experiment, round_number = context.placement.experiment, context.header.round
    is_scored = experiment.is_scored(context.profile.id, context.profile.modality, round_number)
    predicts = [*exchange.predicts(), *(_scored(context) if is_scored else ())]
    loss = yield _next_round(learner, exchange.lesson(), context, predicts)
    said = exchange.answer()
    local = yield from _local_self(kind, context, state)
    kept = _kept(learner, local, context)
    metrics: MetricValues = {**said.metrics, **window_bound(context), **_validation(kept, context, prefix="")}
    if is_scored:
        metrics |= _evaluate(kept, context, prefix="")
    metrics |= _evaluate_now(learner, context, metrics, is_scored=is_scored)
    if round_number == experiment.strategy.rounds:
        metrics |= told_sets(kept, context)
    if isinstance(kept, Mixture) and not context.placement.experiment.strategy.privacy.has_noise:
        metrics["federated_share"] = kept.share
    if not context.placement.experiment.strategy.privacy.has_noise:
        metrics["loss"] = loss
    facts: Facts = said.facts
    context.note_experiment()
    try:
        states = {"learner": learner.state(), "exchange": exchange.state()}
        memory.save(states if local is None else {**states, "local": local.state()}, round_number=context.header.round)
    except OSError as error:
        log.warning("%s: memory of round %d not written: %s", context.profile.id, context.header.round, error)
        facts = {**exchange.facts_unsaved(facts), "warning": f"memory not written: {error.strerror or error}"}
    return Reply(
        labels=said.labels, arrays=said.arrays, metrics=metrics, facts={**facts, **_possessions(learner, context)}
    )


def _local_self(
    kind: type[Exchange], context: ClientContext, state: Mapping[str, Any]
) -> Generator[Learning, float, Learner | None]:
    """The student that learns from own labels alone, after as many rounds; None if there is none to keep."""
    if context.placement.experiment.strategy.keeps != "mixture":
        return None
    local = kind.make_learner(context, state.get("local"))
    if not local.material.is_labelled:
        return None
    yield _next_round(local, None, context)
    return local


def _kept(learner: Learner, local: Learner | None, context: ClientContext) -> Learner | Mixture:
    """What a client decides by: its student, or the mixture of it with its local self."""
    if local is None:
        return learner
    return weigh(learner, local, context.placement.experiment.strategy.mixture_windows)


def _possessions(learner: Learner, context: ClientContext) -> dict[str, int | list[int]]:
    """How much data a client has to learn from; the numbers change if its recording grows."""
    splits = learner.material.recording.splits
    attack = attack_of(context.placement, context.profile.id)
    counts: dict[str, int | list[int]] = {
        "num_passes": len(splits.get("train", ())) + len(splits.get("validation", ())),
        "num_examples": len(learner.material.train) * (1 if attack is None else attack.exaggeration),
    }
    if context.placement.experiment.strategy.privacy.has_noise:
        return counts  # The noise does not hide which beams the client has seen.
    seen = count_classes(own_classes(learner), context.placement.experiment.task.num_classes) > 0
    return {**counts, "seen": seen.astype(int).tolist()}


def _exchange_of(context: ClientContext) -> type[Exchange]:
    """The exchange for the kind of knowledge that the server names."""
    kind = context.header.kind
    if kind not in EXCHANGES:
        raise WireError(f"kind: this client cannot exchange {kind!r}; it knows {', '.join(EXCHANGES)}")
    return EXCHANGES[kind]


def _next_round(
    learner: Learner, lesson: Lesson | None, context: ClientContext, predicts: Sequence[WindowsToPredict] = ()
) -> Learning:
    """What the client's next round has to learn.

    The client's own first round is the longer one, whichever round of the federation it is.
    """
    training = learner.training
    num_steps = training.steps(learner.progress.round + 1)
    return Learning(learner, lesson, num_steps, training.total_steps(_expected_rounds(context)), predicts)


def _expected_rounds(context: ClientContext) -> int:
    """The number of rounds in which the client takes part, on average."""
    return context.placement.experiment.expected_rounds(context.profile.id, context.profile.modality)


def _scored(context: ClientContext) -> list[WindowsToPredict]:
    """The windows of the common test set, on which the student is scored after its round."""
    task = context.placement.experiment.task
    if context.profile.test is None:
        return []
    common = open_recording(context.profile.test)
    return [WindowsToPredict(common, common.window_starts(task.num_frames, task.num_future))]


def _evaluate_now(
    learner: Learner, context: ClientContext, kept: MetricValues, *, is_scored: bool = True
) -> MetricValues:
    """The scores of the current state on the common test set, and whether it is the state that is kept (1 or 0).

    Args:
        learner: the student after its round.
        context: where the client runs.
        kept: the scores of the state that validated best; the current state has the same ones if it is that state.
        is_scored: whether scores are wanted in this round.
    """
    experiment = context.placement.experiment
    # Which state is kept follows from the validation score, which no account with noise covers.
    metrics: MetricValues = {} if experiment.strategy.privacy.has_noise else {"kept": float(learner.is_best)}
    if context.profile.test is None or not is_scored:
        return metrics
    if learner.is_best and experiment.strategy.keeps == "federated":
        return metrics | {name.replace(".", "_now."): kept[name] for name in kept if name.startswith("common.")}
    common = open_recording(context.profile.test)
    starts = common.window_starts(experiment.task.num_frames, experiment.task.num_future)
    scores = learner.evaluate(common, starts, best=False).to_dict() if len(starts) else {}
    return metrics | {f"common_now.{metric}": values for metric, values in scores.items()}


def _validation(learner: Learner | Mixture, context: ClientContext, *, prefix: str) -> MetricValues:
    """The best validation score; none without validation, or where no privacy account covers it."""
    if context.placement.experiment.strategy.privacy.has_noise or learner.validation is None:
        return {}
    return {f"{prefix}validation": learner.validation}


def _evaluate(learner: Learner | Mixture, context: ClientContext, *, prefix: str) -> MetricValues:
    """The scores on the common test set and on the client's own test passes, and the best validation score.

    A client withholds those of them that its privacy account does not cover (`strategies.privacy`).
    """
    experiment, privacy = context.placement.experiment, context.placement.experiment.strategy.privacy
    lengths = (experiment.task.num_frames, experiment.task.num_future)
    metrics = _validation(learner, context, prefix=prefix)
    places: list[tuple[Recording, dict[str, NDArray[np.int64]]]] = []
    own = own_recording(context.profile, experiment)
    if own is not None and own.is_labelled and not privacy.has_account:
        places.append((own, {"own": own.window_starts(*lengths, "test")}))
    if context.profile.test is not None:
        common = open_recording(context.profile.test)
        starts = common.window_starts(*lengths)
        by_site = common.windows_by_site(starts, () if own is None else own.sites)
        places.append((common, {"common": starts, **by_site}))
    for recording, parts in places:
        starts = next(iter(parts.values()))
        if len(starts) == 0:
            continue
        decisions, truth, task = learner.decisions(recording, starts), learner.truth(recording, starts), learner.task
        for name, part in parts.items():
            rows = np.isin(starts, part)
            found = task.evaluate(decisions[rows], truth[rows]).to_dict()
            metrics |= {f"{prefix}{name}.{metric}": values for metric, values in found.items()}
        if "common" in parts:
            by_pass = task.evaluate_by_pass(decisions, truth, recording.pass_ids[starts])
            if by_pass is not None:
                metrics[f"{prefix}passes.{task.wording.main}"] = by_pass
    return metrics
