"""Who holds what: a client that was away gets exactly what it lacks, and freshness is one rule on both sides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from strategies.cache import KEPT_PUBLICATIONS, CachedLabels, TargetCache, is_fresh

NOTHING = CachedLabels(np.empty(0, np.int64), np.empty((0, 2), np.uint8), np.empty(0, np.int64))


def made(round_number: int, ids: Sequence[int], value: int = 0) -> CachedLabels:
    payload = np.full((len(ids), 2), value or round_number, np.uint8)
    return CachedLabels(np.array(ids, np.int64), payload, np.full(len(ids), round_number))


def three_rounds() -> TargetCache:
    return TargetCache(NOTHING).publish(made(1, [0, 1, 2])).publish(made(2, [2, 3])).publish(made(3, [0, 9]))


def newer(cache: TargetCache, round_number: int) -> list[int]:
    return cache.newest.newer_than(round_number).sample_ids.tolist()


def test_before_anything_was_published_nobody_lacks_anything() -> None:
    assert newer(TargetCache(NOTHING), -1) == []


def test_a_newcomer_gets_the_newest_target_of_every_sample() -> None:
    everything = three_rounds().newest
    np.testing.assert_array_equal(everything.sample_ids, [0, 1, 2, 3, 9])
    np.testing.assert_array_equal(everything.payload[:, 0], [3, 1, 2, 2, 3])
    np.testing.assert_array_equal(everything.rounds, [3, 1, 2, 2, 3])


def test_a_client_gets_what_was_made_after_the_round_up_to_which_it_holds_targets() -> None:
    assert newer(three_rounds(), 1) == [0, 2, 3, 9]
    assert newer(three_rounds(), 2) == [0, 9]
    assert newer(three_rounds(), 3) == []


def test_a_client_that_was_away_ends_with_the_targets_of_one_that_never_was() -> None:
    present, absent = made(1, [0, 1, 2]), made(1, [0, 1, 2])
    for publication in (made(2, [2, 3]), made(3, [0, 9])):
        present = present.update(publication)
    absent = absent.update(three_rounds().newest.newer_than(1))
    assert absent.digest() == present.digest() == three_rounds().newest.digest()


@pytest.mark.parametrize("known", [0, 1, 2, 3])
def test_what_a_client_holds_is_known_to_the_server(known: int) -> None:
    held = NOTHING
    for publication in (made(1, [0, 1, 2]), made(2, [2, 3]), made(3, [0, 9]))[:known]:
        held = held.update(publication)
    found = three_rounds().held_at(known)
    assert found is not None
    assert found.digest() == held.digest()


def test_what_a_client_held_too_long_ago_is_not_known() -> None:
    cache = TargetCache(NOTHING)
    for number in range(1, KEPT_PUBLICATIONS + 2):
        cache = cache.publish(made(number, [number]))
    assert cache.held_at(0) is None
    at_one = cache.held_at(1)
    assert at_one is not None
    assert at_one.sample_ids.tolist() == [1]
    assert cache.newest.sample_ids.tolist() == list(range(1, KEPT_PUBLICATIONS + 2))


def test_publishing_leaves_the_older_cache_as_it_was_and_nothing_changes_nothing() -> None:
    first = TargetCache(NOTHING).publish(made(1, [0, 1]))
    first.publish(made(2, [1, 2]))
    assert first.newest.digest() == made(1, [0, 1]).digest()
    assert first.publish(NOTHING) == first


def test_a_target_is_fresh_up_to_its_lifetime_and_stale_the_round_after() -> None:
    assert is_fresh(4, 4, 2) and is_fresh(4, 6, 2)
    assert not is_fresh(4, 7, 2)
    assert is_fresh(4, 10**6, None)
    np.testing.assert_array_equal(three_rounds().newest.fresh(4, 2).sample_ids, [0, 2, 3, 9])
    np.testing.assert_array_equal(three_rounds().newest.fresh(5, 2).sample_ids, [0, 9])
    assert len(three_rounds().newest.fresh(6, 2)) == 0


def test_rows_that_are_not_held_are_zeros() -> None:
    rows = made(5, [1, 4]).rows_of(np.array([0, 1, 4, 7]))
    np.testing.assert_array_equal(rows, [[0, 0], [5, 5], [5, 5], [0, 0]])
    np.testing.assert_array_equal(NOTHING.rows_of(np.array([3])), [[0, 0]])


def test_cached_labels_that_differ_in_anything_have_other_digests() -> None:
    one = made(1, [0, 1])
    others = [made(2, [0, 1], value=1), made(1, [0, 2]), made(1, [0, 1], value=9), made(1, [0])]
    assert len({one.digest(), *(other.digest() for other in others)}) == 5
    assert one.digest() == made(1, [0, 1]).digest()
