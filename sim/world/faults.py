"""The faults of sensors: lost frames and biased positions. F frames."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clients.data.modalities import MODALITIES
from configs.schema import Faults, World

# The mean length of a burst of lost frames in slots: a second.
MEAN_BURST = 9.0
# Uncalibrated fixes of DeepSense 6G scenario 9: s.d. of a pass's error across and along the street, metres.
RAW_GPS_BIAS_M = (3.4, 8.9)


def faulty_world(world: World, faults: Faults) -> World:
    """The world as a client with such faults records it: raw GPS has another bias."""
    return world.model_copy(update={"gps_bias_m": RAW_GPS_BIAS_M}) if faults.raw_gps else world


def spoil(frames: NDArray[np.generic], faults: Faults, modality: str, rng: np.random.Generator) -> NDArray[np.generic]:
    """A pass as a faulty sensor records it.

    A lost frame is a black image, an empty radar map or an empty scan; a GPS receiver repeats its last fix.

    Args:
        frames: (F, ...) the frames of one pass.
        faults: the faults of the sensor.
        modality: the name of the sensor.
        rng: the random stream of the pass for faults.
    """
    is_blind = rng.random() < faults.blind
    lost = lost_frames(len(frames), faults.dropout, rng)
    if MODALITIES[modality].lost_frame == "repeated":
        last_good = np.maximum.accumulate(np.where(lost, 0, np.arange(len(frames))))
        return frames[last_good]
    spoilt = frames.copy()
    spoilt[lost | is_blind] = 0
    return spoilt


def lost_frames(num_frames: int, share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(F,) whether each frame is lost: a two-state Markov chain loses ``share`` of them in bursts.

    Source: E. N. Gilbert, "Capacity of a burst-noise channel", Bell System Technical Journal 39 (1960) 1253.
    """
    # If more than nine in ten are lost, the gaps between bursts are single frames, so the bursts must be longer.
    recovers = min(1.0 / MEAN_BURST, (1.0 - share) / max(share, 1e-9))
    fails = recovers * share / (1.0 - share)
    draws = rng.random(num_frames)
    lost = np.empty(num_frames, bool)
    state = draws[0] < share if num_frames else False
    for frame in range(num_frames):
        if frame > 0:
            state = draws[frame] >= recovers if state else draws[frame] < fails
        lost[frame] = state
    return lost
