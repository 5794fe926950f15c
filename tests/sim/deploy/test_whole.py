"""A program of Flower ends with the first of its parts, whatever its other threads do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sim.deploy import whole

# What serves apps in a SuperNode is such a thread: it keeps the process.
SERVING = "threading.Thread(target=time.sleep, args=(60,)).start()"
FAILING = "threading.Thread(target=lambda: 1 / 0, name='heartbeat').start()"


@pytest.mark.parametrize(
    ("body", "code", "last_line"),
    [
        (SERVING, whole.FAILED, "ERROR: its main function came to an end; the program ended with it"),
        (f"{SERVING}; sys.exit(42)", 42, ""),
        (f"{SERVING}; sys.exit()", 0, ""),
        (f"{SERVING}; sys.exit('no key')", whole.FAILED, "ERROR: no key; the program ended with it"),
        (f"{SERVING}; return 3", 3, ""),
        (f"{SERVING}; {{}}['x']", whole.FAILED, "ERROR: its main function failed; the program ended with it"),
        (
            f"{FAILING}; time.sleep(60)",
            whole.FAILED,
            "ERROR: heartbeat failed with ZeroDivisionError: division by zero; the program ended with it",
        ),
        ("threading.Thread(target=sys.exit).start(); time.sleep(0.2); sys.exit(5)", 5, ""),
    ],
    ids=[
        "returns",
        "exits",
        "exits well",
        "exits with a text",
        "returns a code",
        "fails",
        "thread fails",
        "thread ends",
    ],
)
def test_a_program_ends_with_the_first_of_its_parts(body: str, code: int, last_line: str, tmp_path: Path) -> None:
    done = run(
        tmp_path, f"import sys, threading, time\ndef main():\n    assert sys.argv == ['beam-app', '-x']; {body}\n"
    )
    assert done.returncode == code, done.stderr
    assert (done.stderr.strip().splitlines() or [""])[-1] == last_line


def test_a_program_that_is_not_installed_is_named(tmp_path: Path) -> None:
    done = run(tmp_path, "", name="other-app")
    assert done.returncode == whole.FAILED
    assert "no installed distribution has a program other-app" in done.stderr


def run(site: Path, source: str, *, name: str = "beam-app") -> subprocess.CompletedProcess[str]:
    """Run a program whose main function lies in a module of an installed distribution."""
    (site / "beam_app.py").write_text(source)
    facts = site / "beam_app-1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Name: beam-app\nVersion: 1\n")
    (facts / "entry_points.txt").write_text("[console_scripts]\nbeam-app = beam_app:main\n")
    return subprocess.run(
        [sys.executable, "-P", whole.__file__, name, "-x"],
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
