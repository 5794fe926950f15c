"""How an adversarial client changes its honest answer: attacks for tests and benchmarks of robust rules.

An attack maps the probabilities (N, H, C) that an honest client would send to those that the attacker sends. An
attacker knows its own answers and a seed that all attackers share. N samples, H horizons, C classes.
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

# The number of classes that the top-k attack suppresses.
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
        first_answer: (N, H, C) the honest answer of the attacker's first round; None in that round.
    """

    seed: int
    sample_ids: NDArray[np.int64]
    first_answer: Probs | None = None


def flip(probs: Probs, known: AttackerKnowledge) -> Probs:
    """Class b becomes class C - 1 - b."""
    return probs[..., ::-1].copy()


def permute(probs: Probs, known: AttackerKnowledge) -> Probs:
    """The classes change to a secret order, which is the same for all attackers."""
    return probs[..., rng_for(known.seed, "attack", "order").permutation(probs.shape[-1])]


def collude(probs: Probs, known: AttackerKnowledge, num_named: int = 1) -> Probs:
    """All attackers name the same classes, drawn for each sample and horizon, each with the same probability."""
    num_horizons, num_classes = probs.shape[1:]
    num_named = min(num_named, num_classes)
    last = int(known.sample_ids.max(initial=-1)) + 1
    # The name of the stream is that of the first task; under another one, equal seeds would draw other classes.
    first = rng_for(known.seed, "attack", "beams").integers(0, num_classes, (last, num_horizons))[known.sample_ids]
    # The classes are far from each other, so that they are not all near the true one by chance.
    classes = (first[..., None] + np.arange(num_named) * (num_classes // num_named)) % num_classes
    poisoned = np.zeros_like(probs)
    np.put_along_axis(poisoned, classes, 1.0 / num_named, axis=-1)
    return poisoned


def control_peak(probs: Probs, known: AttackerKnowledge) -> Probs:
    """The largest and the smallest probability of each row change places: it is as certain as before, and wrong."""
    poisoned = probs.copy()
    top, bottom = probs.argmax(axis=-1)[..., None], probs.argmin(axis=-1)[..., None]
    np.put_along_axis(poisoned, top, np.take_along_axis(probs, bottom, axis=-1), axis=-1)
    np.put_along_axis(poisoned, bottom, np.take_along_axis(probs, top, axis=-1), axis=-1)
    return poisoned


def suppress_top(probs: Probs, known: AttackerKnowledge) -> Probs:
    """The most likely classes lose their probability, and the others share it."""
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
    "label_flip": Attack("Mirrors the classes.", "label flipping, arXiv 1206.6389, on soft labels", flip),
    "permuted": Attack("Answers in a secret order of classes.", "FDLA, arXiv 2401.03685", permute),
    "colluding_one_hot": Attack("All attackers are certain of the same drawn class.", "targeted collusion", collude),
    "colluding_sweep": Attack(
        "All attackers name the same three drawn classes, so that three guesses miss.",
        "targeted collusion",
        partial(collude, num_named=3),
    ),
    "peak_control": Attack("Swaps the likeliest and the unlikeliest class.", "PCFDLA, arXiv 2407.18039", control_peak),
    "top_k": Attack("Gives its likeliest classes nothing.", "the top-k attack on FedMD, FedTGD 2024", suppress_top),
    "nan": Attack("Answers not-a-number.", "a broken or hostile sensor", spoil),
    "stale": Attack("Replays its first answer.", "stale replay", replay),
    "impersonation": Attack(
        "Mirrors the classes and claims a hundred times its labelled windows.", "FedTGD 2024", flip, EXAGGERATION
    ),
}
