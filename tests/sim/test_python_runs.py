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
