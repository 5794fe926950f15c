"""Later windows correct what was foretold of their slots, within a pass, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from configs.seeding import rng_for
from strategies.aggregation import confidence
from strategies.hindsight import NONE, later_samples, with_hindsight
from strategies.labels import SoftLabels

HORIZONS, BEAMS = 4, 8


def drawn(num_samples: int, *, seed: int = 0, ids: NDArray[np.int64] | None = None) -> SoftLabels:
    probs = rng_for(seed, "hindsight").dirichlet(np.full(BEAMS, 0.3), (num_samples, HORIZONS))
    return SoftLabels(np.arange(num_samples) if ids is None else ids, probs.astype(np.float32), 2.0)


def test_a_later_sample_ends_so_many_slots_later_in_the_same_pass() -> None:
    # Two passes of five and of four frames, and windows that begin at all frames but one.
    passes = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1])
    starts = np.array([0, 1, 2, 4, 5, 6])
    assert later_samples(starts, passes, 3).tolist() == [
        [0, 1, 2],
        [1, 2, NONE],
        [2, NONE, 3],
        [3, NONE, NONE],
        [4, 5, NONE],
        [5, NONE, NONE],
    ]


def test_without_samples_there_are_no_later_ones() -> None:
    assert later_samples(np.empty(0, np.int64), np.zeros(3, np.int64), 4).shape == (0, 4)


def test_each_row_pools_all_answers_for_its_slot_by_their_certainty() -> None:
    labels = drawn(6)
    later = later_samples(np.arange(6), np.array([0, 0, 0, 0, 1, 1, 1, 1, 1]), HORIZONS)
    found = with_hindsight(labels, later)
    passes = [0, 0, 0, 0, 1, 1]
    for n in range(6):
        for h in range(HORIZONS):
            answers = [(n + k, h - k) for k in range(h + 1) if n + k < 6 and passes[n + k] == passes[n]]
            probs = np.array([labels.probs[row].astype(np.float64) for row in answers])
            weights = confidence(probs, 1.0)
            np.testing.assert_allclose(found.probs[n, h], weights @ probs / weights.sum(), rtol=1e-5)


def test_answers_for_now_and_those_of_the_last_window_stay() -> None:
    labels = drawn(5)
    found = with_hindsight(labels, later_samples(np.arange(5), np.zeros(9, np.int64), HORIZONS))
    np.testing.assert_allclose(found.probs[:, 0], labels.probs[:, 0], rtol=1e-6)
    np.testing.assert_allclose(found.probs[-1], labels.probs[-1], rtol=1e-6)
    assert found.temperature == labels.temperature and np.array_equal(found.sample_ids, labels.sample_ids)


def test_samples_that_nobody_answered_say_nothing() -> None:
    later = later_samples(np.arange(9), np.zeros(12, np.int64), HORIZONS)
    labels = drawn(3, ids=np.array([0, 4, 8]))
    np.testing.assert_allclose(with_hindsight(labels, later).probs, labels.probs, rtol=1e-6)
    assert len(with_hindsight(drawn(0), later)) == 0


def test_where_nobody_is_certain_of_anything_the_answers_stay() -> None:
    uniform = SoftLabels(np.arange(4), np.full((4, HORIZONS, BEAMS), 1 / BEAMS, np.float32), 1.0)
    later = later_samples(np.arange(4), np.zeros(7, np.int64), HORIZONS)
    np.testing.assert_allclose(with_hindsight(uniform, later).probs, uniform.probs)


@pytest.mark.parametrize("certainty", [0.6, 0.9])
def test_it_finds_the_beams_of_slots_ahead_where_later_windows_know_them(certainty: float) -> None:
    """Who foretells chance and knows the beam of now teaches the beams to come."""
    beams = rng_for(0, "beams").integers(BEAMS, size=20)
    probs = np.full((20, HORIZONS, BEAMS), 1 / BEAMS)
    probs[:, 0] = (1 - certainty) / (BEAMS - 1)
    probs[np.arange(20), 0, beams] = certainty
    later = later_samples(np.arange(20), np.zeros(23, np.int64), HORIZONS)
    found = with_hindsight(SoftLabels(np.arange(20), probs.astype(np.float32), 1.0), later)
    for ahead in range(HORIZONS):
        assert np.array_equal(found.probs[: 20 - ahead, ahead].argmax(axis=-1), beams[ahead:])
