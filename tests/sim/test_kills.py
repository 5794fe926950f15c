"""The server, killed at any moment and started again, ends as if nothing had happened; so it does on a broken disk."""

from __future__ import annotations

import json
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from clients.app import build_app as build_client_app
from clients.learning.state import unpack_state
from clients.profile import cohorts_of
from configs.placement import Placement
from configs.schema import Engine
from configs.seeding import rng_for
from server.app import build_app as build_server_app
from server.checkpoint import FILE, PREVIOUS
from server.recorder import read_rounds
from server.session import Watch
from sim.inline import run_inline
from tests.conftest import CHECKOUT, tiny_experiment
from tests.federations import assert_same_outcome, place, run_apps

NUM_KILLS, NUM_ATTEMPTS = 20, 4


def run_and_tell(placement: Placement, told: Connection) -> None:
    """The whole federation in this process; a byte for each step of its progress."""
    num_nodes = len(cohorts_of(placement.federation, placement.experiment))
    watch = Watch(progress=lambda phase, done, total: told.send_bytes(b"."), num_nodes=num_nodes)
    run_inline(build_server_app(placement, watch), build_client_app(placement), num_nodes=num_nodes)


@pytest.fixture(scope="module")
def forks() -> Iterator[ForkServerContext]:
    """Processes that have imported everything before they begin."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.sim.test_kills"])
    with pytest.MonkeyPatch.context() as patch:
        # A fork server of its own sees neither pytest's import path nor what was set for this process alone.
        patch.setenv("PYTHONPATH", str(CHECKOUT))
        patch.setenv("OMP_NUM_THREADS", "1")
        process = context.Process(target=int)
        process.start()
        process.join()
    yield context


@pytest.fixture(scope="module")
def whole(home: Path, forks: ForkServerContext, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    """A run that nobody kills, and the seconds between the steps of its progress and after the last."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTBEAM_HOME", str(home))
        placement = place(tiny_experiment(), tmp_path_factory.mktemp("whole") / "tiny")
    hears, tells = forks.Pipe(duplex=False)
    process = forks.Process(target=run_and_tell, args=(placement, tells))
    process.start()
    tells.close()
    times = []
    with pytest.raises(EOFError):
        while True:
            hears.recv_bytes()
            times.append(time.monotonic())
    process.join()
    assert process.exitcode == 0
    return placement.run, [
        later - earlier for earlier, later in zip(times, [*times[1:], time.monotonic()], strict=True)
    ]


def kill(forks: ForkServerContext, placement: Placement, *, after_steps: int, after_seconds: float) -> bool:
    """Start a run and kill it so long after a step of its progress; whether it still ran then."""
    hears, tells = forks.Pipe(duplex=False)
    process = forks.Process(target=run_and_tell, args=(placement, tells))
    process.start()
    tells.close()
    with suppress(EOFError):
        for _ in range(after_steps):
            hears.recv_bytes()
        time.sleep(after_seconds)
    if process.is_alive():  # otherwise its number may be another's by now
        process.kill()
    process.join()
    hears.close()
    return process.exitcode == -signal.SIGKILL


def state_of(run: Path) -> dict[str, Any]:
    """Every value and tensor of the checkpoint but its seconds, by its place."""
    found = dict(leaves(unpack_state((run / FILE).read_bytes())))
    return {place: value for place, value in found.items() if not place.startswith(".findings.seconds")}


def leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, part in value.items():
            yield from leaves(part, f"{place}.{name}")
    elif isinstance(value, (list, tuple)):
        for index, part in enumerate(value):
            yield from leaves(part, f"{place}.{index}")
    else:
        yield place, value


def assert_same_to_the_bit(expected: Path, found: Path) -> None:
    """Teacher, targets, what the server remembers, every line of the record, and the scores of the summary."""
    one, other = state_of(expected), state_of(found)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]) if torch.is_tensor(value) else value == other[name], name
    assert any(name.startswith(".teacher.") and torch.is_tensor(value) for name, value in one.items())
    assert_same_outcome(expected, found)
    summaries = [json.loads((run / "summary.json").read_text()) for run in (expected, found)]
    for key in ("clients", "teacher", "break_even_samples", "rounds", "faults"):
        assert summaries[0][key] == summaries[1][key]


