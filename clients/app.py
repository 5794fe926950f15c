"""The ClientApp: says hello, trains the controls, takes part in a round.

Every handler returns a message, whatever happens: what goes wrong for one client is that client's reply.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from clients.memory import ClientMemory
from clients.profile import ClientProfile, profiles_of
from clients.sensing.learner import Learner
from clients.sensing.recording import open_recording
from clients.sensing.tracker import count_parameters
from clients.training import make_learner
from configs.loading import experiment_digest, source_digest
from configs.placement import Placement, native_placement
from strategies.labels import SoftLabels
from strategies.wire import NO_TARGETS, Header, Reply, Request, WireError, pack_replies, unpack_header, unpack_requests

# Flower's code for "the ClientApp raised".
CLIENT_APP_RAISED = 2


@dataclass(frozen=True)
class Desk:
    """What a handler works with.

    Attributes:
        profile: of the client.
        placement: experiment and folders.
        header: of the message.
    """

    profile: ClientProfile
    placement: Placement
    header: Header

    def memory(self) -> ClientMemory:
        """This client's memory of this run."""
        return ClientMemory(self.placement.run / "clients" / self.profile.id)


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

    @client_app.train("baselines")
    def baselines(message: Message, context: Context) -> Message:
        return _answer(message, context, placement, train_controls)

    @client_app.train("round")
    def take_part(message: Message, context: Context) -> Message:
        return _answer(message, context, placement, take_round)

    return client_app


def introduce(desk: Desk, request: Request) -> Reply:
    """Say what this client senses and how much it has."""
    learner = make_learner(desk.profile, desk.placement.experiment)
    splits = learner.material.recording.splits
    return Reply(
        facts={
            "modality": desk.profile.modality,
            "num_parameters": count_parameters(learner.model),
            "num_passes": len(splits.get("train", ())) + len(splits.get("validation", ())),
            "num_examples": len(learner.material.train),
        }
    )


def train_controls(desk: Desk, request: Request) -> Reply:
    """Train the two controls with the steps of the whole federation: *local only* and *offline KD*.

    The targets of the request are those of the teacher before the federation.
    """
    metrics: dict[str, float | list[float]] = {}
    rounds = desk.placement.experiment.strategy.rounds
    for arm, targets in (("local", None), ("offline_kd", request.targets)):
        learner = make_learner(desk.profile, desk.placement.experiment)
        for number in range(1, rounds + 1):
            _learn(learner, targets, number, rounds)
        metrics |= _evaluate(learner, desk, prefix=f"{arm}.")
    return Reply(metrics=metrics)


def take_round(desk: Desk, request: Request) -> Reply:
    """Digest what is new, revisit the own beams, answer, remember."""
    experiment, memory = desk.placement.experiment, desk.memory()
    learner = make_learner(desk.profile, experiment)
    state = memory.load(before_round=desk.header.round)
    known_round, targets = NO_TARGETS, None
    if state is not None:
        learner.load_state(state["learner"])
        known_round, targets = state["known_round"], _targets_from(state["targets"], desk.header.temperature)
    if known_round < request.known_round:
        error = f"holds the targets up to round {known_round} only, its memory was lost; it gets them again"
        return Reply(error=error, facts={"known_round": known_round})
    if request.targets is not None:
        targets = request.targets if targets is None else targets.update(request.targets)
    loss = _learn(learner, targets, desk.header.round, experiment.strategy.rounds)
    labels = None
    if len(request.ask):
        if request.ask[-1] >= len(learner.material.public_starts):
            raise WireError(f"the public set has {len(learner.material.public_starts)} samples, not {request.ask[-1]}")
        probs = learner.answer(request.ask, desk.header.temperature)
        labels = SoftLabels(request.ask, probs, desk.header.temperature)
    metrics = {"loss": loss, **_evaluate(learner, desk, prefix="")}
    known_round = desk.header.round - 1
    memory.save(
        {"learner": learner.state(), "known_round": known_round, "targets": _targets_state(targets)},
        round_number=desk.header.round,
    )
    return Reply(labels=labels, metrics=metrics, facts={"known_round": known_round})


def _learn(learner: Learner, targets: SoftLabels | None, number: int, rounds: int) -> float:
    training = learner.training
    return learner.learn(targets, num_steps=training.steps(number), total_steps=training.total_steps(rounds))


def _answer(message: Message, context: Context, placement: Placement | None, work: Work) -> Message:
    torch.set_num_threads(1)
    try:
        header = unpack_header(message.content)
        here = placement or native_placement(context.run_config, context.run_id)
        _check_digests(header, here)
        task = here.experiment.task
        requests = unpack_requests(message.content, num_horizons=task.num_horizons, num_beams=task.num_beams)
        profiles = {profile.id: profile for profile in profiles_of(context.node_config, here.federation)}
        # A node that is asked nothing in particular answers for each of its clients.
        requests = requests or {client: Request(None, np.empty(0, np.int64)) for client in profiles}
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
    return Reply(labels=reply.labels, metrics=reply.metrics, facts=facts, error=reply.error)


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
    own = learner.material.recording
    places: list[tuple[str, Any, Any]] = [("own", own, own.window_starts(task.num_frames, task.num_future, "test"))]
    if desk.profile.test is not None:
        common = open_recording(Path(desk.profile.test))
        places.append(("common", common, common.window_starts(task.num_frames, task.num_future)))
    for name, recording, starts in places:
        if len(starts):
            scores = learner.evaluate(recording, starts).to_dict()
            metrics |= {f"{prefix}{name}.{metric}": values for metric, values in scores.items()}
    return metrics


def _targets_state(targets: SoftLabels | None) -> dict[str, torch.Tensor] | None:
    if targets is None:
        return None
    return {"sample_ids": torch.from_numpy(targets.sample_ids), "probs": torch.from_numpy(targets.probs)}


def _targets_from(state: dict[str, torch.Tensor] | None, temperature: float) -> SoftLabels | None:
    if state is None:
        return None
    return SoftLabels(state["sample_ids"].numpy(), state["probs"].numpy(), temperature)


app = build_app()
