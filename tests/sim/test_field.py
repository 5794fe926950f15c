"""What went wrong in the field and was wrong, hidden or lost without a word: each kind, from the command line."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import socketserver
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from configs.placement import HOME_VARIABLE
from server.recorder import read_rounds
from server.session import RunClock
from sim.experiments import continue_experiment, run_experiment
from sim.report.figures import draw_all
from tests.conftest import tiny_experiment, tiny_values
from tests.disks import fill, small_disk
from tests.federations import quiet
from tests.releases import Release
from tests.sim.cli.test_main import softbeam, softbeam_process


def written(folder: Path, **strategy: Any) -> Path:
    config = folder / "tiny.yaml"
    config.write_text(yaml.safe_dump({**tiny_values(rounds=1, **strategy), "controls": False}))
    return config


@pytest.fixture(scope="module")
def finished(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("field")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOME_VARIABLE, str(home))
        return run_experiment(tiny_experiment(rounds=1), plugins=(out,), out=out, progress=quiet)


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_resume_of_a_finished_run_touches_nothing_and_says_so(finished: Path) -> None:
    before = contents(finished)
    answer = softbeam("resume", finished)
    assert (answer.code, answer.out) == (0, f"{finished}: already finished\n")
    assert json.loads(softbeam("resume", finished, "--json").out) == json.loads((finished / "summary.json").read_text())
    assert contents(finished) == before


def test_a_stopped_run_finds_its_data_from_another_folder(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / finished.name
    shutil.copytree(finished, run)
    (run / "summary.json").unlink()
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "elsewhere"))
    monkeypatch.chdir(tmp_path)
    answer = softbeam("resume", run)
    assert answer.code == 0, answer.err
    assert not (tmp_path / "elsewhere").exists()


def test_seconds_of_a_run_are_summed_over_its_legs(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("server.session.time.monotonic", lambda: now)
    first = RunClock(100.0, {})
    now = 103.0
    first.begin("controls")
    now = 110.0
    first.begin("rounds")
    now = 130.0
    before = first.seconds()
    assert before == {"start": 3.0, "controls": 7.0, "rounds": 20.0, "total": 30.0}
    now = 1000.0
    second = RunClock(1000.0, before)
    now = 1002.0
    second.begin("controls")
    second.begin("rounds")
    now = 1007.0
    assert second.seconds() == {"start": 5.0, "controls": 7.0, "rounds": 25.0, "total": 37.0}


@pytest.mark.parametrize("seeds", ["0,0", "1,2,1", "3, 3"])
def test_a_seed_given_twice_is_refused(seeds: str, tmp_path: Path) -> None:
    answer = softbeam("run", written(tmp_path), "--seeds", seeds, "--out", tmp_path / "runs")
    assert answer.code == 1
    assert "stands there more than once; the same seed gives the same run" in answer.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("command", ["compare", "report"])
def test_the_same_run_in_two_folders_counts_once(command: str, finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    words = ["--json"] if command == "compare" else ["--out", tmp_path / "page.html"]
    answer = softbeam(command, finished, copy, finished, *words)
    assert answer.code == 0, answer.err
    assert f"{copy}: left out, the same experiment and seed as {finished}; a run counts once" in answer.err
    assert f"{finished}: left out, the same folder as {finished}" in answer.err
    if command == "compare":
        (group,) = json.loads(answer.out).values()
        assert group["runs"] == 1
        assert group["teacher"]["after"]["top5"]["sd"] is None
    else:
        assert "1 run," in (tmp_path / "page.html").read_text()


def test_the_figures_of_a_report_lie_beside_it_under_its_own_name(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each is written in three formats, and so two are enough.
    monkeypatch.setattr("sim.report.html.draw_all", lambda runs: dict(sorted(draw_all(runs).items())[:2]))
    assert softbeam("report", finished, "--out", tmp_path / "a.html", "--figures").code == 0
    before = contents(tmp_path / "a-figures")
    answer = softbeam("report", finished, "--out", tmp_path / "b.html", "--figures")
    assert answer.out.splitlines() == [str(tmp_path / "b.html"), f"figures: {tmp_path / 'b-figures'}"]
    names = [{path.stem for path in (tmp_path / "a-figures").glob(f"*.{kind}")} for kind in ("png", "svg", "pdf")]
    assert len(names[0]) == 2 and names[0] == names[1] == names[2]
    assert contents(tmp_path / "a-figures") == before
    assert set(contents(tmp_path / "b-figures")) == set(before)


HOPELESS = ["--set", "training.learning_rate=1.0e+30"]


@pytest.mark.parametrize("controls", ["true", "false"])
def test_a_run_in_which_nobody_ever_counted_fails_and_says_why(controls: str, tmp_path: Path) -> None:
    words = ["--out", tmp_path / "runs", "--set", f"controls={controls}", *HOPELESS]
    answer = softbeam("run", written(tmp_path), *words)
    assert answer.code == 1
    assert "no client counted in any of 1 rounds" in answer.err
    assert "lower the learning rate" in answer.err
    assert answer.out.count("the loss is") >= 3  # a line for each client beneath the table
    as_json = softbeam("run", written(tmp_path), *words, "--json")
    assert as_json.code == 1
    summary = json.loads(as_json.out)
    assert {fault["client"] for fault in summary["faults"]} == {"000-gps", "001-gps", "002-lidar"}
    failed = [event for event in summary["events"] if event["kind"] == "failed"]
    assert len(failed) == (3 if controls == "true" else 0)


def test_a_run_in_which_one_client_fails_is_a_success_that_tells(tmp_path: Path) -> None:
    (tmp_path / "picky.py").write_text(
        "from strategies.distillation import DistillationStrategy\n"
        "from strategies.messages.wire import WireError\n\n\n"
        "class Picky(DistillationStrategy):\n"
        "    def accept(self, member, outcome, reply, plan):\n"
        "        if member.id == '000-gps':\n"
        "            raise WireError('not from you')\n"
        "        return super().accept(member, outcome, reply, plan)\n"
    )
    config = written(tmp_path, name="picky:Picky")
    answer = softbeam("run", config, "--out", tmp_path / "runs")
    assert answer.code == 0, answer.err
    assert "000-gps: answer refused (1 of 1, round 1): not from you" in answer.out
    (run,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    compared = softbeam("compare", run, "--json")
    (group,) = json.loads(compared.out).values()
    assert [fault["client"] for fault in group["faults"]] == ["000-gps"]


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "no such thing", "TkAgg"])
def test_figures_are_drawn_whatever_mplbackend_says(backend: str, finished: Path, tmp_path: Path) -> None:
    answer = softbeam_process("report", finished, "--out", tmp_path / "a.html", MPLBACKEND=backend)
    assert answer.code == 0, answer.err
    assert (tmp_path / "a.html").read_text().count("<figure") > 10


def test_a_report_that_cannot_be_made_costs_the_run_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*arguments: object) -> None:
        raise LookupError("no such font")

    monkeypatch.setattr("sim.report.html.draw_all", broken)
    answer = softbeam("run", written(tmp_path), "--out", tmp_path / "runs")
    assert answer.code == 0, answer.err
    assert "federated" in answer.out
    (run,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    assert (run / "summary.json").is_file()
    assert f"LookupError: no such font); softbeam report {run} --out {run / 'report.html'} makes it" in caplog.text


def test_a_page_for_which_there_is_no_room_is_named_and_leaves_nothing(finished: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk:
        fill(disk)
        answer = softbeam("report", finished, "--out", disk / "a.html")
        assert answer.code == 1
        assert answer.err.strip() == f"error: {disk / 'a.html'}: no space left on device; make room on the disk"
        assert [path.name for path in disk.iterdir()] == ["ballast"]


@pytest.mark.usefixtures("figures")
def test_figures_for_which_there_is_no_room_are_named_and_leave_no_folder(finished: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk:
        fill(disk)
        answer = softbeam("report", finished, "--out", disk / "a.html", "--figures")
        assert answer.code == 1
        assert re.fullmatch(rf"error: {disk}/a-figures.*: no space left on device; make room on the disk\n", answer.err)
        assert [path.name for path in disk.iterdir()] == ["ballast"]


@pytest.mark.parametrize("workers", [1, 2])
def test_data_for_which_there_is_no_room_is_one_line_and_leaves_nothing(workers: int, tmp_path: Path) -> None:
    config = written(tmp_path)
    with small_disk(tmp_path) as disk:
        words = ["--set", f"engine.workers={workers}", "--set", "data.passes.client=6"]
        answer = softbeam_process("data", "make", config, *words, SOFTBEAM_HOME=str(disk))
        assert answer.code == 1
        (line,) = (line for line in answer.err.splitlines() if not line.startswith("tiny, seed"))
        assert line.startswith(f"error: {disk}/data/tiny-") and "No space left on device" in line
        assert list((disk / "data").iterdir()) == []


def test_a_run_in_a_folder_that_is_no_utf_8_is_reported_and_compared(finished: Path, tmp_path: Path) -> None:
    run = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    try:
        shutil.copytree(finished, run)
    except OSError:
        pytest.skip("this disk takes names in UTF-8 only")
    for words in (("report", run, "--out", tmp_path / "a.html"), ("compare", run, "--out", tmp_path / "a.csv")):
        answer = softbeam_process(*words)
        assert answer.code == 0, answer.err
    assert "caf\\udce9" in (tmp_path / "a.html").read_text()


def test_runs_that_are_continued_at_once_wait_for_each_other(tmp_path: Path) -> None:
    found: list[Path] = []
    threads = [
        threading.Thread(
            target=lambda: found.append(
                continue_experiment(
                    tiny_experiment(rounds=1), plugins=(tmp_path,), out=tmp_path / "runs", progress=quiet
                )
            )
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(found) == 2
    assert found[0] == found[1]
    assert len(read_rounds(found[0])) == 1


@pytest.mark.parametrize(
    "form", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "localhost:{}", "nowhere.invalid:6379", "words"]
)
def test_a_ray_address_at_which_nobody_listens_is_refused_at_once(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and nobody listens
        monkeypatch.setenv("RAY_ADDRESS", form.format(taken.getsockname()[1]))
        answer = softbeam("run", written(tmp_path), "--engine", "ray", "--out", tmp_path / "runs")
    assert answer.code == 1
    assert "RAY_ADDRESS: no Ray cluster answers at" in answer.err
    assert "unset the variable" in answer.err
    assert not (tmp_path / "runs").exists()


def test_an_address_of_the_experiment_at_which_nobody_listens_is_named_as_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "localhost:1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        words = ("--engine", "ray", "--set", f"engine.address={address}", "--out", tmp_path / "runs")
        answer = softbeam("run", written(tmp_path), *words)
    assert answer.code == 1
    assert f"engine.address: no Ray cluster answers at {address} (" in answer.err
    assert "); leave it out to run on this machine alone" in answer.err


@pytest.mark.parametrize("scheme", ["", "ray://"])
@pytest.mark.parametrize("manners", ["silent", "rude", "of the web"])
def test_a_ray_address_at_which_something_else_listens_is_refused_within_seconds(
    manners: str, scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sim.launch.ADDRESS_TIMEOUT_S", 0.5)

    class Stranger(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            if manners == "silent":
                self.request.recv(1 << 16)
                over.wait(10)
            elif manners == "of the web":
                self.request.recv(1 << 16)
                self.request.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")

    over = threading.Event()
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Stranger) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("RAY_ADDRESS", f"{scheme}127.0.0.1:{server.server_address[1]}")
        answer = softbeam("run", written(tmp_path), "--engine", "ray", "--out", tmp_path / "runs")
        over.set()
        server.shutdown()
    assert answer.code == 1
    assert "(something else than Ray listens there); unset the variable" in answer.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ("auto", "answers at auto (none runs on this machine)"),
        ("127.0.0.1:{}", "answers at 127.0.0.1:{}, which RAY_ADDRESS=auto finds ("),
    ],
)
def test_a_cluster_of_which_a_trace_is_left_is_not_waited_for(
    found: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        monkeypatch.setattr("sim.launch._address_of_auto", lambda: found.format(port))
        monkeypatch.setenv("RAY_ADDRESS", "auto")
        answer = softbeam("run", written(tmp_path), "--engine", "ray", "--out", tmp_path / "runs")
    assert answer.code == 1
    assert text.format(port) in answer.err


def make_release(folder: Path, *, separator: str = "/") -> Path:
    """A small release: six passes of twelve rows, with power, positions and empty radar files."""
    rng = np.random.default_rng(0)
    rows = ["index,unit1_pwr_60ghz,unit1_loc,unit2_loc,unit1_radar,unit1_beam_index,seq_index"]
    for name in ("unit1", "unit2"):
        (folder / name).mkdir(parents=True)
    (folder / "unit1" / "loc.txt").write_text("33.4\n-111.9\n")
    for at in range(72):
        power = 0.01 + np.exp(-0.5 * ((np.arange(64) - 5 * (at % 12)) / 2) ** 2) + 0.001 * rng.random(64)
        (folder / "unit1" / f"power_{at}.txt").write_text("\n".join(map(str, power)))
        (folder / "unit2" / f"loc_{at}.txt").write_text(f"33.4002\n{-111.9004 + 0.00006 * (at % 12)}\n")
        names = (f"unit1/power_{at}.txt", "unit1/loc.txt", f"unit2/loc_{at}.txt", f"unit1/radar_{at}.mat")
        cells = [separator.join([".", *name.split("/")]) for name in names]
        rows.append(",".join([str(at + 1), *cells, str(int(power.argmax()) + 1), str(1 + at // 12)]))
    (folder / "scenario9.csv").write_text("\n".join(rows) + "\n")
    return folder


def inspected(folder: Path) -> dict[str, Any]:
    answer = softbeam("data", "inspect", folder, "--json")
    assert answer.code == 0, answer.err
    found: dict[str, Any] = json.loads(answer.out)[0]
    return found


@pytest.mark.parametrize("separator", ["/", "\\"])
def test_files_are_found_by_either_separator_and_a_sensor_without_any_is_named(separator: str, tmp_path: Path) -> None:
    found = inspected(make_release(tmp_path / "scenario9", separator=separator))
    assert found["passes"] == 6
    (problem,) = found["problems"]
    cell = separator.join([".", "unit1", "radar_0.mat"])
    assert problem == f"radar: none of 72 files is there (scenario9.csv, line 2: {cell})"


WAYS: dict[str, tuple[Callable[[str, Path], str], str]] = {
    "from the root": (lambda cell, folder: cell.replace("./", f"{folder}/"), ""),
    "up and down again": (lambda cell, folder: cell.replace("./", f"./unit2/../../{folder.name}/"), ""),
    "out of the folder": (
        lambda cell, folder: cell.replace("./unit1", "../unit1"),
        "radar: none of 72 files is there (scenario9.csv, line 2: ../unit1/radar_0.npy is not in {}); "
        "move these files into the folder of the release, or link their folder there (ln -s)",
    ),
    "from the root of Windows": (
        lambda cell, folder: cell.replace("./", "C:\\data\\"),
        "radar: none of 72 files is there (scenario9.csv, line 2: C:\\data\\unit1/radar_0.npy)",
    ),
    "in other case": (
        lambda cell, folder: cell.replace("unit1/radar", "Unit1/RADAR"),
        "radar: none of 72 files is there (scenario9.csv, line 2: ./Unit1/RADAR_0.npy); unit1/radar_0.npy is there, "
        "which differs in upper and lower case",
    ),
    "not at all": (lambda cell, folder: "", ""),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_sensor_in_files_is_listed_or_it_is_said_why_not(way: str, tmp_path: Path) -> None:
    folder = make_release(tmp_path / "scenario9")
    table = folder / "scenario9.csv"
    for at in range(72):
        (folder / "unit1" / f"radar_{at}.npy").write_bytes(b"")
    table.write_text(table.read_text().replace(".mat", ".npy"))
    name, expected = WAYS[way]
    cells = re.compile(r"\./unit1/radar_\d+\.npy")
    table.write_text(cells.sub(lambda cell: name(cell[0], folder), table.read_text()))
    found = inspected(folder)
    assert found["problems"] == ([expected.format(folder)] if expected else [])
    assert ("radar" in found["modalities"]) == (not expected and way != "not at all")
    assert "gps" in found["modalities"]


def test_data_of_a_release_that_was_completed_is_made_anew_and_says_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    folder = make_release(tmp_path / "scenario9")
    values = tiny_values(rounds=1)
    values["data"] = {
        "source": "deepsense",
        "folder": str(folder),
        "passes": {"server": 1, "public": 1, "test": 1, "client": 2, "validation_share": 0.5},
        "nodes": [{"modality": "gps", "count": 1}],
    }
    values["students"] = {}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    os.rename(folder / "unit1" / "power_3.txt", tmp_path / "power_3.txt")
    broken = json.loads(softbeam("data", "make", tmp_path / "mine.yaml", "--json").out)
    assert any("power_3.txt cannot be opened" in line for line in broken["left_out"])
    again = softbeam("data", "make", tmp_path / "mine.yaml")
    assert f"left out or incomplete: {len(broken['left_out'])}, the first: " in again.err
    os.rename(tmp_path / "power_3.txt", folder / "unit1" / "power_3.txt")
    whole = json.loads(softbeam("data", "make", tmp_path / "mine.yaml", "--json").out)
    assert whole["folder"] != broken["folder"]
    assert not any("power_3.txt" in line for line in whole["left_out"])


def test_a_run_says_what_its_data_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    values = {**tiny_values(rounds=1), "controls": False, "students": {}}
    values["data"] = {
        "source": "deepsense",
        "folder": str(Release(num_passes=7, length=24).write(tmp_path / "scenario7")),
        "passes": {"server": 2, "public": 1, "test": 1, "client": 2, "client_test": 1, "validation_share": 0.5},
        "nodes": [{"modality": "gps", "count": 1}],
    }
    table = tmp_path / "scenario7" / "scenario7.csv"
    table.write_text(table.read_text().replace(",", ";"))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    answer = softbeam("run", tmp_path / "mine.yaml", "--out", tmp_path / "runs")
    assert answer.code == 0, answer.err
    assert "tiny: left out or unusual: 1, the first: scenario7.csv: semicolons stand between its cells" in caplog.text
