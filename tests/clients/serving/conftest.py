"""A student of positions that knows its beams, one whose beams are mixed up, and a recording to tell them apart."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from clients.data.recording import Recording, open_recording, write_recording
from clients.models.decider import Decider
from clients.models.tracker import BeamTracker, read_windows
from clients.serving.manifest import FILE, Manifest, input_of
from configs.models import Model
from configs.schema import Task
from sim.take_home.onnx_trackers import stream_graph, window_graph

TASK = Task(num_frames=4, num_future=2, num_beams=8)
LENGTH, PASSES = 20, 6


def write_passes(folder: Path, *, passes: int = PASSES, train: int = 2, labelled: bool = True) -> Recording:
    """Vehicles that drive past 8 beams, each 2 m wide; the first passes are for training."""
    rng = np.random.default_rng(8)
    east = np.concatenate([rng.uniform(0, 3) + rng.uniform(0.5, 0.7) * np.arange(LENGTH) for _ in range(passes)])
    power = np.exp(-((np.minimum(east, 15.9)[:, None] / 2.0 - 0.5 - np.arange(8)) ** 2))
    write_recording(
        folder,
        pass_ids=np.repeat(np.arange(passes), LENGTH).astype(np.int32),
        sensors={"gps": np.stack([east, np.full(len(east), 12.0)], axis=1)},
        power=power.astype(np.float32) if labelled else None,
        splits={"train": list(range(train)), "validation": list(range(train, passes))},
    )
    return open_recording(folder)


@cache
def trained(scratch: Path, seed: int) -> BeamTracker:
    """A tracker that has learned the beams of all positions."""
    recording = write_passes(scratch / str(seed), train=PASSES)
    starts = recording.window_starts(TASK.num_frames, TASK.num_future)
    torch.manual_seed(seed)
    tracker = BeamTracker(("gps",), Model(width=4, features=8, hidden=8), TASK)
    tracker.fit_scale(recording, starts)
    windows = read_windows(recording, starts, modalities=("gps",), num_frames=TASK.num_frames)
    best = torch.from_numpy(recording.beams(starts, TASK.num_frames, TASK.num_future))
    optimizer = torch.optim.Adam(tracker.parameters(), lr=0.02)
    for _ in range(120):
        loss = nn.functional.cross_entropy(tracker(windows).flatten(0, 1), best.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return tracker.eval()


@dataclass(frozen=True)
class Models:
    """Writes exported students; those of one seed are trained once."""

    scratch: Path

    def write(self, folder: Path, *, seed: int = 1, temperature: float = 1.0, shift: int = 0, beams: int = 8) -> Path:
        """An exported student; ``shift`` turns its beams round, so that it names wrong ones."""
        tracker = copy.deepcopy(trained(self.scratch, seed))
        with torch.no_grad():
            for values in (tracker.head.weight, tracker.head.bias):
                by_beam = values.view(TASK.num_horizons, TASK.num_classes, -1)
                by_beam.copy_(by_beam.roll(shift, dims=1))
        decider = Decider([tracker], temperatures=[temperature], shares=[1.0])
        folder.mkdir(parents=True)
        for kind, graph in (("window", window_graph(decider, {})), ("stream", stream_graph(decider, {}))):
            (folder / f"{kind}.onnx").write_bytes(graph.SerializeToString())
        manifest = Manifest(
            *("000-gps", "student", {"window": "window.onnx", "stream": "stream.onnx"}, (input_of("gps"),)),
            *(TASK.num_frames, (0, 1, 2), tuple(f"beam {number}" for number in range(beams)), False, ({},)),
            *((temperature,), (1.0,), {}, {"run": "here", "round": seed}),
            opset=17,
        )
        (folder / FILE).write_text(manifest.to_json())
        return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("trained"))
