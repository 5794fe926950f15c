from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from clients.learning.beam_sets import ALL_BEAMS, RankedBeams, choose_threshold, least_alpha, losses_of_passes

THRESHOLDS = (0.0, 0.2, 0.5, 0.8, 0.95, 0.999, 1.0)


def some_probs(rng: np.random.Generator, windows: int = 40, beams: int = 16) -> NDArray[np.float64]:
    return rng.dirichlet(np.full(beams, 0.3), windows)


def test_a_set_is_the_smallest_number_of_beams_whose_probability_is_above_the_threshold() -> None:
    ranked = RankedBeams.by_probability(np.array([[0.1, 0.6, 0.3], [0.34, 0.33, 0.33]]))
    assert [one.tolist() for one in ranked.members(0.5)] == [[1], [0, 1]]
    assert ranked.sizes(0.0).tolist() == [1, 1]
    assert ranked.sizes(0.95).tolist() == [3, 3]


def test_sets_of_a_higher_threshold_hold_those_of_a_lower_one_and_the_last_holds_all_beams() -> None:
    probs = some_probs(np.random.default_rng(0))
    probs[0] = np.eye(16)[3]
    ranked = RankedBeams.by_probability(probs)
    sets = [[set(one.tolist()) for one in ranked.members(threshold)] for threshold in THRESHOLDS]
    for smaller, larger in pairwise(sets):
        assert all(one <= other for one, other in zip(smaller, larger, strict=True))
    assert all(one == set(range(16)) for one in sets[-1])


def test_a_window_is_missed_exactly_below_the_threshold_that_it_needs() -> None:
    rng = np.random.default_rng(1)
    ranked, power = RankedBeams.by_probability(some_probs(rng)), rng.random((40, 16))
    for within_db in (0.0, 1.0, 3.0):
        needed = ranked.needed(power, within_db)
        least = power.max(axis=1) * 10 ** (-within_db / 10)
        for threshold in (*THRESHOLDS, *needed.tolist(), *(needed * 0.999).tolist()):
            holds = [power[row, beams].max() >= least[row] for row, beams in enumerate(ranked.members(threshold))]
            np.testing.assert_array_equal(holds, needed <= threshold)


def test_a_larger_tolerated_loss_needs_no_higher_threshold() -> None:
    rng = np.random.default_rng(2)
    ranked, power = RankedBeams.by_probability(some_probs(rng)), rng.random((40, 16))
    assert (ranked.needed(power, 3.0) <= ranked.needed(power, 1.0)).all()
    assert (ranked.needed(power, 3.0) < ranked.needed(power, 0.0)).any()


