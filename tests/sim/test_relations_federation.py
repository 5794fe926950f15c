"""Federations that tell relations, beside soft labels and instead of them, from config to record."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, Context, Message
from flwr.clientapp import ClientApp

from clients.app import build_app as build_client_app
from configs.loading import build_experiment
from configs.placement import HOME_VARIABLE
from configs.recipes import RECIPES
from configs.schema import Engine, Experiment
from server.app import build_app as build_server_app
from server.checkpoint import load_checkpoint
from server.recorder import read_rounds
from sim.launch import launch
from strategies.codecs.packing import unpack_ids
from strategies.relations import unpack_relations
from tests.conftest import tiny_values
from tests.federations import assert_same_outcome, place, run_apps
from tests.sim.test_live_clients import strip_labels

Handler = Callable[[Message, Context], Message]
WAYS: dict[str, dict[str, Any]] = {"beside": {}, "instead": {"share": 1.0}}
SILENT = {"fd", "fedproto", "fedavg", "local", "centralised"}
SAMPLES, PAIRS = 24, 4
# Of the header of a serialised array.
ARRAY_HEADER = 128


def experiment(way: str, **strategy: Any) -> Experiment:
    values = tiny_values(**strategy, **({} if way == "none" else {"relations": WAYS[way]}))
    return build_experiment({**values, "controls": False}, origin="test")


@pytest.fixture(scope="module")
def runs(home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of each way, and of none."""
    out = tmp_path_factory.mktemp("relations")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOME_VARIABLE, str(home))
        for way in ("none", *WAYS):
            run_apps(place(experiment(way), out / way))
    return {way: out / way for way in ("none", *WAYS)}


def wrap(handler: Handler) -> ClientApp:
    class Wrapped(ClientApp):
        def __call__(self, message: Message, context: Context) -> Message:
            return handler(message, context)

    return Wrapped()


def is_round(message: Message) -> bool:
    return bool(message.metadata.message_type == "train.round")


def watch(settings: Experiment, run: Path, change: Callable[[Message], None] = lambda message: None) -> list[Message]:
    """Run a federation and keep every request and reply; ``change`` may spoil requests."""
    placement, seen = place(settings, run), []
    inner = build_client_app(placement)

    def watching(message: Message, context: Context) -> Message:
        change(message)
        reply = inner(message, context)
        seen.extend((message, reply))
        return reply

    run_apps(placement, client_app=wrap(watching))
    return seen


@pytest.mark.parametrize("way", WAYS)
def test_nobody_is_refused_and_everybody_is_scored_in_every_round(way: str, runs: dict[str, Path]) -> None:
    lines = read_rounds(runs[way])
    assert len(lines) == 3
    for line in lines:
        for client in line["clients"].values():
            assert client["problem"] == client["warning"] == ""
            assert client["common"] is not None and np.isfinite(client["loss"])
        assert line["num_targets"] == (SAMPLES if way == "beside" else 0)


@pytest.mark.parametrize("way", WAYS)
def test_the_same_federation_gives_the_same_bits_with_nodes_and_replies_shuffled(
    way: str, runs: dict[str, Path], tmp_path: Path
) -> None:
    placement = place(experiment(way), tmp_path / "shuffled")
    run_apps(placement, shuffle_seed=7)
    assert_same_outcome(runs[way], placement.run)


@pytest.mark.ray
@pytest.mark.usefixtures("running_ray")
def test_ray_gives_the_same_bits_as_this_process(runs: dict[str, Path], tmp_path: Path) -> None:
    placement = place(experiment("beside"), tmp_path / "ray")
    apps = build_server_app(placement), build_client_app(placement)
    launch(*apps, num_nodes=3, engine=Engine(name="ray", workers=2))
    assert_same_outcome(runs["beside"], placement.run)


@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_is_killed_and_resumed_ends_as_if_nothing_had_happened(
    way: str, runs: dict[str, Path], tmp_path: Path
) -> None:
    class Killed(BaseException):
        pass

    placement = place(experiment(way), tmp_path / "killed")
    inner = build_client_app(placement)

    def dies_in_round_3(message: Message, context: Context) -> Message:
        if is_round(message) and message.content["header"]["round"] == 3:
            raise Killed
        return inner(message, context)

    with pytest.raises(Killed):
        run_apps(placement, client_app=wrap(dies_in_round_3))
    run_apps(placement)
    assert_same_outcome(runs[way], placement.run)


