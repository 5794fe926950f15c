"""Metrics by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from clients.learning.metrics import (
    POWER_FLOOR,
    BeamMetrics,
    dba_k3_score,
    dba_score,
    power_loss_db,
    rank_beams,
    top5_by_pass,
    top_k,
)
from configs.seeding import rng_for

GUESSED_12_11_10 = np.array([[12, 11, 10]])
BEAM_10 = np.array([10])


def test_best_beam_10_guessed_as_12_11_10_scores_0_8() -> None:
    assert dba_score(GUESSED_12_11_10, BEAM_10) == pytest.approx(0.8)  # (0.6 + 0.8 + 1) / 3


@pytest.mark.parametrize("k", [1, 5, 8, 9, 64, 100])
@pytest.mark.parametrize("kind", ["smooth", "ties", "infinite", "none"])
def test_few_guesses_are_those_of_sorting_all_beams(kind: str, k: int) -> None:
    scores = rng_for(0, "scores").standard_normal((40, 64)).astype(np.float32)
    if kind == "ties":
        scores = np.round(scores)
    elif kind == "infinite":
        scores[:, ::2] = -np.inf
    elif kind == "none":
        scores[3:6, 7] = np.nan
    before = scores.copy()
    np.testing.assert_array_equal(rank_beams(scores, k), np.argsort(-scores, axis=1, kind="stable")[:, :k])
    np.testing.assert_array_equal(scores, before)


def test_best_beam_10_guessed_as_12_11_10_scores_1_with_k_3() -> None:
    assert dba_k3_score(GUESSED_12_11_10, BEAM_10) == 1.0


def test_a_worse_later_guess_does_not_lower_the_score() -> None:
    assert dba_score(np.array([[10, 60, 0]]), BEAM_10) == 1.0
    assert dba_score(np.array([[11, 60, 0]]), BEAM_10) == pytest.approx(0.8)


@pytest.mark.parametrize(("miss", "score"), [(0, 1.0), (1, 0.8), (4, 0.2), (5, 0.0), (6, 0.0), (53, 0.0)])
def test_a_miss_of_five_beams_or_more_earns_nothing_on_either_side(miss: int, score: float) -> None:
    assert dba_score(np.full((1, 3), 10 + miss), BEAM_10) == pytest.approx(score)
    assert dba_score(np.full((1, 3), 60 - miss), np.array([60])) == pytest.approx(score)


def test_dba_is_the_mean_over_samples() -> None:
    ranked = np.array([[12, 11, 10], [0, 0, 0]])
    assert dba_score(ranked, np.array([10, 60])) == pytest.approx(0.4)


def test_dba_looks_at_three_guesses_only() -> None:
    assert dba_score(np.array([[40, 40, 40, 10, 10]]), BEAM_10) == 0.0
    assert dba_k3_score(np.array([[40, 40, 40, 10, 10]]), BEAM_10) == 0.0


def test_with_two_beams_the_second_guess_is_the_third_one_too() -> None:
    wrong, right = np.array([[1, 0]]), np.array([[0, 1]])
    assert dba_score(wrong, np.array([0])) == pytest.approx((0.8 + 1 + 1) / 3)
    assert dba_score(right, np.array([0])) == 1.0
    assert dba_k3_score(wrong, np.array([0])) == 1.0


def test_dba_with_k_3_is_never_smaller_than_dba() -> None:
    rng = rng_for(0, "dba")
    for _ in range(50):
        ranked, best = rng.integers(0, 64, (20, 5)), rng.integers(0, 64, 20)
        assert dba_k3_score(ranked, best) >= dba_score(ranked, best)


def test_beams_are_ranked_by_falling_score_and_ties_go_to_the_smaller_index() -> None:
    ranked = rank_beams(np.array([[0.1, 0.4, 0.2, 0.4, 0.0, 0.1]]), k=5)
    np.testing.assert_array_equal(ranked, [[1, 3, 2, 0, 5]])


def test_top_k_counts_the_best_beam_among_the_first_k_guesses() -> None:
    ranked = np.array([[1, 2, 3], [2, 1, 3], [3, 2, 1], [0, 2, 3]])
    best = np.ones(4, np.int64)
    assert [top_k(ranked, best, k) for k in (1, 2, 3)] == [0.25, 0.5, 0.75]


def test_power_lost_to_half_of_the_best_beam_is_3_db() -> None:
    power = np.array([[1.0, 0.5, 0.1], [0.2, 2.0, 0.1]])
    ranked = np.array([[1, 0], [1, 0]])
    assert power_loss_db(power, ranked) == pytest.approx(10 * np.log10(2) / 2)


def test_the_best_beam_loses_no_power() -> None:
    power = rng_for(0, "power").uniform(0, 1, (20, 64))
    assert power_loss_db(power, rank_beams(power)) == 0.0


def test_a_beam_without_any_power_loses_a_finite_amount() -> None:
    assert power_loss_db(np.array([[1.0, 0.0]]), np.array([[1]])) == pytest.approx(-10 * np.log10(POWER_FLOOR))
    assert power_loss_db(np.zeros((1, 2)), np.array([[1]])) == 0.0


def test_a_perfect_prediction_is_perfect_at_every_horizon() -> None:
    power = rng_for(0, "perfect").uniform(0, 1, (30, 4, 64))
    metrics = BeamMetrics.of(power, power)
    assert metrics.top1 == metrics.top3 == metrics.top5 == metrics.dba == metrics.dba_k3 == (1.0, 1.0, 1.0, 1.0)
    assert metrics.power_loss_db == (0.0, 0.0, 0.0, 0.0)


def test_each_horizon_is_scored_by_its_own_guess_and_label() -> None:
    power = np.full((1, 2, 64), 0.1)
    power[0, 0, 10] = power[0, 1, 20] = 1.0
    scores = np.zeros((1, 2, 64))
    scores[0, 0, [12, 11, 10]] = [3.0, 2.0, 1.0]
    scores[0, 1, 20] = 1.0
    metrics = BeamMetrics.of(scores, power)
    assert metrics.top1 == (0.0, 1.0)
    assert metrics.top3 == metrics.top5 == (1.0, 1.0)
    assert metrics.dba == pytest.approx((0.8, 1.0))
    assert metrics.power_loss_db == pytest.approx((10.0, 0.0))
    assert metrics.mean("top1") == 0.5


def test_a_guess_at_random_finds_one_beam_of_64_in_64() -> None:
    rng = rng_for(0, "random")
    metrics = BeamMetrics.of(rng.random((20_000, 1, 64)), rng.random((20_000, 1, 64)))
    assert metrics.top1[0] == pytest.approx(1 / 64, abs=0.004)
    assert metrics.top5[0] == pytest.approx(5 / 64, abs=0.008)


def test_scores_and_their_softmax_are_scored_alike() -> None:
    rng = rng_for(0, "monotone")
    scores, power = rng.normal(size=(50, 2, 64)), rng.random((50, 2, 64))
    assert BeamMetrics.of(np.exp(scores), power) == BeamMetrics.of(scores, power)


def test_metrics_survive_json() -> None:
    rng = rng_for(0, "json")
    metrics = BeamMetrics.of(rng.random((50, 3, 64)), rng.random((50, 3, 64)))
    assert BeamMetrics.from_dict(json.loads(json.dumps(metrics.to_dict()))) == metrics
    assert list(metrics.to_dict()) == ["top1", "top3", "top5", "dba", "dba_k3", "power_loss_db"]


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(ValueError, match="no sample"):
        BeamMetrics.of(np.empty((0, 4, 64)), np.empty((0, 4, 64)))


def test_top5_by_pass_is_that_of_the_windows_of_each_pass_in_the_order_of_ids() -> None:
    rng = np.random.default_rng(0)
    scores, power = rng.random((7, 3, 64)), rng.random((7, 3, 64))
    scores[2:5] = power[2:5]
    passes = np.array([9, 9, 4, 4, 4, 11, 11])
    shares = top5_by_pass(scores, power, passes)
    expected = [BeamMetrics.of(scores[passes == one], power[passes == one]).mean("top5") for one in (4, 9, 11)]
    assert shares == pytest.approx(expected)
    assert shares[0] == 1.0
