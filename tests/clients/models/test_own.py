"""Models of a user's own: what they get, and whole federations of unlike students."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from clients.data.recording import Recording
from clients.learning.contract import check_models, model_costs
from clients.models.own import OwnTracker, spec_of
from clients.models.tracker import Windows, predict_features
from configs.loading import build_experiment, data_digest, load_experiment
from configs.schema import Experiment, Task
from tests.conftest import CHECKOUT, tiny_values
from tests.federations import assert_same_outcome, place, run_apps

TASK = Task(num_frames=3, num_future=1, num_beams=64)
TUTORIAL = (CHECKOUT / "docs/tutorials/model.md").read_text()


class Spy(nn.Module):
    """Keeps the frames that it gets; its features are their sums over everything but windows."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, Tensor] = {}
        self.scaled: dict[str, Tensor] = {}

    def fit_scale(self, frames: Mapping[str, Tensor]) -> None:
        self.scaled = dict(frames)

    def features(self, frames: Mapping[str, Tensor]) -> Tensor:
        self.seen = dict(frames)
        return torch.stack([one.flatten(1).sum(dim=1) for one in frames.values()], dim=1)

    def classify(self, features: Tensor) -> Tensor:
        return torch.zeros(len(features), 2, 64)


def windows() -> Windows:
    rng = np.random.default_rng(0)
    masks = rng.random((5, 224, 224)) > 0.5
    frames = {"gps": torch.arange(10.0).view(5, 2).double(), "motion": torch.from_numpy(np.packbits(masks, axis=-1))}
    return Windows(frames, torch.tensor([[0, 1, 2], [2, 3, 4]]))


def test_frames_are_windows_of_float32_and_masks_are_pixels() -> None:
    spy, batch = Spy(), windows()
    OwnTracker(spy, ("gps", "motion"), TASK).features(batch)
    assert {name: tuple(one.shape) for name, one in spy.seen.items()} == {"gps": (2, 3, 2), "motion": (2, 3, 224, 224)}
    assert {one.dtype for one in spy.seen.values()} == {torch.float32}
    assert spy.seen["gps"][1].tolist() == [[4.0, 5.0], [6.0, 7.0], [8.0, 9.0]]
    assert set(spy.seen["motion"].unique().tolist()) == {0.0, 1.0}
    assert dict(spec_of(("gps", "motion"), TASK).shapes) == {"gps": (2,), "motion": (224, 224)}


def test_a_hidden_modality_is_zeros_in_its_window_only() -> None:
    spy = Spy()
    OwnTracker(spy, ("gps", "motion"), TASK).features(windows(), torch.tensor([[True, False], [False, True]]))
    assert spy.seen["gps"][0].any() and not spy.seen["gps"][1].any()
    assert not spy.seen["motion"][0].any() and spy.seen["motion"][1].any()


def test_a_scale_is_measured_on_frames_and_no_window_gives_no_features() -> None:
    recording = Recording(Path(), np.zeros(8, np.int32), {"gps": np.arange(16.0).reshape(8, 2)}, None, {})
    tracker = OwnTracker(Spy(), ("gps",), TASK)
    tracker.fit_scale(recording, np.array([0, 2]))
    assert isinstance(tracker.model, Spy)
    assert tracker.model.scaled["gps"].tolist() == np.arange(10.0).reshape(5, 2).tolist()
    assert predict_features(tracker, recording, np.empty(0, np.int64)).shape == (0, 1)


def unlike(folder: Path, **strategy: Any) -> Experiment:
    """Two nodes with a student of one's own, one with ours, one with a tracker of the study; a teacher of one's own."""
    for name, snippet in re.findall(r"```python\n# (\w+)\.py\n(.*?)```", TUTORIAL, flags=re.DOTALL):
        (folder / f"{name}.py").write_text(snippet)
    made = tiny_values(rounds=2, **strategy)
    small = {"width": 2, "features": 8, "hidden": 8}
    # Fast vehicles make short passes, and pictures take time.
    made["data"]["world"] = {"preset": "s9", "speed_mps": 12.0}
    made["data"]["nodes"] = [
        {"modality": "gps", "count": 2},
        {"modality": "gps", "student": small},
        {"modality": "motion", "student": {"model": "image-light", "options": {"pixels": 56}}},
    ]
    made["students"] = {"gps": {"model": "my_models:TinyNet", "options": {"hidden": 5}}}
    made["teacher"] = {"model": "my_models:Late"}
    return build_experiment(made, origin="test")


