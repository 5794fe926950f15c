from __future__ import annotations

import json
from pathlib import Path

from sim.cli.command_tree import run_command
from sim.cli.main import cli
from tests.sim.cli.test_main import softbeam


def test_the_commands_are_there() -> None:
    assert "models" in run_command(cli).commands  # type: ignore[attr-defined]


def test_models_lists_every_student_and_the_teacher(finished_run: Path) -> None:
    shown = softbeam("models", finished_run).out
    rows = json.loads(softbeam("models", finished_run, "--json").out)
    assert [row["name"] for row in rows] == ["000-gps", "001-gps", "002-lidar", "teacher"]
    assert all(row["name"] in shown and f"{row['parameters']:,}" in shown for row in rows)
