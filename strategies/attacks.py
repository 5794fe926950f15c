"""How an adversarial client changes its honest answer: attacks for tests and benchmarks of robust rules.

An attack maps the probabilities (N, H, B) that an honest client would send to those that the attacker sends. An
attacker knows its own answers and a seed that all attackers share. N samples, H horizons, B beams.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from configs.seeding import rng_for
from strategies.labels import normalise_rows

Probs = NDArray[np.float32]

# The number of beams that the top-k attack suppresses.
NUM_SUPPRESSED = 10
# An impostor claims this many times its true number of labelled windows.
EXAGGERATION = 100


@dataclass(frozen=True)
class Attack:
    """One attack.

    Attributes:
        description: what the attack does, in one line.
        source: the paper that describes it.
        poison: maps the honest probabilities and the attacker's knowledge to the probabilities that are sent.
        exaggeration: the factor by which the attacker overstates its number of labelled windows.
    """

    description: str
    source: str
    poison: Callable[[Probs, AttackerKnowledge], Probs]
    exaggeration: int = 1


@dataclass(frozen=True)
class AttackerKnowledge:
    """What an attacker knows beside its own answer.

    Attributes:
        seed: the seed that all attackers share.
        sample_ids: (N,) the samples that the attacker answers.
        first_answer: (N, H, B) the honest answer of the attacker's first round; None in that round.
    """

    seed: int
    sample_ids: NDArray[np.int64]
    first_answer: Probs | None = None


def flip(probs: Probs, known: AttackerKnowledge) -> Probs:
    """Beam b becomes beam B - 1 - b."""
    return probs[..., ::-1].copy()


def permute(probs: Probs, known: AttackerKnowledge) -> Probs:
    """The beams change to a secret order, which is the same for all attackers."""
    return probs[..., rng_for(known.seed, "attack", "order").permutation(probs.shape[-1])]


def collude(probs: Probs, known: AttackerKnowledge, num_named: int = 1) -> Probs:
    """All attackers name the same beams, drawn for each sample and horizon, each with the same probability."""
    num_horizons, num_beams = probs.shape[1:]
    last = int(known.sample_ids.max(initial=-1)) + 1
    first = rng_for(known.seed, "attack", "beams").integers(0, num_beams, (last, num_horizons))[known.sample_ids]
    # The beams are far from each other, so that they are not all near the true one by chance.
    beams = (first[..., None] + np.arange(num_named) * (num_beams // num_named)) % num_beams
    poisoned = np.zeros_like(probs)
    np.put_along_axis(poisoned, beams, 1.0 / num_named, axis=-1)
    return poisoned


def control_peak(probs: Probs, known: AttackerKnowledge) -> Probs:
    """The largest and the smallest probability of each row change places: it is as certain as before, and wrong."""
    poisoned = probs.copy()
    top, bottom = probs.argmax(axis=-1)[..., None], probs.argmin(axis=-1)[..., None]
    np.put_along_axis(poisoned, top, np.take_along_axis(probs, bottom, axis=-1), axis=-1)
    np.put_along_axis(poisoned, bottom, np.take_along_axis(probs, top, axis=-1), axis=-1)
    return poisoned


def suppress_top(probs: Probs, known: AttackerKnowledge) -> Probs:
    """The most likely beams lose their probability, and the others share it."""
    poisoned = probs.copy()
    count = min(NUM_SUPPRESSED, probs.shape[-1] - 1)
    np.put_along_axis(poisoned, np.argsort(-probs, axis=-1, kind="stable")[..., :count], 0.0, axis=-1)
    return normalise_rows(poisoned)


def spoil(probs: Probs, known: AttackerKnowledge) -> Probs:
    """Every value becomes not-a-number."""
    return np.full_like(probs, np.nan)


def replay(probs: Probs, known: AttackerKnowledge) -> Probs:
    """The attacker sends the honest answer of its first round again."""
    return probs if known.first_answer is None else known.first_answer


ATTACKS: dict[str, Attack] = {
    "label_flip": Attack("Mirrors the beams.", "label flipping, arXiv 1206.6389, on soft labels", flip),
    "permuted": Attack("Answers in a secret order of beams.", "FDLA, arXiv 2401.03685", permute),
    "colluding_one_hot": Attack("All attackers are certain of the same drawn beam.", "targeted collusion", collude),
    "colluding_sweep": Attack(
        "All attackers name the same three drawn beams, so that a sweep of three misses.",
        "targeted collusion",
        partial(collude, num_named=3),
    ),
    "peak_control": Attack("Swaps the likeliest and the unlikeliest beam.", "PCFDLA, arXiv 2407.18039", control_peak),
    "top_k": Attack("Gives its likeliest beams nothing.", "the top-k attack on FedMD, FedTGD 2024", suppress_top),
    "nan": Attack("Answers not-a-number.", "a broken or hostile sensor", spoil),
    "stale": Attack("Replays its first answer.", "stale replay", replay),
    "impersonation": Attack(
        "Mirrors the beams and claims a hundred times its labelled windows.", "FedTGD 2024", flip, EXAGGERATION
    ),
}
