"""Dotted names that README and guides have taught go on working, and mean what they meant."""

from __future__ import annotations

from importlib import import_module

import pytest

TAUGHT = {
    "strategies.aggregation": ("align", "weighted_mean", "weighted_product", "confidence", "Votes"),
    "strategies.labels": ("Contribution", "SoftLabels"),
    "strategies.distillation": ("DistillationStrategy",),
    "clients.sensing.streaming": ("LiveTracker",),
}


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in TAUGHT.items() for name in names])
def test_a_taught_name_is_there(module: str, name: str) -> None:
    assert callable(getattr(import_module(module), name))


def test_an_old_name_is_the_same_thing_as_the_new_one() -> None:
    from clients.models import streaming
    from clients.sensing.streaming import LiveTracker
    from strategies.distillation import DistillationStrategy
    from strategies.methods import distillation

    assert DistillationStrategy is distillation.DistillationStrategy
    assert LiveTracker is streaming.LiveTracker
