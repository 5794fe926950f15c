from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.labs import Lab, online_lab

LAST_LINES = 12


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the programs of a lab said last when a test fails that had one."""
    report = yield
    lab = getattr(item, "funcargs", {}).get("lab")
    if report.failed and isinstance(lab, Lab):
        for log in sorted(lab.folder.glob("**/state/log/*.jsonl")):
            lines = log.read_text(errors="replace").splitlines()[-LAST_LINES:]
            report.sections.append((str(log.relative_to(lab.folder)), "\n".join(line[:300] for line in lines)))
    return report


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
