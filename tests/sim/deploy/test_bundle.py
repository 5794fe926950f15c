"""What Flower ships to the nodes."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

from sim.deploy.flower import flower_environment, program
from tests.conftest import CHECKOUT
from tests.sim.deploy.test_guide import LEFT_OUT

ROOMS = {"clients", "configs", "server", "sim", "strategies"}


def bundled(checkout: Path, home: Path) -> set[str]:
    environment = {**os.environ, **flower_environment(home)}
    subprocess.run([program("flwr"), "build"], cwd=checkout, env=environment, check=True, capture_output=True)
    (bundle,) = checkout.glob("*.fab")
    with zipfile.ZipFile(bundle) as archive:
        names = set(archive.namelist())
    bundle.unlink()
    return names


def test_a_bundle_holds_the_rooms_and_nothing_that_lies_about_in_the_checkout(tmp_path: Path) -> None:
    checkout = tmp_path / "softbeam"
    shutil.copytree(CHECKOUT, checkout, ignore=LEFT_OUT)
    before = bundled(checkout, tmp_path / "flower")
    modules = {path.relative_to(checkout).as_posix() for room in ROOMS for path in (checkout / room).rglob("*.py")}
    assert modules <= before
    assert "configs/quickstart.yaml" in before
    assert not {name for name in before if name.startswith("tests/")}
    # A deployment in the checkout, whose nodes have been sent a bundle.
    left = ("lab/nodes/a/state/flower/apps/x/clients/app.py", "lab/server/server.yaml", "mine.yaml", "my_rules.py")
    for path in left:
        (checkout / path).parent.mkdir(parents=True, exist_ok=True)
        (checkout / path).write_text("")
    assert bundled(checkout, tmp_path / "flower") == before
