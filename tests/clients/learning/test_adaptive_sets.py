from __future__ import annotations

import numpy as np
import pytest

from clients.learning.adaptive_sets import PolicyCurves, policy_curves
from clients.learning.beam_sets import RankedBeams, losses_of_passes
from clients.learning.risk_curve import GRID
from tests.clients.learning.test_risk_curve import windows_of

PLACES = range(len(GRID))


def one_pass(probs: list[list[float]], power: list[list[float]], within_db: float = 3.0, tail: float = 4.0) -> object:
    ranked = RankedBeams.by_probability(np.array(probs))
    return policy_curves(ranked, np.array(power), np.zeros(len(probs), int), within_db=within_db, tail=tail)


def place_of(threshold: float) -> int:
    return int(np.flatnonzero(np.isclose(GRID, threshold))[0])


def test_three_slots_computed_by_hand() -> None:
    """Beams 0.6, 0.25, 0.15 at a threshold of 0.75: two beams; after a confirmed slot the threshold is 0: one beam."""
    probs, place = [[0.6, 0.25, 0.15]] * 3, place_of(0.75)
    power = [[1.0, 0.9, 0.1], [0.1, 1.0, 0.2], [0.1, 1.0, 0.2]]
    found = one_pass(probs, power)
    assert isinstance(found, PolicyCurves)
    # 0.6 + 0.25 is above 0.75, so both are swept, and the first is within 3 dB. Then beam 0 alone is swept, and misses
    # beam 1; one beam confirms nothing, so two are swept again.
    assert found.beams[0, place] == pytest.approx((2 + 1 + 2) / 3)
    assert found.missed[0, place] == pytest.approx(1 / 3)
    assert found.confirmed[0, place] == pytest.approx(1 / 3)


def test_a_slot_in_which_another_beam_was_stronger_confirms_nothing() -> None:
    probs, place = [[0.6, 0.25, 0.15]] * 2, place_of(0.75)
    found = one_pass(probs, [[0.4, 1.0, 0.1]] * 2)
    assert isinstance(found, PolicyCurves)
    assert found.beams[0, place] == 2.0 and found.confirmed[0, place] == 0.0
    nearly = one_pass(probs, [[0.502, 1.0, 0.1]] * 2)  # 3 dB are a factor of 0.5012
    assert isinstance(nearly, PolicyCurves)
    assert nearly.confirmed[0, place] == 0.5


@pytest.mark.parametrize("within_db", [1.0, 3.0])
def test_a_policy_that_never_shrinks_is_the_sets_of_one_threshold(within_db: float) -> None:
    probs, power, passes = windows_of(3, passes=5)
    ranked = RankedBeams.by_probability(probs[:, 0])
    found = policy_curves(ranked, power[:, 0], passes, within_db=within_db, tail=1.0)
    needed = ranked.needed(power[:, 0], within_db)
    for place in PLACES:
        np.testing.assert_allclose(found.missed[:, place], losses_of_passes(needed, passes, float(GRID[place])))
        assert found.beams[:, place].mean() == pytest.approx(ranked.sizes(float(GRID[place])).mean())


def test_a_pass_begins_unconfirmed_and_sweeps_of_all_beams_miss_nothing() -> None:
    probs, power, passes = windows_of(4, passes=6)
    ranked = RankedBeams.by_probability(probs[:, 0])
    shrinking, fixed = (policy_curves(ranked, power[:, 0], passes, within_db=3.0, tail=tail) for tail in (4.0, 1.0))
    assert (shrinking.beams <= fixed.beams + 1e-12).all() and (shrinking.beams < fixed.beams).any()
    assert (shrinking.confirmed <= 11 / 12 + 1e-12).all()  # passes have twelve windows
    assert (shrinking.missed[:, -1] == 0).all() and (shrinking.beams[:, -1] == probs.shape[-1]).all()


def test_what_is_calibrated_is_the_largest_loss_from_a_threshold_on() -> None:
    missed = np.zeros((9, len(GRID)))
    missed[:, :3] = 0.9
    missed[0, 10] = 0.9  # a larger threshold misses what smaller ones hold
    curves = PolicyCurves(missed, missed, missed)
    everybody = np.ones(9, np.bool_)
    assert curves.choose(everybody, 0.3) == 3  # 0.9 + 1 is below 0.3 x 10
    assert curves.choose(everybody, 0.15) == 11  # and above 0.15 x 10, so it has to be past the bump
    assert curves.choose(everybody, 0.05) == len(GRID) - 1
    assert curves.choose(np.arange(9) > 0, 0.15) == 3


def test_the_loss_of_new_passes_is_at_most_alpha_on_average() -> None:
    probs, power, passes = windows_of(6, passes=120)
    curves = policy_curves(RankedBeams.by_probability(probs[:, 0]), power[:, 0], passes, within_db=1.0)
    rng, losses = np.random.default_rng(1), []
    for _ in range(200):
        calibrates = rng.permutation(120) < 30
        losses.append(curves.missed[~calibrates, curves.choose(calibrates, 0.15)].mean())
    assert 0.02 < np.mean(losses) <= 0.15 + 3 * np.std(losses) / np.sqrt(len(losses))


def test_a_tail_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"tail: must be at least 1, got 0\.5"):
        one_pass([[1.0]], [[1.0]], tail=0.5)
