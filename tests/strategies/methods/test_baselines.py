"""FedAvg by hand: who is averaged with whom, by what, and who is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from strategies.messages.mailbox import Answer
from strategies.messages.records import Member
from strategies.messages.wire import Reply, Request, WireError
from strategies.methods.baselines import FedAvgStrategy
from strategies.rules.weighted import Mean
from tests.strategies.methods.test_distillation import NUM_PUBLIC, MadeUpTeacher, experiment


def fedavg() -> FedAvgStrategy:
    strategy = FedAvgStrategy(
        experiment=experiment(),
        aggregator=Mean(),
        teacher=MadeUpTeacher(),
        num_public=NUM_PUBLIC,
        run="r",
        digests=("e", "s"),
    )
    strategy.prepare(1)
    return strategy


def weights(*values: float, name: str = "gru") -> dict[str, NDArray[np.float32]]:
    return {name: np.array(values, np.float32)}


def take(strategy: FedAvgStrategy, modality: str, num_examples: int, arrays: Mapping[str, NDArray[Any]]) -> Any:
    """What a client contributes with its weights."""
    member = Member(f"{modality}-{num_examples}", modality, 100, 2, num_examples)
    reply = Reply(arrays=arrays)
    return strategy.accept(member, Answer(member.id, 1, Request(), reply), reply)


def test_weights_are_averaged_by_labelled_windows_within_each_modality() -> None:
    strategy = fedavg()
    contributions = [
        take(strategy, "gps", 3, weights(1.0, 0.0)),
        take(strategy, "gps", 1, weights(5.0, 8.0)),
        take(strategy, "radar", 2, weights(7.0)),
    ]
    assert strategy.conclude(contributions, 1) == 0
    # (3 * 1 + 1 * 5) / 4 and (3 * 0 + 1 * 8) / 4; radar has one client.
    np.testing.assert_allclose(strategy.state.arrays["gps/gru"], [2.0, 2.0])
    np.testing.assert_allclose(strategy.state.arrays["radar/gru"], [7.0])


def test_a_modality_of_which_nobody_answered_keeps_its_average() -> None:
    strategy = fedavg()
    strategy.conclude([take(strategy, "gps", 3, weights(1.0))], 1)
    strategy.prepare(2)
    strategy.conclude([take(strategy, "radar", 3, weights(2.0))], 2)
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
    strategy = fedavg()
    first = take(strategy, "gps", 1, weights(1.0))
    with pytest.raises(WireError, match="one architecture for all gps students"):
        take(strategy, "gps", 1, ODD[case])
    take(strategy, "radar", 1, ODD[case])  # another modality may have another
    strategy.conclude([first, take(strategy, "gps", 1, weights(3.0))], 1)
    np.testing.assert_allclose(strategy.state.arrays["gps/gru"], [2.0])
    # From then on the average itself says what fits.
    strategy.prepare(2)
    with pytest.raises(WireError, match="one architecture"):
        take(strategy, "gps", 1, ODD[case])


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
        take(fedavg(), "gps", 1, arrays)


def test_weights_that_no_labelled_window_has_touched_are_refused() -> None:
    with pytest.raises(WireError, match="no labelled window"):
        take(fedavg(), "gps", 0, weights(1.0))
