"""What clients hold is worked out once for all that knew and got the same, and anew for everybody else."""

from __future__ import annotations

import numpy as np
import pytest

from clients.exchanges.labels import held_targets
from configs.seeding import rng_for
from strategies.cache import CachedLabels
from strategies.codecs.encoding import EncodedLabels, Encoding
from strategies.labels import SoftLabels

ENCODING = Encoding("uint4+delta", 2, 8)


def cached(round_number: int, ids: list[int]) -> CachedLabels:
    probs = rng_for(0, "held", round_number).dirichlet(np.full(8, 0.5), (len(ids), 2)).astype(np.float32)
    return ENCODING.encode(SoftLabels(np.array(ids), probs, 2.0), round_number)


def same(one: EncodedLabels) -> EncodedLabels:
    """Equal labels, as another message brings them."""
    return EncodedLabels(one.ids.copy(), one.values.copy(), one.rounds.copy(), one.is_delta)


def test_clients_that_knew_and_got_the_same_hold_one_object() -> None:
    known, sent = cached(1, [0, 1, 2]), ENCODING.pack(cached(2, [1, 3]))
    held, digest = held_targets(ENCODING, known, sent, now=3, lifetime=None)
    again, same_digest = held_targets(ENCODING, cached(1, [0, 1, 2]), same(sent), now=3, lifetime=None)
    assert again is held and same_digest == digest == held.digest()
    np.testing.assert_array_equal(held.sample_ids, [0, 1, 2, 3])
    np.testing.assert_array_equal(held.rounds, [1, 2, 1, 2])


@pytest.mark.parametrize("what", ["known", "sent", "nothing sent", "round", "lifetime"])
def test_whoever_differs_holds_something_else(what: str) -> None:
    known, sent = cached(1, [0, 1, 2]), ENCODING.pack(cached(2, [1, 3]))
    held, _ = held_targets(ENCODING, known, sent, now=3, lifetime=2)
    others: dict[str, tuple[CachedLabels, EncodedLabels | None, int, int | None]] = {
        "known": (cached(1, [0, 1]), sent, 3, 2),
        "sent": (known, ENCODING.pack(cached(2, [1, 4])), 3, 2),
        "nothing sent": (known, None, 3, 2),
        "round": (known, sent, 4, 2),
        "lifetime": (known, sent, 3, 1),
    }
    other_known, other_sent, now, lifetime = others[what]
    other, digest = held_targets(ENCODING, other_known, other_sent, now=now, lifetime=lifetime)
    assert other is not held and digest == other.digest()
    fresh = other_known.fresh(now, lifetime)
    if other_sent is not None:
        fresh = fresh.update(ENCODING.unpack(other_sent)).fresh(now, lifetime)
    np.testing.assert_array_equal(other.sample_ids, fresh.sample_ids)
    np.testing.assert_array_equal(other.payload, fresh.payload)


def test_a_difference_against_what_nobody_holds_is_refused_each_time() -> None:
    known = cached(1, [0, 1, 2])
    sent = ENCODING.pack(cached(2, [1, 3]), reference=known)
    damaged = EncodedLabels(sent.ids, sent.values[:-2], sent.rounds, sent.is_delta)
    for _ in range(2):
        with pytest.raises(ValueError, match="expand"):
            held_targets(ENCODING, known, damaged, now=3, lifetime=None)