def test_a_run_killed_at_each_of_20_random_moments_and_resumed_is_the_uninterrupted_one_to_the_bit(
    forks: ForkServerContext, whole: tuple[Path, list[float]], tmp_path: Path
) -> None:
    run, gaps = whole
    rng = rng_for(0, "kills")
    was_killed = []
    for number in range(NUM_KILLS):
        # Spread over pretraining, controls and rounds: one in each twentieth of the steps.
        moment = (number + rng.random()) / NUM_KILLS * len(gaps)
        steps = int(moment)
        for attempt in range(NUM_ATTEMPTS):
            placement = place(tiny_experiment(), tmp_path / f"{number}-{attempt}" / "tiny")
            # A run that ended first was faster than the one that nobody kills.
            after_seconds = (moment - steps) * gaps[steps] / 2**attempt
            if is_killed := kill(forks, placement, after_steps=steps + 1, after_seconds=after_seconds):
                break
        was_killed.append(is_killed)
        resumed = forks.Process(target=run_apps, args=(placement,))
        resumed.start()
        resumed.join()
        assert resumed.exitcode == 0, f"killed after {moment:.2f} of {len(gaps)} steps"
        assert_same_to_the_bit(run, placement.run)
        assert not list(placement.run.glob(".*.tmp")) + list((placement.run / "checkpoint").glob(".*.tmp"))
    # The last moments may end before they are reached.
    assert sum(was_killed) >= NUM_KILLS - 3


def test_a_run_killed_in_every_round_gets_to_its_end(
    forks: ForkServerContext, whole: tuple[Path, list[float]], tmp_path: Path
) -> None:
    placement = place(tiny_experiment(), tmp_path / "tiny")
    # First when the rounds begin; then one answer into the round after the one that a start gets done.
    killed_after = []
    while kill(forks, placement, after_steps=5 if killed_after else 7, after_seconds=0.0):
        killed_after.append(len(read_rounds(placement.run)))
    # [0, 1, 2] where this process is not kept waiting itself.
    assert killed_after and killed_after == sorted(killed_after)
    assert_same_to_the_bit(whole[0], placement.run)


def test_a_run_of_cohorts_that_is_killed_and_resumed_is_the_uninterrupted_one_to_the_bit(
    forks: ForkServerContext, tmp_path: Path
) -> None:
    engine = Engine(name="inline", cohort=2)  # the two GPS clients learn as one stack
    experiment = tiny_experiment().model_copy(update={"engine": engine})
    whole = place(experiment, tmp_path / "whole" / "tiny")
    run_apps(whole)
    rounds_done = []
    for steps in (8, 11):
        placement = place(experiment, tmp_path / str(steps) / "tiny")
        assert kill(forks, placement, after_steps=steps, after_seconds=0.0)
        rounds_done.append(len(read_rounds(placement.run)))
        resumed = forks.Process(target=run_apps, args=(placement,))
        resumed.start()
        resumed.join()
        assert resumed.exitcode == 0
        assert_same_to_the_bit(whole.run, placement.run)
    assert max(rounds_done) < 3


class Stopped(BaseException):
    """What ends the server without a chance to tidy up."""


def stops_in_round(placement: Placement, number: int) -> ClientApp:
    """Clients of a server that is stopped before any of them has begun a round."""
    inner = build_client_app(placement)

    class Stopping(ClientApp):
        def __call__(self, message: Message, context: Context) -> Message:
            if message.metadata.message_type == "train.round" and message.content["header"]["round"] == number:
                raise Stopped
            return inner(message, context)

    return Stopping()


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip_a_bit(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [cut, flip_a_bit, lambda content: b""], ids=["cut", "a bit", "empty"])
def test_with_a_broken_newest_checkpoint_a_run_goes_back_one_and_ends_the_same(
    damage: Callable[[bytes], bytes], whole: tuple[Path, list[float]], tmp_path: Path
) -> None:
    placement = place(tiny_experiment(), tmp_path / "tiny")
    with pytest.raises(Stopped):
        run_apps(placement, client_app=stops_in_round(placement, 3))
    newest = placement.run / FILE
    newest.write_bytes(damage(newest.read_bytes()))
    assert [line["round"] for line in read_rounds(placement.run)] == [1, 2]
    run_apps(placement)
    assert_same_to_the_bit(whole[0], placement.run)
    assert newest.with_name("newest.state.broken").exists()
    events = json.loads((placement.run / "summary.json").read_text())["events"]
    assert [(event["kind"], event["round"]) for event in events] == [("broken", 1), ("resumed", 1)]
    assert "newest.state: not a readable checkpoint" in events[0]["text"]


def test_with_both_checkpoints_broken_the_error_says_how_to_mend_it_and_that_mends_it(
    whole: tuple[Path, list[float]], tmp_path: Path
) -> None:
    placement = place(tiny_experiment(), tmp_path / "tiny")
    with pytest.raises(Stopped):
        run_apps(placement, client_app=stops_in_round(placement, 3))
    for name in (FILE, PREVIOUS):
        (placement.run / name).write_bytes(b"")
    folder = (placement.run / FILE).parent
    with pytest.raises(ValueError, match=rf"delete {folder} and resume"):
        run_apps(placement)
    assert json.loads((placement.run / "status.json").read_text())["state"] == "failed"
    for path in folder.iterdir():
        path.unlink()
    run_apps(placement)
    assert_same_to_the_bit(whole[0], placement.run)
