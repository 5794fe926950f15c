"""A federation small enough to run in a second: two GPS nodes and a LiDAR node on a few passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from configs.loading import build_experiment
from configs.placement import HOME_VARIABLE
from configs.schema import Experiment

CHECKOUT = Path(__file__).resolve().parents[1]


def tiny_values(**strategy: Any) -> dict[str, Any]:
    """The values of a tiny experiment; keywords go to its strategy section."""
    small = {"width": 2, "features": 8, "hidden": 8}
    return {
        "name": "tiny",
        "seed": 3,
        "data": {
            "source": "street",
            "passes": {"server": 2, "public": 2, "test": 1, "client": 3, "client_test": 1, "validation_share": 0.3},
            "nodes": [{"modality": "gps", "count": 2}, {"modality": "lidar", "count": 1}],
        },
        "students": {"gps": small, "lidar": small},
        "teacher": small,
        "training": {"first_round_steps": 4, "steps_per_round": 3, "batch_size": 8},
        "teaching": {"pretrain_steps": 8, "first_round_steps": 3, "steps_per_round": 3, "batch_size": 8},
        "strategy": {"rounds": 3, "public_samples": 24, "round_timeout_s": 120, **strategy},
        "engine": {"name": "inline"},
    }


def tiny_experiment(**strategy: Any) -> Experiment:
    """A tiny experiment; keywords go to its strategy section."""
    return build_experiment(tiny_values(**strategy), origin="test")


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of generated data for the whole session: equal data is made once."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def _data_stays_out_of_the_checkout(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(home))
