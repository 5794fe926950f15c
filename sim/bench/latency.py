"""Measures the time that trackers take on a CPU, for one window on one thread, as medians of interleaved rounds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping

import numpy as np
import torch

from clients.models.complexity import empty_frames
from clients.models.step_tracker import StepTracker
from clients.models.tracker import Windows
from configs.seeding import rng_for

ROUNDS = 15


def median_ms(calls: Mapping[Hashable, Callable[[], object]], *, rounds: int = ROUNDS) -> dict[Hashable, float]:
    """The median wall time in milliseconds of each call on one thread.

    All calls take turns in every round, so that other work on the machine slows all of them equally.

    Args:
        calls: name -> the call to time.
        rounds: the number of timed rounds; one more round before them warms up.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    taken: dict[Hashable, list[float]] = {name: [] for name in calls}
    try:
        for number in range(rounds + 1):
            for name, call in calls.items():
                begin = time.perf_counter()
                call()
                if number:
                    taken[name].append(1e3 * (time.perf_counter() - begin))
    finally:
        torch.set_num_threads(before)
    return {name: statistics.median(values) for name, values in taken.items()}


def window_call(tracker: StepTracker) -> Callable[[], object]:
    """A call that computes the whole answer of a tracker for one window of random frames."""
    windows = random_windows(tracker, 1)
    tracker.eval()

    def call() -> object:
        with torch.inference_mode():
            return tracker(windows)

    return call


def random_windows(tracker: StepTracker, count: int, *, seed: int = 0) -> Windows:
    """Consecutive windows over frames of noise, with 2 % of the pixels moving and radar at the level of scenario 9."""
    num_frames = tracker.task.num_frames + count - 1
    rng = rng_for(seed, "latency")
    frames = empty_frames(tracker, num_frames)
    for name, values in frames.items():
        if name == "motion":
            bits = rng.random((*values.shape[:-1], 8 * values.shape[-1])) < 0.02
            frames[name] = torch.from_numpy(np.packbits(bits, axis=-1))
        else:
            frames[name] = torch.from_numpy(rng.exponential(0.14, values.shape).astype(np.float16))
    rows = torch.arange(count)[:, None] + torch.arange(tracker.task.num_frames)
    return Windows(frames, rows)


def latencies_ms(trackers: Mapping[Hashable, StepTracker], *, rounds: int = ROUNDS) -> dict[Hashable, float]:
    """The median milliseconds that each tracker takes for one window."""
    return median_ms({name: window_call(tracker) for name, tracker in trackers.items()}, rounds=rounds)
