"""What a YAML names is found, and a mistake in it is one error with its key, before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from configs.placement import Placement
from strategies.methods.personal import PersonalStrategy
from strategies.methods.secure_sum import SecureSumStrategy
from strategies.registry import find_plugins
from strategies.rules.weighted import EntropyMean
from tests.conftest import tiny_experiment

USERS = """
from strategies.methods.beams import BeamLabelStrategy
from strategies.methods.distillation import DistillationStrategy
from strategies.methods.baselines import LocalStrategy


class Closed(DistillationStrategy):
    def __init__(self, *, share=0.5, pace=1, **arguments):
        super().__init__(**arguments)

    @classmethod
    def check_options(cls, share=0.5):
        if not 0 < share <= 1:
            raise ValueError(f"share: must be in (0, 1], got {share}")


class Plain(DistillationStrategy):
    pass


class Beams(BeamLabelStrategy):
    pass


class Alone(LocalStrategy):
    pass
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a user's strategies in it."""
    (tmp_path / f"{tmp_path.name}.py").write_text(USERS)
    return tmp_path


def find(folder: Path, **strategy: Any) -> tuple[type[Any], Any]:
    return find_plugins(Placement(tiny_experiment(**strategy), folder, folder, folder))


def refusal(folder: Path, **strategy: Any) -> str:
    with pytest.raises(ValueError) as caught:
        find(folder, **strategy)
    return str(caught.value)


def test_a_strategy_and_its_aggregator_are_found(tmp_path: Path) -> None:
    assert find(tmp_path, name="personal", options={"pull": 2})[0] is PersonalStrategy
    assert find(tmp_path, aggregator={"options": {"exponent": 2}})[1] == EntropyMean(exponent=2)
    assert find(tmp_path, secure_sum=True, aggregator={"name": "mean"})[0] is SecureSumStrategy


@pytest.mark.parametrize("option", ["run", "state", "experiment", "teacher", "registry", "num_public"])
@pytest.mark.parametrize("name", ["distillation", "personal", "fedavg"])
def test_what_the_server_gives_a_strategy_is_no_option(name: str, option: str, tmp_path: Path) -> None:
    text = refusal(tmp_path, name=name, options={option: "foo"})
    known = "mixture, pull, num_clusters" if name == "personal" else "none"
    assert text.startswith(f"strategy.options.{option}: unknown option of ")
    assert text.endswith(f"; known are: {known}")


def test_a_user_s_strategy_has_its_own_options_and_nothing_of_the_server_s(folder: Path) -> None:
    assert find(folder, name=f"{folder.name}:Closed", options={"share": 0.2})[0].__name__ == "Closed"
    assert refusal(folder, name=f"{folder.name}:Closed", options={"run": "foo"}) == (
        "strategy.options.run: unknown option of Closed; known are: share, pace"
    )
    assert refusal(folder, name=f"{folder.name}:Plain", options={"share": 1}).endswith("known are: none")


def test_an_option_that_a_user_s_check_does_not_know_is_refused_by_its_key(folder: Path) -> None:
    text = refusal(folder, name=f"{folder.name}:Closed", options={"pace": 2})
    assert text.startswith("strategy.options: ") and "pace" in text


def test_an_option_out_of_range_is_refused_by_its_path(folder: Path) -> None:
    text = refusal(folder, name=f"{folder.name}:Closed", options={"share": 2})
    assert text == "strategy.options.share: must be in (0, 1], got 2"


def test_a_class_that_is_no_strategy_is_refused(tmp_path: Path) -> None:
    text = refusal(tmp_path, name="strategies.rules.weighted:Mean")
    assert text == "strategy.name: Mean is no subclass of Choreography"


@pytest.mark.parametrize("name", ["Beams", "Alone"])
def test_a_user_s_strategy_that_would_ignore_relations_refuses_them(folder: Path, name: str) -> None:
    full = f"{folder.name}:{name}"
    assert refusal(folder, name=full, relations={}) == (
        f"strategy.relations: {full} tells no relations of public samples; leave it out"
    )
    assert find(folder, name=f"{folder.name}:Plain", relations={})[0].__name__ == "Plain"
    masked = {"secure_sum": True, "aggregator": {"name": "mean"}}
    assert find(folder, relations={}, **masked)[0] is SecureSumStrategy
