"""What a strategy would ignore is refused, with what to do about it."""

from __future__ import annotations

from typing import Any

import pytest

from configs.loading import load_experiment
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
        ({"own_site_share": 0.5}, "strategy.own_site_share: {} publishes no targets for public samples; leave it out"),
        ({"asks": "own_site"}, "strategy.asks: {} asks for no public samples; leave it out"),
        ({"hindsight": True}, "strategy.hindsight: {} publishes no targets for public samples; leave it out"),
        ({"relations": {}}, "strategy.relations: {} has no public samples to relate; leave it out"),
    ],
)
def test_what_concerns_public_samples_is_refused_where_none_are_asked_for(
    name: str, values: dict[str, Any], text: str
) -> None:
    assert text.format(name) in refusal(name=name, **values)


def test_hindsight_is_refused_where_nothing_is_foretold() -> None:
    with pytest.raises(ValueError, match=r"strategy\.hindsight: the task decides for now alone"):
        load_experiment("quickstart", ["strategy.hindsight=true", "task.num_future=0"])
    assert load_experiment("quickstart", ["strategy.hindsight=true", "task.num_future=1"]).strategy.hindsight


def test_own_sites_are_refused_where_there_are_none() -> None:
    with pytest.raises(ValueError, match=r"strategy\.asks: this federation names no sites; leave it out"):
        load_experiment("quickstart", ["strategy.asks=own_site"])
    with pytest.raises(ValueError, match=r"strategy\.own_site_share: this federation names no sites; leave it out"):
        load_experiment("quickstart", ["strategy.own_site_share=0.5"])
    assert load_experiment("multi-site", ["strategy.asks=own_site"]).strategy.asks == "own_site"
    assert load_experiment("deepsense-sites").strategy.asks == "own_site"
    one = "data.sites=[{name: here, folder: ../shared/real-deepsense/scenario9}]"
    assert load_experiment("deepsense-sites", [one]).strategy.asks == "own_site"
    with pytest.raises(ValueError, match=r"strategy\.asks: this federation names no sites"):
        load_experiment("deepsense", ["strategy.asks=own_site"])


@pytest.mark.parametrize("name", WITHOUT_LABELS)
def test_a_rule_for_soft_labels_is_refused_where_there_are_none(name: str) -> None:
    text = f"strategy.aggregator: {name} aggregates no soft labels; leave it out"
    assert text in refusal(name=name, aggregator={"name": "median"})
    assert text in refusal(name=name, aggregator={"options": {"exponent": 2}})


def test_the_same_keys_are_taken_where_they_have_an_effect() -> None:
    assert tiny_experiment(name="fd", aggregator={"name": "median"}).strategy.aggregator.name == "median"
    assert tiny_experiment(name="fedmd", answer_filter="density", publish="teacher").strategy.publish == "teacher"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"ask_cached": False, "target_lifetime": 3}, "strategy.ask_cached: with relations.share 1 no soft labels"),
        ({"target_lifetime": 3}, "strategy.target_lifetime: with relations.share 1 no soft labels come down"),
        ({"downlink_codec": "uint8"}, "strategy.downlink_codec: with relations.share 1 no soft labels come down"),
        ({"name": "scarlet"}, "strategy.ask_cached: with relations.share 1"),
        ({"name": "personal"}, "strategy.relations.share: personal mixes soft labels for each client"),
    ],
)
def test_what_concerns_targets_is_refused_where_relations_stand_in_for_them(values: dict[str, Any], text: str) -> None:
    assert text in refusal(relations={"share": 1.0}, **values)
    assert tiny_experiment(relations={"share": 0.9}, **values).strategy.sends_targets


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"pears": 4}, "strategy.relations.pears: unknown key"),
        ({"pairs": 0}, "strategy.relations.pairs: "),
        ({"share": 0}, "strategy.relations.share: "),
        ({"share": 1.5}, "strategy.relations.share: "),
        ({"distance_weight": -1}, "strategy.relations.distance_weight: "),
        ({"distance_weight": 0, "angle_weight": 0}, "strategy.relations.distance_weight: with this and angle_weight"),
    ],
)
def test_relations_that_make_no_sense_are_refused_by_their_key(values: dict[str, Any], text: str) -> None:
    assert text in refusal(relations=values)


@pytest.mark.parametrize("name", sorted(set(RECIPES) - set(WITHOUT_SAMPLES)))
def test_relations_go_with_every_recipe_of_public_samples(name: str) -> None:
    told = tiny_experiment(name=name, relations={}).strategy
    assert told.relations is not None and told.relations.pairs == 4
    assert tiny_experiment(name=name).strategy.relations is None


@pytest.mark.parametrize("name", RECIPES)
def test_no_recipe_refuses_itself(name: str) -> None:
    assert tiny_experiment(name=name).strategy.name == name
