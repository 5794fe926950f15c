"""A release becomes one recording: once, whole, going on after a stop, and never from mixed sources."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import sim.data.conversion
from clients.data.deepsense import read_scenario
from clients.data.recording import open_recording
from configs.files import LOCK, waited_for
from configs.schema import DeepSenseData, World
from sim.cli.main import cli
from sim.data.conversion import convert_scenario, load_scenario, open_conversion, scenario_digest
from sim.data.deepsense_writer import Export, write_release
from sim.data.sites import write_deepsense

NUM_PASSES = 6


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of six passes with small images and LiDAR scans; radar, the largest, is left out."""
    folder = tmp_path_factory.mktemp("release") / "scenario0"
    modalities = ("camera", "lidar", "gps")
    write_release(Export(World(preset="s9"), NUM_PASSES, modalities=modalities, image_size=(96, 54)), folder)
    return folder


@pytest.fixture
def release(made: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(made, tmp_path / "scenario0"))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SOFTBEAM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def federation(folder: Path, *modalities: str) -> DeepSenseData:
    return DeepSenseData.model_validate(
        {
            "source": "deepsense",
            "folder": str(folder),
            "passes": {"server": 2, "public": 1, "test": 1, "client": 2},
            "nodes": tuple({"modality": modality, "count": 1} for modality in modalities),
        }
    )


