"""Audits what soft labels reveal about the windows that a client trained on, to a curious server.

The server has windows and suspects that the client trained on them. It puts them among its public samples and looks at
the answers: on windows that it trained on, a client is more certain and more often right. Members are training
windows; the others come from passes that the same client kept for its test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from clients.learning.learner import Learner
from clients.learning.metrics import BeamMetrics
from clients.privacy import count_owned, draw_material
from clients.profile import client_folders, profiles_of
from clients.training import make_learner
from configs.loading import load_experiment
from configs.schema import Experiment
from configs.seeding import rng_for
from sim.bench.learnability import train
from sim.data.federation import ensure_federation
from strategies.codecs.table import find_codec
from strategies.privacy import count_drawn, epsilon_spent, privatise, reveal_top1, sampling_bound

Probs = NDArray[np.float32]

CLIP, DELTA, TEMPERATURE = 0.5, 1e-5, 2.0
NOISES = (0.05, 0.2, 1.0)
SHARE = 0.5
# The false-positive rate at which the true-positive rate is reported.
FALSE_POSITIVES = 0.05
FLOOR = 1e-6


@dataclass(frozen=True)
class Leak:
    """How much a release reveals and how useful it still is, mean over clients.

    Attributes:
        release: the name of the way of releasing.
        seed: the seed of data and networks.
        auc: the AUC of the attack, in [0, 1]; 0.5 is guessing.
        caught: the share of the members that it finds when it wrongly accuses one non-member in twenty.
        top5: Top-5 of the released labels on the non-members, in [0, 1].
        epsilon: the epsilon of one release of a thousand soft labels; infinite without noise, and per window for
            *k of n*.
        delta: the chance with which epsilon may fail to hold; for *k of n* it is the chance that a window is among
            those drawn, so its epsilon alone promises nothing. 0 if there is no bound.
    """

    release: str
    seed: int
    auc: float
    caught: float
    top5: float
    epsilon: float
    delta: float


def audit_experiment(seed: int) -> Experiment:
    """One client of each sensor with as many passes for its test as for its training."""
    counts = [f"data.nodes.{index}.count=1" for index in range(4)]
    passes = ["data.passes.client=12", "data.passes.client_test=10", "data.passes.public=1", "data.passes.server=1"]
    return load_experiment("quickstart", [f"seed={seed}", *counts, *passes, "data.passes.test=1"])


def audit(seed: int, *, num_steps: int) -> list[Leak]:
    """Train every client and attack each way of releasing its soft labels.

    Args:
        seed: the seed of data and networks.
        num_steps: the optimizer steps of a client.
    """
    torch.set_num_threads(1)
    experiment = audit_experiment(seed)
    folder, _ = ensure_federation(experiment)
    leaks: dict[str, list[tuple[float, float, float, float, float]]] = {}
    for number in range(len(client_folders(folder))):
        (profile,) = profiles_of({"partition-id": number}, folder)
        learner = make_learner(profile, experiment)
        train(learner, None, num_steps=num_steps)
        rng, num_owned = rng_for(seed, profile.id, "audit"), count_owned(learner.material)
        part = make_learner(
            profile, experiment, choose=partial(draw_material, share=SHARE, num_owned=num_owned, rng=rng)
        )
        train(part, None, num_steps=num_steps)
        for name, release in releases(rng).items():
            leaks.setdefault(name, []).append((*_leak(learner, learner, release), *_bound(name)))
        half, bound = f"{SHARE:.0%} of its windows", sampling_bound(count_drawn(num_owned, SHARE), num_owned)
        leaks.setdefault(half, []).append((*_leak(part, learner, lambda probs: probs), *bound))
    return [Leak(name, seed, *(float(x) for x in np.mean(rows, axis=0))) for name, rows in leaks.items()]


def releases(rng: np.random.Generator) -> dict[str, Callable[[Probs], Probs]]:
    """Name -> the change to calibrated soft labels before they are released."""
    argmax, compact = find_codec("argmax", 64), find_codec("top8-uint4", 64)
    return {
        "soft labels": lambda probs: probs,
        "top8-uint4": lambda probs: compact.decode(compact.encode(probs), *probs.shape[1:]),
        "top-1 and confidence": reveal_top1,
        "best beam alone": lambda probs: argmax.decode(argmax.encode(probs), *probs.shape[1:]),
        **{
            f"clip {CLIP}, noise {noise}": lambda probs, noise=noise: privatise(  # type: ignore[misc]
                probs, clip=CLIP, noise_multiplier=noise, rng=rng
            )
            for noise in NOISES
        },
    }


def scores(probs: Probs, beams: NDArray[np.int64]) -> NDArray[np.float64]:
    """(N,) the mean over horizons of the log-probability of the best beam; it is high on members.

    Source: the loss attack of Yeom et al., arXiv 1709.01604.
    """
    true = np.take_along_axis(probs, beams[..., None], axis=-1)[..., 0].astype(np.float64)
    logs: NDArray[np.float64] = np.log(np.maximum(true, FLOOR)).mean(axis=1)
    return logs


def auc(members: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """The chance that a member scores higher than a non-member; ties count half."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, members, side="left")
    not_above = np.searchsorted(ordered, members, side="right")
    return float((below + not_above).mean() / (2 * len(others)))


def caught(members: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """The share of the members above the score that `FALSE_POSITIVES` of the others exceed."""
    return float((members > np.quantile(others, 1.0 - FALSE_POSITIVES)).mean())


def _leak(learner: Learner, owner: Learner, release: Callable[[Probs], Probs]) -> tuple[float, float, float]:
    """AUC, true positives and Top-5 of the labels that a learner releases; members are its owner's training windows."""
    task, recording = learner.model.task, owner.material.recording
    lengths = (task.num_frames, task.num_future)
    groups = (owner.material.train, recording.window_starts(*lengths, "test"))
    released = [release(learner.soften(recording, starts, TEMPERATURE)) for starts in groups]
    member, other = (
        scores(probs, recording.beams(starts, *lengths)) for probs, starts in zip(released, groups, strict=True)
    )
    utility = BeamMetrics.of(released[1], recording.powers(groups[1], *lengths)).mean("top5")
    return auc(member, other), caught(member, other), utility


def _bound(name: str) -> tuple[float, float]:
    """(epsilon, delta) of a release of answers of a learner that trained on all windows."""
    for noise in NOISES:
        if name.endswith(f"noise {noise}"):
            return epsilon_spent(1000, noise_multiplier=noise, delta=DELTA), DELTA
    return float("inf"), 0.0
