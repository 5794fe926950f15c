"""What the models of a run cost on this machine: latency, memory, bytes, operations and energy for every runtime."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.table import Table

from clients.data.modalities import MODALITIES
from clients.models.complexity import BYTES_PER_WEIGHT, count_window_macs, macs_of
from clients.models.decider import Decider
from clients.models.registry import MODELS, make_tracker
from clients.models.streaming import DeciderStepper
from clients.models.tracker import Windows, count_parameters
from clients.serving.manifest import STREAM, STREAM_INT8, WEIGHTS, WINDOW, WINDOW_INT8
from configs.progress import PhaseProgress
from configs.schema import Task
from sim.experiments import make_data
from sim.launch import CHECKOUT
from sim.take_home.run_models import RunModels
from sim.take_home.writer import export_model

Runtime = Literal["torch", "onnxruntime", "onnxruntime int8"]
_PROBE = "import softbeam; from sim.take_home.device_probe import main; main()"
PUBLISHED = tuple(name for name, card in MODELS.items() if card.role == "student" and not card.is_ours)
"""The published students of the study, which ours are compared with."""
PUBLISHED_WINDOWS = 300
_GRAPHS = {
    ("onnxruntime", False): WINDOW,
    ("onnxruntime", True): STREAM,
    ("onnxruntime int8", False): WINDOW_INT8,
    ("onnxruntime int8", True): STREAM_INT8,
}


@dataclass(frozen=True)
class DeviceCost:
    """What a model costs in a runtime, over windows of the common test set on one thread.

    Attributes:
        model: the name of the client, or ``teacher``.
        runtime: what computes it.
        is_stream: whether a window costs one new frame.
        windows: the number of windows that were timed, one at a time.
        p50_ms: the median latency of a window; ``p95_ms``, ``p99_ms`` and ``worst_ms`` are the others.
        peak_bytes: the most memory of a process that does nothing else.
        file_bytes: the bytes of the graph or the weights.
        macs: the multiply-accumulates of a window, in products of matrices and convolutions.
        joules: what the processors used for a window, with whatever else ran; None where the machine does not tell.
    """

    model: str
    runtime: Runtime
    is_stream: bool
    windows: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    worst_ms: float
    peak_bytes: int
    file_bytes: int
    macs: int
    joules: float | None

    def to_dict(self) -> dict[str, Any]:
        """The values by name."""
        return asdict(self)


def device_costs(
    models: RunModels,
    names: Sequence[str],
    *,
    windows: int = 0,
    progress: PhaseProgress = lambda phase, done, total: None,
) -> Iterator[DeviceCost]:
    """Measure models of a run, each in a process of its own for every runtime and way.

    Args:
        models: the models of a run.
        names: the names of those that are measured.
        windows: the largest number of windows of the test set; 0 takes all.
        progress: is called where the data of the run has to be made again first.

    Raises:
        ValueError: there is no such model, it cannot be exported, or a measurement failed.
    """
    federation = models.federation
    if not (federation / "test").is_dir():
        federation, _ = make_data(models.experiment, progress)
    with tempfile.TemporaryDirectory() as place:
        for name in names:
            graphs = export_model(models, name, Path(place) / "graphs", int8=True, progress=progress)
            weights = export_model(models, name, Path(place) / "weights", form="torch", progress=progress)
            files = {**graphs.manifest.files, **weights.manifest.files}
            sizes = {**graphs.sizes, **weights.sizes}
            macs = {is_stream: _macs(models.decider(name), is_stream=is_stream) for is_stream in (False, True)}
            runtimes: tuple[Runtime, ...] = ("torch", "onnxruntime", "onnxruntime int8")
            for runtime in runtimes:
                for is_stream in (False, True):
                    file = files.get(WEIGHTS if runtime == "torch" else _GRAPHS[runtime, is_stream])
                    if file is None:
                        continue  # a model of a user's own has no graph for streams
                    found = _probed(
                        folder=str((weights if runtime == "torch" else graphs).folder),
                        recording=str(federation / "test"),
                        precision="int8" if runtime == "onnxruntime int8" else "float32",
                        stream=is_stream,
                        windows=windows,
                    )
                    p50, p95, p99 = np.percentile(found["ms"], (50, 95, 99)).tolist()
                    yield DeviceCost(
                        *(name, runtime, is_stream, len(found["ms"]), p50, p95, p99, max(found["ms"])),
                        peak_bytes=found["peak_bytes"],
                        file_bytes=sizes[file],
                        macs=macs[is_stream],
                        joules=found["joules"],
                    )


def published_costs(task: Task, *, windows: int = 0) -> Iterator[DeviceCost]:
    """Measure the published students of the study in torch on whole windows, each in a process of its own.

    They sense masks of motion and radar maps, which a run need not have, so their windows are noise; they are not
    trained, since training changes no latency.

    Args:
        task: the lengths of windows, horizons and beams of the run.
        windows: the number of windows; 0 takes `PUBLISHED_WINDOWS`.

    Raises:
        ValueError: a measurement failed.
    """
    for name in PUBLISHED:
        found = _probed(published=name, task=task.model_dump(mode="json"), windows=windows or PUBLISHED_WINDOWS)
        p50, p95, p99 = np.percentile(found["ms"], (50, 95, 99)).tolist()
        tracker = make_tracker(name, task, seed=0)
        yield DeviceCost(
            *(name, "torch", False, len(found["ms"]), p50, p95, p99, max(found["ms"])),
            peak_bytes=found["peak_bytes"],
            file_bytes=BYTES_PER_WEIGHT * count_parameters(tracker),
            macs=count_window_macs(tracker),
            joules=found["joules"],
        )


def ratio_lines(costs: Sequence[DeviceCost]) -> list[str]:
    """How many times as fast whole windows of the slowest student of a run are as each published student, at p50.

    Args:
        costs: what was measured, of both.
    """
    ours = [cost for cost in costs if cost.model not in PUBLISHED and not cost.is_stream]
    lines = []
    for theirs in (cost for cost in costs if cost.model in PUBLISHED):
        for runtime in dict.fromkeys(cost.runtime for cost in ours):
            slowest = max((cost for cost in ours if cost.runtime == runtime), key=lambda cost: cost.p50_ms)
            lines.append(
                f"whole windows of {slowest.model}, the slowest, in {runtime} are "
                f"{theirs.p50_ms / slowest.p50_ms:.1f} times as fast as {theirs.model} in torch"
            )
    return lines


def _probed(**wanted: Any) -> dict[str, Any]:
    path = os.pathsep.join([str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _PROBE],
        input=json.dumps(wanted),
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        what = wanted.get("folder") or wanted["published"]
        raise ValueError(f"{what}: could not be measured in a process of its own ({reason})")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _macs(decider: Decider, *, is_stream: bool) -> int:
    """The multiply-accumulates of a window, or of one slot of a stream."""
    rows = {name: MODALITIES[name] for name in decider.modalities}
    if is_stream:
        stepper = DeciderStepper(decider)
        frames = {name: np.zeros(row.frame_shape, row.dtype) for name, row in rows.items()}
        state = stepper.fresh_state()
        return macs_of(decider, lambda: stepper.step(frames, state, dict.fromkeys(rows, True)))
    length = decider.task.num_frames
    whole = {name: torch.from_numpy(np.zeros((length, *row.frame_shape), row.dtype)) for name, row in rows.items()}
    return macs_of(decider, lambda: decider(Windows(whole, torch.arange(length)[None])))


def device_table(costs: Sequence[DeviceCost]) -> Table:
    """A table with a row for every model, runtime and way; joules only where the machine tells them."""
    tells = any(cost.joules is not None for cost in costs)
    table = Table("model", "runtime", "way", title="one window at a time, on one thread")
    for title in ("p50 ms", "p95 ms", "p99 ms", "worst ms", "peak MB", "file kB", "MMAC", *(["mJ"] if tells else [])):
        table.add_column(title, justify="right")
    for cost in costs:
        table.add_row(
            *(cost.model, cost.runtime, "stream" if cost.is_stream else "window"),
            *(f"{value:.2f}" for value in (cost.p50_ms, cost.p95_ms, cost.p99_ms, cost.worst_ms)),
            f"{cost.peak_bytes / 1e6:.0f}",
            f"{cost.file_bytes / 1e3:.1f}",
            f"{cost.macs / 1e6:.2f}",
            *(["-" if cost.joules is None else f"{1e3 * cost.joules:.2f}"] if tells else []),
        )
    return table
