from __future__ import annotations

import numpy as np
import pytest

from clients.learning.beam_sets import RankedBeams, choose_threshold, losses_of_passes
from clients.learning.risk_curve import (
    ALPHAS,
    GRID,
    WITHIN_DB,
    RiskCurve,
    curve_from,
    curves_of,
    scores_from,
    to_numbers,
)
from clients.learning.stand_ins import measured_stand_ins

HORIZONS, BEAMS = 2, 16


def windows_of(seed: int, passes: int, length: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities, powers and passes of windows; each pass has a difficulty of its own."""
    rng = np.random.default_rng(seed)
    pass_ids = np.repeat(np.arange(passes), length)
    best = rng.integers(0, BEAMS, (len(pass_ids), HORIZONS))
    power = np.exp(-((best[..., None] - np.arange(BEAMS)) ** 2) / 4.0)
    off = rng.exponential(2.0, passes)[pass_ids][:, None]
    guessed = best + np.round(off * rng.standard_normal(best.shape)).astype(int)
    logits = -((guessed[..., None] - np.arange(BEAMS)) ** 2) / 6.0
    probs = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    return probs.astype(np.float32), power.astype(np.float32), pass_ids


STAND_INS = measured_stand_ins(windows_of(0, 5)[1].reshape(-1, BEAMS), WITHIN_DB)


def test_the_grid_rises_from_none_to_every_beam_and_is_finer_near_one() -> None:
    assert GRID[0] == 0.0 and GRID[-1] == 1.0 and np.all(np.diff(GRID) > 0)
    # The last step, to 1 itself, is as long as the two before it together.
    assert np.all(np.diff(GRID)[2:-1] <= np.diff(GRID)[1:-2])


@pytest.mark.parametrize("alpha", [0.3, *ALPHAS])
def test_the_sum_of_curves_gives_the_smallest_threshold_of_the_grid_that_all_passes_together_would(
    alpha: float,
) -> None:
    """It is what a server that had every pass would choose, rounded up to the grid."""
    clients = [windows_of(seed, passes) for seed, passes in ((1, 5), (2, 9), (3, 14))]
    pooled = sum((curves_of(*one, STAND_INS)[0] for one in clients[1:]), curves_of(*clients[0], STAND_INS)[0])
    assert pooled.num_passes == 28
    places = pooled.thresholds(alpha)
    for horizon in range(HORIZONS):
        for number, within_db in enumerate(WITHIN_DB):
            needed, passes = [], []
            for client, (probs, power, pass_ids) in enumerate(clients):
                ranked = RankedBeams.by_cover(probs[:, horizon], STAND_INS[number])
                needed.append(ranked.needed(power[:, horizon], within_db))
                passes.append(pass_ids + 1000 * client)
            exact = choose_threshold(np.concatenate(needed), np.concatenate(passes), alpha)
            found = GRID[places[horizon, number]]
            assert found >= exact - 1e-12
            assert found == GRID[np.searchsorted(GRID, exact - 1e-12)]


def test_the_loss_of_a_new_pass_of_a_client_drawn_by_its_passes_is_at_most_alpha_on_average() -> None:
    alpha, losses = 0.2, []
    trackers = [windows_of(seed, passes=60) for seed in (1, 2, 3)]
    rng = np.random.default_rng(0)
    for _ in range(150):
        pool = [(client, number) for client in range(3) for number in range(60)]
        chosen = [pool[index] for index in rng.permutation(len(pool))[:25]]
        *calibrates, (client, judged) = chosen
        curve = RiskCurve(0, np.zeros((HORIZONS, 2, len(GRID))))
        for one in range(3):
            probs, power, pass_ids = trackers[one]
            rows = np.isin(pass_ids, [number for owner, number in calibrates if owner == one])
            if rows.any():
                curve = curve + curves_of(probs[rows], power[rows], pass_ids[rows], STAND_INS)[0]
        probs, power, pass_ids = trackers[client]
        rows = pass_ids == judged
        threshold = float(GRID[curve.thresholds(alpha)[0, 0]])
        needed = RankedBeams.by_probability(probs[rows, 0]).needed(power[rows, 0], WITHIN_DB[0])
        losses.append(losses_of_passes(needed, pass_ids[rows], threshold)[0])
    error = np.std(losses) / np.sqrt(len(losses))
    assert np.mean(losses) <= alpha + 3 * error
    assert np.mean(losses) > alpha / 4  # sets of all beams would miss nothing


def test_too_few_passes_leave_every_beam_and_one_more_does_not() -> None:
    nothing = np.zeros((1, 2, len(GRID)))
    assert (RiskCurve(8, nothing).thresholds(0.1) == len(GRID) - 1).all()
    assert (RiskCurve(9, nothing).thresholds(0.1) == 0).all()


def test_scores_at_thresholds_are_those_of_the_sets() -> None:
    probs, power, pass_ids = windows_of(4, passes=6)
    curve, scores = curves_of(probs, power, pass_ids, STAND_INS)
    places = np.array([[3, 9], [12, 20]])
    for loss in range(2):
        coverages, beams = [], []
        for horizon in range(HORIZONS):
            ranked = RankedBeams.by_cover(probs[:, horizon], STAND_INS[loss])
            threshold = float(GRID[places[horizon, loss]])
            needed = ranked.needed(power[:, horizon], WITHIN_DB[loss])
            coverages.append(1.0 - losses_of_passes(needed, pass_ids, threshold).mean())
            beams.append(ranked.sizes(threshold).reshape(6, -1).mean())
        assert scores.at(places, loss) == pytest.approx((np.mean(coverages), np.mean(beams)))
    np.testing.assert_allclose(curve.missed / 6, scores.missed)


def test_curves_come_back_from_a_message() -> None:
    curve, scores = curves_of(*windows_of(5, passes=4), STAND_INS)
    back = curve_from(4.0, to_numbers(curve.missed), HORIZONS)
    np.testing.assert_allclose(back.missed, curve.missed, atol=1e-6)
    again = scores_from(to_numbers(scores.missed), to_numbers(scores.sizes), HORIZONS, BEAMS)
    np.testing.assert_allclose(again.sizes, scores.sizes, atol=1e-6)


def test_what_is_no_curve_is_refused() -> None:
    good = curves_of(*windows_of(5, passes=4), STAND_INS)[0].missed
    rising = good.copy()
    rising[0, 0, 5] = rising[0, 0, 4] + 1.0
    unfinished = np.maximum(good, 0.5)
    for passes, values, reason in [
        (4, good.ravel()[:-1], "expected 128 numbers"),
        (4.5, good, "whole passes"),
        (0, good, "whole passes"),
        (1, good + 2.0, "falls from at most its passes"),
        (4, -good - 1.0, "falls from at most its passes"),
        (4, rising, "falls from at most its passes"),
        (4, unfinished, "sets of all beams miss nothing"),
        (4, np.full_like(good, np.nan), "expected 128 numbers"),
    ]:
        with pytest.raises(ValueError, match=reason):
            curve_from(passes, np.asarray(values).ravel().tolist(), HORIZONS)
    with pytest.raises(ValueError, match="a set has from 1 to 16 beams"):
        scores_from((good / 4).ravel().tolist(), [17.0] * good.size, HORIZONS, BEAMS)
