"""A whole experiment, from config to run folder, in this process."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from flwr.app import Array, Context, Message
from flwr.clientapp import ClientApp

from clients.app import build_app as build_client_app
from clients.learning.risk_curve import GRID
from configs.loading import build_experiment, load_experiment
from configs.placement import HOME_VARIABLE, Placement
from configs.schema import Engine
from server.app import build_app as build_server_app
from server.checkpoint import load_checkpoint
from server.recorder import read_rounds
from server.session import Watch
from sim.experiments import expected_clients, resume_experiment, run_experiment
from sim.inline import run_inline
from sim.launch import launch
from sim.report.faults import fault_lines
from sim.report.summaries import without_repeats
from sim.run_note import read_run
from strategies.codecs.packing import unpack_ids
from strategies.registry import find_plugins
from tests.conftest import tiny_experiment, tiny_values
from tests.federations import assert_same_outcome, place, quiet, run_apps

METRICS = {"top1", "top3", "top5", "dba", "dba_k3", "power_loss_db"}


@pytest.fixture(scope="module")
def finished(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTBEAM_HOME", str(home))
        out = tmp_path_factory.mktemp("runs")
        return run_experiment(tiny_experiment(), plugins=(out,), out=out, progress=quiet)


def test_a_run_leaves_the_promised_files_and_summary(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert set(summary) == {
        "experiment", "seed", "engine", "seconds", "clients", "teacher", "break_even_samples", "rounds",
        "faults", "events", "beam_sets",
    }  # fmt: skip
    assert set(summary["seconds"]) == {"data", "start", "controls", "rounds", "total"}
    assert [client["id"] for client in summary["clients"]] == ["000-gps", "001-gps", "002-lidar"]
    for client in summary["clients"]:
        assert set(client) == {
            "id", "modality", "parameters", "passes", "local", "offline_kd", "federated",
            "federated_now", "baselines", "kept_round", "uplink_bytes", "downlink_bytes", "refused", "differs", "own",
        }  # fmt: skip
        for arm in ("local", "offline_kd", "federated"):
            assert set(client[arm]) == METRICS
            assert all(len(values) == 4 for values in client[arm].values())
            assert all(0 <= value <= 1 for name in METRICS - {"power_loss_db"} for value in client[arm][name])
    assert set(summary["teacher"]) == {"parameters", "before", "after", "after_now", "kept_round"}
    assert len((finished / "rounds.jsonl").read_text().splitlines()) == summary["rounds"] == 3
    for name in (
        "experiment.yaml",
        "environment.json",
        "summary.csv",
        "passes.json",
        "report.html",
        "checkpoint/newest.state",
    ):
        assert (finished / name).is_file(), name


def test_the_snapshot_in_the_run_folder_is_the_experiment(finished: Path) -> None:
    assert load_experiment(finished / "experiment.yaml") == tiny_experiment()


def test_the_same_experiment_gives_the_same_bits_with_nodes_and_replies_shuffled(
    finished: Path, tmp_path: Path
) -> None:
    placement = place(tiny_experiment(), tmp_path / "shuffled")
    run_apps(placement, shuffle_seed=5)
    assert_same_outcome(finished, placement.run)


def test_a_run_that_its_engine_refuses_leaves_neither_folder_nor_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    monkeypatch.delattr("flwr.supercore.telemetry.FLWR_TELEMETRY_ENABLED")
    experiment = tiny_experiment().model_copy(update={"engine": Engine(name="ray")})
    with pytest.raises(ValueError, match=r"lacks: flwr\.supercore\.telemetry\.FLWR_TELEMETRY_ENABLED; "):
        run_experiment(experiment, plugins=(tmp_path,), out=tmp_path / "runs", progress=quiet)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.ray
@pytest.mark.parametrize("workers", [1, 2])
def test_ray_gives_the_same_bits_as_this_process(
    finished: Path, tmp_path: Path, workers: int, request: pytest.FixtureRequest
) -> None:
    if workers == 2:
        request.getfixturevalue("running_ray")
    placement = place(tiny_experiment(), tmp_path / "ray")
    launch(
        build_server_app(placement),
        build_client_app(placement),
        num_nodes=3,
        engine=Engine(name="ray", workers=workers),
    )
    assert_same_outcome(finished, placement.run)


def test_a_run_that_is_killed_and_resumed_ends_as_if_nothing_had_happened(finished: Path, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    placement = place(tiny_experiment(), tmp_path / "killed")
    inner = build_client_app(placement)

    def dies_in_round_3(message: Message, context: Context) -> Message:
        if message.metadata.message_type == "train.round" and message.content["header"]["round"] == 3:
            raise Killed
        return inner(message, context)

    with pytest.raises(Killed):
        run_apps(placement, client_app=wrap(dies_in_round_3))
    assert [line["round"] for line in read_rounds(placement.run)] == [1, 2]
    run_apps(placement)
    assert_same_outcome(finished, placement.run)


def test_resume_of_a_finished_run_changes_nothing(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / finished.name
    shutil.copytree(finished, copy)
    resume_experiment(copy, quiet)
    assert_same_outcome(finished, copy)


def test_resume_of_a_folder_that_is_no_run_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not the folder of a run"):
        read_run(tmp_path)


def assert_too_little_for_a_model(metric: str, value: object, message: Message, num_passes: int) -> None:
    """A metric is a number or one per horizon or test pass, and, once, shares and sizes of beam sets."""
    if metric.startswith("sets."):
        # For a grid of thresholds, along which they never turn.
        curves = np.reshape(value, (-1, len(GRID)))
        assert len(curves) in (4, 8) and message.content.config_records["header"]["round"] == 3
        assert np.all(np.diff(curves) * (1 if metric.endswith("sizes") else -1) >= 0)
        return
    length = num_passes if metric.endswith("passes.top5") else 4
    assert isinstance(value, (int, float)) or len(value) == length  # type: ignore[arg-type]


def test_bytes_in_the_record_are_those_of_the_messages_which_hold_neither_weights_nor_frames(
    finished: Path, tmp_path: Path
) -> None:
    placement = place(tiny_experiment(codec="float16"), tmp_path / "watched")
    inner = build_client_app(placement)
    seen: list[tuple[Message, Message]] = []

    def watching(message: Message, context: Context) -> Message:
        reply = inner(message, context)
        seen.append((message, reply))
        return reply

    run_apps(placement, client_app=wrap(watching))
    counted = {"up": 0, "down": 0}
    num_passes = placement.experiment.data.passes.test
    for message, reply in seen:
        assert not reply.has_error()
        for direction, content in (("down", message.content), ("up", reply.content)):
            for name, record in content.array_records.items():
                assert name.rpartition("/")[2] in {"targets", "ask", "labels"}
                assert set(record) <= {"ids", "values", "rounds"}
                if "values" in record:
                    probs = record["values"].numpy().astype(np.float64)
                    # Distributions over 64 beams at 4 horizons: no weights, no frames.
                    assert probs.shape == (len(unpack_ids(record["ids"].numpy())), 4, 64)
                    np.testing.assert_allclose(probs.sum(axis=-1), 1.0, atol=2e-2)
                if message.metadata.message_type == "train.round":
                    counted[direction] += sum(len(array.data) for array in record.values())
            for record in content.config_records.values():
                assert all(not isinstance(value, bytes) for value in record.values())
            for record in content.metric_records.values():
                for metric, value in record.items():
                    assert_too_little_for_a_model(metric, value, message, num_passes)
    recorded = read_rounds(placement.run)
    for direction, key in (("up", "uplink_bytes"), ("down", "downlink_bytes")):
        total = sum(client[key] for line in recorded for client in line["clients"].values())
        assert total == pytest.approx(counted[direction], rel=0.01)
        assert total > 0


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda reply: None, "expected a Message"),
        (lambda reply: spoil_values(reply, lambda values: np.full_like(values, np.nan)), "finite"),
        (lambda reply: spoil_values(reply, lambda values: values[:, :2]), "shape"),
        (lambda reply: spoil_values(reply, lambda values: values * 9 + 1), "logits|sum"),
        (lambda reply: spoil_ids(reply, lambda ids: ids + 100_000), "not asked for"),
        (lambda reply: spoil_ids(reply, lambda ids: ids[::-1].copy()), "increasing"),
        (lambda reply: exec("raise MemoryError('sensor on fire')"), "sensor on fire"),
    ],
    ids=["nothing", "NaN", "wrong shape", "logits", "wrong ids", "unsorted ids", "raises"],
)
def test_a_client_that_misbehaves_is_recorded_and_the_others_go_on(
    spoil: Callable[[Message], Message | None], problem: str, tmp_path: Path
) -> None:
    placement = place(tiny_experiment(rounds=2, codec="float16"), tmp_path / "run")
    inner = build_client_app(placement)

    def one_is_bad(message: Message, context: Context) -> Message | None:
        reply = inner(message, context)
        bad = context.node_config["partition-id"] == 1 and message.metadata.message_type == "train.round"
        return spoil(reply) if bad else reply

    run_apps(placement, client_app=wrap(one_is_bad))
    for line in read_rounds(placement.run):
        assert re.search(problem, line["clients"]["001-gps"]["problem"])
        assert line["clients"]["000-gps"]["problem"] == line["clients"]["002-lidar"]["problem"] == ""
        assert line["num_targets"] == 24
    summary = json.loads((placement.run / "summary.json").read_text())
    assert [client["refused"] for client in summary["clients"]] == [0, 2, 0]


def test_a_client_whose_memory_is_lost_says_so_and_gets_every_target_again(tmp_path: Path) -> None:
    placement = place(tiny_experiment(rounds=4), tmp_path / "run")
    inner = build_client_app(placement)

    def forgetful(message: Message, context: Context) -> Message:
        here = context.node_config["partition-id"] == 0 and message.metadata.message_type == "train.round"
        if here and message.content["header"]["round"] == 3:
            shutil.rmtree(placement.run / "clients" / "000-gps")
        return inner(message, context)

    run_apps(placement, client_app=wrap(forgetful))
    lines = [line["clients"]["000-gps"] for line in read_rounds(placement.run)]
    assert ["memory" in line["problem"] for line in lines] == [False, False, True, False]
    others = [line["clients"]["001-gps"]["downlink_bytes"] for line in read_rounds(placement.run)]
    assert lines[3]["downlink_bytes"] > others[3]


def test_an_aggregator_in_a_file_beside_the_yaml_is_used_by_name(tmp_path: Path) -> None:
    (tmp_path / "my_rules.py").write_text(
        "class Loudest:\n"
        "    def aggregate(self, contributions):\n"
        "        return max(contributions, key=lambda one: one.num_examples).labels\n"
    )
    values = tiny_values(rounds=1, aggregator={"name": "my_rules:Loudest"}, teacher_starts=False)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    experiment = load_experiment(tmp_path / "mine.yaml")
    run = run_experiment(experiment, plugins=(tmp_path,), out=tmp_path / "runs", progress=quiet)
    checkpoint = load_checkpoint(run)
    assert checkpoint is not None and checkpoint.federation.cache is not None
    assert len(checkpoint.federation.cache.newest) == 24


def test_a_mistake_in_a_plugin_is_found_before_anything_is_written(tmp_path: Path) -> None:
    experiment = tiny_experiment(aggregator={"name": "entropy_mean", "options": {"exponent": -1}})
    with pytest.raises(ValueError, match=r"^strategy\.aggregator\.options\.exponent: must be > 0, got -1$"):
        run_experiment(experiment, plugins=(tmp_path,), out=tmp_path / "runs", progress=quiet)
    assert not (tmp_path / "runs").exists()
    with pytest.raises(ValueError, match=r"^strategy\.name: unknown name 'nope'"):
        find_plugins(Placement(tiny_experiment(name="nope"), tmp_path, tmp_path, (tmp_path,)))


@pytest.mark.parametrize("publish", ["teacher", "ensemble", "mix"])
@pytest.mark.parametrize("codec", ["float32", "float16", "uint8"])
def test_every_way_to_publish_runs_with_every_codec(publish: str, codec: str, tmp_path: Path) -> None:
    placement = place(tiny_experiment(rounds=2, publish=publish, codec=codec), tmp_path / "run")
    run_apps(placement)
    assert [line["num_targets"] for line in read_rounds(placement.run)] == [24, 24]


def test_the_progress_ends_where_it_said_it_would(tmp_path: Path) -> None:
    placement = place(tiny_experiment(rounds=2), tmp_path / "run")
    seen: list[tuple[str, int, int]] = []
    watch = Watch(progress=lambda phase, done, total: seen.append((phase, done, total)))
    run_inline(build_server_app(placement, watch), build_client_app(placement), num_nodes=3)
    assert seen[-1][1] == seen[-1][2]
    assert {phase for phase, _, _ in seen} == {"teacher", "local only and offline KD", "federation"}


def wrap(handler: Callable[[Message, Context], Message | None]) -> ClientApp:
    """A ClientApp that answers every message by ``handler``."""

    class Wrapped(ClientApp):
        def __call__(self, message: Message, context: Context) -> Message:
            return handler(message, context)  # type: ignore[return-value]

    return Wrapped()


def spoil_values(reply: Message, change: Callable[[np.ndarray], np.ndarray]) -> Message:
    for name, record in reply.content.array_records.items():
        if name.endswith("/labels"):
            record["values"] = Array(change(record["values"].numpy()))
    return reply


def spoil_ids(reply: Message, change: Callable[[np.ndarray], np.ndarray]) -> Message:
    for name, record in reply.content.array_records.items():
        if name.endswith("/labels"):
            record["ids"] = Array(change(unpack_ids(record["ids"].numpy())).astype(np.uint32))
    return reply


def test_torch_is_left_with_its_global_random_state_untouched(tmp_path: Path) -> None:
    placement = place(tiny_experiment(rounds=1), tmp_path / "run")
    before = torch.random.get_rng_state().clone()
    run_apps(placement)
    assert torch.equal(before, torch.random.get_rng_state())


def test_nodes_that_see_motion_and_maps_of_the_cube_are_nodes_like_others(tmp_path: Path) -> None:
    values = tiny_values()
    names = ("motion", "maps", "doppler")
    values["engine"]["workers"] = 1
    values["data"]["passes"] |= {"server": 1, "public": 1, "client": 2}
    # Fast vehicles make short passes, and pictures and cubes take time.
    values["data"]["world"] = {"preset": "s9", "speed_mps": 12.0}
    values["data"]["nodes"] = [{"modality": name} for name in names]
    values["students"] = dict.fromkeys(names, values["teacher"])
    values["strategy"] |= {"rounds": 2, "public_samples": 8}
    folder = run_experiment(build_experiment(values, origin="test"), plugins=(tmp_path,), out=tmp_path, progress=quiet)
    summary = json.loads((folder / "summary.json").read_text())
    assert [client["modality"] for client in summary["clients"]] == list(names)
    assert all(client["federated"] and not client["refused"] for client in summary["clients"])
    assert all(name in (folder / "report.html").read_text() for name in names)


def test_a_client_whose_recording_cannot_be_read_stands_in_the_results_with_its_reason(tmp_path: Path) -> None:
    placement = place(tiny_experiment(), tmp_path / "whole")
    federation = tmp_path / "federation"
    shutil.copytree(placement.federation, federation)
    power = federation / "clients" / "001-gps" / "power.npy"
    power.write_bytes(power.read_bytes()[:300])
    broken = Placement(placement.experiment, federation, tmp_path / "broken", ())
    watch = Watch(expected=expected_clients(broken))
    run_inline(build_server_app(broken, watch), build_client_app(broken), num_nodes=3)
    summary = json.loads((broken.run / "summary.json").read_text())
    assert [client["id"] for client in summary["clients"]] == ["000-gps", "001-gps", "002-lidar"]
    lost = summary["clients"][1]
    assert lost["federated"] is None and lost["local"] is None and lost["parameters"] > 0
    (fault,) = summary["faults"]
    assert (fault["client"], fault["kind"], fault["times"]) == ("001-gps", "absent", 3)
    assert "power.npy" in fault["reason"]
    (line,) = fault_lines([summary])
    assert line.startswith("001-gps: could not take part (3 of 3, rounds 1 to 3): ")


def test_of_two_runs_with_one_seed_the_one_with_more_results_counts(finished: Path, tmp_path: Path) -> None:
    poor = tmp_path / "poor"
    shutil.copytree(finished, poor)
    summary = json.loads((poor / "summary.json").read_text())
    summary["clients"][0]["federated"] = None
    (poor / "summary.json").write_text(json.dumps(summary))
    for order in ([poor, finished], [finished, poor]):
        kept, (note,) = without_repeats(order)
        assert kept == [finished]
        assert note.startswith(f"{poor}: left out") and "with results of 2 clients instead of 3" in note
