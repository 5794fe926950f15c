"""Robust rules and weights on votes worked out by hand, and the attacks that they are for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from clients.learning.calibration import fit_temperature
from configs.seeding import rng_for
from strategies.attacks import ATTACKS, AttackerKnowledge
from strategies.labels import Contribution, SoftLabels
from strategies.rules.robust import Consensus, CoveredMean, GeometricMedian, Median, TrimmedMean
from strategies.rules.weighted import WEIGHTS, EntropyMean, Weighted


def vote(
    client: str,
    row: Sequence[float],
    *,
    modality: str = "gps",
    num_examples: int = 1,
    age: int = 0,
    seen: Sequence[int] | None = None,
) -> Contribution:
    labels = SoftLabels(np.array([0]), np.array([[row]], np.float32), 1.0)
    beams = None
    if seen is not None:
        beams = np.zeros(len(row), np.int64)
        beams[list(seen)] = 1
    return Contribution(client, modality, labels, num_examples, age=age, seen=beams)


def result(rule: Any, *votes: Contribution) -> list[float]:
    found: list[float] = rule.aggregate(votes).probs[0, 0].tolist()
    return found


A, B, C = [0.8, 0.2, 0.0], [0.6, 0.2, 0.2], [0.0, 0.2, 0.8]


def test_the_median_is_the_middle_vote_of_each_beam_scaled() -> None:
    # Middles: 0.6, 0.2, 0.2 of three; of two the mean.
    assert result(Median(), vote("a", A), vote("b", B), vote("c", C)) == pytest.approx([0.6, 0.2, 0.2])
    assert result(Median(), vote("a", A), vote("c", C)) == pytest.approx([0.4, 0.2, 0.4])


def test_the_trimmed_mean_leaves_out_a_share_at_each_end() -> None:
    rows = [[0.5, 0.5], [0.6, 0.4], [0.7, 0.3], [1.0, 0.0]]
    votes = [vote(str(number), row) for number, row in enumerate(rows)]
    # One of four at each end: (0.6 + 0.7) / 2 and (0.4 + 0.3) / 2.
    assert result(TrimmedMean(trim=0.25), *votes) == pytest.approx([0.65, 0.35])
    assert result(TrimmedMean(trim=0.24), *votes) == pytest.approx([0.7, 0.3])


def test_the_geometric_median_of_three_is_nearest_to_all_and_ignores_how_far_the_far_one_is() -> None:
    near = [[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.5, 0.5, 0.0]]
    far = vote("x", [0.0, 0.0, 1.0])
    votes = [vote(str(number), row) for number, row in enumerate(near)]
    assert result(GeometricMedian(), *votes, far) == pytest.approx(near[0], abs=1e-3)


def test_only_who_has_seen_a_beam_votes_on_it() -> None:
    votes = [vote("a", [0.5, 0.5, 0.0], seen=[0, 1]), vote("b", [0.0, 0.2, 0.8], seen=[1, 2])]
    # Beam 0: 0.5 of a. Beam 1: 0.35 of both. Beam 2: 0.8 of b. The sum is 1.65.
    assert result(CoveredMean(), *votes) == pytest.approx([0.5 / 1.65, 0.35 / 1.65, 0.8 / 1.65])


def test_a_beam_that_nobody_has_seen_is_voted_on_by_all() -> None:
    votes = [vote("a", [0.5, 0.5, 0.0], seen=[0]), vote("b", [0.0, 0.2, 0.8], seen=[0])]
    assert result(CoveredMean(), *votes) == pytest.approx([0.25, 0.35, 0.4])


def test_coverage_saves_a_median_from_honest_skew() -> None:
    # Three of four never saw beam 2 and give it nothing; the one that did is right.
    votes = [vote(str(number), [0.9, 0.1, 0.0], seen=[0, 1]) for number in range(3)] + [
        vote("x", [0.05, 0.05, 0.9], seen=[0, 1, 2])
    ]
    assert result(Median(), *votes)[2] == 0.0
    assert result(Median(coverage=True), *votes)[2] > 0.4


def test_consensus_leaves_out_a_group_that_agrees_with_itself_only() -> None:
    honest = [vote(f"h{number}", [0.6 - 0.01 * number, 0.3 + 0.01 * number, 0.1, 0.0]) for number in range(5)]
    liars = [vote(f"x{number}", [0.0, 0.0, 0.0, 1.0]) for number in range(4)]
    assert result(Consensus(), *honest, *liars)[3] == 0.0
    assert result(EntropyMean(), *honest, *liars)[3] > 0.5


def test_two_that_contradict_each_other_both_stand() -> None:
    assert result(Consensus(), vote("a", [1.0, 0.0]), vote("b", [0.0, 1.0])) == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize(
    ("rule", "options", "text"),
    [
        (TrimmedMean, {"trim": 0.5}, "trim: must be in"),
        (TrimmedMean, {"trim": -0.1}, "trim: must be in"),
        (Median, {"coverage": 1}, "coverage: must be true or false"),
        (Consensus, {"floor": 1.0}, "floor: must be in"),
        (Consensus, {"exponent": -1.0}, "exponent: must be >= 0"),
        (Weighted, {"weights": ["votes"]}, "weights: must be a list of uniform, examples"),
        (Weighted, {"weights": []}, "weights: must be"),
        (Weighted, {"weights": "age"}, "weights: must be"),
        (Weighted, {"pool": "median"}, "pool: must be mean or product"),
        (Weighted, {"exponent": 0}, "exponent: must be > 0"),
        (Weighted, {"exponent": float("inf")}, "exponent: must be > 0"),
        (Weighted, {"age_exponent": -1}, "age_exponent: must be >= 0"),
    ],
)
def test_options_out_of_range_are_refused_by_name(rule: Any, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text}"):
        rule(**options)


# Weights.


def weighted(*names: str, **options: Any) -> Weighted:
    return Weighted(weights=names, **options)


def test_weights_by_hand() -> None:
    a, b = [1.0, 0.0], [0.5, 0.5]
    assert result(weighted("uniform"), vote("a", a), vote("b", b)) == pytest.approx([0.75, 0.25])
    examples = [vote("a", a, num_examples=3), vote("b", b, num_examples=1)]
    assert result(weighted("examples"), *examples) == pytest.approx([0.875, 0.125])
    # A flat row is certain of nothing.
    assert result(weighted("entropy"), vote("a", a), vote("b", b)) == pytest.approx([1.0, 0.0])
    # The mean is (0.75, 0.25): overlaps 0.75 and 0.75.
    assert result(weighted("agreement"), vote("a", a), vote("b", b)) == pytest.approx([0.75, 0.25])
    three = [vote("a", [1.0, 0.0]), vote("b", [0.8, 0.2]), vote("c", [0.0, 1.0])]
    # The mean is (0.6, 0.4): overlaps 0.6, 0.8 and 0.4, squared 0.36, 0.64 and 0.16 of 1.16.
    assert result(weighted("agreement", exponent=2.0), *three) == pytest.approx([0.872 / 1.16, 0.288 / 1.16])
    # Three rounds late with exponent 0.5: (1 + 3)^-0.5 = 1/2.
    late = [vote("a", a, age=3), vote("b", b)]
    assert result(weighted("age"), *late) == pytest.approx([(0.5 + 0.5) / 1.5, 0.5 / 1.5])


def test_a_modality_counts_once_however_many_clients_it_has() -> None:
    cameras = [vote(f"c{number}", [1.0, 0.0], modality="camera") for number in range(3)]
    radar = vote("r", [0.0, 1.0], modality="radar")
    assert result(weighted("modality"), *cameras, radar) == pytest.approx([0.5, 0.5])


def test_weights_are_multiplied() -> None:
    votes = [vote("a", [1.0, 0.0], num_examples=4, age=3), vote("b", [0.0, 1.0], num_examples=1)]
    assert result(weighted("examples", "age"), *votes) == pytest.approx([2 / 3, 1 / 3])
    assert set(WEIGHTS) == {"uniform", "examples", "entropy", "agreement", "modality", "age"}


def test_an_overconfident_client_dominates_until_it_is_calibrated() -> None:
    rng = rng_for(0, "overconfident")
    num_windows, num_beams = 400, 8
    beams = rng.integers(0, num_beams, (num_windows, 1))
    is_best = np.arange(num_beams) == beams[..., None]
    good = 2.0 * is_best + rng.normal(0, 1.0, is_best.shape)
    # It knows little, and is sure of it.
    bad = 6.0 * (0.7 * is_best + rng.normal(0, 1.0, is_best.shape))

    def labels(logits: NDArray[np.float64], temperature: float) -> SoftLabels:
        probs = torch.softmax(torch.from_numpy(logits) / temperature, dim=-1).numpy().astype(np.float32)
        return SoftLabels(np.arange(num_windows), probs, 1.0)

    def accuracy(*both: SoftLabels) -> float:
        votes = [Contribution(str(number), "gps", one, 1) for number, one in enumerate(both)]
        ensemble = EntropyMean().aggregate(votes)
        return float((ensemble.probs.argmax(axis=-1) == beams).mean())

    fitted = [fit_temperature(torch.from_numpy(logits), torch.from_numpy(beams))[0] for logits in (good, bad)]
    alone = accuracy(labels(good, 1.0))
    raw = accuracy(labels(good, 1.0), labels(bad, 1.0))
    calibrated = accuracy(labels(good, fitted[0]), labels(bad, fitted[1]))
    assert fitted[0] < 1.5 and fitted[1] > 4
    assert raw < alone - 0.2
    assert calibrated > alone - 0.05


# Attacks.


@pytest.mark.parametrize("num_beams", [2, 3])
def test_attackers_who_name_three_beams_name_all_that_there_are(num_beams: int) -> None:
    known = AttackerKnowledge(seed=0, sample_ids=np.arange(5))
    poisoned = ATTACKS["colluding_sweep"].poison(np.full((5, 2, num_beams), 1 / num_beams, np.float32), known)
    np.testing.assert_allclose(poisoned, 1 / num_beams)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_leaves_its_input_alone_and_lies_in_soft_labels(name: str) -> None:
    probs = rng_for(0, "honest").dirichlet(np.full(16, 0.3), size=(5, 2)).astype(np.float32)
    before = probs.copy()
    known = AttackerKnowledge(seed=3, sample_ids=np.array([0, 2, 5, 9, 40]))
    poisoned = ATTACKS[name].poison(probs, known)
    np.testing.assert_array_equal(probs, before)
    assert poisoned.shape == probs.shape
    if name == "nan":
        assert np.isnan(poisoned).all()
        return
    SoftLabels(known.sample_ids, poisoned, 1.0)
    assert np.array_equal(poisoned, probs) == (name == "stale")
    np.testing.assert_array_equal(ATTACKS[name].poison(probs, known), poisoned)


def test_colluders_name_the_same_beams_whatever_they_know_and_are_asked() -> None:
    one, other = (rng_for(0, name).dirichlet(np.full(16, 0.3), size=(3, 2)).astype(np.float32) for name in "ab")
    for name, count in (("colluding_one_hot", 1), ("colluding_sweep", 3)):
        first = ATTACKS[name].poison(one, AttackerKnowledge(1, np.array([4, 7, 8])))
        second = ATTACKS[name].poison(other, AttackerKnowledge(1, np.array([7, 8, 90])))
        np.testing.assert_array_equal(first[1:], second[:2])
        assert np.all((first > 0).sum(axis=-1) == count)


def test_colluders_of_a_seed_name_the_classes_that_they_named_in_every_version() -> None:
    honest = np.full((4, 2, 8), 1 / 8, np.float32)
    named = ATTACKS["colluding_one_hot"].poison(honest, AttackerKnowledge(7, np.arange(4))).argmax(axis=-1)
    assert named.tolist() == [[2, 4], [4, 3], [7, 1], [7, 6]]


def test_attacks_by_hand() -> None:
    row, known = np.array([[[0.5, 0.3, 0.2, 0.0]]], np.float32), AttackerKnowledge(0, np.array([0]))
    np.testing.assert_allclose(ATTACKS["label_flip"].poison(row, known), [[[0.0, 0.2, 0.3, 0.5]]])
    np.testing.assert_allclose(ATTACKS["peak_control"].poison(row, known), [[[0.0, 0.3, 0.2, 0.5]]])
    first = np.array([[[0.1, 0.2, 0.3, 0.4]]], np.float32)
    np.testing.assert_allclose(ATTACKS["stale"].poison(row, AttackerKnowledge(0, np.array([0]), first)), first)
    many = np.full((1, 1, 16), 1 / 16, np.float32)
    np.testing.assert_allclose(ATTACKS["top_k"].poison(many, known)[0, 0], [0.0] * 10 + [1 / 6] * 6, atol=1e-6)
    assert ATTACKS["impersonation"].exaggeration == 100
