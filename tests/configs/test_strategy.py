"""What a strategy would ignore is refused, with what to do about it."""

from __future__ import annotations

from typing import Any

import pytest

from configs.recipes import RECIPES
from tests.conftest import tiny_experiment

WITHOUT_LABELS = ["fedproto", "fedavg", "local", "centralised"]
WITHOUT_SAMPLES = ["fd", *WITHOUT_LABELS]


def refusal(**strategy: Any) -> str:
    with pytest.raises(ValueError) as caught:
        tiny_experiment(**strategy)
    return str(caught.value)


@pytest.mark.parametrize("name", WITHOUT_SAMPLES)
@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"answer_filter": "density"}, "strategy.answer_filter: {} asks for no public samples; leave it out"),
        ({"publish": "teacher"}, "strategy.publish: {} publishes no targets for public samples; leave it out"),
        ({"publish": "corrected"}, "strategy.publish: {} publishes no targets for public samples; leave it out"),
    ],
)
def test_what_concerns_public_samples_is_refused_where_none_are_asked_for(
    name: str, values: dict[str, Any], text: str
) -> None:
    assert text.format(name) in refusal(name=name, **values)


@pytest.mark.parametrize("name", WITHOUT_LABELS)
def test_a_rule_for_soft_labels_is_refused_where_there_are_none(name: str) -> None:
    text = f"strategy.aggregator: {name} aggregates no soft labels; leave it out"
    assert text in refusal(name=name, aggregator={"name": "median"})
    assert text in refusal(name=name, aggregator={"options": {"exponent": 2}})


def test_the_same_keys_are_taken_where_they_have_an_effect() -> None:
    assert tiny_experiment(name="fd", aggregator={"name": "median"}).strategy.aggregator.name == "median"
    assert tiny_experiment(name="fedmd", answer_filter="density", publish="teacher").strategy.publish == "teacher"


@pytest.mark.parametrize("name", RECIPES)
def test_no_recipe_refuses_itself(name: str) -> None:
    assert tiny_experiment(name=name).strategy.name == name
