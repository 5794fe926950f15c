"""A client that was away gets exactly what it lacks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from strategies.caching import TargetCache
from strategies.labels import SoftLabels


def targets(ids: Sequence[int], beam: int) -> SoftLabels:
    probs = np.zeros((len(ids), 1, 4), np.float32)
    probs[..., beam] = 1.0
    return SoftLabels(np.array(ids, np.int64), probs, 2.0)


def three_rounds() -> TargetCache:
    cache = TargetCache().publish(targets([0, 1, 2], 0), 1)
    cache = cache.publish(targets([2, 3], 1), 2)
    return cache.publish(targets([0, 9], 2), 3)


def ids_newer_than(cache: TargetCache, round_number: int) -> list[int]:
    newer = cache.newer_than(round_number)
    return [] if newer is None else newer.sample_ids.tolist()


def test_before_anything_was_published_nobody_lacks_anything() -> None:
    assert TargetCache().newer_than(0) is None


def test_a_newcomer_gets_the_newest_target_of_every_sample() -> None:
    everything = three_rounds().newer_than(0)
    assert everything is not None
    np.testing.assert_array_equal(everything.sample_ids, [0, 1, 2, 3, 9])
    np.testing.assert_array_equal(everything.probs[:, 0].argmax(axis=-1), [2, 0, 1, 1, 2])


def test_a_client_gets_what_was_published_after_the_round_up_to_which_it_holds_targets() -> None:
    cache = three_rounds()
    assert ids_newer_than(cache, 1) == [0, 2, 3, 9]
    assert ids_newer_than(cache, 2) == [0, 9]


def test_a_client_that_holds_the_newest_lacks_nothing() -> None:
    assert three_rounds().newer_than(3) is None
    assert three_rounds().newer_than(4) is None


def test_a_client_that_was_away_ends_with_the_targets_of_one_that_never_was() -> None:
    cache, present = TargetCache(), None
    for number, published in enumerate((targets([0, 1, 2], 0), targets([2, 3], 1), targets([0, 9], 2)), start=1):
        cache = cache.publish(published, number)
        news = cache.newer_than(number - 1)
        assert news is not None
        present = news if present is None else present.update(news)
    absent = cache.newer_than(0)
    assert present is not None
    assert absent is not None
    np.testing.assert_array_equal(absent.sample_ids, present.sample_ids)
    np.testing.assert_array_equal(absent.probs, present.probs)


def test_publishing_leaves_the_older_cache_as_it_was() -> None:
    first = TargetCache().publish(targets([0, 1], 0), 1)
    first.publish(targets([1, 2], 3), 2)
    assert ids_newer_than(first, 0) == [0, 1]
    assert first.labels is not None
    np.testing.assert_array_equal(first.labels.probs[:, 0].argmax(axis=-1), [0, 0])
