"""Where a client keeps its memory of a run, whatever the server calls that run."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from clients.context import NOTE, ClientContext
from clients.profile import ClientProfile
from configs.placement import HOME_VARIABLE, Placement
from strategies.messages.wire import Header, WireError
from tests.conftest import tiny_experiment


def context(run: str = "street-1", memory: Path | None = None, *, is_virtual: bool = False) -> ClientContext:
    profile = ClientProfile("mast-3", "gps", None, Path("public"), None, memory=memory, is_virtual=is_virtual)
    placement = Placement(tiny_experiment(), Path("federation"), Path("/results/street-1-of-flower"), ())
    return ClientContext(profile, placement, Header(run, "e", "s", 1, "public"))


def test_a_machine_with_a_folder_for_it_keeps_its_memory_there_by_run_and_client() -> None:
    assert context(memory=Path("/state/runs")).memory().folder == Path("/state/runs/street-1/mast-3")


def test_a_machine_without_one_keeps_it_under_the_home_of_softbeam(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))
    assert context().memory().folder == tmp_path / "runs" / "street-1" / "clients" / "mast-3"


def test_a_virtual_client_keeps_it_in_the_folder_of_the_results() -> None:
    assert context(is_virtual=True).memory().folder == Path("/results/street-1-of-flower/clients/mast-3")


def test_a_real_client_notes_its_experiment_and_a_full_disk_costs_the_note_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    note = tmp_path / "street-1/mast-3" / NOTE
    with monkeypatch.context() as patch:
        patch.setattr("clients.context.write_durably", full)
        context(memory=tmp_path).note_experiment()
    assert "not written" in caplog.text and not note.exists()
    context(memory=tmp_path).note_experiment()
    assert json.loads(note.read_text())["experiment"]["name"] == "tiny"


@pytest.mark.parametrize("run", ["street-1", "a run", "...", ".hidden", "ütf-8"])
def test_the_name_of_one_folder_is_taken(run: str) -> None:
    assert context(run, Path("/state")).folder == Path("/state") / run / "mast-3"


@pytest.mark.parametrize("run", ["", ".", "..", "/etc", "../other", "a/b", "a/", "a\\b", "a\0b"])
def test_a_run_that_is_no_name_of_a_folder_is_refused(run: str) -> None:
    with pytest.raises(WireError, match="run: must be the name of one folder"):
        context(run)
