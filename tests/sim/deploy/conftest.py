from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.placement import HOME_VARIABLE
from sim.deploy.trial import bring_up, take_down
from tests.federations import quiet
from tests.labs import Lab, give_data, make_lab

UP_S = 120.0


@pytest.fixture(scope="session")
def has_nginx() -> None:
    if shutil.which("nginx") is None and not Path("/usr/sbin/nginx").is_file():
        pytest.skip("nginx is not installed")


@pytest.fixture
def stand_in_nginx(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that is found as nginx and fails when it is started: for tests of commands that nobody runs."""
    program = tmp_path_factory.mktemp("programs") / "nginx"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return program


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, home: Path, has_nginx: None) -> Iterator[Lab]:
    """A server and four nodes as real processes on the loopback, online."""
    folder = tmp_path_factory.mktemp("deployment") / "lab"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOME_VARIABLE, str(home))
        deployment = make_lab(folder)
        give_data(folder, deployment)
    try:
        bring_up(folder, timeout_s=UP_S, progress=quiet)
        yield Lab(folder, deployment)
    finally:
        take_down(folder)
