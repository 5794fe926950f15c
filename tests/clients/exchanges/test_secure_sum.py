"""A client masks, and tells seeds, only where a sum of several answers is all that the server can make of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clients.cohort import alone
from clients.context import ClientContext
from clients.exchanges.secure_sum import own_key, reveal
from clients.handlers import take_round
from clients.profile import profiles_of
from strategies.messages.wire import Header, Request, WireError
from strategies.methods.secure_sum import NONCE_BYTES, Scale, SecureKey, context_of
from tests.conftest import tiny_experiment
from tests.federations import place

IDS = np.arange(6)
NONCE = np.arange(NONCE_BYTES, dtype=np.uint8)
PEERS = [SecureKey(bytes([number]) * 32) for number in (1, 2)]


@pytest.fixture
def context(tmp_path: Path) -> ClientContext:
    placement = place(
        tiny_experiment(secure_sum=True, aggregator={"name": "mean"}, codec="float32", public_samples=6), tmp_path
    )
    (profile,) = profiles_of({"partition-id": 0}, placement.federation)
    return ClientContext(profile, placement, Header("run", "e", "s", 1, "secure_sum"))


def table(keys: list[bytes]) -> NDArray[np.uint8]:
    return np.array([list(key) for key in keys], np.uint8).reshape(-1, 32)


def request(context: ClientContext, peers: list[SecureKey], **changes: Any) -> Request:
    keys = table([own_key(context).public, *(peer.public for peer in peers)])
    arrays = {"keys": keys, "nonce": NONCE, **changes}
    return Request(ask=IDS, arrays={name: array for name, array in arrays.items() if array is not None})


def dropped(*peers: SecureKey) -> Request:
    return Request(arrays={"dropped": table([peer.public for peer in peers])})


def levels_under(context: ClientContext, masked: NDArray[Any], nonce: NDArray[np.uint8]) -> NDArray[Any]:
    """What is left of an answer once the masks of its pairs are taken off, as its peers could together."""
    masks = context_of("run", 1, IDS, nonce.tobytes())
    for peer in PEERS:
        # A peer adds what this client subtracts.
        masked = masked + peer.mask(np.zeros_like(masked), [own_key(context).public], masks)
    return masked


def test_an_answer_is_a_distribution_under_the_masks_of_this_attempt_alone(context: ClientContext) -> None:
    first = alone(take_round(context, request(context, PEERS))).arrays["masked"]
    other_nonce = NONCE[::-1].copy()
    again = alone(take_round(context, request(context, PEERS, nonce=other_nonce))).arrays["masked"]
    levels = levels_under(context, first, NONCE)
    sums = levels.astype(np.int64).sum(axis=-1)
    # Each of 64 beams is off by half a level at most.
    assert np.abs(sums - Scale(3).levels).max() <= 32
    # The round that is done again has the same answer under other masks, so their difference shows nothing.
    np.testing.assert_array_equal(levels_under(context, again, other_nonce), levels)
    assert (first == again).mean() < 0.01


def test_a_client_alone_in_a_round_refuses(context: ClientContext) -> None:
    with pytest.raises(ValueError, match="a sum of 1 would show an answer; it takes 2 or more"):
        alone(take_round(context, request(context, [])))


def test_one_s_own_key_given_twice_is_no_company(context: ClientContext) -> None:
    twice = table([own_key(context).public] * 2)
    with pytest.raises(ValueError, match="a sum of 1 would show an answer"):
        alone(take_round(context, request(context, [], keys=twice)))


@pytest.mark.parametrize("nonce", [None, NONCE[:-1], NONCE.astype(np.uint16)])
def test_without_the_number_of_an_attempt_there_is_no_answer(context: ClientContext, nonce: Any) -> None:
    with pytest.raises(WireError, match=r"expected a nonce as uint8 \(32,\)"):
        alone(take_round(context, request(context, PEERS, nonce=nonce)))


def test_seeds_of_one_that_dropped_out_are_those_of_this_attempt(context: ClientContext) -> None:
    alone(take_round(context, request(context, PEERS)))
    seeds = reveal(context, dropped(PEERS[1])).arrays["seeds"]
    masks = context_of("run", 1, IDS, NONCE.tobytes())
    assert [row.tobytes() for row in seeds] == [PEERS[1].seed(own_key(context).public, masks)]


def test_seeds_that_would_leave_this_client_alone_are_not_told(context: ClientContext) -> None:
    alone(take_round(context, request(context, PEERS)))
    with pytest.raises(ValueError, match="a sum of 1 would show an answer"):
        reveal(context, dropped(*PEERS))
    with pytest.raises(ValueError, match="must not be this client's own key"):
        reveal(context, Request(arrays={"dropped": table([own_key(context).public])}))


def test_seeds_of_a_round_are_told_once(context: ClientContext) -> None:
    alone(take_round(context, request(context, PEERS)))
    reveal(context, dropped(PEERS[0]))
    # With those of the other, too, nothing would be left over the answer.
    with pytest.raises(WireError, match="told seeds of it before"):
        reveal(context, dropped(PEERS[1]))
    # The client has forgotten the round's masks, and nothing else.
    state = context.memory().load(before_round=2)
    assert state is not None
    assert {"known_round", "targets", "answers"} <= set(state["exchange"])
    assert state["learner"]["progress"]["round"] == 1


def test_seeds_of_a_round_that_was_not_answered_are_not_told(context: ClientContext) -> None:
    with pytest.raises(WireError, match="did not answer round 1"):
        reveal(context, dropped(PEERS[0]))
