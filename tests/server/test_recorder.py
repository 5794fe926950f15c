"""What a run leaves behind: the lines of its rounds, and the summary that scripts rely on."""

from __future__ import annotations

import csv
import errno
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clients.learning.metrics import BeamMetrics
from configs.files import read_lines, write_whole
from configs.loading import build_experiment, load_experiment
from configs.schema import Experiment
from server.recorder import Recorder, TeacherRound, faults_of, metrics_of, read_rounds
from strategies.messages.records import ClientRound, Event, Member, RoundAccount
from tests.server.test_checkpoint import disk_with_room_for

MEMBERS = [
    Member("000-gps", "gps", num_parameters=1000, num_passes=4, num_examples=50),
    Member("001-lidar", "lidar", num_parameters=2000, num_passes=6, num_examples=80),
]


def metrics(value: float) -> BeamMetrics:
    return BeamMetrics(*(((value, value / 2),) * 6))


def flat(value: float, prefix: str) -> dict[str, float | list[float]]:
    """Metrics as a client reports them."""
    return {f"{prefix}{name}": values for name, values in metrics(value).to_dict().items()}


def taught(number: int) -> TeacherRound:
    """The teacher after a round; its state of round 2 is kept for good."""
    return TeacherRound(kept=metrics(0.2 * number), now=metrics(0.01 * number), is_kept=number == 2, validation=0.6)


@pytest.fixture
def experiment() -> Experiment:
    values = {
        "name": "recorded",
        "seed": 4,
        "data": {
            "source": "street",
            "passes": {"server": 1, "public": 1, "test": 1, "client": 1},
            "nodes": [{"modality": "gps"}, {"modality": "lidar"}],
        },
    }
    return build_experiment(values, origin="test")


@pytest.fixture
def recorder(tmp_path: Path, experiment: Experiment) -> Recorder:
    return Recorder(tmp_path / "run", experiment)


def write_rounds(recorder: Recorder, *numbers: int) -> None:
    """Rounds in which the LiDAR is refused from round 2 on."""
    for number in numbers:
        clients = {
            "000-gps": ClientRound(
                100,
                200,
                {
                    **flat(0.1 * number, "common."),
                    **flat(0.02 * number, "common_now."),
                    **flat(0.9, "own."),
                    "passes.top5": [0.25, 1.0],
                    "loss": 1.5,
                    "validation": 0.7,
                    "kept": float(number == 1),
                },
                24,
                0.5,
            ),
            "001-lidar": ClientRound(100, 200, flat(0.05, "common."), 24, 0.5)
            if number == 1
            else ClientRound(100, problem="no answer in time", fault="missing"),
        }
        account = RoundAccount(number, clients, num_asked=24, num_targets=20, seconds={"clients": 1.0, "teach": 0.5})
        recorder.write_round(account, taught(number))


def write_summary(recorder: Recorder) -> dict[str, Any]:
    controls: dict[str, dict[str, Any]] = {
        "000-gps": {
            **flat(0.3, "local.common."),
            **flat(0.4, "offline_kd.common."),
            **flat(0.25, "last_beam.common."),
            **flat(0.8, "local.own."),
        },
        "001-lidar": {},
    }
    return recorder.write_summary(
        engine="inline",
        seconds={"data": 1.23456, "start": 2.0, "rounds": 3.0, "total": 6.0},
        members=MEMBERS,
        controls=controls,
        teacher={"parameters": 5000, "before": metrics(0.2).to_dict(), "after": metrics(0.6).to_dict()},
        break_even_samples=7,
    )


def test_the_run_folder_says_what_ran_and_on_what(recorder: Recorder, experiment: Experiment) -> None:
    assert load_experiment(recorder.folder / "experiment.yaml") == experiment
    environment = json.loads((recorder.folder / "environment.json").read_text())
    assert set(environment["versions"]) == {"flwr", "ray", "torch", "numpy"}
    assert environment["experiment_digest"]
    assert environment["source_digest"]


