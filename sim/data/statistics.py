"""The figures that describe beams and pictures, by which a synthetic street is compared with a measured one.

Every figure is one number with a name; `sim.data.scenario9` gives the meaning of each name and the measured value.
Beams are counted from 0, from left to right as the mast sees the road.

F frames of a recording in time order, B beams, P passes.

Source: DeepSense 6G, Alkhateeb et al., IEEE Communications Magazine 2023; scenario 9, www.deepsense6g.net.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from clients.data.motion import motion_masks
from sim.data.predictability import PassLayout, predictor_floors, share_of
from sim.data.scenario9 import PROFILE_OFFSETS, SCENARIO_9, STATISTICS

__all__ = ["SCENARIO_9", "STATISTICS", "beam_statistics", "jensen_shannon_bits", "known_or_none", "mask_density"]

DEAD_SHARE = 0.003
"""Of 64 beams, one that is the best in a smaller share of all frames is called dead; an equal share would be 1/64. Of
another number of beams, the share is in proportion."""
EDGE_BEAMS = 3
"""Number of beams at either end of the codebook that count as its edge."""
WEAKEST_POWER = 1e-12
"""Smaller powers are raised to this one, so that a reading of zero has a level in dB."""


def beam_statistics(power: NDArray[np.floating], pass_ids: NDArray[np.integer]) -> dict[str, float]:
    """Every figure of `STATISTICS` except the mask densities, in the same order.

    Shares are in [0, 1]. A figure is NaN if there is too little data for it (no step, no pass to test on).

    The definitions follow the figures that are published of scenario 9. They agree to the last digit except the
    profile (within 0.1 dB), the line (1.2 points) and the Markov table (2 points), whose exact protocol is not known.

    Args:
        power: (F, B) linear receive power; with few beams, figures of further ones are NaN.
        pass_ids: (F,) the pass of each frame; frames of one pass are contiguous and in time order.

    Raises:
        ValueError: there are no frames, the shapes do not fit, or a power is negative or not finite.
    """
    if power.ndim != 2 or len(power) == 0 or pass_ids.shape != power.shape[:1] or power.shape[1] < 2:
        raise ValueError(
            f"power {power.shape} and pass_ids {pass_ids.shape}: expected (F, B) and (F,) with F >= 1 and B >= 2"
        )
    if not np.isfinite(power).all() or power.min() < 0:
        raise ValueError("power: expected finite linear power >= 0; convert dB and fill gaps first")
    level_db = 10.0 * np.log10(np.maximum(power.astype(np.float64), WEAKEST_POWER))
    best = level_db.argmax(axis=1)
    passes = PassLayout(pass_ids)
    return {
        **_percentiles("pass_length", passes.lengths, (5, 50, 95)),
        **_gaps(level_db),
        **_level(level_db.max(axis=1), passes),
        **_steps(best, passes),
        **_histogram(best, power.shape[1]),
        **_profile(level_db, best),
        **predictor_floors(best, passes, num_beams=power.shape[1]),
    }


def known_or_none(found: Mapping[str, float]) -> dict[str, float | None]:
    """All figures of `STATISTICS`, for JSON; a figure that was not computed or is NaN becomes None."""
    return {name: None if np.isnan(value := found.get(name, np.nan)) else value for name in STATISTICS}


def jensen_shannon_bits(counts: NDArray[np.integer], others: NDArray[np.integer]) -> float:
    """The Jensen-Shannon divergence of two histograms of beams in bit: 0 for equal shares, 1 if they share no beam.

    It is the mean relative entropy of both to their average. Source: Lin, IEEE Trans. on Information Theory, 1991.

    Args:
        counts: (B,) the number of frames in which each beam is the best, not all 0.
        others: (B,) the other histogram, not all 0.
    """
    shares = np.stack([counts / counts.sum(), others / others.sum()])
    middle = np.broadcast_to(shares.mean(axis=0), shares.shape)
    used = shares > 0
    return float(np.sum(shares[used] * np.log2(shares[used] / middle[used])) / 2.0)


def mask_density(images: NDArray[np.uint8]) -> float:
    """The mean share of pixels that are set in the motion masks of one pass, in [0, 1].

    It depends on the resolution: the measured 2.1-2.2 % hold for 224x224.

    Source: arXiv:2603.16116, input processing; see `clients.data.motion`.

    Args:
        images: (F, rows, columns, 3) RGB frames of one pass, F >= 2.

    Raises:
        ValueError: the images have another shape.
    """
    return float(np.mean(motion_masks(images)))


def _percentiles(
    name: str, values: NDArray[np.integer] | NDArray[np.floating], percents: Sequence[int]
) -> dict[str, float]:
    return {f"{name}_p{percent:02d}": float(np.percentile(values, percent)) for percent in percents}


def _gaps(level_db: NDArray[np.float64]) -> dict[str, float]:
    ranked = np.sort(level_db, axis=1)[:, ::-1]
    places = {"2nd": 1, "3rd": 2, "5th": 4}
    gaps = {
        f"gap_{name}_db": float(np.median(ranked[:, 0] - ranked[:, place])) if place < ranked.shape[1] else float("nan")
        for name, place in places.items()
    }
    return gaps | _percentiles("range_db", ranked[:, 0] - ranked[:, -1], (5, 50, 95))


def _level(best_db: NDArray[np.float64], passes: PassLayout) -> dict[str, float]:
    means = np.bincount(passes.number, weights=best_db) / passes.lengths
    deviation = best_db - means[passes.number]
    is_step = np.diff(passes.number) == 0
    spread, together = np.mean(deviation**2), deviation[1:][is_step] * deviation[:-1][is_step]
    return {
        "level_spread_db": float(np.sqrt(spread)),
        "level_memory": float(together.mean() / spread) if together.size and spread > 0 else float("nan"),
    }


def _steps(best: NDArray[np.int64], passes: PassLayout) -> dict[str, float]:
    is_step = np.diff(passes.number) == 0
    steps, number = np.diff(best)[is_step], passes.number[1:][is_step]
    direction = np.sign(np.bincount(number, weights=steps, minlength=len(passes.lengths)))
    forward, size = steps * direction[number], np.abs(steps)
    return {
        **{f"step_share_{k}": share_of(size == k) for k in (0, 1, 2)},
        "step_share_over_2": share_of(size > 2),
        "step_share_over_5": share_of(size > 5),
        "steps_backwards": share_of(forward < 0),
        "steps_backwards_over_2": share_of(forward < -2),
    }


def _histogram(best: NDArray[np.int64], num_beams: int) -> dict[str, float]:
    shares = np.bincount(best, minlength=num_beams) / len(best)
    used = shares[shares > 0]
    return {
        "entropy_bits": float(np.sum(used * np.log2(1.0 / used))),
        "dead_beams": float(np.sum(shares < DEAD_SHARE * 64 / num_beams)),
        "edge_share_low": float(shares[:EDGE_BEAMS].sum()),
        "edge_share_high": float(shares[-EDGE_BEAMS:].sum()),
    }


def _profile(level_db: NDArray[np.float64], best: NDArray[np.int64]) -> dict[str, float]:
    """The profile round the best beam; power is averaged linearly over the frames that have a beam at that distance."""
    found = {}
    for name, side in (("profile_db", -1), ("profile_above_db", 1)):
        for offset in PROFILE_OFFSETS:
            beam = best + side * offset
            inside = np.flatnonzero((beam >= 0) & (beam < level_db.shape[1]))
            relative_db = level_db[inside, beam[inside]] - level_db[inside, best[inside]]
            mean = np.mean(10.0 ** (relative_db / 10.0)) if inside.size else np.nan
            found[f"{name}_{offset}"] = float(10.0 * np.log10(mean))
    return found
