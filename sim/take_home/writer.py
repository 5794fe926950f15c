"""Writes a model of a run into a folder of its own, as graphs of ONNX or as weights for torch, and what it is.

L frames of a window, H horizons, B beams.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clients.data.recording import Recording, open_recording
from clients.learning.metrics import BeamMetrics
from clients.models.decider import Decider
from clients.models.tracker import BeamTracker
from clients.models.weights import pack_tensors
from clients.serving.manifest import (
    FILE,
    STREAM,
    STREAM_INT8,
    WEIGHTS,
    WINDOW,
    WINDOW_INT8,
    Input,
    Manifest,
    input_of,
)
from clients.serving.onnx_model import session_of
from clients.serving.sweeping import guarantees_of
from configs.files import fresh_folder
from configs.models import Model
from configs.progress import PhaseProgress
from configs.schema import Experiment
from sim.data.conversion import LICENCE as DEEPSENSE_LICENCE
from sim.experiments import make_data
from sim.take_home.card import card_of
from sim.take_home.run_models import TEACHER, RunModels, State

Format = Literal["onnx", "torch", "safetensors"]
FORMATS: tuple[Format, ...] = ("onnx", "torch", "safetensors")
LICENCE = "Apache-2.0"
# Windows of the public set on which the ranges of activations are measured, evenly spread.
CALIBRATION_WINDOWS = 256
Part = tuple[Recording, NDArray[np.int64]]
"""Some windows of a recording, by their first frames."""
_NAMES = {
    WINDOW: "window.onnx",
    STREAM: "stream.onnx",
    WINDOW_INT8: "window.int8.onnx",
    STREAM_INT8: "stream.int8.onnx",
}


@dataclass(frozen=True)
class Exported:
    """A model that was written.

    Attributes:
        folder: where it is.
        manifest: what its ``model.json`` says.
        sizes: the bytes of each file of the model.
    """

    folder: Path
    manifest: Manifest
    sizes: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """The values by name."""
        checks = dict(self.manifest.checks)
        return {"name": self.manifest.name, "folder": str(self.folder), "bytes": dict(self.sizes), "checks": checks}


def export_model(
    models: RunModels,
    name: str,
    out: Path,
    *,
    form: Format = "onnx",
    int8: bool = False,
    state: State = "kept",
    progress: PhaseProgress = lambda phase, done, total: None,
) -> Exported:
    """Write a model into ``out/name``; a model that was exported there before is replaced.

    Args:
        models: the models of a run.
        name: the name of a client, or ``teacher``.
        out: the folder for the folder of the model.
        form: what is written.
        int8: whether graphs in eight bits are written besides.
        state: the state that is kept, or the one after the last round.
        progress: is called where the data of the run has to be made again first.

    Raises:
        ValueError: there is no such model, it cannot be exported in this form, or a file is in the way.
    """
    if form not in FORMATS:
        raise ValueError(f"--format {form}: expected one of {', '.join(FORMATS)}")
    if int8 and form != "onnx":
        raise ValueError(f"--int8: eight bits are for graphs, and {form} has none; leave it out or use --format onnx")
    models.require_beams("softbeam export")
    decider = models.decider(name, state=state)
    manifest = _manifest(models, name, decider, state)
    if form == "onnx":
        public = _windows(models, "public", progress) if int8 else None
        files, manifest = _graphs(decider, manifest, _windows(models, "test", progress), public)
        return _written(out / name, manifest, files)
    weights = [member.state_dict() for member in decider.members]
    file = "model.pt" if form == "torch" else "model.safetensors"
    files = {file: _saved(weights) if form == "torch" else pack_tensors(weights)}
    modules = _own_modules(models, decider, name)
    return _written(out / name, replace(manifest, files={WEIGHTS: file}), files, modules)


def export_decider(folder: Path, decider: Decider, manifest: Manifest, checked_on: Part) -> Exported:
    """Write what a client decides by as graphs in float32, checked against torch; what was there before is replaced.

    Args:
        folder: the folder of the model.
        decider: what is written.
        manifest: what is known of it, see :func:`describe`.
        checked_on: the windows on which the graphs are compared with torch.

    Raises:
        ValueError: it cannot be written as a graph, or there is no window, or something else is in the folder.
    """
    if len(checked_on[1]) == 0:
        raise ValueError(f"{checked_on[0].folder}: has no window, and a model is checked on some; record longer passes")
    files, manifest = _graphs(decider, manifest, checked_on, None)
    return _written(folder, manifest, files)


def _written(folder: Path, manifest: Manifest, files: Mapping[str, bytes], modules: Sequence[Path] = ()) -> Exported:
    """Write the folder of a model, with its card and the modules that its weights need."""
    texts = {FILE: manifest.to_json(), "README.md": card_of(manifest, {one: len(data) for one, data in files.items()})}
    if (folder / FILE).is_file():
        shutil.rmtree(folder)
    with fresh_folder(folder) as draft:
        for file, content in files.items():
            (draft / file).write_bytes(content)
        for file, text in texts.items():
            (draft / file).write_text(text)
        for module in modules:
            shutil.copyfile(module, draft / module.name)
    return Exported(folder, manifest, {file: len(content) for file, content in files.items()})


def _saved(weights: Sequence[Mapping[str, Tensor]]) -> bytes:
    buffer = io.BytesIO()
    torch.save({"members": [dict(one) for one in weights]}, buffer)
    return buffer.getvalue()


def _graphs(
    decider: Decider, manifest: Manifest, checked_on: Part, calibrated_on: Part | None
) -> tuple[dict[str, bytes], Manifest]:
    """The files of the graphs, in eight bits too if there are windows for it, and the manifest with the checks."""
    from sim.take_home.onnx_graph import OPSET
    from sim.take_home.onnx_traced import TRACED_OPSET, traced_window_graph
    from sim.take_home.onnx_trackers import stream_graph, window_graph
    from sim.take_home.verification import (
        check,
        largest_difference,
        logits_of,
        stream_feeds,
        torch_logits,
        window_feeds,
    )

    notes = {"softbeam": json.dumps({"name": manifest.name, **manifest.provenance})}
    is_ours = all(isinstance(member, BeamTracker) for member in decider.members)
    graphs = {WINDOW: (window_graph if is_ours else traced_window_graph)(decider, notes)}
    if is_ours:
        graphs[STREAM] = stream_graph(decider, notes)
    sessions = {kind: session_of(graph.SerializeToString()) for kind, graph in graphs.items()}
    common, starts = checked_on

    def feeds_of(kind: str, recording: Recording, some: NDArray[np.int64]) -> Iterator[dict[str, NDArray[Any]]]:
        if kind == STREAM:
            return stream_feeds(sessions[STREAM], decider, recording, some)
        wants = {one.name for one in sessions[WINDOW].get_inputs()}
        return window_feeds(decider, recording, some, wants=wants)

    def said(kind: str, session: Any) -> NDArray[np.float32]:
        return logits_of(session, feeds_of(kind, common, starts))

    expected = torch_logits(decider, common, starts)
    differences = {kind: largest_difference(said(kind, session), expected) for kind, session in sessions.items()}
    check(differences, manifest.name)
    checks: dict[str, Any] = {"windows": len(starts), "largest_difference_from_torch": differences}
    if calibrated_on is not None:
        from sim.take_home.quantisation import quantised

        public, windows = calibrated_on
        some = windows[:: max(1, len(windows) // CALIBRATION_WINDOWS)]
        task = decider.task
        power = common.powers(starts, task.num_frames, task.num_future)
        whole = _top5(expected, power)
        scores = {}
        for kind, small in ((WINDOW, WINDOW_INT8), (STREAM, STREAM_INT8)):
            if kind in graphs:
                graphs[small] = quantised(graphs[kind], list(feeds_of(kind, public, some)))
                scores[kind] = 100.0 * (_top5(said(kind, session_of(graphs[small].SerializeToString())), power) - whole)
        checks["int8"] = {"calibration_windows": len(some), "top5": 100.0 * whole, "top5_change_points": scores}
    files = {_NAMES[kind]: graph.SerializeToString() for kind, graph in graphs.items()}
    opset = OPSET if is_ours else TRACED_OPSET
    names = {kind: _NAMES[kind] for kind in graphs}
    return files, replace(manifest, files=names, opset=opset, checks=checks)


def _top5(logits: NDArray[np.float32], power: NDArray[np.float32]) -> float:
    return BeamMetrics.of(logits, power).mean("top5")


def _windows(models: RunModels, part: str, progress: PhaseProgress) -> Part:
    """A part of the federation that the run learned from, and its windows; what was deleted since is made again."""
    federation, task = models.federation, models.experiment.task
    if not (federation / part).is_dir():
        federation, _ = make_data(models.experiment, progress)
    recording = open_recording(federation / part)
    starts = recording.window_starts(task.num_frames, task.num_future)
    if len(starts) == 0:
        raise ValueError(f"{recording.folder}: has no window, and a model is checked on some; record longer passes")
    return recording, starts


def _manifest(models: RunModels, name: str, decider: Decider, state: State) -> Manifest:
    row = models.row(name)
    round_number = row.round if state == "latest" else row.kept_round
    # The latest state is another model than the one whose sets were calibrated.
    sets = guarantees_of(models.summary.get("beam_sets"), name, models.stand_ins(name)) if state == "kept" else ()
    described = describe(
        decider,
        models.experiment,
        name=name,
        kind="student" if row.kind == "mixture" and len(decider.members) == 1 else row.kind,
        metrics=models.scores(name, state=state) or {},
        provenance=_provenance(models, round_number, state),
    )
    return replace(described, sets=sets)


def describe(
    decider: Decider,
    experiment: Experiment,
    *,
    name: str,
    kind: str,
    metrics: Mapping[str, list[float]],
    provenance: Mapping[str, Any],
) -> Manifest:
    """What the folder of a model says about it, without files yet.

    Args:
        decider: the model.
        experiment: the experiment that it is from.
        name: the name of its client, or ``teacher``.
        kind: ``student``, ``mixture`` or ``teacher``.
        metrics: its scores on the common test set; empty if nobody tested it.
        provenance: where it comes from.
    """
    task = experiment.task
    size = experiment.teacher if name == TEACHER else experiment.student_size(decider.modalities[0], name)
    return Manifest(
        name=name,
        kind=kind,
        files={},
        inputs=tuple(_input(decider, modality) for modality in decider.modalities),
        num_frames=task.num_frames,
        horizons=tuple(range(task.num_horizons)),
        labels=tuple(f"beam {number}" for number in range(task.num_beams)),
        tolerates_absence=len(decider.modalities) > 1 and isinstance(decider.members[0], BeamTracker),
        trackers=tuple(size.model_dump() for _ in decider.members),
        temperatures=decider.temperatures,
        shares=decider.shares,
        metrics=metrics,
        provenance=provenance,
        licence=_licence(experiment),
    )


def _input(decider: Decider, modality: str) -> Input:
    scales = []
    for member in decider.members:
        if isinstance(member, BeamTracker):
            standardise: Any = member.encoders[modality].standardise
            scales.append({"mean": standardise.mean.tolist(), "spread": standardise.scale.tolist()})
    return input_of(modality, tuple(scales))


def _provenance(models: RunModels, round_number: int | None, state: State) -> dict[str, Any]:
    path = models.folder / "environment.json"
    environment = json.loads(path.read_text()) if path.is_file() else {}
    return {
        "run": models.folder.name,
        "experiment": models.experiment.name,
        "experiment_digest": environment.get("experiment_digest"),
        "seed": models.experiment.seed,
        "state": state,
        "round": round_number,
        "rounds": models.summary["rounds"],
        "commit": environment.get("commit"),
        "source_digest": environment.get("source_digest"),
        "data": models.experiment.data.source,
        "data_digest": models.federation.name.rpartition("-")[2] or None,
        "torch": version("torch"),
    }


def _licence(experiment: Experiment) -> str:
    if experiment.data.source == "deepsense":
        return f"{DEEPSENSE_LICENCE}, which is the licence of the data that it learned from (DeepSense 6G)"
    return f"{LICENCE}, that of the code; the data that it learned from is synthetic"


def _own_modules(models: RunModels, decider: Decider, name: str) -> list[Path]:
    """The file of a model of a user's own, without which its weights are of no use."""
    size: Model = (
        models.experiment.teacher if name == TEACHER else models.experiment.student_size(decider.modalities[0], name)
    )
    module, sign, _ = (size.model or "").partition(":")
    found = [one for place in models.plugins if (one := place / f"{module}.py").is_file()]
    return found[:1] if sign else []
