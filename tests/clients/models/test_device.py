"""Trackers compute on any device, and all that they are given goes there through one function.

A machine of CI has no GPU. Torch's ``meta`` device stands in for one: it computes shapes, and refuses to mix its
tensors with those of the CPU as a GPU does. What would come back from a GPU is made up here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import clients.learning.cohort
import clients.learning.learner
import clients.models.device
import clients.models.tracker
from clients.learning.cohort import Learning, learn_together
from clients.learning.learner import Learner, WindowsToPredict
from clients.learning.lessons import public_lesson
from clients.models.device import CPU, device_named, device_of, generators_of
from clients.models.seeding import torch_seeded
from clients.profile import client_folders, profiles_of
from clients.training import make_learner
from configs.loading import build_experiment
from configs.schema import Engine, Experiment
from server.recorder import read_rounds
from server.teacher import make_teacher
from sim.data.federation import ensure_federation
from sim.launch import check_engine
from strategies.labels import SoftLabels
from tests.conftest import tiny_values
from tests.federations import assert_same_outcome, place, run_apps

META = torch.device("meta")
# The stand-in keeps no numbers, so torch warns that those of a state are lost on it.
pytestmark = pytest.mark.filterwarnings("ignore:for .*copying from a non-meta parameter:UserWarning")
MODALITIES = ["camera", "radar", "lidar", "gps"]


class MadeUp(torch.autograd.Function):
    """Small numbers of the CPU in place of what a stand-in cannot give back; gradients go the way that they came."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return torch.linspace(0.1, 0.9, value.numel()).reshape(value.shape).to(value.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].to(META)


def given_back(value: Tensor) -> Tensor:
    if value.device == CPU:
        return value
    return MadeUp.apply(value) if value.is_floating_point() else torch.ones(value.shape, dtype=value.dtype)  # type: ignore[no-any-return, no-untyped-call]


