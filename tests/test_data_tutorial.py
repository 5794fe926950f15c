"""What the tutorial on one's own data shows works, as it stands there."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from clients.data.modalities import MODALITIES
from sim.data.inspection import label_skews, open_parts
from tests.conftest import CHECKOUT
from tests.tutorials import answer_here, command, snippet

TUTORIAL = (CHECKOUT / "docs/tutorials/data.md").read_text()
FORM = (CHECKOUT / "docs/data.md").read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the first snippet was run."""
    made = tmp_path_factory.mktemp("tutorial")
    (made / "make_data.py").write_text(snippet(TUTORIAL, "make_data.py"))
    command(made, sys.executable, "make_data.py")
    return made


def test_the_arrays_become_a_federation_of_unlike_clients(folder: Path) -> None:
    parts = open_parts(folder / "my-data")
    clients = [part.name for part in parts if part.name.startswith("clients/")]
    assert [name.split("-")[1] for name in clients] == ["gps", "lidar"] * 3
    assert {part.recording.power.shape[1] for part in parts if part.recording.power is not None} == {32}
    assert max(label_skews(parts).values()) > 0.0


def test_the_commands_of_the_tutorial_run(folder: Path) -> None:
    (folder / "mine.yaml").write_text(snippet(TUTORIAL, "mine.yaml"))
    (block,) = re.findall(r"```\n(softbeam data validate.*?)```", TUTORIAL, flags=re.DOTALL)
    lines = block.strip().splitlines()
    assert len(lines) == 3
    for line in lines:
        assert line.split()[0] == "softbeam"
        answer = answer_here(folder, *line.split()[1:])
        assert answer.code == 0, answer.err
    (run,) = (folder / "runs").iterdir()
    summary = json.loads((run / "summary.json").read_text())
    assert len(summary["clients"]) == 6
    assert all(client["federated"] is not None for client in summary["clients"])


def test_the_frame_becomes_a_client_for_each_city(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    (tmp_path / "from_frame.py").write_text(snippet(TUTORIAL, "from_frame.py"))
    command(tmp_path, sys.executable, "from_frame.py")
    names = sorted(path.name for path in (tmp_path / "cities" / "clients").iterdir())
    assert names == ["000-Bonn-gps", "001-Oslo-gps", "002-Rome-gps"]


def test_the_form_names_the_array_of_every_modality_as_it_is() -> None:
    for name, row in MODALITIES.items():
        (line,) = [line for line in FORM.splitlines() if line.startswith("|") and f"`{name}.npy`" in line]
        shape = ", ".join(map(str, ("F", *row.frame_shape)))
        assert f"({shape}) {row.dtype.__name__}" in line  # type: ignore[union-attr]
