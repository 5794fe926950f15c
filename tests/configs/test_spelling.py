"""Words that are not known, and the known ones that are named beside them."""

from __future__ import annotations

import re

import pytest

from configs.loading import load_experiment
from configs.placement import Placement
from configs.spelling import did_you_mean
from configs.yaml_files import find_config
from strategies.registry import find_plugins
from tests.conftest import tiny_experiment


@pytest.mark.parametrize(
    ("word", "question"),
    [
        ("fedmd", "; did you mean fedmd?"),
        ("FedMD", "; did you mean fedmd?"),
        ("fedav", "; did you mean fedavg?"),
        ("moon", ""),
        ("", ""),
    ],
)
def test_the_nearest_words_are_named_whatever_their_case(word: str, question: str) -> None:
    assert did_you_mean(word, ["fedmd", "fedavg"]) == question


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("strategy.rouns=3", "rounds"),
        ("strategi.rounds=3", "strategy"),
        ("data.passes.clients=3", "client"),
        ("data.world.densty=1", "density"),
        ("data.nodes.0.cuont=1", "count"),
        ("students.gps.widht=4", "width"),
        # Right words at the wrong place.
        ("rounds=3", "strategy.rounds"),
        ("pretrain_steps=3", "teaching.pretrain_steps"),
        ("strategy.batch_size=3", "training.batch_size or teaching.batch_size"),
        # Words that are values.
        ("engine.name=in-line", "inline"),
        ("data.world.preset=strete", "street"),
        ("data.source=stret", "street"),
        ("data.nodes.0.modality=camra", "camera"),
        ("training.schedule=cosin", "cosine"),
    ],
)
def test_a_wrong_word_in_a_yaml_is_answered_with_the_right_one(override: str, meant: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"did you mean {meant}?")):
        load_experiment("quickstart", [override])


@pytest.mark.parametrize(
    ("strategy", "meant"),
    [
        ({"name": "scarlett"}, "scarlet"),
        ({"aggregator": {"name": "meen"}}, "mean"),
        ({"codec": "uint4+detla"}, "uint4+delta"),
        ({"downlink_codec": "flaot16"}, "float16"),
        ({"name": "personal", "options": {"pul": 1}}, "pull"),
        ({"aggregator": {"name": "trimmed_mean", "options": {"trimm": 1}}}, "trim"),
    ],
)
def test_a_wrong_name_of_a_plug_in_is_answered_with_the_right_one(strategy: dict[str, object], meant: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"did you mean {meant}")):
        find_plugins(Placement(tiny_experiment(**strategy), find_config("quickstart"), find_config("quickstart"), ()))
