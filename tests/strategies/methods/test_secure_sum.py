"""Masked sums are the plain sums, to the bit, whoever drops out; a masked answer alone says nothing."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray

from configs.seeding import rng_for
from strategies.methods.secure_sum import NONCE_BYTES, Scale, SecureKey, check_summands, context_of, sum_masked

IDS = np.arange(3)
NONCE = bytes(NONCE_BYTES)


def levels(client: int, scale: Scale) -> NDArray[np.unsignedinteger]:
    probs = rng_for(0, "levels", client).dirichlet(np.full(8, 0.3), size=(3, 2)).astype(np.float32)
    return scale.quantise(probs)


def masked_round(count: int, dropped: set[int]) -> tuple[NDArray[np.unsignedinteger], NDArray[np.unsignedinteger]]:
    """(plain sum, masked sum) of those that did not drop out."""
    scale, context = Scale(count), context_of("run", 4, IDS, NONCE)
    keys = [SecureKey() for _ in range(count)]
    public = [key.public for key in keys]
    survivors = [number for number in range(count) if number not in dropped]
    masked = {
        public[n]: keys[n].mask(levels(n, scale), [key for key in public if key != public[n]], context)
        for n in survivors
    }
    revealed = {(public[n], public[d]): keys[n].seed(public[d], context) for n in survivors for d in dropped}
    plain = sum((levels(n, scale) for n in survivors), np.zeros((3, 2, 8), scale.dtype))
    return plain, sum_masked(masked, public, revealed)


@pytest.mark.parametrize("count", [2, 3, 8, 20, 65])
def test_a_masked_sum_is_the_plain_sum_exactly(count: int) -> None:
    plain, total = masked_round(count, set())
    np.testing.assert_array_equal(total, plain)
    assert total.dtype == plain.dtype


@pytest.mark.parametrize("dropped", [{0}, {4}, {1, 2}, {0, 2, 3}])
def test_it_is_the_plain_sum_of_those_that_stayed_when_some_drop_out(dropped: set[int]) -> None:
    plain, total = masked_round(5, dropped)
    np.testing.assert_array_equal(total, plain)


def test_the_order_of_answers_does_not_matter() -> None:
    scale, context = Scale(3), context_of("run", 1, IDS, NONCE)
    keys = [SecureKey() for _ in range(3)]
    public = [key.public for key in keys]
    masked = {
        key.public: key.mask(levels(n, scale), [other for other in public if other != key.public], context)
        for n, key in enumerate(keys)
    }
    totals = [sum_masked({key: masked[key] for key in order}, public, {}) for order in permutations(public)]
    for total in totals[1:]:
        np.testing.assert_array_equal(total, totals[0])


@pytest.mark.parametrize("count", [2, 20, 64, 65, 1000])
def test_levels_of_all_clients_fit_their_words_and_are_fine_enough(count: int) -> None:
    scale = Scale(count)
    certain = scale.quantise(np.ones((1, 1, 1), np.float32)).astype(np.int64)
    assert count * int(certain.max()) <= np.iinfo(scale.dtype).max
    assert scale.levels >= 1000
    probs = rng_for(0, "fine").random((4, 2, 8)).astype(np.float32)
    assert np.abs(scale.quantise(probs) / scale.levels - probs).max() <= 0.5 / scale.levels + 1e-7


@pytest.mark.parametrize(("count", "num_beams"), [(2, 1024), (4, 1024), (5, 1024), (64, 64), (65, 64), (1000, 2)])
def test_a_flat_row_of_any_number_of_beams_has_levels(count: int, num_beams: int) -> None:
    scale = Scale(count, num_beams)
    flat = np.full((1, 1, num_beams), 1 / num_beams, np.float32)
    assert count * scale.levels <= np.iinfo(scale.dtype).max
    assert scale.quantise(flat).min() >= 15
    assert scale.dtype.itemsize == (2 if count * num_beams <= 4096 else 4)


def test_a_masked_answer_looks_like_noise() -> None:
    scale, context = Scale(2), context_of("run", 1, np.arange(500), NONCE)
    one, other = SecureKey(), SecureKey()
    masked = one.mask(np.zeros((500, 4, 64), scale.dtype), [other.public], context)
    counts = np.bincount(masked.view(np.uint8).ravel(), minlength=256)
    expected = masked.nbytes / 256
    # Chi-square of 255 degrees of freedom: mean 255, s.d. 22.6; six s.d. either way.
    assert abs(np.sum((counts - expected) ** 2 / expected) - 255) < 136


def test_masks_of_other_rounds_runs_samples_or_attempts_are_others() -> None:
    one, other = SecureKey(), SecureKey()
    contexts = [
        context_of("run", 1, IDS, NONCE),
        context_of("run", 2, IDS, NONCE),
        context_of("r", 1, IDS, NONCE),
        context_of("run", 1, IDS + 1, NONCE),
        context_of("run", 1, IDS, bytes([1]) + NONCE[1:]),
    ]
    assert len({one.seed(other.public, context) for context in contexts}) == 5
    assert one.seed(other.public, contexts[0]) == other.seed(one.public, contexts[0])


def test_a_key_goes_on_after_it_was_stored() -> None:
    key, other = SecureKey(), SecureKey()
    again = SecureKey(key.private_bytes())
    assert again.public == key.public
    assert again.seed(other.public, b"x") == key.seed(other.public, b"x")


def test_two_are_enough_for_a_sum() -> None:
    check_summands(2)


def test_what_would_show_an_answer_or_cannot_be_unmasked_is_refused() -> None:
    scale, context = Scale(3), context_of("run", 1, IDS, NONCE)
    keys = [SecureKey() for _ in range(3)]
    public = [key.public for key in keys]
    masked = {key.public: key.mask(levels(0, scale), [k for k in public if k != key.public], context) for key in keys}
    with pytest.raises(ValueError, match="a sum of 1 would show an answer; it takes 2 or more"):
        sum_masked({public[0]: masked[public[0]]}, public, {})
    with pytest.raises(ValueError, match="did not tell the seed"):
        sum_masked({key: masked[key] for key in public[:2]}, public, {(public[0], public[2]): bytes(32)})
    with pytest.raises(ValueError, match="not asked"):
        sum_masked(masked, public[:2], {})
    with pytest.raises(ValueError, match="differ in shape"):
        sum_masked({**masked, public[0]: masked[public[0]][:1]}, public, {})
    with pytest.raises(ValueError, match="32 bytes"):
        keys[0].seed(b"short", context)
    with pytest.raises(ValueError, match="must not be this client's own key"):
        keys[0].seed(public[0], context)
