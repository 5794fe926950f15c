"""One root seed, many streams: stable, independent, and in any order."""

from __future__ import annotations

import numpy as np
import pytest

from configs.seeding import rng_for, seed_for


def test_a_seed_is_the_same_on_every_machine_for_ever() -> None:
    # sha256("7/str:client/int:3/str:training"): first eight bytes, big-endian, halved.
    assert seed_for(7, "client", 3, "training") == 8_773_617_867_730_503_387


def test_a_seed_has_63_bits() -> None:
    seeds = [seed_for(0, "draw", number) for number in range(1000)]
    assert min(seeds) >= 0
    assert 2**62 <= max(seeds) < 2**63


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((0, "a"), (1, "a")),
        ((0, "a"), (0, "b")),
        ((0, "a", 1), (0, "a", 2)),
        ((0, 1), (0, "1")),
        ((0, "a", "b"), (0, "b", "a")),
        ((0, "a"), (0, "a", "a")),
        ((0,), (0, 0)),
        ((1, 11), (11, 1)),
    ],
)
def test_streams_with_other_names_have_other_seeds(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    assert seed_for(*one) != seed_for(*other)


def test_no_two_of_ten_thousand_streams_share_a_seed() -> None:
    seeds = {
        seed_for(root, "client", client, "round", r) for root in range(10) for client in range(50) for r in range(20)
    }
    assert len(seeds) == 10_000


def test_a_stream_does_not_depend_on_what_was_drawn_from_another() -> None:
    alone = rng_for(0, "b").random(4)
    rng_for(0, "a").random(1000)
    np.testing.assert_array_equal(rng_for(0, "b").random(4), alone)


def test_streams_of_neighbouring_clients_are_not_correlated() -> None:
    draws = np.stack([rng_for(0, "client", client).standard_normal(2000) for client in range(8)])
    correlation = np.corrcoef(draws) - np.eye(8)
    assert np.abs(correlation).max() < 5 / np.sqrt(2000)  # five standard errors
