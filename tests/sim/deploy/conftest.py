from __future__ import annotations

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
