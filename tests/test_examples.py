"""The examples in docstrings run, and show what they say."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

from tests.test_architecture import MODULES, module_name

WITH_EXAMPLES = sorted(module_name(path) for path in MODULES if "\n        >>> " in path.read_text())
# Public entry points, each with an example: a rule, a codec, a strategy, a launch, an experiment, a metric, a stream.
ENTRY_POINTS = {
    "strategies.aggregation",
    "strategies.rules.weighted",
    "strategies.codecs.table",
    "strategies.codecs.encoding",
    "strategies.methods.distillation",
    "sim.launch",
    "configs.loading",
    "configs.seeding",
    "clients.learning.metrics",
    "clients.models.streaming",
    "clients.data.recording",
}


def test_every_entry_point_has_an_example() -> None:
    assert set(WITH_EXAMPLES) >= ENTRY_POINTS


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_show_what_they_say(name: str) -> None:
    result = doctest.testmod(import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
