from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from sim.python_runs import _as_if_alone, experiment_from_python
from strategies.rules.weighted import Mean
from tests.conftest import CHECKOUT, tiny_values


def test_a_run_leaves_the_process_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    main, threads = sys.modules["__main__"], torch.get_num_threads()
    monkeypatch.setattr(main, "__file__", "/a/script.py", raising=False)
    spec = main.__spec__
    with pytest.raises(KeyError), _as_if_alone():
        assert not hasattr(main, "__file__") and main.__spec__ is None
        torch.set_num_threads(threads + 1)
        raise KeyError
    assert (main.__file__, main.__spec__, torch.get_num_threads()) == ("/a/script.py", spec, threads)


@pytest.mark.parametrize("key", ["strategy.aggregator", "strategy.aggregator.name"])
def test_a_class_stands_for_its_name(key: str, tmp_path: Path) -> None:
    experiment, folders = experiment_from_python(tiny_values(), {key: Mean}, out=tmp_path)
    assert experiment.strategy.aggregator.name == "strategies.rules.weighted:Mean"
    assert folders == (CHECKOUT, Path.cwd()) or folders == (CHECKOUT,)


@pytest.mark.parametrize("key", ["students.gps", "teacher", "students.gps.model"])
def test_a_class_stands_for_a_student_or_the_teacher_whatever_was_there(key: str, tmp_path: Path) -> None:
    values = {**tiny_values(), "students": {"gps": {"width": 4}}, "teacher": {"width": 6}}
    if key.endswith("model"):
        values["students"] = {}
    experiment, _ = experiment_from_python(values, {key: torch.nn.Linear}, out=tmp_path)
    model = experiment.teacher if key == "teacher" else experiment.students["gps"]
    assert model.model == "torch.nn.modules.linear:Linear"


def test_a_value_that_no_yaml_has_is_refused_by_its_key(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"training\.learning_rate: must be a number, a text, .* got a function \(as giv"
    ):
        experiment_from_python(tiny_values(), {"training.learning_rate": lambda: 1}, out=tmp_path)