def test_a_round_is_one_line_with_every_client_and_phase(recorder: Recorder) -> None:
    write_rounds(recorder, 1, 2)
    assert len((recorder.folder / "rounds.jsonl").read_text().splitlines()) == 2
    first, second = read_rounds(recorder.folder)
    assert first["round"] == 1
    assert (first["num_asked"], first["num_targets"]) == (24, 20)
    assert first["seconds"] == {"clients": 1.0, "teach": 0.5}
    assert first["teacher"] == {
        "common": metrics(0.2).to_dict(),
        "common_now": metrics(0.01).to_dict(),
        "kept": False,
        "validation": 0.6,
    }
    assert first["clients"]["000-gps"] == {
        "common": metrics(0.1).to_dict(),
        "common_now": metrics(0.02).to_dict(),
        "kept": True,
        "own": metrics(0.9).to_dict(),
        "passes_top5": [0.25, 1.0],
        "validation": 0.7,
        "federated_share": None,
        "window_epsilon": None,
        "window_delta": None,
        "loss": 1.5,
        "epsilon": None,
        "uplink_bytes": 200,
        "downlink_bytes": 100,
        "num_answers": 24,
        "seconds": 0.5,
        "problem": "",
        "fault": "",
        "warning": "",
        "rounds_late": 0,
        "seconds_late": None,
    }
    assert second["clients"]["001-lidar"]["problem"] == "no answer in time"
    assert second["clients"]["001-lidar"]["common"] is None


def test_a_run_without_rounds_has_no_lines(recorder: Recorder) -> None:
    assert read_rounds(recorder.folder) == []


@pytest.mark.parametrize("kept", [1, 30, -2])
def test_a_last_line_cut_short_by_a_crash_is_left_out(recorder: Recorder, kept: int) -> None:
    write_rounds(recorder, 1, 2, 3)
    path = recorder.folder / "rounds.jsonl"
    *whole, last = path.read_text().splitlines(keepends=True)
    path.write_text("".join(whole) + last[:kept])
    assert [line["round"] for line in read_rounds(recorder.folder)] == [1, 2]


def test_after_a_crash_in_a_line_the_run_goes_on_in_the_same_file(recorder: Recorder, experiment: Experiment) -> None:
    write_rounds(recorder, 1, 2, 3)
    path = recorder.folder / "rounds.jsonl"
    path.write_text(path.read_text()[:-20])
    resumed = Recorder(recorder.folder, experiment)
    resumed.keep_rounds(2)
    write_rounds(resumed, 3, 4)
    assert [line["round"] for line in read_rounds(recorder.folder)] == [1, 2, 3, 4]


