"""What the tests of tutorials share: the snippets of a page, and its commands, run as a reader would run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT
from tests.sim.cli.test_main import Answer
from tests.sim.cli.test_main import softbeam as softbeam_here


def snippet(page: str, name: str) -> str:
    """The block of a page that begins with the comment ``# name``, without that line."""
    (found,) = re.findall(rf"```\w+\n# {re.escape(name)}\n(.*?)```", page, flags=re.DOTALL)
    return str(found)


def command(folder: Path, *words: str) -> str:
    """What a program prints in a folder; it must succeed."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "OMP_NUM_THREADS": "1",
        "SOFTBEAM_HOME": str(folder / "home"),
    }
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def softbeam(folder: Path, *words: str) -> str:
    """What ``softbeam`` prints in a folder, in a process of its own."""
    return command(folder, sys.executable, "-m", "sim.cli.main", *words)


def answer_here(folder: Path, *words: str) -> Answer:
    """What ``softbeam`` answers in a folder, in this process: a process of its own takes seconds to begin."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SOFTBEAM_HOME", str(folder / "home"))
        return softbeam_here(*words)


def follow(folder: Path, page: str, *files: str, first: str, count: int) -> str:
    """Write the files of a page into a folder, and run its block of commands.

    Args:
        folder: the folder.
        page: the text of the page.
        files: the names of its snippets.
        first: what the block begins with.
        count: the number of its lines.

    Returns:
        What the last line printed.
    """
    for name in files:
        (folder / name).write_text(snippet(page, name))
    (block,) = re.findall(rf"```\n({re.escape(first)}.*?)```", page, flags=re.DOTALL)
    lines = block.strip().splitlines()
    assert len(lines) == count
    said = ""
    for line in lines:
        program, *words = line.split()
        said = command(folder, sys.executable, *{"python": (), "softbeam": ("-m", "sim.cli.main")}[program], *words)
    return said
