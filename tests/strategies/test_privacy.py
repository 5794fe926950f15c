"""What leaves a client is as private as its account says."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm

from configs.seeding import rng_for
from strategies.privacy import (
    count_drawn,
    draw_windows,
    epsilon_spent,
    privatise,
    project_to_simplex,
    reveal_top1,
    sampling_bound,
)
from tests.conftest import tiny_experiment

NOISE = {"clip": 0.5, "noise_multiplier": 1.0}


def rows(count: int = 50, *, alpha: float = 0.1) -> NDArray[np.float32]:
    return rng_for(0, "rows").dirichlet(np.full(16, alpha), size=(count, 4)).astype(np.float32)


def exact_epsilon(sigma: float, delta: float) -> float:
    """Of one Gaussian mechanism with sensitivity 1: Balle and Wang, arXiv 1805.06530, theorem 8."""

    def excess(epsilon: float) -> float:
        a, b = 0.5 / sigma, epsilon * sigma
        return float(norm.cdf(a - b) - math.exp(epsilon) * norm.cdf(-a - b)) - delta

    return float(brentq(excess, 0.0, 500.0))


@pytest.mark.parametrize(("multiplier", "count"), [(1.0, 1), (4.0, 1), (20.0, 100), (60.0, 7000)])
def test_epsilon_is_an_upper_bound_that_is_close_to_the_exact_one(multiplier: float, count: int) -> None:
    # Releases with equal noise compose to one release with less noise.
    exact = exact_epsilon(multiplier / math.sqrt(count), 1e-5)
    told = epsilon_spent(count, noise_multiplier=multiplier, delta=1e-5)
    assert exact <= told <= 1.25 * exact + 0.05


def test_epsilon_grows_with_what_is_released_and_falls_with_noise() -> None:
    spent = [epsilon_spent(count, noise_multiplier=5.0, delta=1e-5) for count in (0, 1, 10, 100)]
    assert spent == sorted(spent) and spent[0] == 0.0
    assert epsilon_spent(10, noise_multiplier=9.0, delta=1e-5) < spent[2]
    assert epsilon_spent(10, noise_multiplier=0.0, delta=1e-5) == math.inf


def test_clipping_moves_rows_towards_uniform_and_by_no_more_than_needed() -> None:
    clipped = privatise(rows(), clip=0.3, noise_multiplier=0.0, rng=rng_for(0, "x"))
    sent = clipped - 1 / 16
    norms = np.sqrt((sent**2).sum(axis=(1, 2)))
    assert norms.max() <= 0.3 + 1e-5
    own = rows() - 1 / 16
    own_norms = np.sqrt((own**2).sum(axis=(1, 2)))
    factor = np.minimum(1.0, 0.3 / own_norms)[:, None, None]
    np.testing.assert_allclose(sent, own * factor, atol=1e-6)


def test_what_is_within_the_clip_and_has_no_noise_leaves_as_it_is() -> None:
    np.testing.assert_allclose(
        privatise(rows(), clip=2.0, noise_multiplier=0.0, rng=rng_for(0, "x")), rows(), atol=1e-6
    )


def test_noise_has_the_promised_scale_and_follows_from_the_generator() -> None:
    # Rows in the middle of a large simplex, so that hardly any value is projected to zero.
    flat = np.full((400, 4, 16), 1 / 16, np.float32)
    noisy = privatise(flat, clip=0.01, noise_multiplier=0.5, rng=rng_for(1, "noise"))
    # 2 * 0.01 * 0.5, less what the projection onto sum one takes: a sixteenth of the variance.
    assert noisy.std() == pytest.approx(0.01 * math.sqrt(15 / 16), rel=0.02)
    np.testing.assert_array_equal(noisy, privatise(flat, clip=0.01, noise_multiplier=0.5, rng=rng_for(1, "noise")))
    assert not np.array_equal(noisy, privatise(flat, clip=0.01, noise_multiplier=0.5, rng=rng_for(2, "noise")))


@pytest.mark.parametrize("multiplier", [0.1, 10.0, 1000.0])
def test_whatever_the_noise_rows_stay_on_the_simplex(multiplier: float) -> None:
    noisy = privatise(rows(), clip=1.0, noise_multiplier=multiplier, rng=rng_for(0, "x"))
    assert noisy.dtype == np.float32 and noisy.min() >= 0
    np.testing.assert_allclose(noisy.sum(axis=-1), 1.0, atol=1e-5)


def test_the_projection_on_hand_computed_rows() -> None:
    given = np.array([[0.2, 0.8], [1.5, 0.5], [0.6, 0.6], [-1.0, 0.0]])
    expected = np.array([[0.2, 0.8], [1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    np.testing.assert_allclose(project_to_simplex(given), expected, atol=1e-12)


def test_top1_keeps_the_best_and_evens_out_the_rest() -> None:
    np.testing.assert_allclose(
        reveal_top1(np.array([[[0.1, 0.7, 0.2, 0.0]]], np.float32)), [[[0.1, 0.7, 0.1, 0.1]]], atol=1e-7
    )


def test_the_bound_of_sampling_by_hand() -> None:
    epsilon, delta = sampling_bound(2, 4)
    assert epsilon == pytest.approx(2 * math.log(5 / 4))
    assert delta == pytest.approx(1 - (3 / 4) ** 2)


def test_windows_are_drawn_with_replacement_and_kept_once() -> None:
    windows = np.arange(100, 300)
    drawn = draw_windows(windows, 0.5, rng_for(0, "windows"))
    # Of a hundred draws from two hundred, 200 (1 - (199 / 200)^100) = 78.8 differ, with a s.d. of 3.6; four of them.
    assert 64 <= len(drawn) <= 94
    assert np.all(np.isin(drawn, windows)) and np.all(np.diff(drawn) > 0)
    np.testing.assert_array_equal(drawn, draw_windows(windows, 0.5, rng_for(0, "windows")))


@pytest.mark.parametrize(("num_owned", "share", "expected"), [(200, 0.5, 100), (5, 0.3, 2), (1, 0.001, 1), (7, 1.0, 7)])
def test_the_share_of_the_windows_is_rounded_and_at_least_one(num_owned: int, share: float, expected: int) -> None:
    assert count_drawn(num_owned, share) == expected


@pytest.mark.parametrize(
    ("strategy", "text"),
    [
        ({"name": "fedproto", "privacy": {"clip": 0.5}}, r"strategy\.privacy: fedproto sends no soft labels"),
        ({"name": "fedavg", "privacy": {"reveal": "top1"}}, r"strategy\.privacy: fedavg sends no soft labels"),
        ({"name": "local", "privacy": NOISE}, r"strategy\.privacy: local sends no soft labels"),
        ({"name": "centralised", "privacy": NOISE}, r"strategy\.privacy: centralised sends no soft labels"),
        (
            {"name": "centralised", "privacy": {"window_share": 0.5}},
            r"privacy\.window_share: centralised pools",
        ),
        ({"name": "fd", "privacy": NOISE}, r"strategy\.privacy\.noise_multiplier: fd tells which beams"),
        ({"name": "selective", "privacy": NOISE}, r"strategy\.privacy\.noise_multiplier: which samples pass"),
        ({"answer_filter": "confidence", "privacy": NOISE}, "answer_filter confidence says something"),
    ],
)
def test_privacy_that_would_protect_nothing_or_not_enough_is_refused(strategy: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        tiny_experiment(**strategy)


@pytest.mark.parametrize(
    "strategy",
    [
        {"name": "fd", "privacy": {"reveal": "top1", "window_share": 0.5}},
        {"name": "fedavg", "privacy": {"window_share": 0.5}},
        {"name": "scarlet", "privacy": NOISE},
        {"name": "selective", "privacy": {"clip": 0.5}},
    ],
)
def test_privacy_that_has_its_effect_is_allowed(strategy: dict[str, Any]) -> None:
    assert tiny_experiment(**strategy).strategy.name == strategy["name"]