@pytest.mark.parametrize(("last", "left"), [(0, []), (1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (9, [1, 2, 3])])
def test_rounds_that_were_not_checkpointed_are_forgotten(recorder: Recorder, last: int, left: list[int]) -> None:
    write_rounds(recorder, 1, 2, 3)
    before = read_rounds(recorder.folder)
    recorder.keep_rounds(last)
    assert read_rounds(recorder.folder) == before[: len(left)]


def test_keeping_rounds_of_a_run_that_has_none_is_no_error(recorder: Recorder) -> None:
    recorder.keep_rounds(0)
    assert read_rounds(recorder.folder) == []


def test_the_summary_has_exactly_the_keys_of_the_contract(recorder: Recorder) -> None:
    write_rounds(recorder, 1, 2)
    written = write_summary(recorder)
    read = json.loads((recorder.folder / "summary.json").read_text())
    assert read == written
    contract = "experiment seed engine seconds clients teacher break_even_samples rounds faults events"
    assert set(read) == set(contract.split())
    assert set(read["seconds"]) == {"data", "start", "rounds", "total"}
    assert set(read["teacher"]) == {"parameters", "before", "after", "after_now", "kept_round"}
    client_keys = "id modality parameters passes local offline_kd federated federated_now kept_round baselines"
    for client, more in zip(read["clients"], (["own"], []), strict=True):
        assert set(client) == {*client_keys.split(), "uplink_bytes", "downlink_bytes", "refused", "differs", *more}
    for scores in (read["teacher"]["after"], read["clients"][0]["local"], read["clients"][0]["federated"]):
        assert set(scores) == {"top1", "top3", "top5", "dba", "dba_k3", "power_loss_db"}
        assert all(len(row) == 2 for row in scores.values())


def test_the_summary_by_hand(recorder: Recorder) -> None:
    write_rounds(recorder, 1, 2, 3)
    summary = write_summary(recorder)
    assert (summary["experiment"], summary["seed"], summary["engine"]) == ("recorded", 4, "inline")
    assert summary["seconds"]["data"] == 1.235
    assert (summary["rounds"], summary["break_even_samples"]) == (3, 7)
    gps, lidar = summary["clients"]
    assert (gps["id"], gps["modality"], gps["parameters"], gps["passes"]) == ("000-gps", "gps", 1000, 4)
    assert gps["federated"]["top1"] == pytest.approx([0.3, 0.15])
    assert gps["federated_now"]["top1"] == pytest.approx([0.06, 0.03])
    assert (gps["kept_round"], summary["teacher"]["kept_round"]) == (1, 2)
    assert summary["teacher"]["after_now"]["top1"] == pytest.approx([0.03, 0.015])
    assert gps["local"]["top1"] == [0.3, 0.15]
    assert gps["own"]["local"]["top1"] == [0.8, 0.4] and gps["own"]["offline_kd"] is None
    assert gps["own"]["federated"]["top1"] == pytest.approx([0.9, 0.45])
    assert gps["baselines"]["last_beam"]["top1"] == [0.25, 0.125] and lidar["baselines"] == {}
    assert (gps["uplink_bytes"], gps["downlink_bytes"], gps["refused"]) == (600, 300, 0)
    assert (lidar["uplink_bytes"], lidar["downlink_bytes"], lidar["refused"]) == (200, 300, 2)


def test_a_client_that_dropped_out_keeps_its_last_score_and_one_that_never_answered_has_none(
    recorder: Recorder,
) -> None:
    write_rounds(recorder, 1, 2, 3)
    assert write_summary(recorder)["clients"][1]["federated"]["top1"] == [0.05, 0.025]
    (recorder.folder / "rounds.jsonl").unlink()
    write_rounds(recorder, 2, 3)
    lidar = write_summary(recorder)["clients"][1]
    assert lidar["federated"] is lidar["local"] is lidar["offline_kd"] is None
    assert lidar["federated_now"] is lidar["kept_round"] is None


def test_of_rounds_in_which_no_state_was_kept_the_last_one_kept_is_0(recorder: Recorder) -> None:
    write_rounds(recorder, 3)
    summary = write_summary(recorder)
    assert summary["teacher"]["kept_round"] == summary["clients"][0]["kept_round"] == 0


def test_the_table_has_a_row_for_every_learner_arm_and_horizon(recorder: Recorder) -> None:
    write_rounds(recorder, 1)
    write_summary(recorder)
    with (recorder.folder / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = [(row["id"], row["arm"], row["horizon"]) for row in rows]
    arms = [("000-gps", arm) for arm in ("local", "offline_kd", "federated", "last_beam")] + [
        ("001-lidar", "federated")
    ]
    arms += [("teacher", "before"), ("teacher", "after")]
    assert found == [(learner, arm, str(horizon)) for learner, arm in arms for horizon in (0, 1)]
    assert float(rows[1]["top1"]) == 0.15
    run = ["experiment", "strategy", "aggregator", "codec", "seed"]
    assert list(rows[0])[:10] == [*run, "id", "modality", "parameters", "arm", "horizon"]
    assert list(rows[0])[10:16] == ["top1", "top3", "top5", "dba", "dba_k3", "power_loss_db"]


def test_every_row_of_the_table_says_of_which_run_it_is_and_what_it_cost(
    tmp_path: Path, experiment: Experiment
) -> None:
    recorder = Recorder(tmp_path / "other", experiment)
    write_rounds(recorder, 1)
    members = [replace(MEMBERS[0], id="=1+1"), MEMBERS[1]]
    recorder.write_summary(
        engine="inline",
        seconds={},
        members=members,
        controls={"=1+1": flat(0.3, "local.common.")},
        teacher={"parameters": 5000, "before": metrics(0.2).to_dict(), "after": metrics(0.6).to_dict()},
        break_even_samples=7,
    )
    with (recorder.folder / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {tuple(row[key] for key in ("experiment", "strategy", "aggregator", "seed", "run")) for row in rows}
    assert found == {("recorded", "distillation", experiment.strategy.aggregator.name, "4", "other")}
    sizes = {(row["id"], row["arm"]): (row["uplink_bytes"], row["downlink_bytes"]) for row in rows}
    assert sizes == {
        ("'=1+1", "local"): ("0", "0"),
        ("001-lidar", "federated"): ("200", "100"),
        ("teacher", "before"): ("200", "100"),
        ("teacher", "after"): ("200", "100"),
    }
    assert all(value not in (None, "", "-") for row in rows for value in row.values())


def test_metrics_are_found_by_their_prefix() -> None:
    whole = {name: [0.5] for name in ("top1", "top3", "top5", "dba", "dba_k3", "power_loss_db")}
    values = {f"local.common.{name}": row for name, row in whole.items()} | {"local.own.top1": [0.25], "loss": 3.0}
    assert metrics_of(values, "local.common.") == whole
    assert metrics_of(values, "common.") is None


def test_metrics_that_are_not_all_there_do_not_count() -> None:
    whole = {f"common.{name}": [0.5] for name in ("top1", "top3", "top5", "dba", "dba_k3", "power_loss_db")}
    assert metrics_of({name: row for name, row in whole.items() if name != "common.dba"}, "common.") is None
    assert metrics_of({**whole, "common.dba": [0.5, 0.5]}, "common.") is None
    assert metrics_of({**whole, "common.dba": 0.5}, "common.") is None


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    write_whole(path, "old")

    def dies(descriptor: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", dies)
        with pytest.raises(KeyboardInterrupt):
            write_whole(path, "new")
    assert path.read_text() == "old"
    write_whole(path, "new")
    assert path.read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_what_a_crash_left_half_written_is_removed_when_a_run_goes_on(
    recorder: Recorder, experiment: Experiment
) -> None:
    left = recorder.folder / ".summary.json.4194305.tmp"  # above the largest process id
    left.write_text("{")
    Recorder(recorder.folder, experiment)
    assert not left.exists()


@pytest.mark.parametrize("room", [0, 1, 200])
def test_a_disk_that_is_full_in_a_round_is_one_clear_error_and_leaves_the_lines_before(
    recorder: Recorder, room: int
) -> None:
    write_rounds(recorder, 1, 2)
    path = recorder.folder / "rounds.jsonl"
    before = path.read_bytes()
    with disk_with_room_for(len(before) + room), pytest.raises(OSError) as caught:
        write_rounds(recorder, 3)
    assert str(caught.value).startswith(f"{path}: cannot be written (")
    assert "softbeam resume" in str(caught.value)
    assert path.read_bytes() == before
    write_rounds(recorder, 3)
    assert [line["round"] for line in read_rounds(recorder.folder)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("broken", "told"),
    [((2,), "round 2 is missing"), ((1, 3), "2 rounds are missing"), ((4,), ""), ((), "")],
)
def test_a_round_whose_line_is_damaged_is_told_once_and_one_cut_short_by_a_crash_is_not(
    broken: tuple[int, ...], told: str, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    write_rounds(recorder, 1, 2, 3, 4)
    path = recorder.folder / "rounds.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line[:20] if at in broken else line for at, line in enumerate(lines, start=1)))
    for _ in range(2):
        assert [line["round"] for line in read_rounds(recorder.folder)] == [
            at for at in range(1, 5) if at not in broken
        ]
    assert [told in message for message in caplog.messages] == ([True] if told else [])


def test_a_disk_that_cannot_keep_a_line_is_a_line_that_was_not_written(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rounds(recorder, 1)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match=r"rounds\.jsonl: cannot be written \(No space left on device\)"):
            write_rounds(recorder, 2)
    assert [line["round"] for line in read_rounds(recorder.folder)] == [1]


def test_a_server_that_goes_back_a_round_forgets_it_and_records_it_again(
    recorder: Recorder, experiment: Experiment
) -> None:
    write_rounds(recorder, 1, 2, 3)
    whole = (recorder.folder / "rounds.jsonl").read_bytes()
    resumed = Recorder(recorder.folder, experiment)
    resumed.keep_rounds(2)
    write_rounds(resumed, 3)
    assert (recorder.folder / "rounds.jsonl").read_bytes() == whole


def test_events_are_kept_over_a_stop_and_stand_in_the_summary(recorder: Recorder, experiment: Experiment) -> None:
    write_rounds(recorder, 1)
    recorder.write_event(0, Event("refused", "node 7", "its key is not in the register of nodes"))
    Recorder(recorder.folder, experiment).write_event(1, Event("resumed", "server", "goes on after round 1"))
    first, second = write_summary(recorder)["events"]
    assert (first["round"], first["kind"], first["who"]) == (0, "refused", "node 7")
    assert first["text"] == "its key is not in the register of nodes"
    assert set(second) == {"time", "round", "kind", "who", "text"}
    assert (second["round"], second["kind"]) == (1, "resumed")


@pytest.mark.parametrize("cut", [1, 2, 20])
def test_what_is_told_after_a_crash_in_an_event_is_not_lost_with_it(
    recorder: Recorder, experiment: Experiment, cut: int
) -> None:
    for kind in ("first", "second"):
        recorder.write_event(1, Event(kind, "server", "an event"))
    path = recorder.folder / "events.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    again = Recorder(recorder.folder, experiment)
    for kind in ("resumed", "later"):
        again.write_event(2, Event(kind, "server", "an event"))
    whole = ["second"] if cut == 1 else []  # only the end of its line is missing
    assert [line["kind"] for line in read_lines(path)] == ["first", *whole, "resumed", "later"]


def test_faults_are_counted_by_client_and_kind_with_the_rounds_and_the_last_reason(recorder: Recorder) -> None:
    entries = [
        {"a": ClientRound(1, problem="probs hold NaN", fault="refused"), "b": ClientRound(1)},
        {"a": ClientRound(1, problem="of round 1, expected 2", fault="refused"), "b": ClientRound(1, warning="fog")},
        {"a": ClientRound(1, problem="no answer in time", fault="missing"), "b": ClientRound(1)},
        {"a": ClientRound(0, rounds_late=1, seconds_late=2.25), "b": ClientRound(0, problem="away", fault="away")},
    ]
    for number, clients in enumerate(entries, start=1):
        account = RoundAccount(number, clients, num_asked=1, num_targets=1, seconds={})
        recorder.write_round(account, taught(number))
    found = faults_of(read_rounds(recorder.folder))
    columns = ("client", "kind", "times", "first_round", "last_round", "reason")
    assert [tuple(fault[name] for name in columns) for fault in found] == [
        ("a", "late", 1, 4, 4, "1 round, 2.2 s after its own had gone on"),
        ("a", "missing", 1, 3, 3, "no answer in time"),
        ("a", "refused", 2, 1, 2, "of round 1, expected 2"),
        ("b", "away", 1, 4, 4, "away"),
        ("b", "warning", 1, 2, 2, "fog"),
    ]


# Passes


def test_the_passes_have_every_arm_and_none_of_a_client_that_said_nothing_of_these_passes(recorder: Recorder) -> None:
    write_rounds(recorder, 1, 2)
    controls = {"000-gps": {"local.passes.top5": [0.5, 0.75], "offline_kd.passes.top5": [0.1]}}
    recorder.write_passes(controls, pass_ids=[3, 7])
    assert json.loads((recorder.folder / "passes.json").read_text()) == {
        "passes": [3, 7],
        "top5": {
            "000-gps": {"local": [0.5, 0.75], "offline_kd": None, "federated": [0.25, 1.0]},
            "001-lidar": {"local": None, "offline_kd": None, "federated": None},
        },
    }
