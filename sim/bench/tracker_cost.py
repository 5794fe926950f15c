"""Measures the trackers of the registry: parameters, operations, bytes and time; in float32, in 8 bits, streaming."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from rich.table import Table

from clients.models.complexity import BYTES_PER_WEIGHT, count_macs, count_window_macs
from clients.models.quantised import decode_int8, encode_int8
from clients.models.registry import make_tracker
from clients.models.step_tracker import StepTracker
from clients.models.streaming import StreamingTracker, count_slot_macs
from clients.models.tracker import count_parameters
from configs.schema import Task
from sim.bench.latency import ROUNDS, median_ms, random_windows, window_call


@dataclass(frozen=True)
class TrackerCost:
    """The cost of one tracker; times are medians on one CPU thread.

    Attributes:
        model: the name of the tracker.
        parameters: the number of learned parameters.
        macs: the multiply-accumulates of a window if every step is encoded separately, as published figures count.
        window_macs: the multiply-accumulates of a window as it is computed here.
        slot_macs: the multiply-accumulates of a slot of a stream.
        bytes: the bytes of the float32 weights; ``int8_bytes`` are those of the file with 8-bit weights.
        window_ms: the time of a window; ``int8_ms`` is the same with 8-bit weights, ``slot_ms`` that of a slot of a
            stream.
    """

    model: str
    parameters: int
    macs: int
    window_macs: int
    slot_macs: int
    bytes: int
    int8_bytes: int
    window_ms: float
    int8_ms: float
    slot_ms: float


def tracker_costs(
    models: Sequence[str], *, num_frames: int = 8, num_future: int = 3, rounds: int = ROUNDS
) -> list[TrackerCost]:
    """Measure untrained trackers side by side, since training does not change their speed.

    Args:
        models: keys of `MODELS`.
        num_frames: L, the number of frames of a window.
        num_future: J, the number of slots ahead.
        rounds: the number of rounds of timing; the trackers take turns in each.

    Raises:
        ValueError: there is no such model.
    """
    task = Task(num_frames=num_frames, num_future=num_future)
    trackers = {name: make_tracker(name, task, seed=0) for name in models}
    small = {name: encode_int8(tracker, name) for name, tracker in trackers.items()}
    calls: dict[Hashable, Callable[[], object]] = {}
    for name, tracker in trackers.items():
        calls[name, "window"] = window_call(tracker)
        calls[name, "int8"] = window_call(decode_int8(small[name]))
        calls[name, "slot"] = _slot_call(tracker)
    taken = median_ms(calls, rounds=rounds)
    return [
        TrackerCost(
            model=name,
            parameters=count_parameters(tracker),
            macs=count_macs(tracker),
            window_macs=count_window_macs(tracker),
            slot_macs=count_slot_macs(tracker),
            bytes=BYTES_PER_WEIGHT * count_parameters(tracker),
            int8_bytes=len(small[name]),
            window_ms=taken[name, "window"],
            int8_ms=taken[name, "int8"],
            slot_ms=taken[name, "slot"],
        )
        for name, tracker in trackers.items()
    ]


def _slot_call(tracker: StepTracker) -> Callable[[], object]:
    """A call that computes the next slot of a stream that has begun."""
    stream = StreamingTracker(tracker)
    frames = {name: values[0].numpy() for name, values in random_windows(tracker, 1).frames.items()}
    for _ in range(tracker.task.num_frames):
        stream.push(frames)
    return lambda: stream.push(frames)


def costs_table(costs: Sequence[TrackerCost]) -> Table:
    """A table with one row per tracker."""
    columns = ("parameters", "MMAC", "MMAC here", "MMAC/slot", "kB", "kB int8", "ms", "ms int8", "ms/slot")
    title = f"cost of a tracker; one thread, torch {torch.__version__}"
    table = Table("model", *columns, title=title)
    for cost in costs:
        macs = (cost.macs, cost.window_macs, cost.slot_macs)
        table.add_row(
            cost.model,
            f"{cost.parameters:,}",
            *(f"{value / 1e6:.1f}" for value in macs),
            *(f"{value / 1e3:,.0f}" for value in (cost.bytes, cost.int8_bytes)),
            *(f"{value:.2f}" for value in (cost.window_ms, cost.int8_ms, cost.slot_ms)),
        )
    return table
