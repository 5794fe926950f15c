"""FedAvg by hand: who is averaged with whom, by what, and who is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from strategies.messages.mailbox import Outcome
from strategies.messages.records import Member
from strategies.messages.wire import Reply, Request, WireError
from strategies.methods.base import RoundPlan
from strategies.methods.baselines import FedAvgStrategy
from tests.made_up import build, experiment


def fedavg() -> tuple[FedAvgStrategy, RoundPlan]:
    strategy = build(FedAvgStrategy, experiment())
    return strategy, strategy.prepare(1)


def weights(*values: float, name: str = "gru") -> dict[str, NDArray[np.float32]]:
    return {name: np.array(values, np.float32)}


def take(
    strategy: FedAvgStrategy, plan: RoundPlan, modality: str, num_examples: int, arrays: Mapping[str, NDArray[Any]]
) -> Any:
    """What a client contributes with its weights."""
    member = Member(f"{modality}-{num_examples}", modality, 100, 2, num_examples)
    reply = Reply(arrays=arrays)
    return strategy.accept(member, Outcome(member.id, 1, Request(), reply), reply, plan)


def test_weights_are_averaged_by_labelled_windows_within_each_modality() -> None:
    strategy, plan = fedavg()
    contributions = [
        take(strategy, plan, "gps", 3, weights(1.0, 0.0)),
        take(strategy, plan, "gps", 1, weights(5.0, 8.0)),
        take(strategy, plan, "radar", 2, weights(7.0)),
    ]
    assert strategy.conclude(contributions, plan) == 0
    # (3 * 1 + 1 * 5) / 4 and (3 * 0 + 1 * 8) / 4; radar has one client.
    np.testing.assert_allclose(strategy.state.arrays["gps/gru"], [2.0, 2.0])
    np.testing.assert_allclose(strategy.state.arrays["radar/gru"], [7.0])


def test_a_modality_of_which_nobody_answered_keeps_its_average() -> None:
    strategy, plan = fedavg()
    strategy.conclude([take(strategy, plan, "gps", 3, weights(1.0))], plan)
    plan = strategy.prepare(2)
    strategy.conclude([take(strategy, plan, "radar", 3, weights(2.0))], plan)
    assert {name: value.tolist() for name, value in strategy.state.arrays.items()} == {
        "gps/gru": [1.0],
        "radar/gru": [2.0],
    }


ODD = {
    "another shape": weights(1.0, 2.0),
    "another dimension": {"gru": np.ones((1, 1), np.float32)},
    "another name": weights(1.0, name="dense"),
    "one more": {**weights(1.0), **weights(1.0, name="dense")},
}


@pytest.mark.parametrize("case", ODD)
def test_weights_of_another_architecture_are_refused_and_the_others_are_averaged(case: str) -> None:
    strategy, plan = fedavg()
    first = take(strategy, plan, "gps", 1, weights(1.0))
    with pytest.raises(WireError, match="one architecture for all gps students"):
        take(strategy, plan, "gps", 1, ODD[case])
    take(strategy, plan, "radar", 1, ODD[case])  # another modality may have another
    strategy.conclude([first, take(strategy, plan, "gps", 1, weights(3.0))], plan)
    np.testing.assert_allclose(strategy.state.arrays["gps/gru"], [2.0])
    # From then on the average itself says what fits.
    plan = strategy.prepare(2)
    with pytest.raises(WireError, match="one architecture"):
        take(strategy, plan, "gps", 1, ODD[case])


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({}, "no weights"),
        (weights(np.nan), "gru: weights must be finite float32"),
        ({"gru": np.ones(1)}, "gru: weights must be finite float32"),
    ],
)
def test_what_cannot_be_averaged_is_refused(arrays: dict[str, NDArray[Any]], text: str) -> None:
    with pytest.raises(WireError, match=text):
        take(*fedavg(), "gps", 1, arrays)


def test_weights_that_no_labelled_window_has_touched_are_refused() -> None:
    with pytest.raises(WireError, match="no labelled window"):
        take(*fedavg(), "gps", 0, weights(1.0))
