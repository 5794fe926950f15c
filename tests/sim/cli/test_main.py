"""The command line as a user meets it: what it prints, where, and what it says about bad input."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml

from clients.data.recording import open_recording
from sim.cli.main import main
from tests.conftest import tiny_values
from tests.federations import assert_same_outcome

CLIENTS = ["000-gps", "001-gps", "002-lidar"]
# Passes of 14 frames hold 14 - 8 - 3 = 3 windows each.
NUM_PASSES, PASS_LENGTH = 6, 14
STOPPER = """
from strategies.methods.distillation import DistillationStrategy
from pathlib import Path

class Stops(DistillationStrategy):
    def run_round(self, grid, round_number, timeout):
        if round_number == 3 and Path(__file__).with_name("stop").exists():
            raise RuntimeError("the mast lost\\nits power")
        return super().run_round(grid, round_number, timeout)
"""

Values = dict[str, Any]


class Answer(NamedTuple):
    code: int
    out: str
    err: str


def softbeam(*words: str | Path) -> Answer:
    """What a command answers, in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setattr(sys, "argv", ["softbeam", *(str(word) for word in words)])
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
    return Answer(code, out.getvalue(), err.getvalue())


def softbeam_process(*words: str | Path, **environment: str) -> Answer:
    """What a command answers in a process of its own, started as users do."""
    done = subprocess.run(
        [Path(sys.executable).with_name("softbeam"), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def write_yaml(folder: Path, change: Callable[[Values], object] = lambda values: None, **strategy: Any) -> Path:
    """A tiny experiment that makes its data in this process."""
    values = tiny_values(**strategy)
    values["engine"]["workers"] = 1
    change(values)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def write_scenario(folder: Path, *, columns: dict[str, list[str]] | None = None) -> Path:
    """A compact scenario of equal passes: the strongest beam receives 1.0, one neighbour 0.5, all others 0.1."""
    folder.mkdir()
    frames = np.arange(NUM_PASSES * PASS_LENGTH)
    beams = 4 * (frames % PASS_LENGTH)
    power = np.full((len(frames), 64), 0.1)
    power[frames, beams + 1] = 0.5
    power[frames, beams] = 1.0
    table = {
        "unit1_beam_index": [str(beam + 1) for beam in beams],
        "seq_index": [str(1 + frame // PASS_LENGTH) for frame in frames],
        **(columns or {}),
    }
    with (folder / "scenario9.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(zip(*table.values(), strict=True))
    station_deg = np.array([33.42, -111.93])
    np.savez(
        folder / "scenario9_arrays.npz",
        unit1_pwr_60ghz=power,
        unit1_loc=station_deg[None],
        unit2_loc_cal=station_deg + np.stack([np.full(len(frames), 1e-4), 1e-5 * beams], axis=1),
    )
    return folder


def deepsense(folder: str | Path) -> Callable[[Values], None]:
    """Take the data from a scenario instead of the street."""
    passes = {"server": 1, "public": 1, "test": 1, "client": 2}

    def change(values: Values) -> None:
        values["data"] = {
            "source": "deepsense", "folder": str(folder), "passes": passes, "nodes": [{"modality": "gps"}]
        }  # fmt: skip
        values["students"] = {}

    return change


@pytest.fixture(autouse=True)
def _work_in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home for data that a test may spoil."""
    monkeypatch.setenv("SOFTBEAM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def two_seeds(home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Answer, list[Path]]:
    """The answer to a run of two seeds, and the run folders that it printed."""
    folder = tmp_path_factory.mktemp("two-seeds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTBEAM_HOME", str(home))
        answer = softbeam("run", write_yaml(folder), "--seeds", "3,4", "--out", folder / "runs")
    return answer, [Path(line) for line in answer.out.splitlines()[-2:]]


def test_help_answers_without_the_heavy_imports() -> None:
    answer = softbeam_process("--help", PYTHONPROFILEIMPORTTIME="1")
    assert answer.code == 0
    for command in ("run", "resume", "report", "compare", "strategies", "data"):
        assert f" {command} " in answer.out
    imported = {line.rpartition("|")[2].strip() for line in answer.err.splitlines()}
    assert "typer" in imported
    assert not imported & {"torch", "flwr", "ray", "numpy", "matplotlib", "pydantic"}


def test_a_run_ends_with_its_folders_after_the_table_and_keeps_progress_off_stdout(
    two_seeds: tuple[Answer, list[Path]],
) -> None:
    answer, folders = two_seeds
    assert answer.code == 0
    assert [json.loads((folder / "summary.json").read_text())["seed"] for folder in folders] == [3, 4]
    assert all((folder / "report.html").is_file() for folder in folders)
    for arm in ("local only", "offline KD", "federated"):
        assert arm in answer.out
    assert "seed 4: federation" in answer.err
    assert "error" not in answer.err


def test_a_run_with_json_prints_its_summary_and_nothing_else_and_does_what_the_options_say(tmp_path: Path) -> None:
    config = write_yaml(tmp_path, lambda values: values["engine"].update(name="ray"))
    answer = softbeam_process("run", config, "--engine", "inline", "--set", "strategy.rounds=1", "--json")
    assert (answer.code, answer.err) == (0, "")
    (run,) = (tmp_path / "runs").iterdir()
    printed = json.loads(answer.out)
    assert printed.pop("settings")["strategy.rounds"] == printed["rounds"] == 1
    assert printed["engine"] == "inline"
    assert printed == json.loads((run / "summary.json").read_text())


def test_a_run_whose_server_fails_exits_1_and_resume_ends_as_if_nothing_had_happened(
    two_seeds: tuple[Answer, list[Path]], tmp_path: Path
) -> None:
    (tmp_path / "stopper.py").write_text(STOPPER)
    (tmp_path / "stop").touch()
    failed = softbeam("run", write_yaml(tmp_path, name="stopper:Stops"))
    assert failed.code == 1
    assert failed.err.splitlines()[-1].startswith(
        "error: round 3: stopper:Stops raised RuntimeError: the mast lost its power (stopper.py, line 8"
    )
    assert failed.out == ""
    (run,) = (tmp_path / "runs").iterdir()
    assert not (run / "summary.json").exists()
    (tmp_path / "stop").unlink()
    resumed = softbeam("resume", run)
    assert resumed.code == 0
    assert resumed.out.splitlines()[-1] == str(run)
    assert_same_outcome(two_seeds[1][0], run)


@pytest.mark.ray
@pytest.mark.usefixtures("running_ray")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_run_on_ray_whose_server_fails_exits_1(tmp_path: Path) -> None:
    (tmp_path / "stopper.py").write_text(STOPPER.replace("round_number == 3", "round_number == 1"))
    (tmp_path / "stop").touch()
    failed = softbeam("run", write_yaml(tmp_path, name="stopper:Stops"), "--engine", "ray")
    assert failed.code == 1
    assert failed.err.splitlines()[-1].startswith(
        "error: round 1: stopper:Stops raised RuntimeError: the mast lost its power (stopper.py, line 8"
    )


def test_report_writes_one_html_file_and_prints_where(two_seeds: tuple[Answer, list[Path]], tmp_path: Path) -> None:
    answer = softbeam("report", *two_seeds[1], "--out", "both.html")
    assert answer.code == 0
    assert answer.out.splitlines() == [str(tmp_path / "both.html")]
    assert not (tmp_path / "both-figures").exists()
    page = (tmp_path / "both.html").read_text()
    assert "<html" in page and "002-lidar" in page


def test_compare_with_json_prints_mean_and_deviation_over_the_seeds(two_seeds: tuple[Answer, list[Path]]) -> None:
    answer = softbeam("compare", *two_seeds[1], "--json")
    (compared,) = json.loads(answer.out).values()
    assert compared["seeds"] == [3, 4]
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in two_seeds[1]]
    top5 = [np.mean(summary["clients"][2]["federated"]["top5"]) for summary in summaries]
    shown = compared["modalities"]["lidar"]["federated"]["top5"]
    assert shown["mean"] == pytest.approx(sum(top5) / 2)
    assert shown["sd"] == pytest.approx(abs(top5[0] - top5[1]) / 2**0.5)


def test_every_plugin_that_a_yaml_may_name_is_described() -> None:
    rows = json.loads(softbeam("strategies", "--json").out)
    assert {row["kind"] for row in rows} == {"strategy", "aggregator", "codec", "codec suffix"}
    assert all(row["name"] and row["description"] for row in rows)
    shown = softbeam("strategies").out
    assert all(row["name"] in shown for row in rows)


def test_data_is_made_once_and_shows_what_is_in_it(tmp_path: Path, own_home: Path) -> None:
    config = write_yaml(tmp_path)
    made = json.loads(softbeam("data", "make", config, "--json").out)
    assert made["seconds"] > 0
    manifest = Path(made["folder"]) / "federation.json"
    before = manifest.stat().st_mtime_ns
    again = softbeam("data", "make", config)
    assert again.out.splitlines() == [made["folder"]]
    assert manifest.stat().st_mtime_ns == before
    assert "skew bit" in again.err and made["sha256"] in again.err
    assert list(made["skew_bits"]) == [f"clients/{name}" for name in CLIENTS]

    rows = {row["part"]: row for row in json.loads(softbeam("data", "inspect", made["folder"], "--json").out)}
    assert set(rows) == {"server", "public", "test", *(f"clients/{name}" for name in CLIENTS)}
    assert rows["public"]["labelled"] is False and rows["public"]["best_to_second_db"] is None
    assert rows["server"]["modalities"] == ["gps", "lidar"]
    assert rows["clients/002-lidar"]["modalities"] == ["lidar"]
    assert (rows["server"]["passes"], rows["public"]["passes"], rows["test"]["passes"]) == (2, 2, 1)
    assert all(row["problems"] == [] and 0 < row["windows"] < row["frames"] for row in rows.values())


def test_a_scenario_shows_its_frames_windows_gap_and_the_row_that_was_left_out(tmp_path: Path) -> None:
    labels = [str(4 * (frame % PASS_LENGTH) + 1) for frame in range(NUM_PASSES * PASS_LENGTH)]
    labels[2] = "7"
    folder = write_scenario(tmp_path / "scenario", columns={"unit1_beam_index": labels})
    (row,) = json.loads(softbeam("data", "inspect", folder, "--json").out)
    assert row.pop("best_to_second_db") == pytest.approx(3.0103, abs=1e-4)  # 10 log10(1.0 / 0.5)
    assert row.pop("statistics")["pass_length_p50"] == 14.0 and row.pop("scenario_9")["pass_length_p50"] == 43.0
    bearing = row.pop("bearing")
    assert 0.9 < bearing["correlation"] <= 1.0 and 0 < bearing["range_m"][0] < bearing["range_m"][-1]
    assert row.pop("sha256") and row.pop("folder_sha256")
    problem = "scenario9.csv, line 4: the label is 7, but the strongest beam is 9"
    assert row == {
        "part": "scenario9",
        "modalities": ["gps"],
        # The pass is cut at the row, and neither part is long enough for a window.
        "passes": 7,
        "frames": 83,
        "windows": 5 * 3,
        "labelled": True,
        "problems": ["scenario9.csv: 1 of 84 rows are left out, and passes are cut there (1)", problem],
        "skew_bits": None,
    }
    assert problem in softbeam("data", "inspect", folder).out


def test_the_check_of_a_scenario_scores_positions_by_seed(tmp_path: Path) -> None:
    answer = softbeam("data", "check", write_scenario(tmp_path / "scenario"), "--seeds", "2", "--json")
    result = json.loads(answer.out)
    assert (result["scenario"], result["split"], result["seeds"]) == ("scenario9", "random", [0, 1])
    means = {name: entry["mean"] for name, entry in result["metrics"].items()}
    # 14 positions with one beam each: far above the three guesses in 64 of chance.
    assert 0.2 < means["top3"] <= 1 and means["top1"] <= means["top2"] <= means["top3"]
    assert 0 <= means["power_loss_db"] <= 10.0  # the weakest beam is 10 dB below the strongest


# Bad input: exit code 1, one line that says what and where, and nothing left behind.


def refused(*words: str | Path) -> str:
    """The one line by which a command refuses, without ``error: ``."""
    answer = softbeam(*words)
    assert (answer.code, answer.out) == (1, "")
    lines = answer.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), answer.err
    assert not Path("runs").exists()
    return lines[0].removeprefix("error: ")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda values: values.update(colour=1), "tiny.yaml: colour: unknown key"),
        (lambda values: values["strategy"].update(rouns=3), "tiny.yaml: strategy.rouns: unknown key"),
        (lambda values: values["strategy"].update(rounds="ten"), "strategy.rounds: must be a valid integer, got 'ten'"),
        (lambda values: values["strategy"].update(rounds=0), "strategy.rounds: must be greater than or equal to 1"),
        (lambda values: values["data"].update(nodes=[]), "data.nodes: "),
        (lambda values: values["data"].pop("passes"), "data.passes: required, but missing"),
        (lambda values: values.update(name="Has Spaces"), "tiny.yaml: name: "),
        (lambda values: values["engine"].update(name="warp"), "must be 'ray', 'inline' or 'deployment', got 'warp'"),
        (lambda values: values["strategy"].update(name="nope"), "strategy.name: unknown name 'nope'; known are c"),
        (
            lambda values: values["strategy"].update(aggregator={"name": "nope"}),
            "strategy.aggregator.name: unknown name 'nope'; known are consensus",
        ),
        (
            lambda values: values["strategy"].update(aggregator={"name": "mean", "options": {"zeal": 1}}),
            "strategy.aggregator.options.zeal: unknown option of Mean",
        ),
        (lambda values: values["strategy"].update(options={"zeal": 1}), "strategy.options.zeal: unknown option"),
        (lambda values: values["strategy"].update(codec="float8"), "strategy.codec: unknown codec 'float8'"),
        (lambda values: values["strategy"].update(downlink_codec="top0"), "strategy.downlink_codec: unknown codec"),
        (
            lambda values: values["strategy"].update(name="personal", options={"pull": -1}),
            "strategy.options.pull: must be > 0, got -1",
        ),
        (
            lambda values: values["strategy"].update(aggregator={"name": "missing_rules:Mine"}),
            "strategy.aggregator.name: there is no module missing_rules",
        ),
        (
            lambda values: values["strategy"].update(aggregator={"name": "unclosed_rules:Mine"}),
            "unclosed_rules.py",
        ),
        (deepsense("nowhere"), "data.folder: there is no folder "),
    ],
)  # fmt: skip
def test_a_mistake_in_the_yaml_is_refused_by_its_dotted_path(
    change: Callable[[Values], object], problem: str, tmp_path: Path, own_home: Path
) -> None:
    (tmp_path / "unclosed_rules.py").write_text("class Mine(:\n")
    assert problem in refused("run", write_yaml(tmp_path, change))
    assert not list(own_home.glob("*/[!.]*"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [(b"a: [", "not valid YAML"), (b"\xff\xfe", "not valid YAML"), (b"", "expected `key: value` lines")],
)
def test_a_file_that_is_no_yaml_is_refused_by_its_name(text: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_bytes(text)
    assert refused("run", "broken.yaml").startswith(f"broken.yaml: {problem}")


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda folder: (folder / "scenario9.csv").unlink(), "expected one scenarioN.csv, found no CSV"),
        (lambda folder: (folder / "scenario9.csv").write_text("seq_index\n" + "1\n" * 84), "no unit1_beam_index"),
        (lambda folder: (folder / "scenario9.csv").write_text(""), "scenario9.csv: the file is empty"),
        (lambda folder: (folder / "scenario9.csv").write_bytes(b"\xff\x00"), "scenario9.csv: is not a readable CSV"),
        (lambda folder: (folder / "scenario9_arrays.npz").write_bytes(b"PK and no more"), "_arrays.npz: not a"),
        (lambda folder: (folder / "scenario9_arrays.npz").unlink(), "scenario9.csv: there is no unit1_pwr_60ghz"),
        (lambda folder: np.savez(folder / "scenario9_arrays.npz", unit1_pwr_60ghz=np.ones((3, 64))), "shape (3, 64)"),
        (lambda folder: spoil_power(folder, np.nan), "not one of 84 rows is whole"),
        (lambda folder: spoil_power(folder, -70.0), "linear power is expected, not dB"),
    ],
)  # fmt: skip
def test_a_spoiled_scenario_is_refused_by_the_name_of_its_file(
    spoil: Callable[[Path], object], problem: str, tmp_path: Path, own_home: Path
) -> None:
    folder = write_scenario(tmp_path / "scenario")
    spoil(folder)
    assert problem in refused("run", write_yaml(tmp_path, deepsense(folder)))
    assert not list(own_home.glob("*/[!.]*"))
    assert problem in refused("data", "inspect", folder)
    assert problem in refused("data", "check", folder)


def spoil_power(folder: Path, value: float) -> None:
    with np.load(folder / "scenario9_arrays.npz") as file:
        arrays = dict(file)
    arrays["unit1_pwr_60ghz"][:] = value
    np.savez(folder / "scenario9_arrays.npz", **arrays)


def test_more_passes_than_the_scenario_has_are_refused_by_their_dotted_path(tmp_path: Path, own_home: Path) -> None:
    config = write_yaml(tmp_path, deepsense(write_scenario(tmp_path / "scenario")))
    problem = refused("run", config, "--set", "data.passes.client=9")
    assert problem.startswith("data.passes.client: asks for 9 passes, but 3 of 6 are left; lower it")
    assert not list(own_home.glob("*/[!.]*"))


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("run nowhere", "nowhere: no such config; give a YAML file or one of "),
        ("run tiny.yaml --seeds x", "--seeds x: expected numbers with commas between them, such as 0,1,2"),
        ("run tiny.yaml --seeds -1", "--seeds -1: a seed is a whole number from 0 on"),
        ("run tiny.yaml --set seed", "--set seed: expected dotted.path=value"),
        ("run tiny.yaml --engine warp", "engine.name: must be 'ray', 'inline' or 'deployment', got 'warp'"),
        ("run tiny.yaml --out tiny.yaml", "not a directory; a part of this path is a file where a folder is needed"),
        ("resume nowhere", "nowhere: not the folder of a run"),
        ("resume half", "placement.json: plugins or data_seconds is missing"),
        ("compare half", "half/summary.json: not found; give the folder of a run, or finish it: softbeam resume half"),
        ("report half", "half/summary.json: not found"),
        ("data make nowhere", "nowhere: no such config"),
        ("data inspect nowhere", "nowhere: no such folder"),
        ("data inspect half", "half: expected one scenarioN.csv, found no CSV"),
        ("data check half --split frame", "--split frame: expected random or pass"),
    ],
)
def test_a_word_that_is_wrong_is_refused(words: str, problem: str, tmp_path: Path) -> None:
    config = write_yaml(tmp_path)
    (tmp_path / "half").mkdir()
    shutil.copy(config, tmp_path / "half" / "experiment.yaml")
    (tmp_path / "half" / "placement.json").write_text("{}")
    assert problem in refused(*words.split())


@pytest.fixture
def federation(tmp_path: Path, own_home: Path) -> Path:
    """A federation that a test may spoil, where the run of ``tiny.yaml`` looks for it."""
    folder = Path(softbeam("data", "make", write_yaml(tmp_path, rounds=1)).out.strip())
    # It printed what it made; a user spoils files between processes, not under a mapped array.
    open_recording.cache_clear()
    return folder


@pytest.mark.parametrize("words", [("run", "quickstart", "--dry-run", "--json"), ("compare", "a", "b", "--json")])
def test_a_current_folder_that_was_removed_is_one_line(words: tuple[str, ...], tmp_path: Path) -> None:
    # A process goes there, removes it, and becomes the command; a bare machine has no program that would.
    (tmp_path / "gone").mkdir()
    script = "import os, sys; os.chdir(sys.argv[1]); os.rmdir(sys.argv[1]); os.execv(sys.argv[2], sys.argv[2:])"
    command = [Path(sys.executable).with_name("softbeam"), *words]
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "gone", *command],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    told = "the current folder was removed; go to one that exists"
    assert (done.returncode, done.stderr) == (1, f"error: {told}\n")
    assert json.loads(done.stdout)["error"] == told


def test_one_client_with_a_corrupt_array_has_no_result_and_the_run_goes_on(federation: Path) -> None:
    (federation / "clients" / "001-gps" / "gps.npy").write_bytes(b"no array")
    answer = softbeam("run", "tiny.yaml", "--json")
    assert answer.code == 0
    clients = json.loads(answer.out)["clients"]
    assert [client["id"] for client in clients if client["federated"]] == ["000-gps", "002-lidar"]
    assert [client["id"] for client in clients if not client["federated"]] == ["001-gps"]


def test_a_run_in_which_every_client_is_corrupt_fails_and_names_a_file(federation: Path) -> None:
    for power in federation.glob("clients/*/power.npy"):
        power.write_bytes(b"no array")
    answer = softbeam("run", "tiny.yaml")
    assert answer.code == 1
    last = answer.err.splitlines()[-1]
    assert last.startswith("error: no client can take part; the first of 3 problems: client 000-gps: ")
    assert "000-gps/power.npy: not a readable .npy array" in last
    assert "Traceback" not in answer.err


def test_a_corrupt_array_of_the_server_is_one_line_that_names_it(federation: Path) -> None:
    array = federation / "test" / "lidar.npy"
    array.write_bytes(b"no array")
    problem = f"{array}: not a readable .npy array"
    assert refused("data", "inspect", federation).startswith(problem)
    answer = softbeam("run", "tiny.yaml", "--json")
    assert answer.code == 1
    assert json.loads(answer.out)["error"].startswith(problem)
    (line,) = answer.err.splitlines()
    assert line.startswith(f"error: {problem}")


@pytest.mark.parametrize("raised", ["ValueError", "KeyError"])
def test_what_a_user_s_class_raises_ends_a_command_in_one_line_that_names_the_place(
    raised: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = f"class Late:\n    def scores(self):\n        raise {raised}('late score')\n"
    names: dict[str, Any] = {}
    exec(compile(source, str(tmp_path / "my_task.py"), "exec"), names)
    monkeypatch.setattr("sim.cli.main._run", lambda command: names["Late"]().scores())
    monkeypatch.setattr("sys.argv", ["softbeam", "run", "mine.yaml"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert told.startswith(f"error: {raised}: ") and told.count("\n") == 1
    assert "late score" in told and told.endswith("scores)\n")
    assert "(my_task.py, line 3, in " in told
