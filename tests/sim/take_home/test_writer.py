"""Models of runs in folders of their own: what is in them, and that it says what the run said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import softbeam
from clients.models.weights import unpack_tensors
from clients.serving.manifest import read_manifest
from sim.take_home.run_models import RunModels
from sim.take_home.verification import TOLERANCE
from sim.take_home.writer import export_model
from tests.conftest import CHECKOUT, tiny_values
from tests.releases import measured
from tests.sim.cli.test_main import softbeam as command

GRAPHS = {"window.onnx", "stream.onnx", "window.int8.onnx", "stream.int8.onnx"}


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_every_model_of_a_run_is_exported_with_its_card_and_within_the_tolerance(
    finished_run: Path, tmp_path: Path
) -> None:
    answer = command("export", finished_run, "--int8", "--out", tmp_path / "out", "--json")
    rows = json.loads(answer.out)
    assert [row["name"] for row in rows] == RunModels(finished_run).names
    for row in rows:
        folder = Path(row["folder"])
        assert names_in(folder) == {*GRAPHS, "model.json", "README.md"}
        manifest = read_manifest(folder)
        differences = manifest.checks["largest_difference_from_torch"]
        assert set(differences) == {"window", "stream"} and max(differences.values()) <= TOLERANCE
        assert {one.version for one in onnx.load(folder / "stream.int8.onnx").opset_import} == {manifest.opset}
        card = (folder / "README.md").read_text()
        assert "Apache-2.0" in card and manifest.provenance["data_digest"] in card and "opset 17" in card
        assert manifest.provenance["seed"] == 3 and manifest.provenance["experiment"] == "tiny"
    lidar = read_manifest(tmp_path / "out" / "002-lidar")
    (scales,) = lidar.inputs[0].scales
    assert lidar.inputs[0].frame_shape == (216,) and "metres" in lidar.inputs[0].unit
    tracker = RunModels(finished_run).tracker("002-lidar")
    np.testing.assert_allclose(scales["spread"], tracker.encoders["lidar"].standardise.scale.numpy())  # type: ignore
    assert lidar.metrics == RunModels(finished_run).scores("002-lidar")
    assert len(lidar.labels) == 64 and lidar.horizons == (0, 1, 2, 3) and lidar.num_frames == 8


@pytest.mark.parametrize("form", ["torch", "safetensors"])
def test_weights_are_those_of_the_run(form: str, mixed_run: Path, tmp_path: Path) -> None:
    command("export", mixed_run, "--client", "000-gps", "--format", form, "--out", tmp_path)
    (file,) = (path for path in (tmp_path / "000-gps").iterdir() if path.stem == "model" and path.suffix != ".json")
    content = file.read_bytes()
    members = torch.load(file, weights_only=True)["members"] if form == "torch" else unpack_tensors(content)
    decider = RunModels(mixed_run).decider("000-gps")
    assert len(members) == len(decider.members) == 2
    for found, member in zip(members, decider.members, strict=True):
        assert found.keys() == member.state_dict().keys()
        for name, value in member.state_dict().items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=0)


def test_a_mixture_is_exported_whole_and_its_latest_student_alone(mixed_run: Path, tmp_path: Path) -> None:
    models = RunModels(mixed_run)
    mixture = export_model(models, "002-lidar", tmp_path).manifest
    assert mixture.kind == "mixture" and mixture.shares == models.decider("002-lidar").shares
    student = export_model(models, "002-lidar", tmp_path, state="latest").manifest
    assert student.kind == "student" and student.shares == (1.0,) and student.provenance["state"] == "latest"
    assert read_manifest(tmp_path / "002-lidar") == student


def test_what_is_asked_for_wrongly_is_one_line(finished_run: Path, tmp_path: Path) -> None:
    assert "--format onyx: expected one of onnx" in command("export", finished_run, "--format", "onyx").err
    assert "--state best: expected one of kept, latest" in command("export", finished_run, "--state", "best").err
    wrong = command("export", finished_run, "--format", "torch", "--int8", "--client", "teacher")
    assert wrong.code == 1 and "--int8: eight bits are for graphs" in wrong.err
    (tmp_path / "teacher").mkdir()
    taken = command("export", finished_run, "--client", "teacher", "--out", tmp_path)
    assert taken.code == 1 and "exists already; remove it" in taken.err
    with pytest.raises(ValueError, match="name the folder of a model that softbeam export wrote"):
        read_manifest(tmp_path)


def test_where_the_extra_is_missing_one_line_says_how_to_install_it(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    for name in [one for one in sys.modules if one.startswith("sim.take_home.onnx")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    answer = command("export", finished_run, "--client", "000-gps", "--out", tmp_path)
    assert answer.code == 1 and answer.err.count("\n") == 1
    assert "pip install 'softbeam[export]'" in answer.err
    assert command("export", finished_run, "--client", "000-gps", "--format", "torch", "--out", tmp_path).code == 0


OWN = """
import torch
from torch import nn

