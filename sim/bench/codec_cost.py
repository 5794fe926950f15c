"""Measures the cost and the loss of a codec on soft labels as trackers make them. N samples, H horizons, B beams."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from configs.seeding import rng_for
from strategies.codecs.packing import compress
from strategies.codecs.table import find_codec
from strategies.labels import PROBABILITY_FLOOR, normalise_rows

Probs = NDArray[np.float32]

NUM_HORIZONS, NUM_BEAMS, TEMPERATURE = 4, 64, 2.0
# The logits of a tracker are a bell over the beams, which drifts over the horizons, and noise; from one round to the
# next a little of the noise changes.
PEAK_LOGIT = 8.0
BELL_BEAMS = (1.5, 6.0)
DRIFT_BEAMS = 1.0
NOISE_LOGIT = 0.5
CHANGE_LOGIT = 0.1
TOP = 5


@dataclass(frozen=True)
class CodecCost:
    """Cost and loss of a codec.

    Attributes:
        codec: the name of the codec, without a suffix.
        raw_bytes: the bytes of a sample, without its id.
        zlib_bytes: the bytes of a sample with +zlib.
        delta_bytes: the bytes with +delta, in a later round, when the receiver has all samples of the round before.
        worst_error: the largest error of a probability.
        mean_kl: the mean KL(sent || received) of a row in nats; probabilities below 1e-12 count as 1e-12.
        top5: the share of the five best beams that are still among the five best on arrival, in [0, 1]; among equal
            beams the first counts as better.
    """

    codec: str
    raw_bytes: float
    zlib_bytes: float
    delta_bytes: float
    worst_error: float
    mean_kl: float
    top5: float


def codec_costs(codecs: Sequence[str], *, seeds: Sequence[int], num_samples: int) -> list[CodecCost]:
    """The cost and the loss of each codec, as medians over the seeds.

    Args:
        codecs: the names of row codecs.
        seeds: the seeds that draw the rows.
        num_samples: the number of samples in a round.

    Raises:
        ValueError: a codec is unknown, or there is no sample or seed.
    """
    if num_samples < 1 or not seeds:
        raise ValueError("--samples and --seeds: at least one sample and one seed are needed")
    rounds = [two_rounds(seed, num_samples) for seed in seeds]
    return [_median([_cost(codec, before, after) for before, after in rounds]) for codec in codecs]


def two_rounds(seed: int, num_samples: int) -> tuple[Probs, Probs]:
    """Soft labels (N, H, B) of the same samples in two successive rounds."""
    rng = rng_for(seed, "codec cost")
    drift = rng.normal(scale=DRIFT_BEAMS, size=(num_samples, 1, 1)) * np.arange(NUM_HORIZONS)[:, np.newaxis]
    centre = rng.uniform(0, NUM_BEAMS - 1, size=(num_samples, 1, 1)) + drift
    width = rng.uniform(*BELL_BEAMS, size=(num_samples, 1, 1))
    logits = PEAK_LOGIT * np.exp(-((np.arange(NUM_BEAMS) - centre) ** 2) / (2 * width**2))
    logits += rng.normal(scale=NOISE_LOGIT, size=logits.shape)
    later = logits + rng.normal(scale=CHANGE_LOGIT, size=logits.shape)
    return normalise_rows(np.exp(logits / TEMPERATURE)), normalise_rows(np.exp(later / TEMPERATURE))


def mean_kl(sent: Probs, received: Probs) -> float:
    """Mean of sum_b p_b ln(p_b / q_b) over rows, in nats; p and q are floored inside the logarithm."""
    log_p, log_q = (np.log(np.maximum(rows.astype(np.float64), PROBABILITY_FLOOR)) for rows in (sent, received))
    return float((sent * (log_p - log_q)).sum(axis=-1).mean())


def top_agreement(sent: Probs, received: Probs) -> float:
    """Share of the five best beams of each row that are among its five best on arrival."""
    ours, theirs = (np.argsort(-rows, axis=-1, kind="stable")[..., :TOP] for rows in (sent, received))
    return float((ours[..., np.newaxis] == theirs[..., np.newaxis, :]).any(axis=-1).mean())


def _cost(name: str, before: Probs, after: Probs) -> CodecCost:
    codec = find_codec(name, NUM_BEAMS)
    known, payload = codec.encode(before), codec.encode(after)
    received = codec.decode(payload, NUM_HORIZONS, NUM_BEAMS)
    return CodecCost(
        codec=name,
        raw_bytes=payload.nbytes / len(after),
        zlib_bytes=compress(payload).nbytes / len(after),
        delta_bytes=compress(payload, reference=known).nbytes / len(after),
        worst_error=float(np.abs(received - after).max()),
        mean_kl=mean_kl(after, received),
        top5=top_agreement(after, received),
    )


def _median(costs: Sequence[CodecCost]) -> CodecCost:
    columns = {name: [asdict(cost)[name] for cost in costs] for name in asdict(costs[0]) if name != "codec"}
    return CodecCost(codec=costs[0].codec, **{name: statistics.median(column) for name, column in columns.items()})
