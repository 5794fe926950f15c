"""Exported folders at work: in onnxruntime and torch, whole and as streams, and without either torch or the command."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import softbeam
from clients.data.recording import Recording, open_recording, write_recording
from clients.serving import predict as prediction
from clients.serving.loading import load_model
from clients.serving.predict import predict
from clients.serving.sources import slot_of_line, slots_of, watched
from sim.take_home.run_models import RunModels
from sim.take_home.verification import torch_logits
from sim.take_home.writer import export_model
from tests.conftest import CHECKOUT
from tests.releases import Release
from tests.sim.cli.test_main import softbeam as command


@pytest.fixture(scope="module")
def exported(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models of a run as graphs, and below ``weights`` as weights."""
    out, models = tmp_path_factory.mktemp("exported"), RunModels(finished_run)
    for name in models.names:
        export_model(models, name, out, int8=name == "000-gps")
        export_model(models, name, out / "weights", form="safetensors" if name == "teacher" else "torch")
    return out


@pytest.fixture(scope="module")
def common(finished_run: Path) -> Recording:
    return open_recording(RunModels(finished_run).federation / "test")


def windows_in(recording: Recording, names: tuple[str, ...], starts: np.ndarray) -> dict[str, Any]:
    rows = starts[:, None] + np.arange(8)
    return {name: np.asarray(recording.sensors[name][rows]) for name in names}


@pytest.mark.parametrize("name", ["000-gps", "002-lidar", "teacher"])
@pytest.mark.parametrize("where", [".", "weights"])
def test_a_folder_answers_as_the_run_does(
    name: str, where: str, exported: Path, finished_run: Path, common: Recording
) -> None:
    model, decider = softbeam.load_model(exported / where / name), RunModels(finished_run).decider(name)
    starts = common.window_starts(8, 3)[::5]
    expected = torch_logits(decider, common, starts)
    frames = windows_in(common, decider.modalities, starts)
    np.testing.assert_allclose(model.logits(frames), expected, atol=1e-4)
    np.testing.assert_allclose(model.predict(frames).sum(axis=-1), 1.0, atol=1e-5)
    live = model.live()
    for slot in range(8):
        answer = live.push({one: values[3, slot] for one, values in frames.items()})
    assert answer is not None
    np.testing.assert_allclose(answer.logits, expected[3], atol=1e-4)


def test_a_teacher_answers_without_a_sensor_and_a_student_says_what_it_needs(exported: Path, common: Recording) -> None:
    starts = common.window_starts(8, 3)[:4]
    graph, weights = (softbeam.load_model(exported / where / "teacher") for where in (".", "weights"))
    some = windows_in(common, ("lidar",), starts)
    np.testing.assert_allclose(graph.logits(some), weights.logits(some), atol=1e-4)
    assert np.abs(graph.logits(some) - graph.logits(windows_in(common, ("gps", "lidar"), starts))).max() > 1e-6
    with pytest.raises(ValueError, match="there are no frames of gps; 000-gps needs them"):
        softbeam.load_model(exported / "000-gps").logits(some)
    with pytest.raises(ValueError, match=r"frames of gps have the shape \(4, 7, 2\), expected \(4, 8, 2\)"):
        softbeam.load_model(exported / "000-gps").logits({"gps": np.zeros((4, 7, 2))})


def test_eight_bits_are_there_where_they_were_exported(exported: Path, common: Recording) -> None:
    starts = common.window_starts(8, 3)[:20]
    frames = windows_in(common, ("gps",), starts)
    small = softbeam.load_model(exported / "000-gps", precision="int8")
    difference = np.abs(small.predict(frames) - softbeam.load_model(exported / "000-gps").predict(frames))
    assert 0.0 < difference.max() < 0.02
    with pytest.raises(ValueError, match="has no graph in int8; export it with softbeam export"):
        softbeam.load_model(exported / "001-gps", precision="int8")
    with pytest.raises(ValueError, match="holds weights, and eight bits are for graphs"):
        softbeam.load_model(exported / "weights" / "000-gps", precision="int8")
    with pytest.raises(ValueError, match="precision float16: expected float32 or int8"):
        softbeam.load_model(exported / "000-gps", precision="float16")


