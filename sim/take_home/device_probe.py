"""Measures an exported model in a process of its own: latency slot by slot, memory and energy.

What runs here needs numpy, and onnxruntime for graphs, so that the memory is that of a node; torch comes in with a
model for torch only. The parent gives one line of JSON on standard input and reads one from standard output.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.serving.beam_model import BeamModel
from clients.serving.loading import load_model
from clients.serving.sources import slots_of

POWERCAP = Path("/sys/class/powercap")
WARM_UP = 8
"""Windows that are computed before the first one that counts."""

Frames = dict[str, NDArray[Any]]


def measure(
    folder: Path, recording: Path, *, precision: str, stream: bool, windows: int = 0, powercap: Path = POWERCAP
) -> dict[str, Any]:
    """Answer for every window of a recording, one at a time, as a node does.

    Args:
        folder: the folder of the model.
        recording: the recording with its frames.
        precision: ``float32`` or ``int8``.
        stream: whether a window costs one new frame; otherwise every window is computed from all of its frames.
        windows: the largest number of windows that count; 0 takes all.
        powercap: the folder in which Linux tells what the processors used.

    Returns:
        ``ms``: the milliseconds of each window; ``peak_bytes``: the most memory that this process held;
        ``joules``: what the processors used for a window on average, with whatever else ran, or None.
    """
    model = load_model(folder, precision=precision)
    calls = _stream_calls if stream else _window_calls
    return _timed(lambda: calls(model, recording), windows, powercap)


def measure_published(name: str, task: Mapping[str, Any], windows: int, powercap: Path = POWERCAP) -> dict[str, Any]:
    """The same for whole windows of a tracker of the study in torch, on frames of noise.

    Args:
        name: a key of `clients.models.registry.MODELS`.
        task: the lengths of windows, horizons and beams, as `configs.schema.Task` takes them.
        windows: the number of windows that count.
        powercap: the folder in which Linux tells what the processors used.
    """
    import torch

    from clients.models.registry import make_tracker
    from configs.schema import Task
    from sim.bench.latency import window_call

    torch.set_num_threads(1)
    call = window_call(make_tracker(name, Task(**task), seed=0))
    return _timed(lambda: (call for _ in range(windows)), windows, powercap)


def _timed(calls: Callable[[], Iterator[Callable[[], object]]], windows: int, powercap: Path) -> dict[str, Any]:
    """What :func:`measure` gives, of calls one after the other."""
    for number, call in enumerate(calls()):
        if number == WARM_UP:
            break
        call()
    taken: list[float] = []
    before = joules_used(powercap)
    for call in calls():
        begin = time.perf_counter()
        call()
        taken.append(1e3 * (time.perf_counter() - begin))
        if len(taken) == windows:
            break
    joules = joules_between(before, joules_used(powercap))
    return {"ms": taken, "peak_bytes": peak_bytes(), "joules": None if joules is None else joules / max(1, len(taken))}


def _window_calls(model: BeamModel, recording: Path) -> Iterator[Callable[[], object]]:
    length, kept, current = model.manifest.num_frames, list[Frames](), None
    for slot in slots_of(recording, model.manifest.modalities):
        kept = [*kept[-length + 1 :], slot.frames] if slot.pass_id == current and length > 1 else [slot.frames]
        current = slot.pass_id
        if len(kept) == length:
            window = {name: np.stack([one[name] for one in kept])[None] for name in slot.frames}
            yield lambda window=window: model.predict(window)  # type: ignore[misc]


def _stream_calls(model: BeamModel, recording: Path) -> Iterator[Callable[[], object]]:
    live, current, length = model.live(), None, model.manifest.num_frames
    for slot in slots_of(recording, model.manifest.modalities):
        if slot.pass_id != current:
            live.reset()
            current = slot.pass_id
        # The slots at the beginning of a pass have no answer yet, so they do not count.
        if (slot.number or 0) < length - 1:
            live.push(slot.frames, slot=slot.number)
        else:
            yield lambda slot=slot: live.push(slot.frames, slot=slot.number)  # type: ignore[misc]


def peak_bytes(status: Path = Path("/proc/self/status")) -> int:
    """The most memory that this process held.

    Linux counts the peak of a parent in `getrusage` of its child, so there it is read from ``VmHWM``.
    """
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def joules_used(powercap: Path = POWERCAP) -> dict[str, tuple[float, float]]:
    """Processor -> the joules that it has used and the number at which it begins again; empty where nothing is told.

    Source: the kernel's Documentation/power/powercap/powercap.rst; ``energy_uj`` may be readable by root only.
    """
    found = {}
    for zone in sorted(powercap.glob("intel-rapl:[0-9]*")):
        if zone.name.count(":") > 1:
            continue  # a part of a processor, which counts in the whole
        try:
            used, limit = (int((zone / name).read_text()) for name in ("energy_uj", "max_energy_range_uj"))
        except (OSError, ValueError):
            continue
        found[zone.name] = (1e-6 * used, 1e-6 * limit)
    return found


def joules_between(before: Mapping[str, tuple[float, float]], after: Mapping[str, tuple[float, float]]) -> float | None:
    """The joules that all processors used between two readings; None where they do not tell."""
    if not before or before.keys() != after.keys():
        return None
    total = 0.0
    for zone, (used, limit) in after.items():
        more = used - before[zone][0]
        total += more if more >= 0 else more + limit
    return total


def main() -> None:
    """Read what to measure from standard input, and write what was measured to standard output."""
    wanted = json.loads(sys.stdin.read())
    if "published" in wanted:
        found = measure_published(wanted["published"], wanted["task"], wanted["windows"])
    else:
        found = measure(Path(wanted.pop("folder")), Path(wanted.pop("recording")), **wanted)
    sys.stdout.write(json.dumps(found) + "\n")
