"""Whole federations whose clients lose files, fill their disks, record on, or have no labels."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

import clients.memory
from clients.app import build_app as build_client_app
from clients.data.arrivals import append_arrival
from clients.data.recording import open_recording
from clients.memory import ClientMemory
from configs.loading import build_experiment
from configs.placement import Placement
from configs.schema import Experiment
from server.recorder import read_rounds
from sim.experiments import run_experiment
from sim.report.faults import fault_lines
from tests.conftest import tiny_experiment, tiny_values
from tests.disks import fill, small_disk
from tests.federations import assert_same_outcome, place, quiet, run_apps

ONE = "000-gps"
SECURE = {"secure_sum": True, "aggregator": {"name": "mean"}, "codec": "float32", "publish": "ensemble"}
EVERY_KIND = {
    "differences": {},
    "whole rows": {"codec": "float16"},
    "expiring": {"target_lifetime": 2},
    "own targets": {"name": "personal", "aggregator": {"name": "mean"}},
    "masked": SECURE,
    "relations": {"relations": {}},
    "relations alone": {"relations": {"share": 1.0}},
    "beams": {"name": "fd"},
    "prototypes": {"name": "fedproto"},
    "weights": {"name": "fedavg"},
    "nothing": {"name": "local"},
}
# A student of a user's own that passes its trial and raises later.
LATE = """
from torch import nn
class Late(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.calls = 0
        self.body = nn.Linear(spec.num_frames * spec.shape[0], 16)
        self.head = nn.Linear(16, spec.num_horizons * spec.num_classes)
    def features(self, frames):
        self.calls += 1
        if self.calls > 8:
            raise ValueError("late model")
        return self.body(frames["gps"].flatten(1))
    def classify(self, features):
        return self.head(features)
"""
# What is a soft label comes as targets that a client must not lose.
WITH_TARGETS = {
    "differences", "whole rows", "expiring", "own targets", "masked", "relations", "relations alone", "beams",
}  # fmt: skip


class Stopped(BaseException):
    """The server is killed."""


class Watched(ClientApp):
    """Runs something before the rounds of client `ONE`, and keeps what it replied."""

    def __init__(self, placement: Placement, before: Callable[[int], None] = lambda number: None) -> None:
        super().__init__()
        self.inner, self.before = build_client_app(placement), before
        self.replies: dict[int, Message] = {}

    def __call__(self, message: Message, context: Context) -> Message:
        is_here = context.node_config["partition-id"] == 0 and message.metadata.message_type == "train.round"
        number = int(message.content["header"]["round"])
        if is_here:
            self.before(number)
        reply = self.inner(message, context)
        if is_here:
            self.replies[number] = reply
        return reply

    def facts(self, number: int) -> Any:
        return self.replies[number].content[f"{ONE}/facts"]


def experiment(**strategy: Any) -> Experiment:
    return build_experiment({**tiny_values(**strategy), "controls": False}, origin="test")


def problems(run: Path, client: str = ONE) -> list[str]:
    return [line["clients"][client]["problem"] for line in read_rounds(run)]


def memory_of(placement: Placement) -> Path:
    return placement.run / "clients" / ONE


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_client_whose_newest_memory_is_corrupt_goes_on_from_the_older_one(kind: str, tmp_path: Path) -> None:
    placement = place(experiment(**EVERY_KIND[kind], rounds=5), tmp_path / "run")

    def stops_in_round_3(number: int) -> None:
        if number == 3:
            raise Stopped

    with pytest.raises(Stopped):
        run_apps(placement, client_app=Watched(placement, stops_in_round_3))
    newest = memory_of(placement) / "000002.state"
    newest.write_bytes(newest.read_bytes()[:-100])
    run_apps(placement)
    behind = "holds the targets up to round 0"
    assert [behind in problem for problem in problems(placement.run)] == [
        False, False, kind in WITH_TARGETS, False, False,
    ]  # fmt: skip
    assert [bool(problem) for problem in problems(placement.run)] == [False, False, kind in WITH_TARGETS, False, False]
    assert not any(problems(placement.run, "002-lidar"))
    names = {path.name for path in memory_of(placement).iterdir()}
    # What it lost its targets for in round 3 it did not learn, so it wrote nothing then.
    third = "000001.state" if kind in WITH_TARGETS else "000003.state"
    assert names - {"secret.key"} == {"000002.state.broken", third, "000004.state", "000005.state"}


@pytest.mark.parametrize("kind", ["differences", "whole rows", "own targets"])
def test_a_client_that_holds_other_targets_than_were_sent_throws_them_away(kind: str, tmp_path: Path) -> None:
    placement = place(experiment(**EVERY_KIND[kind], rounds=5), tmp_path / "run")

    def damages(number: int) -> None:
        if number == 3:
            memory = ClientMemory(memory_of(placement))
            state = memory.load(before_round=3)
            assert state is not None
            state["exchange"]["targets"][1]["rounds"][0] += 1
            memory.save(state, round_number=2)

    app = Watched(placement, damages)
    run_apps(placement, client_app=app)
    # The digest in the answer of round 3 shows it; everything comes anew in round 4.
    assert problems(placement.run) == [""] * 5
    down = [line["clients"][ONE]["downlink_bytes"] for line in read_rounds(placement.run)]
    others = [line["clients"]["001-gps"]["downlink_bytes"] for line in read_rounds(placement.run)]
    assert down[3] > 1.2 * others[3]
    assert down[4] < 1.2 * others[4]


def disk_full_in(*numbers: int) -> Callable[[pytest.MonkeyPatch], Callable[[int], None]]:
    def fill_up(patch: pytest.MonkeyPatch) -> Callable[[int], None]:
        write, now = clients.memory.swap_in, 0

        def written(path: Path, content: bytes) -> None:
            if now in numbers and path.parent.name == ONE:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            write(path, content)

        def before(number: int) -> None:
            nonlocal now
            now = number

        patch.setattr(clients.memory, "swap_in", written)
        return before

    return fill_up


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_full_disk_costs_no_answer_and_the_next_round_heals_what_it_cost(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placement = place(experiment(**EVERY_KIND[kind], rounds=5), tmp_path / "run")
    app = Watched(placement, disk_full_in(2, 3)(monkeypatch))
    run_apps(placement, client_app=app)
    assert problems(placement.run) == [""] * 5
    for number in range(1, 6):
        facts = app.facts(number)
        if number in (2, 3):
            assert facts["warning"] == "memory not written: No space left on device"
        else:
            assert "warning" not in facts
        if kind in WITH_TARGETS:
            # In rounds 2 and 3 it durably holds what it held after round 1.
            assert facts["known_round"] == {2: 0, 3: 0}.get(number, number - 1)
            assert ("cache_digest" in facts) == (number not in (2, 3))
    assert {path.name for path in memory_of(placement).iterdir()} - {"secret.key"} == {
        "000001.state",
        "000004.state",
        "000005.state",
    }


def test_a_client_on_a_disk_that_is_really_full_answers_and_heals(tmp_path: Path) -> None:
    placement = place(experiment(rounds=4), tmp_path / "run")
    with small_disk(tmp_path) as disk:
        memory_of(placement).parent.mkdir()
        memory_of(placement).symlink_to(disk)

        def before(number: int) -> None:
            if number == 2:
                fill(disk)
            elif number == 3:
                assert sorted(path.name for path in disk.iterdir()) == ["000001.state", "ballast"]
                (disk / "ballast").unlink()

        app = Watched(placement, before)
        run_apps(placement, client_app=app)
        assert "No space left on device" in app.facts(2)["warning"]
        assert app.facts(2)["known_round"] == 0
        assert "warning" not in app.facts(3)
        assert app.facts(3)["known_round"] == 2
        assert problems(placement.run) == [""] * 4


def own_federation(placement: Placement, folder: Path) -> Placement:
    """The same placement with a federation that a test may change."""
    shutil.copytree(placement.federation, folder)
    return Placement(placement.experiment, folder, placement.run, placement.plugins)


def strip_labels(recording: Path) -> None:
    manifest = recording / "recording.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "labelled": False}))
    (recording / "power.npy").unlink()


def test_passes_that_arrive_are_trained_on_and_counted(tmp_path: Path) -> None:
    placement = own_federation(place(experiment(rounds=4), tmp_path / "run"), tmp_path / "federation")
    own, source = placement.federation / "clients" / ONE, placement.federation / "clients" / "001-gps"
    task = placement.experiment.task
    lengths = (task.num_frames, task.num_future)
    new = open_recording(source).window_starts(*lengths)
    for_test = open_recording(source).window_starts(*lengths, "test")

    def arrives(number: int) -> None:
        if number == 3:
            append_arrival(own, source, "later")
            half_made = own / "arrivals" / "never"
            half_made.mkdir()

    app = Watched(placement, arrives)
    run_apps(placement, client_app=app)
    examples = [app.facts(number)["num_examples"] for number in range(1, 5)]
    passes = [app.facts(number)["num_passes"] for number in range(1, 5)]
    assert problems(placement.run) == [""] * 4
    assert examples[0] == examples[1] == len(open_recording(own).window_starts(*lengths, "train"))
    # Three passes arrive, of which the share of 0.3 keeps none for validation yet.
    assert examples[2] == examples[3] == examples[0] + len(new) - len(for_test)
    assert [number - passes[0] for number in passes] == [0, 0, 3, 3]
    assert sum(app.facts(3)["seen"]) >= sum(app.facts(2)["seen"])


def test_a_growing_recording_keeps_the_input_scales_of_its_first_fit(tmp_path: Path) -> None:
    placement = own_federation(place(experiment(rounds=3), tmp_path / "run"), tmp_path / "federation")
    own = placement.federation / "clients" / ONE

    def arrives(number: int) -> None:
        if number == 2:
            append_arrival(own, placement.federation / "clients" / "001-gps", "later")

    run_apps(placement, client_app=Watched(placement, arrives))
    memory = ClientMemory(memory_of(placement))
    states = [memory.load(before_round=number) for number in (3, 4)]
    # The two newest are of rounds 2 and 3; the scales are those of a federation in which nothing arrived.
    still = place(experiment(rounds=3), tmp_path / "still")
    run_apps(still)
    states.append(ClientMemory(memory_of(still)).load(before_round=4))
    scales = [
        {name: value for name, value in state["learner"]["model"].items() if "standardise" in name}
        for state in states
        if state is not None
    ]
    assert len(scales) == 3
    for other in scales[1:]:
        for name, value in scales[0].items():
            np.testing.assert_array_equal(value, other[name])


def test_an_empty_folder_for_arrivals_changes_no_bit(tmp_path: Path) -> None:
    plain = place(experiment(rounds=2), tmp_path / "plain")
    growing = own_federation(place(experiment(rounds=2), tmp_path / "growing"), tmp_path / "federation")
    (growing.federation / "clients" / ONE / "arrivals").mkdir()
    run_apps(plain)
    run_apps(growing)
    assert_same_outcome(plain.run, growing.run)


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_client_without_labels_takes_part_in_every_kind_of_federation(kind: str, tmp_path: Path) -> None:
    settings = {**EVERY_KIND[kind], "rounds": 3}
    placement = own_federation(place(tiny_experiment(**settings), tmp_path / "run"), tmp_path / "federation")
    strip_labels(placement.federation / "clients" / ONE)
    app = Watched(placement)
    run_apps(placement, client_app=app)
    # Weights that no label has touched are not averaged.
    assert all("no weights" in text if kind == "weights" else not text for text in problems(placement.run))
    assert not any(problems(placement.run, "001-gps"))
    for number in range(1, 4):
        assert (app.facts(number)["num_examples"], app.facts(number)["num_passes"]) == (0, 0)
        assert sum(app.facts(number)["seen"]) == 0


@pytest.mark.parametrize("kind", ["differences", "masked", "own targets"])
def test_a_client_without_labels_answers_once_it_has_digested_something(kind: str, tmp_path: Path) -> None:
    settings = {**EVERY_KIND[kind], "rounds": 3, "teacher_starts": False}
    placement = own_federation(place(tiny_experiment(**settings), tmp_path / "run"), tmp_path / "federation")
    strip_labels(placement.federation / "clients" / ONE)
    app = Watched(placement)
    run_apps(placement, client_app=app)
    lines = read_rounds(placement.run)
    # A sum needs all or nothing of each, so there it counts as one that dropped out.
    assert [bool(text) for text in problems(placement.run)] == [kind == "masked", False, False]
    assert [line["clients"][ONE]["num_answers"] for line in lines] == [0, 24, 24]
    assert [line["num_targets"] for line in lines] == [24, 24, 24]


def test_a_student_without_labels_learns_from_targets_alone_far_above_chance(tmp_path: Path) -> None:
    values = tiny_values(rounds=3, public_samples=0)
    values["data"]["passes"] |= {"server": 12, "public": 8, "test": 3}
    values["teacher"] = values["students"]["gps"] = {"width": 4, "features": 24, "hidden": 32}
    values["training"] |= {"first_round_steps": 150, "steps_per_round": 80, "batch_size": 16, "learning_rate": 5e-3}
    values["teaching"] |= {"pretrain_steps": 250, "steps_per_round": 20, "batch_size": 16, "learning_rate": 5e-3}
    placement = place(build_experiment(values, origin="test"), tmp_path / "run")
    placement = own_federation(placement, tmp_path / "federation")
    strip_labels(placement.federation / "clients" / ONE)
    run_apps(placement)
    summary = json.loads((placement.run / "summary.json").read_text())
    (mine,) = [client for client in summary["clients"] if client["id"] == ONE]
    assert mine["passes"] == 0
    federated, alone = (float(np.mean(mine[arm]["top5"])) for arm in ("federated", "local"))
    # Chance is 5 / 64; alone it has nothing to learn from.
    assert alone < 0.2
    assert federated > 0.4
    assert problems(placement.run) == [""] * 3


@pytest.mark.parametrize("kind", ["ValueError", "RuntimeError"])
def test_a_student_that_raises_after_its_trial_is_told_with_its_place_and_without_a_stack(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / f"late_{kind.lower()}.py").write_text(LATE.replace("ValueError", kind))
    students = {"gps": {"model": f"late_{kind.lower()}:Late"}}
    experiment = build_experiment({**tiny_values(), "students": students}, origin="test")
    run = run_experiment(experiment, plugins=(tmp_path,), out=tmp_path / "runs", progress=quiet)
    lines = fault_lines([json.loads((run / "summary.json").read_text())])
    (told,) = (line for line in lines if line.startswith(f"{ONE}: has no controls"))
    text = "ValueError: late model " if kind == "ValueError" else "RuntimeError "
    assert told.startswith(f"{ONE}: has no controls: {text}(late_{kind.lower()}.py, line 12, in ")
    logged = [record for record in caplog.records if record.levelname == "ERROR"]
    assert logged and not any(record.exc_info for record in logged)
    assert all(f"{kind}: late model (late_{kind.lower()}.py, line 12, in " in one.getMessage() for one in logged)
