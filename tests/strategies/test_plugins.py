"""What a YAML names is found, and a mistake in it is one error with its key, before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from configs.loading import build_experiment
from configs.placement import Placement
from configs.recipes import RECIPES
from strategies.methods.distillation import DistillationStrategy
from strategies.methods.fedgems import FedGemsStrategy
from strategies.methods.personal import PersonalStrategy
from strategies.methods.secure_sum import SecureSumStrategy
from strategies.registry import find_plugins
from strategies.rules.weighted import EntropyMean
from tests.conftest import tiny_experiment, tiny_values

USERS = """
from configs.recipes import Traits
from strategies.methods.base import Choreography
from strategies.methods.classes import ClassLabelStrategy
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


class Beams(ClassLabelStrategy):
    pass


class Alone(LocalStrategy):
    pass


class Mine(DistillationStrategy):
    traits = Traits(needs_targets=True, summable=False)


class Silent(Choreography):
    pass


class NoKw(DistillationStrategy):
    def __init__(self):
        super().__init__()


class Some(DistillationStrategy):
    def __init__(self, experiment, aggregator):
        super().__init__(experiment=experiment, aggregator=aggregator)


class Needy(DistillationStrategy):
    def __init__(self, *, share, **arguments):
        super().__init__(**arguments)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a user's strategies in it."""
    (tmp_path / f"{tmp_path.name}.py").write_text(USERS)
    return tmp_path


def find(folder: Path, **strategy: Any) -> tuple[type[Any], Any]:
    return find_plugins(Placement(tiny_experiment(**strategy), folder, folder, (folder,)))


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
    assert text == "strategy.name: Mean is no subclass of Choreography; make it one"


MEAN = {"aggregator": {"name": "mean"}}
# What a method of some traits would ignore or could not keep, and what its refusal says, by class above.
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("Beams", {"relations": {}}, "strategy.relations: {} has no public samples to relate; leave it out"),
    ("Beams", {"answer_filter": "density"}, "strategy.answer_filter: {} asks for no public samples; leave it out"),
    ("Beams", {"publish": "teacher"}, "strategy.publish: {} publishes no targets for public samples; leave it out"),
    ("Beams", {"secure_sum": True, **MEAN}, "strategy.secure_sum: {} does not sum soft labels of public samples"),
    (
        "Beams",
        {"privacy": {"clip": 1.0, "noise_multiplier": 1.0}},
        "strategy.privacy.noise_multiplier: {} tells which beams a client has seen, which no noise covers",
    ),
    ("Alone", {"relations": {}}, "strategy.relations: {} has no public samples to relate; leave it out"),
    ("Alone", MEAN, "strategy.aggregator: {} aggregates no soft labels; leave it out"),
    ("Alone", {"privacy": {"clip": 1.0}}, "strategy.privacy: {} sends no soft labels, so there is nothing to protect"),
    ("Mine", {"relations": {"share": 1.0}}, "strategy.relations.share: {} mixes soft labels for each client"),
    ("Plain", {"secure_sum": True, **MEAN}, "strategy.secure_sum: {} has its own choreography; leave secure_sum out"),
]


@pytest.mark.parametrize(("name", "settings", "text"), REFUSED)
def test_a_user_s_class_is_checked_by_the_traits_that_it_declares(
    folder: Path, name: str, settings: dict[str, Any], text: str
) -> None:
    full = f"{folder.name}:{name}"
    assert text.format(full) in refusal(folder, name=full, **settings)


@pytest.mark.parametrize("name", ["Beams", "Alone", "Mine", "Plain"])
def test_a_user_s_class_is_taken_with_the_settings_that_nobody_touched(folder: Path, name: str) -> None:
    assert find(folder, name=f"{folder.name}:{name}")[0].__name__ == name


def test_a_class_that_declares_no_traits_is_refused(folder: Path) -> None:
    assert refusal(folder, name=f"{folder.name}:Silent") == (
        "strategy.name: Silent declares no traits; write traits = Traits(...) in its body"
    )


@pytest.mark.parametrize("name", ["NoKw", "Some"])
def test_a_class_that_the_server_could_not_make_is_refused_before_anything_starts(folder: Path, name: str) -> None:
    text = refusal(folder, name=f"{folder.name}:{name}")
    assert text.startswith(
        f"strategy.name: {name}: __init__ must take **arguments and pass them on (got an unexpected "
    )
    assert text.endswith("; write def __init__(self, **arguments) and super().__init__(**arguments)")


def test_an_option_that_a_class_needs_and_nobody_gave_is_named(folder: Path) -> None:
    text = refusal(folder, name=f"{folder.name}:Needy")
    assert text.startswith("strategy.options: Needy: missing a required") and "'share'" in text
    assert find(folder, name=f"{folder.name}:Needy", options={"share": 0.5})[0].__name__ == "Needy"


def test_attacks_are_refused_where_a_user_s_class_sends_no_soft_labels(folder: Path) -> None:
    values = {**tiny_values(name=f"{folder.name}:Alone"), "hostility": {"attack": "label_flip", "clients": 1}}
    experiment = build_experiment(values, origin="test")
    with pytest.raises(ValueError, match=r"^hostility: .*:Alone sends no soft labels"):
        find_plugins(Placement(experiment, folder, folder, (folder,)))


def test_relations_and_corrections_go_with_sums_and_with_classes_of_public_samples(folder: Path) -> None:
    assert find(folder, name=f"{folder.name}:Plain", relations={})[0].__name__ == "Plain"
    assert find(folder, relations={}, secure_sum=True, **MEAN)[0] is SecureSumStrategy
    assert find(folder, publish="corrected")[0] is FedGemsStrategy
    assert find(folder, name="fedgems")[0] is FedGemsStrategy
    assert find(folder, name="fedgems", publish="mix")[0] is DistillationStrategy
    for settings in ({"name": "personal"}, {"secure_sum": True, **MEAN}):
        found = find(folder, publish="corrected", **settings)[0]
        plain = find(folder, **settings)[0]
        assert issubclass(found, FedGemsStrategy) and issubclass(found, plain)
        assert found.traits == plain.traits


@pytest.mark.parametrize("name", RECIPES)
def test_a_method_of_ours_has_the_traits_that_stand_beside_its_recipe(name: str, tmp_path: Path) -> None:
    assert find(tmp_path, name=name)[0].traits == RECIPES[name].traits


AVERAGES = """
from configs.recipes import Traits
from strategies.methods.baselines import FedAvgStrategy


class Mean(FedAvgStrategy):
    traits = Traits("weights", sends_labels=False, asks_samples=False, summable=False, relates=False)
"""


@pytest.mark.parametrize("name", ["fedavg", "averages:Mean"])
def test_unlike_students_of_a_modality_are_refused_where_weights_are_averaged(name: str, tmp_path: Path) -> None:
    (tmp_path / "averages.py").write_text(AVERAGES)
    values = tiny_values(name=name)
    small, other = values["students"]["gps"], {"width": 2, "features": 8, "hidden": 12}
    gps, lidar = ({"modality": modality} for modality in ("gps", "lidar"))

    def plan(*nodes: dict[str, Any]) -> Placement:
        experiment = build_experiment({**values, "data": {**values["data"], "nodes": [*nodes]}}, origin="test")
        return Placement(experiment, tmp_path, tmp_path, (tmp_path,))

    find_plugins(plan({**gps, "student": small}, {**lidar, "student": other}, gps))
    with pytest.raises(ValueError, match=r"data\.nodes\.2\.student: \S+ averages weights, so all gps students must"):
        find_plugins(plan(gps, lidar, {**gps, "student": other}))
