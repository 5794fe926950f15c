from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.labs import Lab, online_lab


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
    with online_lab(tmp_path_factory.mktemp("deployment") / "lab", home) as lab:
        yield lab