def test_a_damaged_folder_is_one_line(exported: Path, tmp_path: Path) -> None:
    import shutil

    for where, file in ((".", "window.onnx"), ("weights", "model.pt")):
        folder = tmp_path / where / "000-gps"
        shutil.copytree(exported / where / "000-gps", folder)
        (folder / file).write_bytes(b"\0" * 99)
        with pytest.raises(ValueError, match=f"{file}: not .*export it again"):
            load_model(folder).logits({"gps": np.zeros((1, 8, 2))})
    (tmp_path / "000-gps" / "model.json").write_text("{}")
    with pytest.raises(ValueError, match=r"model\.json: not the file of an exported model"):
        load_model(tmp_path / "000-gps")


def lines_of(*words: str | Path) -> list[dict[str, Any]]:
    answer = command("predict", *words, "--json")
    assert answer.code == 0, answer.err
    return [json.loads(line) for line in answer.out.splitlines()]


def test_predict_tells_every_slot_of_a_recording_that_has_a_window(exported: Path, common: Recording) -> None:
    rows = lines_of(exported / "teacher", common.folder, "--top", "3")
    lengths = np.bincount(common.pass_ids)
    assert len(rows) == sum(max(0, length - 7) for length in lengths)
    assert rows[0]["slot"] == 7 and np.shape(rows[0]["beams"]) == (4, 3) == np.shape(rows[0]["probs"])
    model = softbeam.load_model(exported / "teacher")
    starts = common.window_starts(8, 3)[:5]
    expected = np.argsort(-model.logits(windows_in(common, ("gps", "lidar"), starts)), axis=-1, kind="stable")
    assert [row["beams"] for row in rows[:5]] == expected[..., :3].tolist()
    shown = command("predict", exported / "teacher", common.folder)
    assert shown.out.startswith("pass 0 slot 7  +0 ") and "latency p50" in shown.err


def test_the_first_answer_in_torch_and_in_onnxruntime_is_the_same(exported: Path, common: Recording) -> None:
    graph, weights = (lines_of(exported / where / "002-lidar", common.folder) for where in (".", "weights"))
    assert [row["beams"] for row in graph] == [row["beams"] for row in weights]


HIDDEN = ("torch", "flwr", "ray", "typer", "click", "rich", "pydantic", "yaml", "scipy", "PIL", "onnx", "matplotlib")
NODE = """
import sys
for name in {hidden!r}:
    sys.modules[name] = None
import softbeam
sys.argv = ["softbeam", *sys.argv[1:]]
softbeam.main()
"""