def test_sets_by_rank_have_one_size_for_all_windows() -> None:
    scores = np.array([[-3.0, 5.0, 1.0, -np.inf], [0.0, 1.0, 2.0, 3.0]])
    ranked = RankedBeams.by_rank(scores)
    assert [one.tolist() for one in ranked.members(0.25)] == [[1, 2], [3, 2]]
    assert [ranked.sizes(threshold).tolist() for threshold in (0.0, 0.5, 0.75, 1.0)] == [[1, 1], [3, 3], [4, 4], [4, 4]]
    power = np.array([[0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    assert ranked.ranks_of_good(power, 0.0).tolist() == [2, 4]
    assert ranked.needed(power, 0.0).tolist() == [0.25, 0.75]


def test_the_loss_of_a_pass_is_the_share_of_its_windows_that_are_missed() -> None:
    needed, passes = np.array([0.0, 0.6, 0.9, 0.2]), np.array([7, 7, 2, 7])
    np.testing.assert_allclose(losses_of_passes(needed, passes, 0.5), [1.0, 1 / 3])
    np.testing.assert_allclose(losses_of_passes(needed, passes, ALL_BEAMS), [0.0, 0.0])


def brute_force(needed: NDArray[np.float64], passes: NDArray[np.int64], alpha: float) -> float:
    """The formula of the theorem, tried at every threshold at which the loss changes."""
    num_passes = len(np.unique(passes))
    for threshold in [0.0, *sorted(needed)]:
        risk = losses_of_passes(needed, passes, threshold).mean()
        if (num_passes * risk + 1.0) / (num_passes + 1) <= alpha:
            return float(threshold)
    return ALL_BEAMS


@pytest.mark.parametrize("alpha", [0.03, 0.05, 0.11, 0.3, 0.9])
def test_the_threshold_is_the_smallest_that_the_theorem_allows(alpha: float) -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        passes = rng.integers(0, rng.integers(1, 30), 80)
        needed = np.round(rng.random(80), 2) * (rng.random(80) < 0.7)
        assert choose_threshold(needed, passes, alpha) == brute_force(needed, passes, alpha)


def test_on_exchangeable_passes_the_mean_loss_of_a_new_pass_is_at_most_alpha_and_not_far_below() -> None:
    """Passes differ much from one another, windows of a pass little: 2000 draws of ten to forty passes."""
    rng = np.random.default_rng(4)
    for num_passes, alpha in ((10, 0.2), (19, 0.1), (40, 0.05)):
        losses = []
        for _ in range(2000):
            hardness = rng.random(num_passes + 1)
            passes = np.repeat(np.arange(num_passes + 1), rng.integers(1, 12, num_passes + 1))
            needed = np.clip(hardness[passes] ** 2 + 0.05 * rng.standard_normal(len(passes)), 0.0, 0.99)
            is_new = passes == num_passes
            threshold = choose_threshold(needed[~is_new], passes[~is_new], alpha)
            losses.append(losses_of_passes(needed[is_new], passes[is_new], threshold)[0])
        error = np.std(losses) / np.sqrt(len(losses))
        assert np.mean(losses) <= alpha + 3.0 * error
        assert np.mean(losses) >= alpha - 2.0 / (num_passes + 1) - 3.0 * error  # theorem 2 of the same paper


def test_windows_instead_of_passes_as_the_unit_would_break_the_guarantee() -> None:
    """Why the unit is the pass: with all windows alike in a pass, three passes of 50 windows are not 150 passes."""
    rng, alpha, losses = np.random.default_rng(5), 0.1, []
    for _ in range(2000):
        needed = np.repeat(rng.random(3), 50)
        threshold = choose_threshold(needed, np.arange(150), alpha)
        losses.append(float(rng.random() > threshold))
    assert np.mean(losses) > 2 * alpha


@pytest.mark.parametrize("num_passes", [0, 1, 5, 18])
def test_few_passes_give_every_beam_where_less_cannot_be_guaranteed(num_passes: int) -> None:
    needed, passes = np.zeros(num_passes), np.arange(num_passes)
    assert least_alpha(num_passes) > 0.05
    assert choose_threshold(needed, passes, 0.05) == ALL_BEAMS
    if num_passes:
        assert choose_threshold(needed, passes, least_alpha(num_passes)) == 0.0


def test_nineteen_passes_without_a_miss_are_just_enough_for_95_percent() -> None:
    assert least_alpha(19) == 0.05
    assert choose_threshold(np.zeros(19), np.arange(19), 0.05) == 0.0
    assert choose_threshold(np.r_[np.zeros(18), 0.4], np.arange(19), 0.05) == 0.4


def test_one_beam_alone_is_every_set() -> None:
    ranked = RankedBeams.by_probability(np.ones((3, 1)))
    assert ranked.sizes(0.0).tolist() == [1, 1, 1]
    assert ranked.needed(np.ones((3, 1)), 0.0).tolist() == [0.0, 0.0, 0.0]


def test_no_window_and_no_power_are_legal() -> None:
    ranked = RankedBeams.by_probability(np.empty((0, 4)))
    assert ranked.sizes(0.5).shape == ranked.needed(np.empty((0, 4)), 1.0).shape == (0,)
    dark = RankedBeams.by_probability(np.full((1, 4), 0.25))
    assert dark.needed(np.zeros((1, 4)), 0.0).tolist() == [0.0]  # nothing is lost where there is nothing


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="did you pass logits"):
        RankedBeams.by_probability(np.array([[2.0, -1.0]]))
    with pytest.raises(ValueError, match="did you pass logits"):
        RankedBeams.by_probability(np.array([[np.nan, 1.0]]))
    with pytest.raises(ValueError, match="NaN"):
        RankedBeams.by_rank(np.array([[np.nan, 1.0]]))
    for make in (RankedBeams.by_probability, RankedBeams.by_rank):
        with pytest.raises(ValueError, match=r"\(windows, beams\)"):
            make(np.ones(3))
    ranked = RankedBeams.by_rank(np.eye(3))
    with pytest.raises(ValueError, match="threshold: must be in"):
        ranked.sizes(1.5)
    with pytest.raises(ValueError, match="power: must have the shape"):
        ranked.needed(np.ones((3, 4)), 1.0)
    with pytest.raises(ValueError, match="within_db: must be at least 0"):
        ranked.needed(np.ones((3, 3)), -1.0)
    for alpha in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match="alpha: must be between 0 and 1"):
            choose_threshold(np.zeros(3), np.arange(3), alpha)
    with pytest.raises(ValueError, match="pass_of_window: must have the shape"):
        choose_threshold(np.zeros(3), np.arange(4), 0.1)
