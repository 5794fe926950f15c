"""A run without one of its clients is to the bit the run which that client never joined."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import softbeam
from clients.app import build_app as build_client_app
from clients.learning.state import SUFFIX, unpack_state
from configs.loading import build_experiment
from configs.placement import Placement
from server.app import run as run_server
from server.checkpoint import FILE, readable_checkpoints
from server.session import Watch
from sim.cli.command_tree import run_command
from sim.cli.main import cli
from sim.experiments import continue_experiment, resume_experiment
from sim.forget import forget_client
from sim.inline import InlineGrid
from sim.run_note import read_run
from tests.conftest import tiny_values
from tests.federations import quiet
from tests.sim.cli.test_main import softbeam as command

FORGOTTEN = "001-gps"
# What says when, where and for how long a run ran, and not what came out.
ABOUT_THE_RUN = {"seconds", "seconds_late", "events"}


def finished(out: Path, found: dict[str, Any]) -> Path:
    return softbeam.run(found, out=out, progress=False).folder


def never_joined(run: Path, place: Path) -> Path:
    """The run of the same experiment on a copy of its data without the client, and with one node less."""
    experiment, note = read_run(run)
    federation = place / "federation"
    shutil.copytree(note["federation"], federation)
    shutil.rmtree(federation / "clients" / FORGOTTEN)
    changed = experiment.model_dump()
    changed["data"]["nodes"] = [{"modality": "gps", "count": 1}, {"modality": "lidar", "count": 1}]
    placement = Placement(build_experiment(changed, origin="test"), federation, place / "run", ())
    run_server(InlineGrid(build_client_app(placement), num_nodes=2), placement, Watch())
    return place / "run"


def plain(value: Any) -> Any:
    """Lines and summaries without clocks; tensors and arrays as bytes, which are equal only to the bit."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items() if key not in ABOUT_THE_RUN}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, torch.Tensor):
        value = value.numpy()
    return (value.dtype.str, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value


def outcome(run: Path) -> dict[str, Any]:
    """All that came out of a run: summary, rounds, validation, passes, teacher and students."""
    read = {name: json.loads((run / name).read_text()) for name in ("summary.json", "validation.json", "passes.json")}
    read["rounds"] = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    read["server"] = unpack_state((run / FILE).read_bytes())
    for path in sorted((run / "clients").rglob(f"[0-9]*{SUFFIX}")):
        read[str(path.relative_to(run))] = unpack_state(path.read_bytes())
    found: dict[str, Any] = plain(read)
    return found


@pytest.mark.parametrize(
    ("strategy", "kept_rounds"),
    [
        ({}, None),
        ({"participation": 0.5}, None),
        ({"keeps": "mixture"}, None),
        ({"name": "centralised"}, None),
        ({"rounds": 1}, 0),
    ],
    ids=["all", "half are invited", "mixtures", "pooled recordings", "from the checkpoint before the first round"],
)
def test_a_forgotten_client_leaves_what_a_run_gives_that_it_never_joined(
    strategy: dict[str, Any], kept_rounds: int | None, tmp_path: Path
) -> None:
    run = finished(tmp_path / "runs", tiny_values(**{"rounds": 2, **strategy}))
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    forgotten = forget_client(run, FORGOTTEN)
    expected = outcome(never_joined(run, tmp_path / "never"))
    learned = {one.split("/")[1] for one in expected if one.startswith("clients/")}
    assert learned and learned <= {"000-gps", "002-lidar"}
    assert outcome(forgotten.folder) == expected
    assert outcome(run) != expected
    assert forgotten.kept_rounds == kept_rounds
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before
    assert not (forgotten.folder / "clients" / FORGOTTEN).exists()
    assert not (forgotten.folder / "federation").exists()


def test_rounds_before_a_client_joined_are_taken_over(tmp_path: Path) -> None:
    whole = finished(tmp_path / "whole", tiny_values(rounds=2))
    run = never_joined(whole, tmp_path)
    expected = outcome(run)
    shutil.copyfile(whole / "placement.json", run / "placement.json")
    (run / FILE).unlink()  # as if it had joined in the second round
    forgotten = forget_client(run, FORGOTTEN)
    assert forgotten.kept_rounds == 1
    assert outcome(forgotten.folder) == expected


def test_a_forgotten_client_stays_away_from_a_resumed_run_and_from_the_next_forgetting(tmp_path: Path) -> None:
    run = finished(tmp_path, tiny_values(rounds=1))
    folder = forget_client(run, FORGOTTEN).folder
    expected = outcome(folder)
    (folder / "summary.json").unlink()
    shutil.rmtree(folder / "checkpoint")
    shutil.rmtree(folder / "clients")
    resume_experiment(folder, quiet)
    assert outcome(folder) == expected
    answer = command("forget", folder, "--client", FORGOTTEN)
    assert answer.code == 1
    assert f"there is no such client in {folder}; there are 000-gps, 002-lidar" in answer.err
    twice = forget_client(folder, "002-lidar")
    assert [one["id"] for one in json.loads((twice.folder / "summary.json").read_text())["clients"]] == ["000-gps"]
    with pytest.raises(ValueError, match="it is the only client"):
        forget_client(twice.folder, "000-gps")


def test_in_place_nothing_of_the_client_is_left(tmp_path: Path) -> None:
    run = finished(tmp_path, tiny_values(rounds=1))
    (run / "exported").mkdir()
    answer = command("forget", run, "--client", FORGOTTEN, "--in-place", "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["folder"] == str(run.resolve())
    assert [path.name for path in tmp_path.iterdir()] == [run.name]
    assert not (run / "exported").exists()
    assert sorted(path.name for path in (run / "clients").iterdir()) == ["000-gps", "002-lidar"]
    checkpoints = readable_checkpoints(run)
    assert len(checkpoints) == 2
    for one in checkpoints:
        assert FORGOTTEN not in one.federation.members
        assert FORGOTTEN not in one.findings["controls"]
    note = json.loads((run / "placement.json").read_text())
    assert (note["without"], note["forgot"]["client"]) == ([FORGOTTEN], FORGOTTEN)
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert [(one["who"], one["text"]) for one in events if one["kind"] == "forgotten"] == [
        (FORGOTTEN, f"forgotten: {run.name} was run again without it after round 0")
    ]


def test_the_run_without_a_client_is_not_taken_for_the_run_of_the_experiment(tmp_path: Path) -> None:
    experiment = build_experiment(tiny_values(rounds=1), origin="test")
    run = finished(tmp_path, tiny_values(rounds=1))
    forget_client(run, FORGOTTEN, in_place=True)
    assert continue_experiment(experiment, plugins=(), out=tmp_path, progress=quiet) != run


def test_a_run_on_real_machines_is_refused_with_what_to_do(tmp_path: Path) -> None:
    run = finished(tmp_path, tiny_values(rounds=1))
    note = json.loads((run / "placement.json").read_text())
    (run / "placement.json").write_text(json.dumps({**note, "deployment": "lab"}))
    answer = command("forget", run, "--client", FORGOTTEN)
    assert answer.code == 1
    assert "softbeam deploy revoke DIR NODE" in answer.err
    assert len(answer.err.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == [run.name]


def test_the_command_says_that_it_deletes_only_when_it_is_told_to() -> None:
    forget = run_command(cli).commands["forget"]  # type: ignore[attr-defined]
    assert "left as it is" in forget.help
    assert [one.default for one in forget.params if "--in-place" in one.opts] == [False]
