"""Labels: only what differs, short, unique, and never a value as Python writes it."""

from __future__ import annotations

from typing import Any

import pytest

from configs.strategy import Strategy
from sim.report.labels import differing_settings, flatten, labels_of, short_value


def group(experiment: str = "street", strategy: str = "distillation", **settings: Any) -> dict[str, Any]:
    """The summary of a group; ``a__b`` stands for the key ``a.b``."""
    values = flatten(Strategy(name=strategy).model_dump(mode="json"))
    changed = {key.replace("__", "."): value for key, value in settings.items()}
    return {"experiment": experiment, "settings": {**{f"strategy.{k}": v for k, v in values.items()}, **changed}}


def options(pull: int) -> dict[str, Any]:
    one = group(strategy="x:Y", strategy__options__pull=pull)
    del one["settings"]["strategy.options"]
    return one


NODES = [
    {"modality": "camera", "count": 2, "faults": {"dropout": 0.0, "blind": 0.0, "raw_gps": False}},
    {"modality": "gps", "count": 1, "faults": {"dropout": 0.25, "blind": 0.0, "raw_gps": True}},
]


@pytest.mark.parametrize(
    ("groups", "labels"),
    [
        ([group()], ["street"]),
        ([group("one", "local"), group("two", "fedmd")], ["one", "two"]),
        ([group("a"), group("a", "local"), group("b")], ["a distillation", "a local", "b"]),
        ([group(), group(strategy__rounds=3)], ["distillation", "distillation rounds=3"]),
        ([group(), group(strategy="fedmd"), group(strategy="fedmd", strategy__codec="uint4")],
         ["distillation", "fedmd", "fedmd codec=uint4"]),
        # Each key has as many of its last words as tell it from the other keys that differ.
        ([group(training__learning_rate=0.1, teaching__learning_rate=0.1),
          group(training__learning_rate=0.2, teaching__learning_rate=0.2)],
         ["distillation training.learning_rate=0.1 teaching.learning_rate=0.1",
          "distillation training.learning_rate=0.2 teaching.learning_rate=0.2"]),
        ([group(strategy="x:Y", strategy__aggregator__name="mine:Rule"), group(strategy="x:Y")],
         ["x:Y aggregator=mine:Rule", "x:Y"]),
        # An option that others leave out differs; a setting that others do not record does not.
        ([group(strategy="x:Y"), options(2), options(3)], ["x:Y", "x:Y pull=2", "x:Y pull=3"]),
        ([group(hostility=None), group(hostility__attack="noise")], ["distillation", "distillation attack=noise"]),
        ([group(), group(training__added_later=2)], ["distillation (1)", "distillation (2)"]),
        ([{"experiment": "old"}, {"experiment": "old"}], ["old (1)", "old (2)"]),
        ([group(data__nodes=NODES), group(data__nodes=NODES[:1])],
         ["distillation nodes=2 camera + 1 gps (dropout=0.25 raw_gps=true)", "distillation nodes=2 camera"]),
        ([{**group(), "label": "mine"}, {**group(), "label": "yours"}], ["mine", "yours"]),
    ],
)  # fmt: skip
def test_a_label_says_what_differs(groups: list[dict[str, Any]], labels: list[str]) -> None:
    assert labels_of(groups) == labels


def test_of_many_settings_that_differ_a_few_are_named_and_the_others_counted() -> None:
    many = [group(**{f"training__key{i}": value for i in range(9)}) for value in (1, 2)]
    assert labels_of(many)[0] == "distillation key0=1 key1=1 key2=1 key3=1 (and 5 more)"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "none"), (True, "true"), ([], "none"), (("radar", "gps"), "radar + gps"), ({}, "none"), (0.25, "0.25"),
     ({"a": {"b": 2}, "c": None}, "b=2"), ([{"modality": "gps"}], "1 gps"), ("two\nlines", "two lines")],
)  # fmt: skip
def test_a_value_is_never_shown_as_python_writes_it(value: Any, text: str) -> None:
    assert short_value(value) == text
    assert not set("{}[]'\n") & set(short_value(value))


def test_settings_that_differ_are_named_in_full_with_the_value_of_each_group() -> None:
    groups = [group("one"), group("two", strategy__rounds=3), options(2)]
    found = differing_settings([*groups[:2]])
    assert found == {"strategy.rounds": [short_value(groups[0]["settings"]["strategy.rounds"]), "3"]}
    assert differing_settings(groups)["strategy.options.pull"] == ["", "", "2"]
    assert differing_settings([groups[0]]) == {}
