"""Prototypes by hand: who counts how much for a beam, what stays, and who is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from strategies.messages.mailbox import Outcome
from strategies.messages.records import Member
from strategies.messages.wire import Reply, Request, WireError
from strategies.methods.base import RoundPlan
from strategies.methods.classes import Prototypes, PrototypeStrategy
from tests.made_up import build, experiment

MEMBER = Member("000-gps", "gps", 100, 2, 7)


def fedproto() -> tuple[PrototypeStrategy, RoundPlan]:
    strategy = build(PrototypeStrategy, experiment())
    return strategy, strategy.prepare(1)


def answered(beams: list[int], features: list[list[float]], counts: list[int]) -> dict[str, NDArray[Any]]:
    rows = np.array(features, np.float16)
    return {"classes": np.array(beams, np.uint16), "features": rows, "counts": np.array(counts, np.uint32)}


def take(strategy: PrototypeStrategy, plan: RoundPlan, arrays: dict[str, NDArray[Any]]) -> Prototypes:
    reply = Reply(arrays=arrays)
    return strategy.accept(MEMBER, Outcome(MEMBER.id, 1, Request(), reply), reply, plan)


def known(strategy: PrototypeStrategy) -> dict[int, list[float]]:
    arrays = strategy.state.arrays
    return dict(zip(arrays["classes"].tolist(), arrays["features"].tolist(), strict=True))


def test_a_prototype_is_the_mean_over_those_who_have_seen_the_beam_by_how_often() -> None:
    strategy, plan = fedproto()
    contributions = [
        take(strategy, plan, answered([3, 7], [[1.0, 0.0], [4.0, 4.0]], [3, 2])),
        take(strategy, plan, answered([3], [[5.0, 8.0]], [1])),
    ]
    assert strategy.conclude(contributions, plan) == 2
    # Beam 3: (3 * 1 + 1 * 5) / 4 and (3 * 0 + 1 * 8) / 4; beam 7 was seen by one.
    assert known(strategy) == {3: [2.0, 2.0], 7: [4.0, 4.0]}


def test_beams_that_nobody_answered_keep_their_prototype() -> None:
    strategy, plan = fedproto()
    strategy.conclude([take(strategy, plan, answered([3, 7], [[1.0, 1.0], [2.0, 2.0]], [1, 1]))], plan)
    plan = strategy.prepare(2)
    assert strategy.conclude([take(strategy, plan, answered([7, 9], [[6.0, 6.0], [0.0, 1.0]], [1, 1]))], plan) == 2
    assert known(strategy) == {3: [1.0, 1.0], 7: [6.0, 6.0], 9: [0.0, 1.0]}
    assert strategy.conclude([], strategy.prepare(3)) == 0
    assert known(strategy)[7] == [6.0, 6.0]


def test_features_of_another_size_are_refused_and_the_others_count() -> None:
    strategy, plan = fedproto()
    first = take(strategy, plan, answered([3], [[1.0, 1.0]], [1]))
    with pytest.raises(WireError, match="have 3 values, those of others 2"):
        take(strategy, plan, answered([3], [[1.0, 1.0, 1.0]], [1]))
    strategy.conclude([first], plan)
    plan = strategy.prepare(2)
    with pytest.raises(WireError, match="have 1 values, those of others 2"):
        take(strategy, plan, answered([3], [[1.0]], [1]))


def test_a_client_that_has_seen_no_beam_says_nothing_about_the_size() -> None:
    strategy, plan = fedproto()
    nothing: dict[str, NDArray[Any]] = {
        "classes": np.empty(0, np.uint16),
        "features": np.empty((0, 5), np.float16),
        "counts": np.empty(0, np.uint32),
    }
    contributions = [take(strategy, plan, nothing), take(strategy, plan, answered([3], [[1.0, 2.0]], [4]))]
    assert strategy.conclude(contributions, plan) == 1
    assert known(strategy) == {3: [1.0, 2.0]}
