"""The commands of docs/deploy.md, as a reader would type them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT

PATIENCE_S = 1200.0
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "runs", ".softbeam", ".*_cache", "__pycache__")


def commands() -> list[str]:
    """The first block of commands of the guide."""
    block = re.search(r"```bash\n(.*?)```", (CHECKOUT / "docs/deploy.md").read_text(), re.S)
    assert block is not None
    return block.group(1).strip().splitlines()


def test_a_running_federation_takes_six_commands_at_most() -> None:
    assert len(commands()) <= 6
    assert any("--on" in command for command in commands())


@pytest.mark.deployment
def test_the_commands_of_the_guide_run_a_federation_of_four_nodes(tmp_path: Path, has_nginx: None) -> None:
    if not (CHECKOUT / ".venv/installed").is_file():
        pytest.skip("the checkout has no .venv; its first command would install one")
    checkout = tmp_path / "softbeam"
    shutil.copytree(CHECKOUT, checkout, ignore=LEFT_OUT)
    (checkout / ".venv").symlink_to(CHECKOUT / ".venv")
    environment = {name: value for name, value in os.environ.items() if name != "SOFTBEAM_HOME"}
    script = "set -euo pipefail\n" + "\n".join(commands())
    try:
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=checkout,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    finally:
        subprocess.run([checkout / ".venv/bin/softbeam", "deploy", "down", "lab"], cwd=checkout, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = (checkout / "lab/server/state/runs").glob("four-nodes-*")
    assert (run / "report.html").is_file()
    assert str(run) in done.stdout
    assert "4 machines stopped" not in done.stdout
    assert "5 machines stopped" in done.stdout
