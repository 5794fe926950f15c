"""Which public samples are asked for."""

from __future__ import annotations

import numpy as np
import pytest

from configs.seeding import rng_for
from strategies.methods.distillation import RUN_LENGTH, draw_samples


@pytest.mark.parametrize("num_public", [1, RUN_LENGTH, 100, 1001])
@pytest.mark.parametrize("wanted", [1, RUN_LENGTH - 1, RUN_LENGTH, RUN_LENGTH + 1, 60, 999])
def test_samples_are_as_many_as_wanted_sorted_and_known(num_public: int, wanted: int) -> None:
    for draw in range(20):
        chosen = draw_samples(num_public, wanted, rng_for(0, "sampling", draw))
        assert len(chosen) == min(wanted, num_public)
        assert np.all(np.diff(chosen) > 0)
        assert chosen[0] >= 0
        assert chosen[-1] < num_public
        assert chosen.dtype == np.int64


@pytest.mark.parametrize("wanted", [0, 100, 101])
def test_none_or_too_many_wanted_takes_all(wanted: int) -> None:
    np.testing.assert_array_equal(draw_samples(100, wanted, rng_for(0)), np.arange(100))


def test_the_same_stream_chooses_the_same_samples_and_another_does_not() -> None:
    chosen = draw_samples(1000, 100, rng_for(0, "public", 1))
    np.testing.assert_array_equal(draw_samples(1000, 100, rng_for(0, "public", 1)), chosen)
    assert not np.array_equal(draw_samples(1000, 100, rng_for(0, "public", 2)), chosen)


def test_most_samples_have_their_neighbour_with_them() -> None:
    chosen = draw_samples(10_000, 1600, rng_for(0, "runs"))
    assert np.mean(np.diff(chosen) == 1) > 0.9  # 15 of 16 in a run


def test_over_many_rounds_every_sample_has_its_turn_about_as_often_as_another() -> None:
    counts = np.zeros(200)
    for draw in range(2000):
        counts[draw_samples(200, 50, rng_for(0, "fair", draw))] += 1
    np.testing.assert_allclose(counts / 2000, 0.25, atol=0.08)  # the runs at both ends are shorter