class Flat(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.encode = nn.Linear(spec.num_frames * spec.shape[0], 6)
        self.head = nn.Linear(6, spec.num_horizons * spec.num_beams)

    def features(self, frames):
        return torch.tanh(self.encode(frames["gps"].flatten(1) / 30.0))

    def classify(self, features):
        return self.head(features)

class Wild(Flat):
    def features(self, frames):
        return super().features(frames) * (2.0 if float(frames["gps"].sum()) > 0 else 1.0)
"""


@pytest.fixture(scope="module")
def own_run(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Path:
    """A run with two students of a user's own, of which one cannot be written as a graph."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "flat_models.py").write_text(OWN)
    values = {**tiny_values(rounds=1), "controls": False}
    small = {"width": 2, "features": 8, "hidden": 8}
    values["data"]["nodes"] = [
        {"modality": "gps", "count": 1, "student": {"model": "flat_models:Flat"}},
        {"modality": "gps", "count": 1, "student": {"model": "flat_models:Wild"}},
        {"modality": "gps", "count": 1, "student": small},
    ]
    values["students"] = {}
    values["engine"]["workers"] = 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTBEAM_HOME", str(home))
        patch.chdir(folder)
        return softbeam.run(values, out=folder / "runs", progress=False).folder


def test_a_model_of_ones_own_is_a_graph_of_windows_or_weights_with_its_file(own_run: Path, tmp_path: Path) -> None:
    models = RunModels(own_run)
    manifest = export_model(models, "000-gps", tmp_path / "onnx", int8=True).manifest
    assert set(manifest.files) == {"window", "window_int8"}
    assert manifest.checks["largest_difference_from_torch"]["window"] <= TOLERANCE
    export_model(models, "000-gps", tmp_path / "torch", form="torch")
    assert (tmp_path / "torch" / "000-gps" / "flat_models.py").read_text() == OWN


def test_a_model_that_torch_cannot_write_is_refused_with_the_format_that_works(own_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Wild: torch cannot write it as ONNX \(.*\); --format torch takes every"):
        export_model(RunModels(own_run), "001-gps", tmp_path)
    assert export_model(RunModels(own_run), "001-gps", tmp_path, form="torch").manifest.name == "001-gps"


def test_on_real_scenario_5_graphs_agree_and_eight_bits_lose_little(tmp_path: Path) -> None:
    settings = {
        "data.folder": str(measured("scenario5")),
        "engine": "inline",
        "controls": False,
        "strategy.rounds": 2,
        "training.first_round_steps": 150,
        "teaching.pretrain_steps": 100,
    }
    run = softbeam.run(CHECKOUT / "configs/deepsense-scenario5.yaml", out=tmp_path, progress=False, **settings)
    rows = json.loads(command("export", run.folder, "--int8", "--json").out)
    assert len(rows) == 5
    losses = []
    for row in rows:
        assert max(row["checks"]["largest_difference_from_torch"].values()) <= TOLERANCE
        losses += [-change for change in row["checks"]["int8"]["top5_change_points"].values()]
        if row["name"] != "teacher":
            assert max(size for name, size in row["bytes"].items() if "int8" in name) <= 110_000
        assert "CC BY-NC-SA" in read_manifest(Path(row["folder"])).licence
    assert np.mean(losses) <= 0.5 and max(losses) <= 1.0
