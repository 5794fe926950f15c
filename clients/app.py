"""The ClientApp: says hello, trains the controls, takes part in a round.

Every handler returns a message, whatever happens: what goes wrong for one client is that client's reply.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from clients.desk import Desk
from clients.exchange import BehindError, own_beams
from clients.exchanges import EXCHANGES
from clients.hostility import attack_of
from clients.masked_exchange import own_key, reveal
from clients.profile import ClientProfile, profiles_of
from clients.sensing.by_beam import count_beams
from clients.sensing.learner import Learner
from clients.sensing.lessons import Lesson, public_lesson
from clients.sensing.recording import open_recording
from clients.sensing.tracker import count_parameters
from clients.training import make_learner, make_pooled_learner
from configs.loading import experiment_digest, source_digest
from configs.placement import Placement, native_placement
from configs.seeding import rng_for
from strategies.parcels import Encoding
from strategies.privacy import draw_windows
from strategies.wire import Header, Reply, Request, WireError, pack_replies, unpack_header, unpack_requests

# Flower's code for "the ClientApp raised".
CLIENT_APP_RAISED = 2


Work = Callable[[Desk, Request], Reply]


def build_app(placement: Placement | None = None) -> ClientApp:
    """The ClientApp.

    Args:
        placement: of a simulation by `sim.launch`; None reads it from Flower's run config.
    """
    client_app = ClientApp()

    @client_app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        return _answer(message, context, placement, introduce)

    @client_app.query("reveal")
    def tell_seeds(message: Message, context: Context) -> Message:
        return _answer(message, context, placement, reveal)

    @client_app.train("baselines")
    def baselines(message: Message, context: Context) -> Message:
        return _answer(message, context, placement, train_controls)

    @client_app.train("round")
    def take_part(message: Message, context: Context) -> Message:
        return _answer(message, context, placement, take_round)

    return client_app


def introduce(desk: Desk, request: Request) -> Reply:
    """Say what this client senses, how much it has and which beams it knows."""
    learner = _learner(desk)
    splits = learner.material.recording.splits
    attack = attack_of(desk.placement, desk.profile.id)
    seen = count_beams(own_beams(learner), desk.placement.experiment.task.num_beams) > 0
    return Reply(
        facts={
            "modality": desk.profile.modality,
            "num_parameters": count_parameters(learner.model),
            "num_passes": len(splits.get("train", ())) + len(splits.get("validation", ())),
            "num_examples": len(learner.material.train) * (1 if attack is None else attack.exaggeration),
            "seen": seen.astype(int).tolist(),
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
        learner = make_learner(desk.profile, desk.placement.experiment)
        for _ in range(strategy.expected_rounds):
            _learn(learner, public_lesson(targets), desk)
        metrics |= _evaluate(learner, desk, prefix=f"{arm}.")
    return Reply(metrics=metrics)


def take_round(desk: Desk, request: Request) -> Reply:
    """Digest what is new, revisit the own beams, answer, remember."""
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
    metrics = {"loss": loss, **said.metrics, **_evaluate(learner, desk, prefix="")}
    memory.save({"learner": learner.state(), "exchange": exchange.state()}, round_number=desk.header.round)
    return Reply(labels=said.labels, arrays=said.arrays, metrics=metrics, facts=said.facts)


def _learner(desk: Desk) -> Learner:
    """The client's learner before its first message."""
    kind, profile, experiment = desk.header.kind, desk.profile, desk.placement.experiment
    if kind not in EXCHANGES:
        raise WireError(f"cannot exchange {kind!r}; this client knows {', '.join(EXCHANGES)}")
    if kind == "pooled":
        return make_pooled_learner(profile, experiment, desk.placement.federation)
    # Averaged weights need one starting point for all students of a modality.
    learner = make_learner(profile, experiment, start=profile.modality if kind == "weights" else profile.id)
    share = experiment.strategy.privacy.window_share
    if share is not None:
        rng = rng_for(experiment.seed, profile.id, "privacy", "windows")
        windows, _ = draw_windows(learner.material.train, share, rng)
        learner.material = replace(learner.material, train=windows)
    return learner


def _learn(learner: Learner, lesson: Lesson | None, desk: Desk) -> float:
    """The steps of the client's next round; its first is the longer one, whichever round of the federation that is."""
    training, rounds = learner.training, desk.placement.experiment.strategy.expected_rounds
    num_steps = training.steps(learner.progress.round + 1)
    return learner.learn(lesson, num_steps=num_steps, total_steps=training.total_steps(rounds))


def _answer(message: Message, context: Context, placement: Placement | None, work: Work) -> Message:
    torch.set_num_threads(1)
    try:
        header = unpack_header(message.content)
        here = placement or native_placement(context.run_config, context.run_id)
        _check_digests(header, here)
        requests = unpack_requests(message.content)
        profiles = {profile.id: profile for profile in profiles_of(context.node_config, here.federation)}
        # A node that is asked nothing in particular answers for each of its clients.
        requests = requests or {client: Request() for client in profiles}
        replies = {}
        for client, request in requests.items():
            replies[client] = _guarded(work, profiles.get(client), here, header, request)
        return Message(pack_replies(header, replies), reply_to=message)
    except Exception as error:
        return Message(Error(CLIENT_APP_RAISED, f"{type(error).__name__}: {error}"), reply_to=message)


def _guarded(
    work: Work, profile: ClientProfile | None, placement: Placement, header: Header, request: Request
) -> Reply:
    if profile is None:
        return Reply(error="no such client on this node")
    begin = time.monotonic()
    try:
        reply = work(Desk(profile, placement, header), request)
    except Exception as error:
        return Reply(error=f"{type(error).__name__}: {error}")
    facts = {**reply.facts, "seconds": time.monotonic() - begin}
    return replace(reply, facts=facts)


def _check_digests(header: Header, placement: Placement) -> None:
    for what, theirs, ours in (
        ("experiment", header.experiment, experiment_digest(placement.experiment)),
        ("source", header.source, source_digest()),
    ):
        if theirs != ours:
            raise WireError(f"the server's {what} is {theirs}, this client's is {ours}; install the same on both")


def _evaluate(learner: Learner, desk: Desk, *, prefix: str) -> dict[str, float | list[float]]:
    """Scores on the common test set and the own test passes; the validation score that chose the student."""
    task = desk.placement.experiment.task
    metrics: dict[str, float | list[float]] = {f"{prefix}validation": learner.progress.best_score}
    own = open_recording(Path(desk.profile.recording))
    places: list[tuple[str, Any, Any]] = [("own", own, own.window_starts(task.num_frames, task.num_future, "test"))]
    if desk.profile.test is not None:
        common = open_recording(Path(desk.profile.test))
        places.append(("common", common, common.window_starts(task.num_frames, task.num_future)))
    for name, recording, starts in places:
        if len(starts):
            scores = learner.evaluate(recording, starts).to_dict()
            metrics |= {f"{prefix}{name}.{metric}": values for metric, values in scores.items()}
    return metrics


app = build_app()