def on_a_node(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """The command in a process that has numpy and onnxruntime, and nothing of what is hidden."""
    code = NODE.format(hidden=HIDDEN)
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_node_with_onnxruntime_and_numpy_alone_says_the_same_beams(exported: Path, common: Recording) -> None:
    done = on_a_node("predict", exported / "000-gps", common.folder, "--json")
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    expected = lines_of(exported / "000-gps", common.folder)
    assert [row["beams"] for row in found] == [row["beams"] for row in expected]
    assert "latency p50" in done.stderr
    other = on_a_node("run", "quickstart")
    assert other.returncode == 1 and "only softbeam predict and softbeam store work here" in other.stderr
    weights = on_a_node("predict", exported / "weights" / "000-gps", common.folder)
    assert weights.returncode == 1 and "export it with --format onnx" in weights.stderr
    assert len(weights.stderr.splitlines()) == 1


def test_what_a_node_needs_is_in_the_constraints() -> None:
    pinned = set((CHECKOUT / "constraints.txt").read_text().splitlines())
    lines = (CHECKOUT / "requirements-node.txt").read_text().splitlines()
    needed = [line for line in lines if not line.startswith("#")]
    assert [line.partition("=")[0] for line in needed] == ["numpy", "onnxruntime"]
    assert set(needed) <= pinned


def test_predict_reads_a_release_of_deepsense(exported: Path, tmp_path: Path) -> None:
    release = Release(num_passes=2, length=12).write(tmp_path / "scenario7")
    rows = lines_of(exported / "000-gps", release)
    expected = [(number, slot) for number in (1, 2) for slot in range(7, 12)]
    assert [(row["pass"], row["slot"]) for row in rows] == expected
    answer = command("predict", exported / "002-lidar", release)
    assert answer.code == 1 and "has no frames of lidar, which the model senses" in answer.err


def test_predict_reads_lines_with_frames_that_are_missing_and_late(
    exported: Path, common: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    positions = common.sensors["gps"][:10].tolist()
    lines = [{"slot": slot, "gps": position} for slot, position in enumerate(positions)]
    late = [*lines[:8], {"slot": 8}, lines[8], lines[9]]
    answers = []
    for some in (lines, late):
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(json.dumps(one) + "\n\n" for one in some)))
        answers.append(command("predict", exported / "000-gps", "-", "--json"))
    whole, mended = ([json.loads(line) for line in answer.out.splitlines()] for answer in answers)
    assert [row["slot"] for row in whole] == [row["slot"] for row in mended] == [7, 8, 9]
    assert mended[1]["held"] == ["gps"] and whole[1]["held"] == []
    assert mended[2]["probs"] == whole[2]["probs"]  # after the late frame there is no difference
    assert "1 late" in answers[1].err and "0 late" in answers[0].err


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e300"])
def test_a_frame_that_is_not_finite_counts_as_missing_and_no_answer_holds_nan(
    value: str, exported: Path, common: Recording, tmp_path: Path
) -> None:
    lines = [json.dumps({"gps": position}) for position in common.sensors["gps"][:10].tolist()]
    (tmp_path / "slots.jsonl").write_text("\n".join([*lines[:8], f'{{"gps": [{value}, 1.0]}}', lines[9]]))
    answer = on_a_node("predict", exported / "000-gps", tmp_path / "slots.jsonl", "--json")
    assert answer.returncode == 0
    rows = [json.loads(line, parse_constant=pytest.fail) for line in answer.stdout.splitlines()]
    assert [(row["slot"], row["held"]) for row in rows] == [(7, []), (8, ["gps"]), (9, [])]
    assert answer.stderr.count("slot 8: gps has values that are not finite; the frame counts as missing") == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("gps", "here: not JSON"),
        ("[1, 2]", "here: expected an object"),
        ('{"gps": [1]}', r"here: gps has the shape \(1,\), expected \(2,\)"),
        ('{"gsp": [1, 2]}', "here: unknown sensor gsp"),
        ('{"gps": "nowhere.npy"}', "here: gps: not a frame"),
        ('{"slot": -1}', "here: slot must be a whole number from 0"),
    ],
)
def test_a_line_that_is_no_slot_says_why(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        slot_of_line(line, "here")


def test_a_line_may_name_the_file_of_a_frame(tmp_path: Path) -> None:
    np.save(tmp_path / "scan.npy", np.full(216, 2.5, np.float16))
    slot = slot_of_line(json.dumps({"pass": 4, "lidar": str(tmp_path / "scan.npy"), "gps": None}), "here")
    assert slot.pass_id == 4 and slot.number is None and list(slot.frames) == ["lidar"]
    np.testing.assert_array_equal(slot.frames["lidar"], np.full(216, 2.5))


def add_pass(folder: Path, number: int, east: float) -> None:
    positions = {"gps": np.stack([np.linspace(east, east + 9, 10), np.full(10, 12.0)], axis=1)}
    write_recording(folder, pass_ids=np.full(10, number), sensors=positions, power=None, splits={})


def test_what_comes_into_a_folder_is_predicted_once(exported: Path, tmp_path: Path) -> None:
    add_pass(tmp_path / "a", 1, 0.0)
    lines = tmp_path / "live.jsonl"
    lines.write_text('{"gps": [1, 12]}\n{"gps": [2,')
    seen = []
    for slot in watched(tmp_path, ("gps",), idle_s=0.3):
        seen.append((Path(slot.source.partition(",")[0]).name, slot.frames["gps"][0]))
        if len(seen) == 11:
            add_pass(tmp_path / "b", 2, 100.0)
            with lines.open("a") as file:
                file.write(" 12]}\n")
    assert seen[:11] == [*(("a", float(east)) for east in range(10)), ("live.jsonl", 1.0)]
    assert seen[11:] == [*(("b", 100.0 + east) for east in range(10)), ("live.jsonl", 2.0)]
    answer = command("predict", exported / "000-gps", tmp_path, "--watch", "--idle", "0.1", "--json")
    assert [json.loads(line)["pass"] for line in answer.out.splitlines()] == [1, 1, 1, 2, 2, 2]


def test_a_source_that_is_not_there_and_options_that_do_not_fit_are_one_line(exported: Path, tmp_path: Path) -> None:
    assert "not found; name a recording" in command("predict", exported / "000-gps", tmp_path / "none").err
    assert "--watch: standard input ends" in command("predict", exported / "000-gps", "-", "--watch").err
    assert "no such folder" in command("predict", exported / "000-gps", tmp_path / "none", "--watch").err
    assert "name the folder of a model" in command("predict", tmp_path, tmp_path).err


def test_a_model_of_ones_own_keeps_its_frames(tmp_path: Path) -> None:
    """Where a folder has no graph for streams, that for windows is given the frames of the last slots."""
    from clients.models.decider import Decider
    from clients.serving.manifest import FILE, Manifest, input_of
    from sim.take_home.onnx_trackers import window_graph
    from tests.sim.take_home.test_onnx_trackers import TASK, tracker_of

    decider = Decider([tracker_of(("gps",))], temperatures=[1.0], shares=[1.0])
    (tmp_path / "window.onnx").write_bytes(window_graph(decider, {}).SerializeToString())
    manifest = Manifest(
        *("alone", "student", {"window": "window.onnx"}, (input_of("gps"),), TASK.num_frames, (0, 1, 2)),
        *(tuple("abcdefgh"), False, (), (1.0,), (1.0,), {}, {}),
    )
    (tmp_path / FILE).write_text(manifest.to_json())
    model, positions = softbeam.load_model(tmp_path), 9.0 * np.random.default_rng(0).random((6, 2))
    tally = predict(model, slots_of_array(positions), lambda line: None)
    assert tally.num_slots == 6 and len(tally.milliseconds) == 3
    live = model.live()
    answers = [live.push({"gps": position}) for position in positions]
    assert answers[5] is not None
    np.testing.assert_allclose(answers[5].logits, model.logits({"gps": positions[None, 2:]})[0], atol=1e-6)


def slots_of_array(positions: np.ndarray) -> Any:
    return [slot_of_line(json.dumps({"gps": position.tolist()}), "array") for position in positions]


def test_the_command_of_a_node_is_that_of_everybody(exported: Path, common: Recording, capsys: Any) -> None:
    assert prediction.main([str(exported / "000-gps"), str(common.folder), "--json", "--top", "2"]) == 0
    found = [json.loads(line)["beams"] for line in capsys.readouterr().out.splitlines()]
    assert found == [row["beams"] for row in lines_of(exported / "000-gps", common.folder, "--top", "2")]
    assert prediction.main([str(exported), str(common.folder)]) == 1
    assert len(list(slots_of(common.folder, ("gps",)))) == len(common.pass_ids)


def test_the_python_of_the_page_runs(exported: Path, common: Recording, capsys: pytest.CaptureFixture[str]) -> None:
    import re

    page = (CHECKOUT / "docs" / "take-home.md").read_text()
    (snippet,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    positions = np.asarray(common.sensors["gps"][:10])
    given = {"windows": positions[None, :8], "positions": positions}
    exec(snippet.replace("models/006-gps", str(exported / "000-gps")), given)
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert given["probs"].shape == (1, 4, 64)
