"""A tiny run that every sensor and both controls took part in, for pages that show data and models."""

from __future__ import annotations

from pathlib import Path

import pytest

import softbeam
from tests.conftest import tiny_values

MODALITIES = ("camera", "radar", "lidar", "gps")


def sensed_values() -> dict[str, object]:
    values = tiny_values(rounds=2)
    small = values["teacher"]
    values["data"]["nodes"] = [{"modality": name} for name in MODALITIES]
    values["data"]["passes"] |= {"test": 4}
    values["engine"]["workers"] = 1
    return {**values, "name": "sensed", "students": dict.fromkeys(MODALITIES, small)}


@pytest.fixture(scope="session")
def sensed_run(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTBEAM_HOME", str(home))
        return softbeam.run(sensed_values(), out=tmp_path_factory.mktemp("sensed"), progress=False).folder
