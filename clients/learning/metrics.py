"""Metrics of a beam ranking. N samples, H horizons, B beams, K ranked guesses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# The smallest power that counts: lower readings are raised to it, so that the loss in dB stays finite.
POWER_FLOOR = 1e-9
# So few guesses are found faster one after the other than by sorting all beams.
FEW_GUESSES = 8


def rank_beams(scores: NDArray[np.floating], k: int = 5) -> NDArray[np.int64]:
    """(N, k) beams by decreasing score; of equal scores, the smaller beam index comes first.

    Args:
        scores: (N, B) values that increase with the probability of a beam.
        k: the number of guesses to keep.
    """
    k = min(k, scores.shape[1])
    if k > FEW_GUESSES or not np.isfinite(scores).all():
        return np.argsort(-scores, axis=1, kind="stable")[:, :k].astype(np.int64)
    left, rows = scores.astype(np.result_type(scores, np.float32)), np.arange(len(scores))
    ranked = np.empty((len(scores), k), np.int64)
    for place in range(k):
        ranked[:, place] = left.argmax(axis=1)  # the first of equal ones
        left[rows, ranked[:, place]] = -np.inf
    return ranked


def top_k(ranked: NDArray[np.int64], best: NDArray[np.int64], k: int) -> float:
    """The share of samples whose best beam is among the first ``k`` guesses, in [0, 1].

    Args:
        ranked: (N, K) guesses, K >= k.
        best: (N,) best beam.
        k: the number of guesses that count.
    """
    return float(np.mean(hits(ranked, best, k)))


def dba_score(ranked: NDArray[np.int64], best: NDArray[np.int64], delta: int = 5) -> float:
    """Distance-based accuracy over the top three beams, in [0, 1].

    It is the mean of Y_1, Y_2 and Y_3. Y_k is 1 minus the distance of the nearest of the first k guesses to the best
    beam, in units of ``delta`` beams; a distance of ``delta`` beams or more earns nothing.

    Source: DeepSense 6G Multi-Modal Beam Prediction Challenge 2022, arXiv:2209.07519.
    Some papers report Y_3 alone under this name; see :func:`dba_k3_score`.

    Args:
        ranked: (N, K) guesses, K >= 3.
        best: (N,) best beam.
        delta: the distance in beams from which on a guess earns nothing.

    Example:
        The best beam is 10 and the guesses are 12, 11 and 10, so the score is (0.6 + 0.8 + 1) / 3.

        >>> round(dba_score(np.array([[12, 11, 10]]), np.array([10])), 3)
        0.8
    """
    return float(1.0 - np.minimum.accumulate(misses(ranked, best, delta), axis=1).mean())


def dba_k3_score(ranked: NDArray[np.int64], best: NDArray[np.int64], delta: int = 5) -> float:
    """Y_3 alone of the distance-based accuracy, in [0, 1]; it is never smaller than :func:`dba_score`.

    Source: the beam-tracking papers that report "DBA" with K = 3 only, such as arXiv 2603.16116.
    """
    return float(1.0 - misses(ranked, best, delta).min(axis=1).mean())


def power_loss_db(power: NDArray[np.floating], ranked: NDArray[np.int64]) -> float:
    """The mean of :func:`losses_db` over the samples.

    Args:
        power: (N, B) linear receive power.
        ranked: (N, K) guesses.
    """
    return float(np.mean(losses_db(power, ranked)))


def hits(ranked: NDArray[np.int64], best: NDArray[np.int64], k: int) -> NDArray[np.bool_]:
    """(N,) whether the best beam is among the first ``k`` guesses."""
    found: NDArray[np.bool_] = np.any(ranked[:, :k] == best[:, None], axis=1)
    return found


def misses(ranked: NDArray[np.int64], best: NDArray[np.int64], delta: int = 5) -> NDArray[np.float64]:
    """(N, 3) distance of each of the first three guesses to the best beam, in units of ``delta`` beams, at most 1.

    Where there are only two beams, the second guess counts as the third one too.
    """
    guesses = ranked[:, :3]
    if guesses.shape[1] < 3:
        guesses = np.pad(guesses, ((0, 0), (0, 3 - guesses.shape[1])), mode="edge")
    distance = np.abs(guesses - best[:, None]) / delta
    capped: NDArray[np.float64] = np.minimum(distance, 1.0)
    return capped


def losses_db(power: NDArray[np.floating], ranked: NDArray[np.int64]) -> NDArray[np.float64]:
    """(N,) power lost by using the first guess instead of the best beam, in dB; zero means that nothing is lost.

    The loss is 10 log10(P_best / P_first guess); the noise floor is not subtracted.

    Args:
        power: (N, B) linear receive power.
        ranked: (N, K) guesses.
    """
    floored = np.maximum(power.astype(np.float64), POWER_FLOOR)
    chosen = np.take_along_axis(floored, ranked[:, :1], axis=1)[:, 0]
    lost: NDArray[np.float64] = 10.0 * np.log10(floored.max(axis=1) / chosen)
    return lost


def top5_by_pass(
    scores: NDArray[np.floating], power: NDArray[np.floating], pass_of_window: NDArray[np.integer]
) -> list[float]:
    """Top-5 of the windows of each pass, mean of the horizons, in [0, 1]; passes come in the order of their ids.

    Windows of a pass are alike, so that differences between learners are judged over passes, not over windows.

    Args:
        scores: (N, H, B) values that increase with the probability of a beam.
        power: (N, H, B) linear receive power.
        pass_of_window: (N,) the pass that each window is from.
    """
    found = np.stack([hits(rank_beams(scores[:, h]), power[:, h].argmax(axis=1), 5) for h in range(scores.shape[1])])
    _, place, counts = np.unique(pass_of_window, return_inverse=True, return_counts=True)
    shares: list[float] = (np.bincount(place, weights=found.mean(axis=0)) / counts).tolist()
    return shares


@dataclass(frozen=True)
class BeamMetrics:
    """Every metric at every horizon: each holds H numbers, which are in [0, 1], or in dB and >= 0 for power loss."""

    top1: tuple[float, ...]
    top3: tuple[float, ...]
    top5: tuple[float, ...]
    dba: tuple[float, ...]
    dba_k3: tuple[float, ...]
    power_loss_db: tuple[float, ...]

    @classmethod
    def of(cls, scores: NDArray[np.floating], power: NDArray[np.floating]) -> BeamMetrics:
        """Score a prediction against the measured power.

        Args:
            scores: (N, H, B) values that increase with the probability of a beam.
            power: (N, H, B) linear receive power; the beam with the largest power is the label.

        Raises:
            ValueError: there is no sample.
        """
        if len(scores) == 0:
            raise ValueError("there is no sample to score")
        rows = []
        for horizon in range(scores.shape[1]):
            ranked = rank_beams(scores[:, horizon])
            best = np.argmax(power[:, horizon], axis=1).astype(np.int64)
            rows.append(
                (
                    top_k(ranked, best, 1),
                    top_k(ranked, best, 3),
                    top_k(ranked, best, 5),
                    dba_score(ranked, best),
                    dba_k3_score(ranked, best),
                    power_loss_db(power[:, horizon], ranked),
                )
            )
        return cls(*(tuple(column) for column in zip(*rows, strict=True)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Sequence[float]]) -> BeamMetrics:
        """The inverse of :meth:`to_dict`."""
        return cls(**{name: tuple(float(x) for x in row) for name, row in values.items()})

    def to_dict(self) -> dict[str, list[float]]:
        """The metrics as a dictionary: metric name -> one number per horizon."""
        return {name: list(row) for name, row in vars(self).items()}

    def mean(self, name: str) -> float:
        """One metric, averaged over the horizons."""
        return float(np.mean(getattr(self, name)))
