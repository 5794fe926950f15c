"""A client decides by both of its students, and more by the one that fits its own labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from clients.data.recording import Recording
from clients.learning.learner import Learner
from clients.learning.mixture import Mixture, weigh
from clients.memory import ClientMemory
from clients.profile import profiles_of
from clients.training import make_learner
from server.checkpoint import load_checkpoint
from server.recorder import read_rounds
from tests.clients.learning.test_learner import STEPS, learner
from tests.conftest import tiny_experiment
from tests.federations import place, run_apps


def taught(own: Recording, public: Recording, *, rounds: int = 20) -> Learner:
    one = learner(own, public)
    for _ in range(rounds):
        one.learn(None, num_steps=STEPS, total_steps=rounds * STEPS)
    return one


def misled(own: Recording, public: Recording) -> Learner:
    """A student that is certain of beam 0 everywhere, as after targets that say nothing else."""
    one = learner(own, public)
    with torch.no_grad():
        one.model.head.weight.zero_()
        one.model.head.bias.zero_()
        one.model.head.bias[:: one.model.task.num_beams] = 20.0
    one.best_model = {name: value.clone() for name, value in one.model.state_dict().items()}
    return one


def top1(one: Learner | Mixture, recording: Recording, starts: np.ndarray) -> float:
    return one.evaluate(recording, starts).mean("top1")


def test_a_client_whose_student_was_misled_decides_by_its_local_self(street: Recording, public: Recording) -> None:
    bad, good = misled(street, public), taught(street, public)
    held_out = good.material.validation
    kept = weigh(bad, good, 2.0)
    assert kept.share < 0.01
    assert top1(kept, street, held_out) == top1(good, street, held_out) > top1(bad, street, held_out)
    assert kept.validation == pytest.approx(good.validation, rel=0.01)


def test_a_client_whose_local_self_is_useless_decides_by_its_federated_student(
    street: Recording, public: Recording
) -> None:
    assert weigh(taught(street, public), misled(street, public), 2.0).share > 0.99


@pytest.mark.parametrize("num_windows", [0.0, 2.0, 100.0, 1000.0])
def test_neither_student_ever_weighs_nothing(street: Recording, public: Recording, num_windows: float) -> None:
    bad, good = misled(street, public), taught(street, public)
    for share in (weigh(bad, good, num_windows).share, weigh(good, bad, num_windows).share):
        assert 0.0 < share < 1.0 and 0.0 < 1.0 - share < 1.0


def test_the_better_a_student_fits_own_labels_the_more_it_weighs(street: Recording, public: Recording) -> None:
    students = [taught(street, public, rounds=rounds) for rounds in (1, 5, 20)]
    shares = [weigh(student, students[1], 2.0).share for student in students]
    assert shares[0] < shares[1] == 0.5 < shares[2]


@pytest.mark.parametrize("num_windows", [0.0, 0.5, 2.0])
def test_the_weights_are_those_of_the_likelihoods_of_some_windows(
    street: Recording, public: Recording, num_windows: float
) -> None:
    one, other = taught(street, public, rounds=2), taught(street, public, rounds=6)
    own = np.concatenate([one.material.train, one.material.validation])
    best = torch.from_numpy(street.beams(own, 4, 2)).unsqueeze(-1)
    likelihoods = []
    for each in (one, other):
        logits = each.predict(street, own, best=True) / each.progress.best_temperature
        likelihoods.append(float(torch.softmax(logits, dim=-1).gather(-1, best).log().mean().exp()) ** num_windows)
    assert weigh(one, other, num_windows).share == pytest.approx(likelihoods[0] / sum(likelihoods), rel=1e-5)


def test_a_mixture_scores_the_mean_of_the_probabilities(street: Recording, public: Recording) -> None:
    alone = replace(street, splits={"train": street.splits["train"]})
    one, other = taught(alone, public, rounds=3), taught(alone, public, rounds=6)
    kept = Mixture(one, other, share=0.25)
    assert kept.validation is None
    starts = street.window_starts(4, 2, "validation")
    ours, theirs = (torch.softmax(each.predict(street, starts, best=True), dim=-1) for each in (one, other))
    best = torch.from_numpy(street.beams(starts, 4, 2))
    expected = float(((0.25 * ours + 0.75 * theirs).argmax(dim=-1) == best).float().mean())
    assert kept.evaluate(street, starts).mean("top1") == pytest.approx(expected)


def test_at_another_site_a_client_decides_by_its_federated_student(street: Recording, public: Recording) -> None:
    passes = sorted(set(street.pass_ids.tolist()))
    half = len(passes) // 2
    own = replace(street, sites={"here": tuple(passes)})
    elsewhere = replace(street, sites={"here": tuple(passes[:half]), "there": tuple(passes[half:])})
    one, other = taught(own, public, rounds=2), taught(own, public, rounds=6)
    kept, starts = Mixture(one, other, 0.25), street.window_starts(4, 2)
    is_there = street.pass_ids[starts] >= passes[half]
    assert 0 < is_there.sum() < len(starts)
    mixed = 0.25 * one.probs(street, starts) + 0.75 * other.probs(street, starts)
    found = kept.probs(elsewhere, starts)
    np.testing.assert_allclose(found[~is_there], mixed[~is_there], atol=1e-6)
    np.testing.assert_array_equal(found[is_there], one.probs(street, starts)[is_there])
    np.testing.assert_allclose(kept.probs(street, starts), mixed, atol=1e-6)  # it names no site


def test_the_local_self_of_a_federation_is_the_control_and_the_record_says_what_was_kept(tmp_path: Path) -> None:
    placement = place(tiny_experiment(keeps="mixture", mixture_windows=0.5), tmp_path / "run")
    run_apps(placement)
    checkpoint = load_checkpoint(placement.run)
    assert checkpoint is not None
    entries = read_rounds(placement.run)[-1]["clients"]
    assert len(entries) == 3
    for number, (client, entry) in enumerate(entries.items()):
        state = ClientMemory(placement.run / "clients" / client).load(before_round=99)
        assert state is not None
        (profile,) = profiles_of({"partition-id": number}, placement.federation)
        local, student = (make_learner(profile, placement.experiment) for _ in range(2))
        local.load_state(state["local"])
        student.load_state(state["learner"])
        recording = local.material.recording
        starts = recording.window_starts(8, 3, "test")
        control = checkpoint.findings["controls"][client]
        assert local.evaluate(recording, starts).to_dict()["top5"] == control["local.own.top5"]
        assert local.validation == control["local.validation"]
        kept = weigh(student, local, 0.5)
        assert 0 < kept.share < 1
        assert entry["federated_share"] == kept.share
        assert entry["own"] == kept.evaluate(recording, starts).to_dict()
        assert entry["validation"] == kept.validation


def test_who_keeps_the_federated_student_trains_no_local_self(tmp_path: Path) -> None:
    placement = place(tiny_experiment(), tmp_path / "run")
    run_apps(placement)
    for client, entry in read_rounds(placement.run)[-1]["clients"].items():
        state = ClientMemory(placement.run / "clients" / client).load(before_round=99)
        assert state is not None
        assert "local" not in state
        assert entry["federated_share"] is None


def test_a_method_without_soft_labels_has_nothing_to_mix() -> None:
    with pytest.raises(ValueError, match="keeps: fedavg has no student that targets could mislead"):
        tiny_experiment(name="fedavg", keeps="mixture")
