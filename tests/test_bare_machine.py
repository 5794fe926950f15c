"""Tests that are not of deployments run on a machine that has Python and little else."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import FOREIGN, path_without_foreign


@pytest.mark.parametrize("program", FOREIGN)
def test_a_program_that_only_deployments_need_is_not_found(program: str) -> None:
    assert shutil.which(program) is None
    with pytest.raises(FileNotFoundError):
        subprocess.run([program], check=False)


def test_a_folder_loses_its_foreign_programs_alone_and_the_others_stay_as_they_are(tmp_path: Path) -> None:
    mixed, plain, scratch = (tmp_path / name for name in ("mixed", "plain", "scratch"))
    for program in (*(mixed / name for name in (*FOREIGN, "own")), plain / "other"):
        program.parent.mkdir(exist_ok=True)
        program.write_text("#!/bin/sh\nexit 7\n")
        program.chmod(0o755)
    scratch.mkdir()
    path = path_without_foreign(f"{mixed}{os.pathsep}{plain}", scratch)
    assert [name for name in (*FOREIGN, "own", "other") if shutil.which(name, path=path)] == ["own", "other"]
    assert subprocess.run([shutil.which("own", path=path) or ""], check=False).returncode == 7
    assert path.split(os.pathsep)[1] == str(plain)
