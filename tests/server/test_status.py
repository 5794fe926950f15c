"""Where a run stands: told at every step, though not too often, and true to the end."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from server.status import Status


class Clock:
    """Monotonic seconds that pass when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("server.status.time.monotonic", lambda: self.now)


def read(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "status.json").read_text())
    return values


def test_a_run_is_starting_then_running_then_finished(tmp_path: Path) -> None:
    with Status(tmp_path / "run", num_rounds=3) as status:
        first = read(tmp_path / "run")
        written = datetime.fromisoformat(first.pop("time"))
        assert first == {
            "state": "starting", "phase": "", "done": 0, "total": 0, "round": 0, "rounds": 3, "error": "",
            "pid": os.getpid(),
        }  # fmt: skip
        assert timedelta(0) <= datetime.now(UTC) - written < timedelta(minutes=1)
        status.following(lambda *step: None)("teacher", 1, 2)
        running = read(tmp_path / "run")
        assert (running["state"], running["phase"], running["done"], running["total"]) == ("running", "teacher", 1, 2)
    assert read(tmp_path / "run")["state"] == "finished"
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["status.json"]


def test_progress_is_written_every_half_second_and_a_new_phase_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    status = Status(tmp_path, num_rounds=3)
    follow = status.following(lambda *step: None)
    seen = []
    for seconds, phase, done in ((0, "a", 0), (0.25, "a", 1), (0.24, "a", 2), (0.01, "a", 3), (0.1, "b", 0)):
        clock.now += seconds
        follow(phase, done, 9)
        seen.append((read(tmp_path)["phase"], read(tmp_path)["done"]))
    assert seen == [("a", 0), ("a", 0), ("a", 0), ("a", 3), ("b", 0)]


def test_the_launcher_is_told_every_step_as_before(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    follow = Status(tmp_path, num_rounds=1).following(lambda *step: told.append(step))
    for done in range(3):
        follow("teacher", done, 2)
    assert told == [("teacher", 0, 2), ("teacher", 1, 2), ("teacher", 2, 2)]


def test_the_last_round_stands_in_the_end(tmp_path: Path) -> None:
    with Status(tmp_path, num_rounds=2) as status:
        status.complete(1)
        status.complete(2)
    assert read(tmp_path)["round"] == 2


@pytest.mark.parametrize("error", [ValueError("no client\ncan take part"), SystemExit()])
def test_a_run_that_raises_leaves_failed_with_the_error_in_one_line(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), Status(tmp_path, num_rounds=2) as status:
        status.following(lambda *step: None)("federation", 3, 9)
        raise error
    left = read(tmp_path)
    text = " ".join(str(error).split())
    assert (left["state"], left["phase"], left["done"]) == ("failed", "federation", 3)
    assert left["error"].strip() == f"{type(error).__name__}: {text}".strip()


@pytest.mark.parametrize(
    ("error", "is_asked"), [(KeyboardInterrupt("SIGINT"), False), (RuntimeError("Ray has stopped"), True)]
)
def test_a_run_that_a_signal_ends_was_stopped_and_did_not_fail(
    error: BaseException, is_asked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.status.is_asked_to_end", lambda: is_asked)
    with pytest.raises(type(error)), Status(tmp_path, num_rounds=2):
        raise error
    assert (read(tmp_path)["state"], read(tmp_path)["error"]) == ("stopped", "")


def test_a_status_that_cannot_be_written_ends_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Status(tmp_path / "run", num_rounds=1) as status:
        (tmp_path / "run" / "status.json").unlink()
        (tmp_path / "run" / "status.json").mkdir()
        status.following(lambda *step: None)("teacher", 0, 1)
    assert "status.json: not written" in caplog.text