def test_students_of_one_federation_may_be_unlike_and_a_run_repeats_to_the_bit(tmp_path: Path) -> None:
    runs = [tmp_path / name for name in ("one", "two")]
    for run, shuffle_seed in zip(runs, (None, 3), strict=True):
        run.mkdir()
        placement = place(unlike(run), run)
        run_apps(placement, shuffle_seed=shuffle_seed)
    assert_same_outcome(*runs)
    summary = json.loads((runs[0] / "summary.json").read_text())
    parameters = {client["id"]: client["parameters"] for client in summary["clients"]}
    assert parameters["000-gps"] == parameters["001-gps"] == (16 * 5 + 5) + (5 * 256 + 256)
    assert len(set(parameters.values())) == 3
    assert all(client["federated"] is not None for client in summary["clients"])
    assert {one.key: one.parameters for one in model_costs(unlike(runs[0]), (runs[0],))} == {
        "students.gps": parameters["000-gps"],
        "data.nodes.1.student": parameters["002-gps"],
        "data.nodes.2.student": parameters["003-motion"],
        "teacher": summary["teacher"]["parameters"],
    }


@pytest.mark.parametrize("strategy", ["fd", "fedproto", "centralised"])
def test_other_kinds_of_knowledge_take_models_of_ones_own(strategy: str, tmp_path: Path) -> None:
    experiment = unlike(tmp_path, name=strategy)
    if strategy == "fedproto":  # prototypes have one size
        values = experiment.model_dump(mode="json")
        values["data"]["nodes"] = [{"modality": "gps", "count": 2}]
        experiment = build_experiment(values, origin="test")
    run_apps(place(experiment, tmp_path))
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["faults"] == []


def test_who_learns_from_data_is_no_matter_of_the_data(tmp_path: Path) -> None:
    values = tiny_values()
    values["data"]["nodes"][0]["student"] = {"hidden": 4}
    assert data_digest(build_experiment(values, origin="test")) == data_digest(
        build_experiment(tiny_values(), origin="test")
    )


def test_the_models_of_the_tutorial_keep_the_contract_and_have_the_sizes_that_it_names(tmp_path: Path) -> None:
    (snippet,) = re.findall(r"```python\n(# my_models\.py\n.*?)```", TUTORIAL, flags=re.DOTALL)
    (block,) = re.findall(r"```yaml\n(# mine\.yaml\n.*?)```", TUTORIAL, flags=re.DOTALL)
    (tmp_path / "my_models.py").write_text(snippet)
    (tmp_path / "mine.yaml").write_text(block)
    experiment = load_experiment(tmp_path / "mine.yaml", ["teacher={model: 'my_models:Late'}"])
    check_models(experiment, (tmp_path,))
    (named,) = re.findall(r"([\d,]+) parameters at the sizes below", TUTORIAL)
    assert model_costs(experiment, (tmp_path,))[0].parameters == int(named.replace(",", ""))
    assert [nodes.count for nodes in experiment.data.nodes] == [2, 1, 1]
    assert yaml.safe_load(block)["extends"] == "quickstart"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("return self.head(features)\n\n\nclass", "return self.head(features)[:, :7]\n\n\nclass"),
        ("/ self.spread)", "/ 0)"),
        ("return self.head(features)\n\n\nclass", "return 0 * self.head(features)\n\n\nclass"),
        ('self.register_buffer("spread", torch.ones(()))', "self.spread = torch.ones(())"),
    ],
)
def test_what_is_wrong_is_the_line_that_the_tutorial_shows(before: str, after: str, tmp_path: Path) -> None:
    (snippet,) = re.findall(r"```python\n(# my_models\.py\n.*?)```", TUTORIAL, flags=re.DOTALL)
    assert before in snippet
    (tmp_path / "my_models.py").write_text(snippet.replace(before, after))
    made = {**tiny_values(), "students": {"gps": {"model": "my_models:TinyNet"}}}
    with pytest.raises(ValueError, match="TinyNet") as raised:
        check_models(build_experiment(made, origin="test"), (tmp_path,))
    assert f"\n{raised.value}\n" in TUTORIAL
