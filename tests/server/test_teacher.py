"""The central teacher: pretrained on its own labels, then a voter and a learner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clients.data.recording import open_recording, write_recording
from clients.learning.calibration import fit_temperature
from clients.learning.learner import Learner, Losses
from clients.models.tracker import predict
from configs.loading import build_experiment
from configs.schema import Experiment
from configs.seeding import rng_for
from server.teacher import Distiller, make_teacher, pretrain
from strategies.hindsight import with_hindsight
from strategies.labels import SoftLabels

PASS_LENGTH = 14


def write(folder: Path, *, labelled: bool, num_passes: int = 5) -> None:
    """Passes on which the best beam follows from the position."""
    rng = rng_for(0, folder.name)
    num_frames = num_passes * PASS_LENGTH
    east = rng.uniform(-20, 6, num_passes).repeat(PASS_LENGTH) + np.tile(np.arange(PASS_LENGTH), num_passes)
    power = rng.uniform(0.1, 0.3, (num_frames, 64)).astype(np.float32)
    power[np.arange(num_frames), ((east + 20) * 1.5).astype(int)] = 1.0
    write_recording(
        folder,
        pass_ids=np.arange(num_passes).repeat(PASS_LENGTH).astype(np.int32),
        sensors={"gps": np.stack([east, rng.normal(12, 1, num_frames)], 1), "box": rng.random((num_frames, 4))},
        power=power if labelled else None,
        splits={"train": range(num_passes - 1), "validation": [num_passes - 1]},
    )


@pytest.fixture(scope="session")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("federation")
    write(folder / "server", labelled=True)
    write(folder / "public", labelled=False)
    write(folder / "test", labelled=True, num_passes=2)
    return folder


def experiment(**teaching: Any) -> Experiment:
    values = {
        "name": "teacher",
        "data": {
            "source": "deepsense",
            "folder": "-",
            "passes": {"server": 5, "public": 5, "test": 2, "client": 1},
            "nodes": [{"modality": "gps"}, {"modality": "box"}],
        },
        "teacher": {"width": 2, "features": 8, "hidden": 8},
        "teaching": {"steps_per_round": 4, "first_round_steps": 3, "batch_size": 8, **teaching},
    }
    return build_experiment(values, origin="test")


def weights(teacher: Learner) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in teacher.model.state_dict().items()}


def test_a_fresh_teacher_is_the_same_for_the_same_experiment_and_fuses_every_modality(federation: Path) -> None:
    one, other = make_teacher(experiment(), federation), make_teacher(experiment(), federation)
    assert one.model.modalities == ("gps", "box")
    torch.testing.assert_close(weights(one), weights(other), atol=0, rtol=0)


def test_a_server_without_labels_or_recordings_cannot_teach(federation: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not found"):
        make_teacher(experiment(), tmp_path)
    write(tmp_path / "server", labelled=False)
    write(tmp_path / "public", labelled=False)
    with pytest.raises(ValueError, match="no labelled window"):
        make_teacher(experiment(), tmp_path)


@pytest.mark.parametrize("num_steps", [1, 7, 8, 21])
def test_pretraining_takes_exactly_its_steps_and_starts_the_schedule_again(federation: Path, num_steps: int) -> None:
    teacher = make_teacher(experiment(), federation)
    steps: list[int] = []
    plain = teacher.losses

    def counted(logits: torch.Tensor, beams: torch.Tensor) -> torch.Tensor:
        steps.append(1)
        return plain.task(logits, beams)

    teacher.losses = Losses(counted, plain.distillation)
    pretrain(teacher, num_steps)
    assert len(steps) == num_steps
    assert teacher.progress.steps == 0


def test_after_pretraining_the_teacher_is_the_one_that_validated_best(federation: Path) -> None:
    teacher = make_teacher(experiment(), federation)
    pretrain(teacher, 40)
    torch.testing.assert_close(weights(teacher), teacher.best_model, atol=0, rtol=0)


def test_after_pretraining_the_certainty_is_that_of_the_teacher_that_validated_best(federation: Path) -> None:
    teacher = make_teacher(experiment(learning_rate=0.02), federation)
    learn = teacher.learn

    def learn_with_a_first_look_that_is_best(*args: Any, **keywords: Any) -> float:
        loss = learn(*args, **keywords)
        teacher.progress.best_score = 2.0
        return loss

    teacher.learn = learn_with_a_first_look_that_is_best  # type: ignore[method-assign]
    pretrain(teacher, 200)
    assert teacher.progress.best_round == 1
    own, starts = teacher.material.recording, teacher.material.validation
    fitted, _ = fit_temperature(predict(teacher.model, own, starts), torch.from_numpy(own.beams(starts, 8, 3)))
    assert teacher.progress.confidence_temperature == fitted


def test_a_teacher_answers_distributions_at_the_temperature_asked_for(federation: Path) -> None:
    teacher = Distiller(make_teacher(experiment(), federation), total_rounds=2)
    labels = teacher.answer(np.array([0, 3, 7]), 2.0)
    np.testing.assert_array_equal(labels.sample_ids, [0, 3, 7])
    assert labels.temperature == 2.0
    assert labels.probs.shape == (3, 4, 64)


def test_hindsight_corrects_what_a_teacher_says_of_single_samples_as_of_all(federation: Path) -> None:
    teacher = make_teacher(experiment(), federation)
    plain, wiser = (Distiller(teacher, total_rounds=2, hindsight=hindsight) for hindsight in (False, True))
    everything = np.arange(len(teacher.material.public_starts))
    expected = with_hindsight(plain.answer(everything, 2.0), plain.later_samples())
    assert np.abs(expected.probs - plain.answer(everything, 2.0).probs).max() > 1e-3
    for asked in (everything, np.array([0, 3, 7])):
        found = wiser.answer(asked, 2.0)
        assert np.array_equal(found.sample_ids, asked)
        np.testing.assert_allclose(found.probs, expected.probs[asked], atol=1e-6)


def test_a_teacher_takes_the_steps_of_its_round_also_after_a_stop(federation: Path) -> None:
    teacher = Distiller(make_teacher(experiment(), federation), total_rounds=3)
    taken = []
    for _ in range(3):
        teacher.learn(None)
        taken.append(teacher.learner.progress.steps)
    assert taken == [3, 7, 11]
    resumed = Distiller(make_teacher(experiment(), federation), total_rounds=3, round=1)
    resumed.learn(None)
    assert resumed.learner.progress.steps == 4


def test_the_ensemble_teaches_the_teacher(federation: Path) -> None:
    teacher = Distiller(
        make_teacher(experiment(digest_share=1.0, learning_rate=0.02, schedule="constant"), federation), total_rounds=40
    )
    ids = np.arange(15)
    probs = np.full((15, 4, 64), 0.1 / 63, np.float32)
    probs[..., 17] = 0.9
    ensemble = SoftLabels(ids, probs, 2.0)
    before = teacher.answer(ids, 2.0).probs[..., 17].mean()
    for _ in range(20):
        teacher.learn(ensemble)
    assert before < 0.1
    assert teacher.answer(ids, 2.0).probs.mean(axis=(0, 1)).argmax() == 17


def test_evaluation_scores_every_window_of_a_recording(federation: Path) -> None:
    teacher = Distiller(make_teacher(experiment(), federation), total_rounds=1)
    common = open_recording(federation / "test")
    scores = teacher.evaluate(common)
    num_windows = 2 * (PASS_LENGTH - 8 - 3)
    assert len(scores.top1) == 4
    for row in (scores.top1, scores.top5):
        for share in row:
            assert share * num_windows == pytest.approx(round(share * num_windows))


def test_training_examples_are_the_windows_of_the_training_passes(federation: Path) -> None:
    assert Distiller(make_teacher(experiment(), federation), total_rounds=1).num_examples == 4 * (PASS_LENGTH - 8 - 3)


def test_its_features_of_public_samples_are_what_it_decides_on(federation: Path) -> None:
    teacher = make_teacher(experiment(), federation)
    distiller, ids = Distiller(teacher, total_rounds=3), np.array([7, 2, 11])
    features = distiller.features(ids)
    assert features.shape == (3, 8)
    teacher.model.eval()
    logits = predict(teacher.model, teacher.material.public, teacher.material.public_starts[ids])
    torch.testing.assert_close(teacher.model.decide(torch.from_numpy(features)), logits)
