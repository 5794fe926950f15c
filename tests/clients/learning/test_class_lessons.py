"""Lessons without a public set: what a client tells about beams, and what it learns from what others tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from clients.data.by_class import count_classes, mean_by_class
from clients.data.recording import open_recording
from clients.learning.class_lessons import ClassLesson, PrototypeLesson
from clients.learning.density import trusted
from clients.learning.learner import Learner
from clients.profile import ClientProfile
from clients.training import make_learner, make_pooled_learner
from configs.seeding import rng_for
from sim.data.federation import ensure_federation
from strategies.labels import SoftLabels
from tests.conftest import tiny_experiment


@pytest.fixture
def federation() -> Path:
    folder, _ = ensure_federation(tiny_experiment())
    return folder


def profile(federation: Path, client: str, modality: str) -> ClientProfile:
    return ClientProfile(client, modality, federation / "clients" / client, federation / "public", federation / "test")


@pytest.fixture
def learner(federation: Path) -> Learner:
    return make_learner(profile(federation, "000-gps", "gps"), tiny_experiment())


def own_classes(learner: Learner) -> NDArray[np.int64]:
    task = learner.model.task
    return learner.material.recording.beams(learner.material.train, task.num_frames, task.num_future)


def test_a_window_counts_once_for_each_beam_that_is_its_best_at_any_horizon() -> None:
    beams = np.array([[2, 2, 3], [3, 3, 3], [0, 2, 0]])
    np.testing.assert_array_equal(count_classes(beams, 5), [1, 0, 2, 2, 0])


def test_means_are_over_the_windows_of_a_beam_horizon_by_horizon() -> None:
    beams = np.array([[1, 1], [1, 2], [2, 1], [0, 2]])
    values = np.array([[[1.0], [10.0]], [[3.0], [20.0]], [[5.0], [30.0]], [[7.0], [40.0]]], np.float32)
    seen, means = mean_by_class(values, beams, 4)
    # Beam 0 was the best at the first horizon only.
    np.testing.assert_array_equal(seen, [1, 2])
    np.testing.assert_allclose(means[..., 0], [[2.0, 20.0], [5.0, 30.0]])


def test_a_beam_lesson_draws_answers_towards_what_the_others_answer(learner: Learner) -> None:
    beams = np.unique(own_classes(learner))
    probs = np.full((len(beams), 4, 64), 0.1 / 63, np.float32)
    probs[..., 9] = 0.9
    lesson = ClassLesson(SoftLabels(beams, probs, 2.0), weight=50.0)

    def answer() -> float:
        learner.progress.confidence_temperature = 1.0  # calibrated on own labels, it would be all doubt
        return float(learner.soften(learner.material.recording, learner.material.train, 2.0)[..., 9].mean())

    before = answer()
    learner.training = learner.training.model_copy(update={"digest_share": 1.0, "schedule": "constant"})
    for _ in range(10):
        learner.learn(lesson, num_steps=20, total_steps=200)
    assert before < 0.1 < answer()


def test_a_beam_lesson_about_beams_that_a_client_never_saw_teaches_the_task_alone(learner: Learner) -> None:
    absent = np.setdiff1d(np.arange(64), own_classes(learner))[:2]
    probs = np.full((2, 4, 64), 1 / 64, np.float32)
    losses = ClassLesson(SoftLabels(absent, probs, 2.0), weight=1e6).losses(learner, rng_for(0, "x"))
    first = next(losses)().item()
    assert first < 20  # a cross-entropy, not a million times something


def test_a_prototype_lesson_pulls_features_together(learner: Learner) -> None:
    beams = np.unique(own_classes(learner)[:, 0])
    prototypes = np.zeros((len(beams), learner.model.gru.hidden_size), np.float32)
    lesson = PrototypeLesson(beams, prototypes, weight=50.0)
    learner.training = learner.training.model_copy(update={"digest_share": 1.0, "schedule": "constant"})
    for _ in range(5):
        learner.learn(lesson, num_steps=20, total_steps=100)
    features = learner.predict_features(learner.material.recording, learner.material.train)
    assert np.abs(features).mean() < 0.05


def test_decisions_from_features_are_the_logits(learner: Learner) -> None:
    starts = learner.material.train[:5]
    features = torch.from_numpy(learner.predict_features(learner.material.recording, starts))
    learner.model.eval()
    logits = learner.predict(learner.material.recording, starts, best=False)
    torch.testing.assert_close(learner.model.decide(features), logits)


@pytest.mark.parametrize("kind", ["confidence", "density"])
def test_a_filter_lets_through_what_scores_like_the_share_of_own_windows(learner: Learner, kind: str) -> None:
    starts = learner.material.public_starts
    counts = [trusted(learner, starts, kind=kind, share=share).sum() for share in (0.1, 0.5, 1.0)]  # type: ignore[arg-type]
    assert counts == sorted(counts)
    again = trusted(learner, starts, kind=kind, share=0.5)  # type: ignore[arg-type]
    assert again.sum() == counts[1]


def test_own_windows_look_like_own_data(learner: Learner) -> None:
    # The threshold is that of held-out windows: at a share of one, all of them pass.
    material = learner.material
    learner.material = type(material)(
        material.recording, material.train, material.validation, material.recording, material.validation
    )
    for kind in ("confidence", "density"):
        passes = trusted(learner, learner.material.public_starts, kind=kind, share=1.0)  # type: ignore[arg-type]
        assert passes.all()
        half = trusted(learner, learner.material.public_starts, kind=kind, share=0.5)  # type: ignore[arg-type]
        assert half.mean() == pytest.approx(0.5, abs=0.1)


def test_no_filter_lets_everything_through(learner: Learner) -> None:
    assert trusted(learner, learner.material.public_starts, kind="none", share=0.1).all()


def test_a_pooled_learner_has_the_windows_of_all_clients_of_its_modality(federation: Path) -> None:
    settings = tiny_experiment()
    pooled = make_pooled_learner(profile(federation, "000-gps", "gps"), settings, federation)
    parts = [make_learner(profile(federation, client, "gps"), settings) for client in ("000-gps", "001-gps")]
    assert len(pooled.material.train) == sum(len(one.material.train) for one in parts)
    assert len(pooled.material.validation) == sum(len(one.material.validation) for one in parts)
    np.testing.assert_array_equal(own_classes(pooled), np.concatenate([own_classes(one) for one in parts]))
    other = make_pooled_learner(profile(federation, "001-gps", "gps"), settings, federation)
    for name, value in pooled.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name


def test_pooling_needs_all_recordings_in_one_place(federation: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="only a simulation has"):
        make_pooled_learner(profile(federation, "000-gps", "gps"), tiny_experiment(), tmp_path)


def test_the_truth_about_the_public_set_lies_with_the_server_alone(federation: Path) -> None:
    assert open_recording(federation / "public").power is None
    power = np.load(federation / "server" / "public-power.npy")
    assert power.shape == (len(open_recording(federation / "public").pass_ids), 64)