class SentThere(torch.autograd.Function):
    """A tensor that goes to the stand-in; gradients that come back are made up."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.to(META)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return given_back(gradients[0])


def sent_there(value: Tensor, device: torch.device) -> Tensor:
    return SentThere.apply(value) if value.requires_grad else value.to(device)  # type: ignore[no-any-return, no-untyped-call]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """A device that is not the CPU; what is returned from it is made up."""
    for module in (clients.learning.learner, clients.learning.cohort, clients.models.tracker, clients.models.device):
        monkeypatch.setattr(module, "returned", given_back)
    monkeypatch.setattr(clients.learning.learner, "sent", sent_there)
    for module in ("clients.training", "server.teacher"):
        monkeypatch.setattr(f"{module}.device_named", lambda name: META)
    return META


def experiment(engine: dict[str, Any] | None = None, *modalities: str, **strategy: Any) -> Experiment:
    values = tiny_values(**strategy)
    values["data"]["nodes"] = [{"modality": name, "count": 2} for name in modalities or ("gps", "lidar")]
    values["students"] = {name: {"width": 2, "features": 8, "hidden": 8} for name in modalities or ("gps", "lidar")}
    values["engine"].update(engine or {})
    return build_experiment(values, origin="test")


def learners_of(one: Experiment) -> list[Learner]:
    federation, _ = ensure_federation(one)
    found = []
    for place_of in range(len(client_folders(federation))):
        node = {"partition-id": place_of, "num-partitions": len(client_folders(federation))}
        found += [make_learner(profile, one) for profile in profiles_of(node, federation, one)]
    return found


def taught(learner: Learner) -> SoftLabels:
    """Soft labels for all public samples."""
    task, count = learner.model.task, len(learner.material.public_starts)
    probs = np.full((count, task.num_horizons, task.num_classes), 1 / task.num_classes, np.float32)
    return SoftLabels(np.arange(count), probs, 2.0)


def tensors_of(state: Any) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state]
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return [tensor for part in parts for tensor in tensors_of(part)]


def assert_learns_on(learner: Learner, device: torch.device) -> None:
    assert device_of(learner.model) == device == learner.device
    learner.learn(public_lesson(taught(learner)), num_steps=4, total_steps=8)
    assert {tensor.device for tensor in tensors_of(learner.optimizer.state_dict())} == {device}
    answers = learner.answer(np.arange(3), 2.0)
    assert np.isfinite(answers).all() and len(answers) == 3
    assert len(learner.predict_features(learner.material.public, learner.material.public_starts[:3])) == 3
    assert learner.evaluate(learner.material.recording, learner.material.train[:4]).to_dict()
    state = learner.state()
    assert {tensor.device for tensor in tensors_of(state)} == {CPU}
    learner.load_state(state)
    assert device_of(learner.model) == device
    learner.learn(None, num_steps=1, total_steps=8)


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_student_learns_and_answers_with_all_of_it_on_its_device(stand_in: torch.device, modality: str) -> None:
    assert_learns_on(learners_of(experiment(None, modality))[0], stand_in)


def test_the_teacher_learns_and_answers_with_all_of_it_on_its_device(stand_in: torch.device) -> None:
    one = experiment(None, *MODALITIES)
    teacher = make_teacher(one, ensure_federation(one)[0])
    assert teacher.modality_dropout > 0
    assert_learns_on(teacher, stand_in)


def test_a_stack_learns_with_all_of_it_on_its_device(stand_in: torch.device) -> None:
    learners = learners_of(experiment(None, "gps"))
    assert len(learners) == 2
    material = learners[0].material
    wanted = [WindowsToPredict(material.public, material.public_starts[:5])]
    losses = learn_together([Learning(one, public_lesson(taught(one)), 3, 8, wanted) for one in learners])
    assert all(isinstance(loss, float) and np.isfinite(loss) for loss in losses), losses
    for one in learners:
        assert one._foreseen and {foreseen.logits.device for foreseen in one._foreseen} == {CPU}
        assert {tensor.device for tensor in tensors_of(one.optimizer.state_dict())} == {stand_in}
        assert {tensor.device for tensor in tensors_of(one.state())} == {CPU}


@pytest.mark.parametrize("strategy", [{"name": "fedavg"}, {"relations": {}}, {"name": "fedproto"}])
def test_other_exchanges_learn_on_a_device_and_answer_from_the_cpu(
    stand_in: torch.device, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, strategy: dict[str, Any]
) -> None:
    monkeypatch.setattr("clients.exchanges.baselines.returned", given_back)
    one = experiment({"device": "auto"}, "gps", rounds=2, **strategy)
    placement = place(one.model_copy(update={"controls": False}), tmp_path / "run")
    run_apps(placement)
    lines = read_rounds(placement.run)
    assert len(lines) == 2
    assert {entry["problem"] for line in lines for entry in line["clients"].values()} == {""}


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("cohort", [1, 2])
def test_auto_without_a_gpu_has_the_bits_of_the_cpu(tmp_path: Any, cohort: int) -> None:
    runs = []
    for device in ("cpu", "auto"):
        placement = place(experiment({"device": device, "cohort": cohort}), tmp_path / device)
        run_apps(placement)
        runs.append(placement.run)
    assert_same_outcome(*runs)


def test_auto_takes_a_gpu_where_torch_sees_one_and_cuda_is_refused_where_it_sees_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_named("auto") == device_named("cpu") == CPU
    with pytest.raises(
        ValueError, match=r"engine\.device: cuda asks for a GPU, but torch sees none.*engine\.device=auto"
    ):
        device_named("cuda")
    with pytest.raises(ValueError, match=r"engine\.device: cuda asks for a GPU"):
        check_engine(Engine(name="inline", device="cuda"))  # before anything starts
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert device_named("auto") == device_named("cuda") == torch.device("cuda", 1)
    assert device_named("cpu") == CPU


def test_a_share_of_a_gpu_needs_a_device_that_may_be_one() -> None:
    with pytest.raises(ValueError, match=r"engine\.gpu_per_worker: 0\.5 of a GPU is of no use with engine\.device=cpu"):
        Engine(gpu_per_worker=0.5)
    assert Engine(device="auto", gpu_per_worker=0.5).gpu_per_worker == 0.5


def test_draws_on_a_gpu_come_from_its_own_stream_and_the_stream_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    of_gpu = torch.Generator().manual_seed(77)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "default_generators", (torch.Generator(), of_gpu))
    device = torch.device("cuda", 1)
    assert generators_of(device) == [torch.default_generator, of_gpu]
    before = of_gpu.get_state()
    with torch_seeded(5, device):
        drawn = torch.rand(3, generator=of_gpu)
        assert torch.equal(drawn, torch.rand(3))
    assert torch.equal(of_gpu.get_state(), before)
