"""Two tiny runs that everything here takes models from: of students, and of mixtures of students."""

from __future__ import annotations

from pathlib import Path

import pytest

import softbeam
from tests.conftest import tiny_values


def tiny_run(out: Path, home: Path, **strategy: object) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTBEAM_HOME", str(home))
        values = {**tiny_values(rounds=2, **strategy), "controls": False}
        values["engine"]["workers"] = 1
        return softbeam.run(values, out=out, progress=False).folder


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Path:
    return tiny_run(tmp_path_factory.mktemp("finished"), home)


@pytest.fixture(scope="session")
def mixed_run(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Path:
    return tiny_run(tmp_path_factory.mktemp("mixed"), home, keeps="mixture")