def test_a_sample_costs_sixteen_bytes_beside_its_soft_labels_and_nothing_else_changes_size(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    told = [record for message in watch(experiment("beside"), tmp_path) for record in told_in(message)]
    ids = [len(record["related"].numpy()) for record in told]
    assert len(told) == 3 * 3
    for record in told:
        assert set(record) == {"related", "relations"}
        values = record["relations"].numpy()
        assert values.dtype == np.float16 and values.shape == (SAMPLES, PAIRS, 2)
        assert values.nbytes == 16 * SAMPLES
        assert len(record["relations"].data) == 16 * SAMPLES + ARRAY_HEADER
    beside, none = (read_rounds(runs[way])[0]["clients"]["000-gps"] for way in ("beside", "none"))
    # In round 1 the targets are the same, so the ledger grows by exactly what was told.
    assert beside["downlink_bytes"] - none["downlink_bytes"] == 16 * SAMPLES + ids[0] + 2 * ARRAY_HEADER


def test_relations_instead_of_soft_labels_leave_the_uplink_and_take_the_targets_away(tmp_path: Path) -> None:
    seen = [message for message in watch(experiment("instead"), tmp_path) if message.content.array_records]
    names = [{name.rpartition("/")[2] for name in message.content.array_records} for message in seen]
    assert names == [{"ask", "arrays"}, {"labels"}] * 9
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint is not None
    federation = checkpoint.federation
    assert federation.cache is not None and len(federation.cache.newest) == 0
    # The teacher learns from the answers all the same.
    assert federation.ensembles is not None and len(federation.ensembles) >= SAMPLES


def test_what_is_told_is_how_the_teacher_of_that_round_relates_the_samples(tmp_path: Path) -> None:
    settings = experiment("beside")
    told = [record for message in watch(settings, tmp_path) for record in told_in(message)]
    for number in range(3):
        here = told[3 * number : 3 * number + 3]
        for record in here[1:]:  # every client is told the same
            np.testing.assert_array_equal(record["relations"].numpy(), here[0]["relations"].numpy())
        arrays = {name: array.numpy() for name, array in here[0].items()}
        groups = unpack_relations(arrays, settings, number + 1, num_public=10_000)
        found = np.sort(np.concatenate([group.sample_ids for group, _ in groups]))
        np.testing.assert_array_equal(found, unpack_ids(arrays["related"]))
    # The teacher learns, so what it tells of the next round is something else.
    assert not np.array_equal(told[0]["relations"].numpy(), told[3]["relations"].numpy())


def test_a_teacher_that_does_not_start_tells_nothing_in_round_1(tmp_path: Path) -> None:
    seen = watch(experiment("beside", teacher_starts=False), tmp_path)
    rounds = [message.content["header"]["round"] for message in seen if told_in(message)]
    assert rounds == [2] * 3 + [3] * 3


@pytest.mark.parametrize("name", sorted(set(RECIPES) - SILENT))
def test_relations_run_beside_every_recipe_of_public_samples(name: str, tmp_path: Path) -> None:
    placement = place(experiment("beside", name=name, rounds=2), tmp_path)
    run_apps(placement)
    for line in read_rounds(placement.run):
        assert all(client["problem"] == "" for client in line["clients"].values())


def test_relations_run_beside_masked_sums(tmp_path: Path) -> None:
    masked = {"secure_sum": True, "aggregator": {"name": "mean"}, "rounds": 2}
    seen = watch(experiment("beside", **masked), tmp_path)
    assert all(client["problem"] == "" for line in read_rounds(tmp_path) for client in line["clients"].values())
    for message in seen[::2]:
        if is_round(message):
            for record in (r for name, r in message.content.array_records.items() if name.endswith("/arrays")):
                assert set(record) == {"related", "relations", "keys", "nonce"}


def test_a_single_sample_has_no_relations_and_stops_nobody(tmp_path: Path) -> None:
    seen = watch(experiment("beside", public_samples=1, rounds=2), tmp_path)
    assert not any(told_in(message) for message in seen)
    assert all(client["problem"] == "" for line in read_rounds(tmp_path) for client in line["clients"].values())


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("relations", lambda values: np.full_like(values, np.nan), "must be finite"),
        ("relations", lambda values: values[:, :2], "expected relations as float16"),
        ("related", lambda ids: np.array([0, 1, 9_999], np.uint32), "the public set has"),
    ],
)
def test_a_client_refuses_what_is_no_relations_and_goes_on(
    name: str, change: Callable[[Any], Any], problem: str, tmp_path: Path
) -> None:
    def spoil(message: Message) -> None:
        if is_round(message) and message.content["header"]["round"] == 2:
            for record in told_in(message):
                record[name] = Array(change(record[name].numpy()))

    watch(experiment("beside"), tmp_path, spoil)
    problems = [[client["problem"] for client in line["clients"].values()] for line in read_rounds(tmp_path)]
    assert all(problem in one for one in problems[1])
    assert problems[0] == problems[2] == [""] * 3


@pytest.mark.parametrize(("way", "answers"), [("beside", SAMPLES), ("instead", 0)])
def test_a_client_without_labels_learns_no_beams_from_relations_alone_and_answers_none(
    way: str, answers: int, tmp_path: Path
) -> None:
    placement = place(experiment(way), tmp_path / "run")
    federation = shutil.copytree(placement.federation, tmp_path / "federation")
    strip_labels(federation / "clients" / "000-gps")
    run_apps(replace(placement, federation=federation))
    for line in read_rounds(placement.run):
        counts = {client: entry["num_answers"] for client, entry in line["clients"].items()}
        assert counts == {"000-gps": answers, "001-gps": SAMPLES, "002-lidar": SAMPLES}
        assert all(entry["problem"] == "" for entry in line["clients"].values())


def told_in(message: Message) -> list[Any]:
    """The records of relations in a message."""
    records = message.content.array_records.items()
    return [record for name, record in records if name.endswith("/arrays") and "relations" in record]
