"""A learner learns, the same way each time, and goes on after a stop as if nothing had happened."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from clients.data.material import Material, material_of
from clients.data.recording import Recording
from clients.learning.learner import Learner, Losses
from clients.learning.lessons import public_lesson
from clients.learning.state import pack_state, unpack_state
from clients.models.tracker import BeamTracker
from clients.training import make_student
from configs.loading import build_experiment, load_experiment
from configs.schema import Experiment, Model, Task, Training
from strategies.labels import SoftLabels
from strategies.losses import response_kd, task_loss

TASK = Task(num_frames=4, num_future=2, num_beams=4)
STEPS = 6


class Calls:
    """Counts which loss was asked for, in order."""

    def __init__(self) -> None:
        self.kinds: list[str] = []

    def task(self, logits: Tensor, power: Tensor) -> Tensor:
        self.kinds.append("own")
        return task_loss("cross_entropy", None)(logits, power)

    def distillation(self, logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
        self.kinds.append("targets")
        return response_kd(logits, targets, temperature)


def material(own: Recording, public: Recording) -> Material:
    return Material(
        own, own.window_starts(4, 2, "train"), own.window_starts(4, 2, "validation"), public, public.window_starts(4, 2)
    )


def learner(
    own: Recording,
    public: Recording,
    *,
    name: str = "000-gps",
    seed: int = 0,
    calls: Calls | None = None,
    state: dict[str, Any] | None = None,
    **training: Any,
) -> Learner:
    torch.manual_seed(7)
    size = Model(width=4, features=16, hidden=16, dropout=0.2)
    calls = calls or Calls()
    return Learner(
        BeamTracker(("gps",), size, TASK),
        training=Training(batch_size=16, learning_rate=0.01, **training),
        losses=Losses(calls.task, calls.distillation),
        material=material(own, public),
        seed=seed,
        name=name,
        state=state,
    )


def targets(public: Recording) -> SoftLabels:
    """True positions, softened: the quarter of the street gets 0.7."""
    starts = public.window_starts(4, 2)
    east = public.sensors["gps"][starts[:, None] + 3 + np.arange(3), 0].astype(float)
    probs = np.full((len(starts), 3, 4), 0.1, np.float32)
    np.put_along_axis(probs, np.clip((east + 20) // 10, 0, 3).astype(int)[..., None], 0.7, axis=-1)
    return SoftLabels(np.arange(len(starts)), probs, 2.0)


def weights(one: Learner) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in one.model.state_dict().items()}


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def rounds(one: Learner, public: Recording, numbers: range, total: int = 4) -> None:
    for number in numbers:
        one.learn(public_lesson(targets(public)) if number > 1 else None, num_steps=STEPS, total_steps=total * STEPS)


def test_the_same_seed_and_name_give_the_same_weights(street: Recording, public: Recording) -> None:
    one, other = learner(street, public), learner(street, public)
    rounds(one, public, range(1, 4))
    torch.manual_seed(12345)
    rounds(other, public, range(1, 4))
    assert_equal(weights(one), weights(other))


@pytest.mark.parametrize("changed", [{"seed": 1}, {"name": "001-gps"}])
def test_another_seed_or_name_gives_other_weights(
    street: Recording, public: Recording, changed: dict[str, Any]
) -> None:
    one, other = learner(street, public), learner(street, public, **changed)
    rounds(one, public, range(1, 2))
    rounds(other, public, range(1, 2))
    assert not torch.equal(one.model.head.weight, other.model.head.weight)


def test_learning_leaves_the_global_random_state_alone(street: Recording, public: Recording) -> None:
    one = learner(street, public)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    rounds(one, public, range(1, 3))
    torch.testing.assert_close(torch.rand(3), expected)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "plateau"])
def test_a_learner_that_was_saved_and_loaded_goes_on_bit_by_bit(
    street: Recording, public: Recording, schedule: str
) -> None:
    whole, first = learner(street, public, schedule=schedule), learner(street, public, schedule=schedule)
    rounds(whole, public, range(1, 5))
    rounds(first, public, range(1, 3))
    file = io.BytesIO()
    torch.save(first.state(), file)
    file.seek(0)
    second = learner(street, public, schedule=schedule)
    second.load_state(torch.load(file, weights_only=True))
    rounds(second, public, range(3, 5))
    assert_equal(weights(second), weights(whole))
    assert_equal(second.best_model, whole.best_model)
    assert second.progress == whole.progress
    ids = np.arange(5)
    np.testing.assert_array_equal(second.answer(ids, 2.0), whole.answer(ids, 2.0))


def test_a_learner_made_from_a_state_goes_on_bit_by_bit_and_measures_no_scale(
    street: Recording, public: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = learner(street, public)
    rounds(whole, public, range(1, 3))
    state = unpack_state(pack_state(whole.state()))
    with monkeypatch.context() as patch:
        patch.delattr(BeamTracker, "fit_scale")
        second = learner(street, public, state=state)
    assert_equal(scales(second), scales(whole))
    rounds(whole, public, range(3, 5))
    rounds(second, public, range(3, 5))
    assert_equal(weights(second), weights(whole))
    assert_equal(second.best_model, whole.best_model)


def test_weights_from_elsewhere_do_not_count_as_the_best_before_a_round(street: Recording, public: Recording) -> None:
    one = learner(street, public)
    rounds(one, public, range(1, 2))
    starts = public.window_starts(4, 2)
    best = one.predict(public, starts, best=True)
    one.model.load_state_dict({name: value + 1.0 for name, value in one.model.state_dict().items()})
    assert one.is_best
    torch.testing.assert_close(one.predict(public, starts, best=True), best, rtol=0.0, atol=0.0)
    assert not torch.equal(one.predict(public, starts, best=False), best)


def test_without_targets_every_step_is_on_own_labels(street: Recording, public: Recording) -> None:
    nothing = targets(public).take(np.empty(0, np.int64))
    for none in (None, nothing):
        calls = Calls()
        learner(street, public, calls=calls, digest_share=1.0).learn(
            public_lesson(none), num_steps=STEPS, total_steps=STEPS
        )
        assert calls.kinds == ["own"] * STEPS


@pytest.mark.parametrize(("share", "num_digest"), [(0.0, 0), (0.5, 3), (1 / 6, 1), (1.0, 6)])
def test_with_targets_their_share_of_the_steps_is_exact_and_the_sum_the_same(
    street: Recording, public: Recording, share: float, num_digest: int
) -> None:
    calls = Calls()
    one = learner(street, public, calls=calls, digest_share=share)
    one.learn(public_lesson(targets(public)), num_steps=STEPS, total_steps=STEPS)
    assert len(calls.kinds) == STEPS
    assert calls.kinds.count("targets") == num_digest
    assert one.progress.steps == STEPS


def test_targets_are_learned_at_the_samples_they_are_for(street: Recording, public: Recording) -> None:
    # The last samples only: learned there, and nothing learned from a misplaced frame.
    some = targets(public).take(np.arange(20, 36))
    one = learner(street, public, digest_share=1.0, schedule="constant")
    for _ in range(25):
        one.learn(public_lesson(some), num_steps=20, total_steps=500)
    one.progress.confidence_temperature = 1.0
    answer = one.answer(some.sample_ids, 2.0)
    np.testing.assert_array_equal(answer[:, 0].argmax(axis=-1), some.probs[:, 0].argmax(axis=-1))
    assert np.abs(answer - some.probs).mean() < 0.05


def test_learning_reduces_the_loss_and_finds_the_beam(street: Recording, public: Recording) -> None:
    one = learner(street, public)
    losses = [one.learn(None, num_steps=25, total_steps=200) for _ in range(8)]
    assert losses[-1] < 0.4 * losses[0]
    starts = street.window_starts(4, 2, "train")
    assert one.evaluate(street, starts).top1[0] > 0.9


def test_own_labels_come_with_the_power_that_was_measured_at_them(street: Recording, public: Recording) -> None:
    one = learner(street, public, digest_share=0.0)
    assert street.power is not None
    rows = {row.tobytes() for row in street.power}
    seen: list[Tensor] = []

    def task(logits: Tensor, power: Tensor) -> Tensor:
        seen.append(power)
        return task_loss("cross_entropy", 0.5)(logits, power)

    one.losses = Losses(task, response_kd)
    one.learn(None, num_steps=2, total_steps=2)
    assert [tuple(power.shape[1:]) for power in seen] == [(3, 4)] * 2
    assert all(row.numpy().tobytes() in rows for power in seen for row in power.flatten(0, 1))


def test_a_learner_from_power_finds_the_beam_and_is_judged_by_the_best_beam(
    street: Recording, public: Recording
) -> None:
    hard, soft = learner(street, public), learner(street, public)
    soft.losses = Losses(task_loss("cross_entropy", 0.5), response_kd)
    starts = street.window_starts(4, 2, "train")
    for one in (hard, soft):
        for _ in range(8):
            one.learn(None, num_steps=25, total_steps=200)
        assert one.evaluate(street, starts).top1[0] > 0.9
        assert one.progress.best_score > 0.5  # of the best beams, whatever was learned from


@pytest.mark.parametrize("section", ["training", "teaching"])
def test_students_and_teacher_take_the_power_temperature_from_an_override(section: str) -> None:
    experiment = load_experiment("quickstart", [f"{section}.power_temperature_db=0.5"])
    assert getattr(experiment, section).power_temperature_db == 0.5
    assert getattr(load_experiment("deepsense-scenario5"), section).power_temperature_db is None
    with pytest.raises(ValueError, match=f"{section}.power_temperature_db"):
        load_experiment("quickstart", [f"{section}.power_temperature_db=0"])


def test_answers_are_distributions_softened_by_the_temperature(street: Recording, public: Recording) -> None:
    one = learner(street, public)
    rounds(one, public, range(1, 3))
    cold, warm = (one.answer(np.array([0, 5, 9]), temperature) for temperature in (1.0, 8.0))
    assert cold.shape == (3, 3, 4)
    np.testing.assert_allclose(cold.sum(axis=-1), 1.0, atol=1e-6)
    assert np.all(warm.max(axis=-1) < cold.max(axis=-1))
    np.testing.assert_allclose(one.answer(np.array([5]), 1.0)[0], cold[1], atol=1e-6)


def test_a_calibrated_answer_is_the_plain_one_at_a_product_of_temperatures(
    street: Recording, public: Recording
) -> None:
    one = learner(street, public)
    one.progress.confidence_temperature = 2.0
    calibrated = one.answer(np.arange(4), 1.5)
    one.progress.confidence_temperature = 1.0
    np.testing.assert_allclose(calibrated, one.answer(np.arange(4), 3.0), atol=1e-6)


def test_the_tracker_that_validated_best_is_the_one_that_is_evaluated(street: Recording, public: Recording) -> None:
    one = learner(street, public)
    rounds(one, public, range(1, 3))
    best = {name: value.clone() for name, value in one.best_model.items()}
    starts = street.window_starts(4, 2, "validation")
    expected = one.evaluate(street, starts)
    one.progress.best_score = 2.0  # better than any
    one.learn(None, num_steps=STEPS, total_steps=100)
    assert one.evaluate(street, starts) == expected
    assert_equal(one.best_model, best)
    assert not torch.equal(one.model.head.weight, best["head.weight"])


def test_the_tracker_is_best_after_a_round_that_validated_best_only(street: Recording, public: Recording) -> None:
    one = learner(street, public)
    assert not one.is_best  # nothing was learned or validated yet
    one.learn(None, num_steps=STEPS, total_steps=100)
    assert one.is_best
    one.progress.best_score = 2.0  # better than any
    one.learn(None, num_steps=STEPS, total_steps=100)
    assert not one.is_best


def test_evaluating_the_best_leaves_the_present_as_it_is(street: Recording, public: Recording) -> None:
    one = learner(street, public)
    rounds(one, public, range(1, 3))
    one.best_model = {name: torch.zeros_like(value) for name, value in one.best_model.items()}
    before = weights(one)
    starts = street.window_starts(4, 2, "train")
    assert one.evaluate(street, starts) != one.evaluate(street, starts, best=False)
    assert_equal(weights(one), before)


def test_without_validation_windows_the_last_tracker_is_kept(street: Recording, public: Recording) -> None:
    one = learner(street, public)
    one.material = replace(one.material, validation=np.empty(0, np.int64))
    rounds(one, public, range(1, 3))
    assert_equal(one.best_model, weights(one))
    assert one.progress.best_round == 2


def test_a_newest_tracker_that_is_preferred_is_kept_until_held_out_passes_refute_it(
    street: Recording, public: Recording
) -> None:
    one = learner(street, public)
    one.learn(None, num_steps=STEPS, total_steps=100, prefers_newest=True)
    first, second = one.progress.peak_by_pass
    apart = [first + 3.0, second - 2.0]  # its mean is higher, but one pass contradicts
    one.progress.best_score, one.progress.peak_by_pass = 0.9, apart
    one.learn(None, num_steps=STEPS, total_steps=100, prefers_newest=True)
    assert one.is_best
    assert_equal(one.best_model, weights(one))
    assert one.progress.peak_by_pass == apart  # so that small losses do not add up
    assert one.validation is not None
    assert one.validation < 0.9  # the score is that of what is kept
    one.progress.peak_by_pass = [first + 3.0, second + 3.0]
    one.learn(None, num_steps=STEPS, total_steps=100, prefers_newest=True)
    assert not one.is_best
    assert one.progress.best_round == 2


def test_the_plateau_schedule_halves_the_rate_when_validation_stalls(street: Recording, public: Recording) -> None:
    one = learner(street, public, schedule="plateau")
    one.progress.best_score = 2.0
    factors = []
    for _ in range(5):
        one.learn(None, num_steps=1, total_steps=5)
        factors.append(one.progress.rate_factor)
    assert factors == [1.0, 0.5, 0.5, 0.25, 0.25]


def test_a_loss_that_is_not_finite_is_an_error_with_the_owner_s_name(street: Recording, public: Recording) -> None:
    one = learner(street, public)
    one.losses = Losses(lambda logits, power: logits.sum() * float("nan"), response_kd)
    with pytest.raises(ValueError, match="000-gps: the loss is nan"):
        one.learn(None, num_steps=2, total_steps=2)


def _experiment(seed: int) -> Experiment:
    values = {
        "name": "x",
        "seed": seed,
        "data": {
            "source": "street",
            "passes": {"server": 1, "public": 1, "test": 1, "client": 1},
            "nodes": [{"modality": "gps"}],
        },
        "students": {"gps": {"width": 2, "features": 6, "hidden": 8}},
    }
    return build_experiment(values, origin="test")


def test_a_fresh_student_is_the_same_for_the_same_client_and_another_for_another() -> None:
    def student(client: str, seed: int = 0) -> dict[str, Tensor]:
        return dict(make_student(_experiment(seed), client=client, modality="gps").state_dict())

    assert_equal(student("000-gps"), student("000-gps"))
    assert not torch.equal(student("000-gps")["head.weight"], student("001-gps")["head.weight"])
    assert not torch.equal(student("000-gps")["head.weight"], student("000-gps", seed=1)["head.weight"])


def unlabelled(public: Recording, calls: Calls | None = None) -> Learner:
    torch.manual_seed(7)
    calls = calls or Calls()
    return Learner(
        BeamTracker(("gps",), Model(width=4, features=16, hidden=16, dropout=0.2), TASK),
        training=Training(batch_size=16, learning_rate=0.01, digest_share=0.5),
        losses=Losses(calls.task, calls.distillation),
        material=material_of(None, public, TASK),
        seed=0,
        name="000-gps",
    )


def scales(one: Learner) -> dict[str, Tensor]:
    return {name: value for name, value in one.model.state_dict().items() if "standardise" in name}


def test_every_learner_scales_its_inputs_by_the_public_set_however_few_passes_it_has(
    street: Recording, public: Recording
) -> None:
    few = replace(street, splits={"train": street.splits["train"][:1]})
    expected = learner(public, public).model
    expected.fit_scale(public, public.window_starts(4, 2))
    for one in (learner(street, public), learner(few, public), unlabelled(public)):
        found = scales(one)
        assert found
        for name, value in found.items():
            assert torch.equal(value, expected.state_dict()[name]), name


def test_without_a_public_window_a_learner_scales_its_inputs_by_its_own(street: Recording, public: Recording) -> None:
    nothing = replace(public, pass_ids=np.arange(len(public.pass_ids), dtype=np.int32))
    expected = learner(street, nothing).model
    found = scales(learner(street, nothing))
    expected.fit_scale(street, street.window_starts(4, 2, "train"))
    for name, value in found.items():
        assert torch.equal(value, expected.state_dict()[name]), name
    assert not torch.equal(found["encoders.gps.standardise.mean"], torch.zeros(5))


def test_a_learner_without_labels_spends_every_step_on_targets_and_is_not_calibrated(public: Recording) -> None:
    calls = Calls()
    one = unlabelled(public, calls)
    rounds(one, public, range(2, 4))
    assert calls.kinds == ["targets"] * 2 * STEPS
    assert one.progress.confidence_temperature == one.progress.best_temperature == 1.0
    assert_equal(weights(one), one.best_model)


def test_a_round_without_labels_and_without_targets_is_none(public: Recording) -> None:
    one, other = unlabelled(public), unlabelled(public)
    before = weights(one)
    assert one.learn(None, num_steps=STEPS, total_steps=4 * STEPS) == 0.0
    assert not one.has_learned
    assert_equal(weights(one), before)
    # Its first round is the one in which there is something to learn from.
    rounds(one, public, range(2, 3))
    rounds(other, public, range(2, 3))
    assert one.has_learned
    assert one.progress == other.progress
    assert_equal(weights(one), weights(other))


def test_frames_without_power_are_no_material(street: Recording, public: Recording) -> None:
    for recording in (None, replace(street, power=None)):
        found = material_of(recording, public, TASK)
        assert not found.is_labelled
        assert len(found.train) == len(found.validation) == 0
        assert found.recording.beams(found.train, 4, 2).shape == (0, 3)


def test_a_learner_without_validation_windows_has_no_validation_score(street: Recording, public: Recording) -> None:
    passes = [*street.splits["train"], *street.splits["validation"]]
    one = learner(replace(street, splits={"train": tuple(passes)}), public)
    other = learner(street, public)
    for each in (one, other):
        assert each.validation is None
        each.learn(None, num_steps=STEPS, total_steps=STEPS)
    assert one.validation is None
    assert other.validation is not None
    assert 0 < other.validation <= 1
