"""What commands show while they work, in a file and in a pipe."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import yaml
from rich.table import Table

from sim.cli.terminal import ProgressBar, complete_config, complete_preset, complete_strategies, wide_console
from tests.conftest import CHECKOUT, tiny_values


def shown(calls: list[tuple[str, int, int]], *, rounds: int, quiet: bool = False) -> list[str]:
    with redirect_stderr(io.StringIO()) as err, ProgressBar("tiny", quiet=quiet, rounds=rounds) as progress:
        progress.begin_in(Path("/runs/" + "x" * 200))
        for call in calls:
            progress(*call)
    return err.getvalue().splitlines()


def test_a_file_gets_the_run_folder_and_then_one_line_for_each_phase_and_round() -> None:
    calls = [("data", done, 4) for done in range(5)]
    calls += [("teacher", 0, 1), ("teacher", 1, 1)]
    calls += [("federation", done, 6) for done in (0, 1, 2, 2, 3, 4, 4, 5, 6, 6)]
    lines = shown(calls, rounds=3)
    assert lines[0] == "run folder: /runs/" + "x" * 200
    assert [line.rpartition(" s")[0].rpartition(",")[0] for line in lines if " left" not in line][1:] == [
        "tiny: data: 4 of 4",
        "tiny: teacher: 1 of 1",
        "tiny: federation: round 3 of 3, 6 of 6",
    ]
    assert [line.split(", ")[0] for line in lines if " s left" in line] == [
        "tiny: federation: round 1 of 3",
        "tiny: federation: round 2 of 3",
    ]


def test_a_resumed_run_begins_with_the_round_after_the_last() -> None:
    lines = shown([("federation", done, 6) for done in (2, 3, 4, 5, 6)], rounds=3)
    assert [line.split(", ")[0] for line in lines[1:]] == [
        "tiny: federation: round 2 of 3",
        "tiny: federation: round 3 of 3",
    ]


def test_a_phase_that_is_done_at_once_has_its_line() -> None:
    assert shown([("data", 4, 4)], rounds=0)[1].startswith("tiny: data: 4 of 4, 0 s")


def test_a_long_round_says_now_and_then_which_one_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.cli.terminal.HEARTBEAT_S", 0.0)
    lines = shown([("federation", done, 6) for done in (0, 1, 2, 3)], rounds=3)
    assert [line.split(", ")[0] for line in lines[1:]] == [
        "tiny: federation: in round 1 of 3",
        "tiny: federation: round 1 of 3",
        "tiny: federation: in round 2 of 3",
    ]


def test_quiet_shows_nothing() -> None:
    assert shown([("data", 0, 1), ("data", 1, 1)], rounds=0, quiet=True) == []


def test_a_pipe_gets_lines_of_any_length_and_none_that_ends_in_blanks() -> None:
    with redirect_stdout(io.StringIO()) as out:
        table = Table("name", "what", caption="a caption " * 30)
        table.add_row("x" * 90, "y" * 200)
        wide_console().print("z" * 300)
        wide_console().print(table)
    lines = out.getvalue().splitlines()
    assert lines[0] == "z" * 300
    assert any("x" * 90 in line and "y" * 200 in line for line in lines)
    assert ("a caption " * 30).strip() in [line.strip() for line in lines]
    assert [line for line in lines if line != line.rstrip() and "caption" not in line] == []


def test_a_run_into_a_file_has_no_bars_and_no_wrapped_lines(tmp_path: Path, home: Path) -> None:
    values = {**tiny_values(rounds=2), "controls": False}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(values))
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1", "COLUMNS": "40"}
    command = [sys.executable, "-m", "sim.cli.main", "run", "tiny.yaml", "--set", "engine.workers=1"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    folder = Path(done.stdout.splitlines()[-1])
    lines = done.stderr.splitlines()
    assert lines[0] == f"run folder: {folder}"
    assert [line.split(":")[1].strip() for line in lines[1:]] == [*(["data"] * (len(lines) - 4)), "teacher"] + [
        "federation"
    ] * 2
    assert not any(mark in done.stdout + done.stderr for mark in "━\r\x1b")
    assert any(line.startswith("bytes per client and round: ") for line in done.stdout.splitlines())
    assert json.loads((folder / "summary.json").read_text())["rounds"] == 2


def test_words_are_completed_from_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "night.yaml").touch()
    (tmp_path / "nights").mkdir()
    (tmp_path / "notes.txt").touch()
    assert complete_config("n") == ["night-shift", "night-nodes", "no-public-set", "night.yaml", "nights/"]
    assert complete_strategies("local,fed") == ["local,fedmd", "local,fedgems", "local,fedproto", "local,fedavg"]
    assert complete_strategies("al") == ["all"]
    assert complete_preset("multi") == ["multi-site-mild", "multi-site-hard"]
