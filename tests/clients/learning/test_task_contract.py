"""A task of a user's own is tried before anything starts, and what is wrong with it is one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.learning.classification import Classification
from clients.learning.task_contract import check_labels, check_task
from configs.loading import build_experiment
from configs.schema import Experiment
from sim.data.federation_writer import FederationWriter, SensorTable
from sim.data.splitting import Even
from sim.experiments import run_experiment
from sim.passed_classes import name_of_class
from sim.python_runs import experiment_from_python
from tests.conftest import tiny_values
from tests.federations import quiet

GOOD = """
import softbeam

class Quarters(softbeam.Classification):
    num_classes = 4
    title, noun = "quarter recognition", "quarter"
    metrics = {"accuracy": softbeam.Metric("Accuracy")}

    def __init__(self, weight=1.0):
        self.weight = weight

    def read(self, stored):
        return stored

    def loss(self, logits, labels):
        loss = super().loss(logits, labels)
        return self.weight * loss

    def scores(self, probs, labels):
        return super().scores(probs, labels)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A federation of places, whose class is the quarter that they lie in."""
    made = tmp_path_factory.mktemp("quarters") / "data"
    places = np.random.default_rng(0).normal(size=(120, 2)) * 10
    labels = 2 * (places[:, 0] > 0) + (places[:, 1] > 0)
    with FederationWriter(made, num_classes=4) as writer:
        writer.deal(SensorTable({"gps": places}, labels=labels), Even(2))
    return made


def experiment(folder: Path, **task: Any) -> Experiment:
    values = {name: value for name, value in tiny_values(rounds=2).items() if name != "students"}
    values |= {"data": {"source": "folder", "folder": str(folder)}, "task": {"name": "my_task:Quarters", **task}}
    return build_experiment(values, origin="test")


def write(folder: Path, *change: str) -> None:
    text = GOOD
    if change:
        assert change[0] in text
        text = text.replace(*change)
    (folder / "my_task.py").write_text(text)


def test_a_good_task_passes_and_its_options_are_those_of_the_yaml(folder: Path, tmp_path: Path) -> None:
    write(tmp_path)
    check_task(experiment(folder, options={"weight": 0.5}), (tmp_path,))
    check_labels(experiment(folder), folder, (tmp_path,))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("return self.weight * loss", "return logits"), r"loss: expected a tensor with one number .* got \(5, 4\)"),
        (("return self.weight * loss", "return 1.0"), "loss: expected a tensor .* got float"),
        (("return self.weight * loss", "return loss / 0"), "loss: inf for ordinary logits"),
        (("return self.weight * loss", "return loss * float('nan')"), "loss: nan for ordinary logits"),
        (("return self.weight * loss", "return loss.detach()"), "loss: has no gradient"),
        (("return self.weight * loss", "return 0 * loss"), "loss: its gradient by the logits is zero"),
        (("return self.weight * loss", "return loss.item() + 1 / 0"), "ZeroDivisionError: division by zero"),
        (("return super().scores(probs, labels)", "raise OSError('no file')"), "OSError: no file"),
        (("return super().scores(probs, labels)", "return {}"), "scores: gave nothing, and metrics names accuracy"),
        (
            ("return super().scores(probs, labels)", "return {'accuracy': float('nan')}"),
            "scores: accuracy is nan for 5 items",
        ),
        (
            ("return super().scores(probs, labels)", "return {'accuracy': labels.std(ddof=1)}"),
            "scores: accuracy is nan for 1 items|RuntimeWarning",
        ),
        (("num_classes = 4", "num_classes = 1"), "num_classes: must be a whole number from 2 to 1024, got 1"),
        (("num_classes = 4", "num_classes = 5"), "Quarters has 5 classes, and the data has 4"),
        (('title, noun = "quarter recognition", "quarter"', "title = 7"), "title: must be a text, got 7"),
        (('{"accuracy": softbeam.Metric("Accuracy")}', "{}"), "metrics: must be names with a Metric each"),
        (('{"accuracy": softbeam', '{"Top 1": softbeam'), "metrics: 'Top 1' must be small letters"),
        (("(softbeam.Classification)", ""), "Quarters does not inherit from softbeam.Classification"),
        (("class Quarters", "class Halves"), "my_task has no class Quarters"),
        (("self.weight = weight", "raise TypeError('weight')"), "task.options: TypeError: weight"),
    ],
)
def test_a_task_that_breaks_the_contract_is_one_line_before_anything_starts(
    change: tuple[str, str], problem: str, folder: Path, tmp_path: Path
) -> None:
    write(tmp_path, *change)
    with pytest.raises(ValueError, match=problem) as raised:
        run_experiment(experiment(folder), plugins=(tmp_path,), out=tmp_path / "runs", progress=quiet)
    assert str(raised.value).startswith("task.")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("return stored + 1", r"read: row \d+ of .*server is 4, and classes are 0 to 3"),
        ("return stored - 1", r"read: row \d+ of .*server is -1, and classes are 0 to 3"),
        ("return stored / 2", r"read: expected \(24,\) whole numbers .* got float64 \(24,\)"),
        ("return stored[:3]", r"read: expected \(24,\) whole numbers .* got int32 \(3,\)"),
        ("return stored.nothing", "AttributeError: .*nothing"),
    ],
)
def test_labels_that_are_no_classes_are_one_line_and_leave_no_run(
    change: str, problem: str, folder: Path, tmp_path: Path
) -> None:
    write(tmp_path, "return stored", change)
    with pytest.raises(ValueError, match=rf"^task\.name: Quarters: {problem}"):
        run_experiment(experiment(folder), plugins=(tmp_path,), out=tmp_path / "runs", progress=quiet)
    assert not (tmp_path / "runs").exists()


def test_an_option_that_the_class_does_not_take_is_named(folder: Path, tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(ValueError, match=r"task\.options\.wait: unknown option of Quarters.* did you mean weight\?"):
        check_task(experiment(folder, options={"wait": 1}), (tmp_path,))


def test_a_class_that_is_passed_stands_for_its_name(folder: Path, tmp_path: Path) -> None:
    class Passed(Classification):
        num_classes = 4

    values = {name: value for name, value in tiny_values().items() if name != "students"}
    values |= {"data": {"source": "folder", "folder": str(folder)}}
    for settings in ({"task": Passed}, {"task": {"name": Passed}}):
        found, plugins = experiment_from_python(values, settings, out=tmp_path)
        check_task(found, plugins)
        assert found.task.name.endswith(":Passed") and found.task.num_classes == 4


def test_a_class_of_a_notebook_that_cannot_be_pickled_is_one_line(tmp_path: Path) -> None:
    class Held(Classification):
        file = (tmp_path / "open").open("w")

    with Held.file, pytest.raises(ValueError, match="Held: cannot be written down for other processes"):
        name_of_class(Held, tmp_path)


def test_classes_without_a_task_and_beams_with_a_loss_of_another_are_refused(folder: Path) -> None:
    values = {name: value for name, value in tiny_values().items() if name != "students"}
    values |= {"data": {"source": "folder", "folder": str(folder)}}
    with pytest.raises(ValueError, match=r"task\.name: the rows of data\.folder have classes, not the power of beams"):
        build_experiment(values, origin="test")
    values |= {"task": {"name": "my_task:Quarters"}, "training": {"task_loss": "focal"}}
    with pytest.raises(ValueError, match=r"training\.task_loss: this is about beams, and my_task:Quarters has its own"):
        build_experiment(values, origin="test")