def test_a_conversion_is_a_recording_of_every_modality(made: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    out = convert_scenario(made, tmp_path / "out", progress=lambda done, total: steps.append((done, total)))
    recording = open_recording(out)
    assert set(recording.sensors) == {"camera", "lidar", "gps"}
    assert steps == [(number, NUM_PASSES) for number in range(1, NUM_PASSES + 1)]
    assert (recording.sensors["camera"].astype(int).std(axis=(1, 2, 3)) > 5).all()
    assert np.count_nonzero(recording.sensors["lidar"]) > 0
    scenario = open_conversion(out)
    assert (scenario.name, scenario.has_passes, scenario.problems) == ("scenario0", True, ())
    assert sorted(path.name for path in tmp_path.iterdir()) in (["out"], ["home", "out"])


def test_a_conversion_that_was_stopped_goes_on_and_ends_the_same(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = convert_scenario(made, tmp_path / "whole")
    read_frames, num_calls = sim.data.conversion.read_frames, 0

    def stop_in_the_third_pass(kind: str, *rest: object) -> object:
        nonlocal num_calls
        num_calls += 1
        if num_calls == 6:  # camera and LiDAR of two passes, then the camera of the third
            raise KeyboardInterrupt
        return read_frames(kind, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(sim.data.conversion, "read_frames", stop_in_the_third_pass)
    with pytest.raises(KeyboardInterrupt):
        convert_scenario(made, tmp_path / "parts")
    assert not (tmp_path / "parts").exists()
    done = (tmp_path / ".parts.draft/done.jsonl").read_text()
    assert [json.loads(line)["pass"] for line in done.splitlines()] == [1, 2]
    # Killed while it wrote the next line.
    (tmp_path / ".parts.draft/done.jsonl").write_text(done + '{"pass": 3, "prob')
    num_calls = 100
    parts = convert_scenario(made, tmp_path / "parts")
    assert num_calls - 100 == 2 * (NUM_PASSES - 2)
    for path in sorted(whole.iterdir()):
        assert path.read_bytes() == (parts / path.name).read_bytes(), path.name
    assert not (tmp_path / ".parts.draft").exists()


def test_a_draft_of_other_files_is_begun_anew(release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(
            sim.data.conversion, "write_recording", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full"))
        )
        with pytest.raises(OSError, match="disk full"):
            convert_scenario(release, tmp_path / "out")
    assert len((tmp_path / ".out.draft/done.jsonl").read_text().splitlines()) == NUM_PASSES
    for path in sorted(release.glob("unit1/camera_data/*"))[:3]:
        path.write_bytes(b"")
    scenario = open_conversion(convert_scenario(release, tmp_path / "out"))
    assert sum("no whole image" in problem for problem in scenario.problems) == 3


def test_the_same_files_are_converted_once_and_others_never_take_their_place(release: Path, tmp_path: Path) -> None:
    out = convert_scenario(release)
    before = (out / "camera.npy").stat().st_mtime_ns
    assert convert_scenario(release) == out
    assert (out / "camera.npy").stat().st_mtime_ns == before
    convert_scenario(release, tmp_path / "named")
    next(release.glob("unit1/camera_data/*")).unlink()
    assert convert_scenario(release) != out
    with pytest.raises(ValueError, match="was converted from other files; remove it or name another folder"):
        convert_scenario(release, tmp_path / "named")
    with pytest.raises(ValueError, match="exists and is not a conversion"):
        convert_scenario(release, release)


def test_broken_and_missing_files_are_zeros_and_reported_and_the_rest_loads(release: Path, tmp_path: Path) -> None:
    images = [f"unit1/camera_data/{path.name}" for path in release.glob("unit1/camera_data/*")]
    first, second = sorted(images, key=lambda name: int(name.split("_")[3]))[:2]
    (release / first).unlink()
    (release / second).write_bytes((release / second).read_bytes()[:300])
    (release / "unit1/lidar_SCR_data/Lidar_data_3.mat").write_bytes(b"no scan")
    (release / "unit1/mmWave_data/mmWave_power_5.txt").write_text("nan\n" * 64)
    (release / "unit2/GPS_data_calibrated/gps_location_6.txt").unlink()
    scenario = open_conversion(convert_scenario(release, tmp_path / "out"))
    whole = len(list(release.glob("unit1/mmWave_data/*")))
    assert len(scenario.pass_ids) == whole - 2
    camera, lidar = scenario.sensors["camera"], scenario.sensors["lidar"]
    assert np.flatnonzero(~camera.any(axis=(1, 2, 3))).tolist() == [0, 1]
    assert not lidar[3].any()
    assert scenario.problems[0] == f"scenario0.csv: 2 of {whole} rows are left out, and passes are cut there (1)"
    assert scenario.problems[1] == (
        f"camera: 1 of {whole} files are missing, their frames are zeros (scenario0.csv, line 2: ./{first})"
    )
    assert scenario.problems[2] == "scenario0.csv, line 7: there is no finite power reading"
    assert "line 8: unit2_loc_cal: ./unit2/GPS_data_calibrated/gps_location_6.txt cannot" in scenario.problems[3]
    assert scenario.problems[4].startswith(f"pass 1, camera: {Path(second).name} is left out: it is no whole image (")
    assert scenario.problems[5].startswith("pass 1, lidar: Lidar_data_3.mat is left out: the header of")
    assert len(scenario.problems) == 6


@pytest.mark.parametrize("content", [b"", b"no scan", b"\x93NUMPY"])
def test_a_sensor_of_which_no_file_can_be_read_is_absent_and_that_is_said_first(
    content: bytes, release: Path, tmp_path: Path
) -> None:
    files = sorted(release.glob("unit1/lidar_SCR_data/*"))
    for path in files:
        path.write_bytes(content)
    scenario = open_conversion(convert_scenario(release, tmp_path / "out"))
    assert set(scenario.sensors) == {"camera", "gps"}
    assert scenario.problems[0].startswith(f"lidar: none of {len(files)} files can be read, so it is left out (the fi")


def test_who_comes_late_waits_for_the_one_that_converts(made: Path, tmp_path: Path) -> None:
    out, found = tmp_path / "out", list[Path]()
    late = threading.Thread(target=lambda: found.append(convert_scenario(made, out)))
    with waited_for(tmp_path / f".out{LOCK}"):
        late.start()
        late.join(0.2)
        assert late.is_alive()
        assert not (tmp_path / ".out.draft").exists()
    late.join(60)
    assert found == [out]
    assert sorted(path.name for path in tmp_path.iterdir()) in (["out"], ["home", "out"])


def test_a_federation_of_an_official_folder_converts_it_on_first_use(made: Path, home: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    for name in ("one", "two"):
        write_deepsense(
            federation(made, "camera", "lidar", "gps"),
            tmp_path / name,
            seed=0,
            progress=lambda done, total: steps.append((done, total)),
        )
    assert len(steps) == NUM_PASSES
    (converted,) = (home / "converted").glob("[!.]*")
    assert converted.name.startswith("scenario0-")
    everything = open_conversion(converted)
    client = open_recording(tmp_path / "one/clients/000-camera")
    own = np.isin(everything.pass_ids, client.pass_ids)
    np.testing.assert_array_equal(client.sensors["camera"], everything.sensors["camera"][own])
    np.testing.assert_array_equal(client.power, everything.labelled_power[own])
    server = open_recording(tmp_path / "two/server")
    assert set(server.sensors) == {"camera", "lidar", "gps"}
    assert len(server.window_starts(8, 3)) > 0


def test_a_federation_may_name_a_conversion(made: Path, home: Path, tmp_path: Path) -> None:
    out = convert_scenario(made, tmp_path / "mine")
    write_deepsense(federation(out, "lidar"), tmp_path / "federation", seed=0)
    assert not (home / "converted").exists()
    assert json.loads((tmp_path / "federation/federation.json").read_text())["scenario"] == "scenario0"


def test_a_picture_that_was_replaced_is_converted_again_and_one_that_was_touched_is_not(
    made: Path, home: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(made, tmp_path / "copy" / made.name))
    before = scenario_digest(read_scenario(copy), copy)
    assert before == scenario_digest(read_scenario(made), made)
    picture = next((copy / "unit1").rglob("*.jpg"))
    os.utime(picture, ns=(1, 1))
    assert scenario_digest(read_scenario(copy), copy) == before
    content = bytearray(picture.read_bytes())
    content[-3] ^= 1
    picture.write_bytes(content)
    os.utime(picture, ns=(1, 1))
    assert scenario_digest(read_scenario(copy), copy) != before


def test_positions_alone_need_no_conversion(made: Path, home: Path) -> None:
    assert set(load_scenario(made, ["gps"]).sensors) == {"gps"}
    assert not (home / "converted").exists()


def test_rows_without_passes_are_no_federation(tmp_path: Path) -> None:
    rows = [f"{beam},./p_{beam}.txt" for beam in (1, 2)]
    (tmp_path / "scenario5_dev_train.csv").write_text("\n".join(["beam_index_1,unit2_loc_1", *rows]) + "\n")
    (tmp_path / "unit1/GPS_data").mkdir(parents=True)
    for name in ("p_1.txt", "p_2.txt", "unit1/GPS_data/gps_location.txt"):
        (tmp_path / name).write_text("50.0\n10.0\n")
    with pytest.raises(ValueError, match=r"data\.folder: scenario5 in .* has no seq_index, so its rows are no seq"):
        write_deepsense(federation(tmp_path, "gps"), tmp_path / "federation", seed=0)


def test_a_recording_that_was_not_converted_is_one_clear_error(made: Path, tmp_path: Path) -> None:
    out = convert_scenario(made, tmp_path / "out")
    (out / "conversion.json").unlink()
    with pytest.raises(ValueError, match=r"conversion\.json: not the record of a conversion .* convert it again"):
        open_conversion(out)


def test_the_commands_export_and_convert_print_their_folders(tmp_path: Path) -> None:
    run = CliRunner().invoke
    out = tmp_path / "release"
    options = ["--preset", "s9", "--passes", "1", "--modalities", "lidar,gps"]
    exported = run(cli, ["data", "export", str(out), *options])
    assert exported.exit_code == 0, exported.output
    assert exported.stdout.strip() == str(out)
    converted = run(cli, ["data", "convert", str(out), "--out", str(tmp_path / "recording")])
    assert converted.stdout.strip() == str(tmp_path / "recording")
    entry = json.loads(run(cli, ["data", "convert", str(out), "--out", str(tmp_path / "recording"), "--json"]).stdout)
    assert entry["modalities"] == ["gps", "lidar"]
    assert entry["frames"] == len(open_recording(tmp_path / "recording").pass_ids)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preset", "s8"], "--preset s8: no such street; use s9, street"),
        (["--image-size", "big"], "--image-size big: expected width x height"),
        (["--modalities", "gps,sonar"], "'sonar' cannot be exported"),
        (["--config", "deepsense-scenario9"], "data.source is deepsense; only a street can be exported"),
    ],
)
def test_an_impossible_export_is_one_clear_error(options: list[str], message: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["data", "export", str(tmp_path / "out"), *options])
    assert message in str(result.exception)


def test_motion_is_converted_only_where_it_is_asked_for_and_knows_what_came_before(made: Path, home: Path) -> None:
    usual = load_scenario(made, ("camera",))
    assert set(usual.sensors) == {"camera", "lidar", "gps"}
    wanted = load_scenario(made, ("motion",))
    assert set(wanted.sensors) == {"camera", "motion", "lidar", "gps"}
    np.testing.assert_array_equal(wanted.sensors["camera"], usual.sensors["camera"])
    is_on = np.asarray(wanted.sensors["motion"]).any(axis=(1, 2))
    begins = np.flatnonzero(np.diff(wanted.pass_ids, prepend=-1))
    assert not is_on[begins].any(), "the first frame of a pass knows nothing of the pass before"
    assert is_on[np.setdiff1d(np.arange(len(is_on)), begins)].all()


def test_after_a_lost_picture_nothing_is_known_of_what_moved(release: Path, tmp_path: Path) -> None:
    sorted((release / "unit1" / "camera_data").iterdir())[3].unlink()
    sensors = open_recording(convert_scenario(release, tmp_path / "out", extras=("motion",))).sensors
    (lost,) = np.flatnonzero(~np.asarray(sensors["camera"]).any(axis=(1, 2, 3)))
    around = [bool(np.any(sensors["motion"][lost + offset])) for offset in (-1, 0, 1, 2)]
    assert around == [True, False, False, True]
