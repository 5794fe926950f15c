from __future__ import annotations

import pytest

from sim.notebook_progress import NotebookProgress, in_notebook


def test_a_phase_is_one_line_that_is_written_over(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NotebookProgress, "PERIOD_S", 0.0)
    line = NotebookProgress("tiny")
    for done in (0, 1, 2):
        line("teacher", done, 2)
    line("federation", 3, 3)
    line.close()
    shown = [part.split("\r")[-1].rstrip() for part in capsys.readouterr().out.rstrip("\n").split("\n")]
    assert shown == ["tiny: teacher: 2 of 2, 0 s", "tiny: federation: 3 of 3, 0 s"]


def test_a_test_is_no_notebook() -> None:
    assert not in_notebook()
