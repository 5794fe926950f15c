"""What ``--over`` means, and how each number is written for YAML."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import yaml

from configs.loading import to_values
from sim.sweep.space import number_text, parse_dimension, parse_space
from tests.conftest import tiny_experiment

VALUES = to_values(tiny_experiment())


class Lowest:
    """Draws the least value of every dimension, and notes how it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        self.asked.append(("float", name, low, high, log))
        return low

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        self.asked.append(("int", name, low, high, log))
        return low

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        self.asked.append(("one of", name, tuple(choices)))
        return choices[0]


@pytest.mark.parametrize(
    ("text", "asked", "drawn"),
    [
        ("strategy.temperature=1..8", ("float", "strategy.temperature", 1.0, 8.0, False), "1.0"),
        ("strategy.rounds=2..6", ("int", "strategy.rounds", 2, 6, False), "2"),
        ("training.batch_size = log(8, 64)", ("int", "training.batch_size", 8, 64, True), "8"),
        ("training.learning_rate=log(1e-5,1e-2)", ("float", "training.learning_rate", 1e-5, 1e-2, True), "1.0e-05"),
        ("data.nodes.0.count=1..2", ("int", "data.nodes.0.count", 1, 2, False), "1"),
        (
            "strategy.aggregator.options.exponent=1..4",
            ("float", "strategy.aggregator.options.exponent", 1, 4, False),
            "1.0",
        ),
        ("training.weight_decay=-.5..+.5", ("float", "training.weight_decay", -0.5, 0.5, False), "-0.5"),
        (
            "strategy.aggregator.name=mean | entropy_mean",
            ("one of", "strategy.aggregator.name", ("mean", "entropy_mean")),
            "mean",
        ),
        ("strategy.publish=ensemble|mix", ("one of", "strategy.publish", ("ensemble", "mix")), "ensemble"),
    ],
)
def test_a_space_is_asked_for_as_it_is_meant(text: str, asked: tuple[Any, ...], drawn: str) -> None:
    draws = Lowest()
    dimension = parse_dimension(text, VALUES)
    assert dimension.draw(draws) == drawn
    assert draws.asked == [asked]
    assert dimension.corners[0] == drawn


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("strategy.temperature", "expected KEY=SPACE"),
        ("=1..8", "expected KEY=SPACE"),
        ("strategy..temperature=1..8", "expected KEY=SPACE"),
        ("strategy.temperature=8..1", "the first number must be less than the second"),
        ("strategy.temperature=log(0,1)", "a logarithm needs numbers above 0"),
        ("strategy.temperature=3", "expected a range such as 1..8"),
        ("strategy.publish=mix|", "expected a range such as 1..8"),
        ("strategy.publish=mix|mix", "a value is there twice"),
    ],
)
def test_what_is_no_space_is_refused_with_an_example(text: str, told: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_dimension(text, VALUES)
    assert str(caught.value).startswith(f"--over {text}: {told}")


def test_a_key_is_varied_once() -> None:
    with pytest.raises(ValueError, match=r"^--over seed: it is there twice"):
        parse_space(["seed=1..2", "seed=3..4"], VALUES)


@pytest.mark.parametrize("value", [1e-05, 1.5e-07, 1e22, 0.1, 3.0, -2e-9])
def test_yaml_reads_a_number_as_the_number_that_it_was(value: float) -> None:
    assert yaml.safe_load(number_text(value)) == value
