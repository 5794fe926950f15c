"""What `softbeam data inspect` says of a federation and of its passes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from clients.data.recording import open_recording, write_recording
from sim.cli.main import cli
from sim.data.inspection import inspect_folder, inspect_passes, open_parts
from sim.data.statistics import SCENARIO_9, STATISTICS, beam_statistics
from tests.releases import Release

PASS_IDS = np.repeat(np.arange(3, dtype=np.int32), (13, 14, 15))


def power_of(beams: NDArray[np.int64]) -> NDArray[np.float32]:
    power = np.full((len(beams), 64), 0.1, np.float32)
    power[np.arange(len(beams)), beams] = 1.0
    return power


def write_part(folder: Path, *, first_beam: int = 0, labelled: bool = True) -> NDArray[np.float32]:
    """Beams rise by one a frame in each of three passes; GPS fails in the second, the camera in the third."""
    beams = first_beam + np.concatenate([np.arange(13), np.arange(14), np.arange(15)])
    gps = np.ones((42, 2))
    gps[13:27, 1] = np.nan
    camera = np.random.default_rng(0).integers(1, 255, (42, 64, 64, 3)).astype(np.uint8)
    camera[27:32] = 0
    power = power_of(beams)
    write_recording(
        folder,
        pass_ids=PASS_IDS,
        sensors={"gps": gps, "camera": camera},
        power=power if labelled else None,
        splits={"train": [0, 2], "validation": [1]},
    )
    return power


@pytest.fixture
def federation(tmp_path: Path) -> Path:
    write_part(tmp_path / "server")
    write_part(tmp_path / "public", labelled=False)
    write_part(tmp_path / "clients/000-gps", first_beam=0)
    write_part(tmp_path / "clients/001-gps", first_beam=30)
    return tmp_path


def test_a_row_holds_every_statistic_and_the_measured_one_beside_it(federation: Path) -> None:
    rows = {row["part"]: row for row in inspect_folder(federation)}
    server, public = rows["server"], rows["public"]
    assert list(server["statistics"]) == list(server["scenario_9"]) == list(STATISTICS)
    expected = beam_statistics(power_of(np.concatenate([np.arange(n) for n in (13, 14, 15)])), PASS_IDS)
    assert np.isnan(expected.pop("level_memory"))  # the level of these passes never changes, so JSON gets null
    assert server["statistics"]["level_memory"] is None
    assert {name: server["statistics"][name] for name in expected} == pytest.approx(expected)
    assert server["statistics"]["mask_density_64"] > 0.1  # noise is on everywhere
    assert server["scenario_9"]["gap_2nd_db"] == SCENARIO_9["gap_2nd_db"]
    assert server["best_to_second_db"] == server["statistics"]["gap_2nd_db"] == pytest.approx(10.0)
    assert (public["statistics"], public["scenario_9"], public["best_to_second_db"]) == (None, None, None)


def test_a_client_without_beams_in_common_with_its_only_peer_has_the_skew_of_half_the_beams(federation: Path) -> None:
    rows = {row["part"]: row for row in inspect_folder(federation)}
    # Each share p is p / 2 of all: half of log2(p / (3p/4)) plus half of 1/2 log2((p/2) / (3p/4)) + 1/2 log2 2.
    expected = (np.log2(4 / 3) + (np.log2(2 / 3) + 1.0) / 2.0) / 2.0
    assert rows["clients/000-gps"]["skew_bits"] == pytest.approx(expected)
    assert rows["clients/001-gps"]["skew_bits"] == pytest.approx(expected)
    assert rows["server"]["skew_bits"] is None and rows["public"]["skew_bits"] is None


def test_the_hash_is_over_labels_and_passes_and_tells_recordings_apart(federation: Path) -> None:
    rows = {row["part"]: row for row in inspect_folder(federation)}
    power = open_recording(federation / "clients/001-gps").power
    assert power is not None
    expected = hashlib.sha256(PASS_IDS.tobytes() + power.tobytes()).hexdigest()[:16]
    assert rows["clients/001-gps"]["sha256"] == expected
    assert rows["server"]["sha256"] == rows["clients/000-gps"]["sha256"] != expected
    assert rows["public"]["sha256"] != rows["server"]["sha256"]
    assert len({row["folder_sha256"] for row in rows.values()}) == 1


def test_a_pass_shows_its_beams_its_split_and_the_share_of_frames_that_is_missing(federation: Path) -> None:
    first, second, third = inspect_passes(*open_parts(federation / "clients/001-gps"))
    assert first == {
        "pass": 0,
        "frames": 13,
        "first_beam": 30,
        "last_beam": 42,
        "split": "train",
        "missing": {"camera": 0.0, "gps": 0.0},
    }
    assert (second["split"], second["missing"]) == ("validation", {"camera": 0.0, "gps": 1.0})
    assert third["missing"] == {"camera": pytest.approx(5 / 15), "gps": 0.0}
    assert inspect_passes(*open_parts(federation / "public"))[0]["first_beam"] is None


def test_power_that_is_no_power_is_refused_with_its_folder(tmp_path: Path) -> None:
    write_part(tmp_path / "server")
    np.save(tmp_path / "server/power.npy", np.full((42, 64), -3.0, np.float32))
    with pytest.raises(ValueError, match="server: power: expected finite linear power"):
        inspect_folder(tmp_path)


def test_the_command_prints_strict_json_and_documents_every_name(federation: Path) -> None:
    answer = CliRunner().invoke(cli, ["data", "inspect", str(federation), "--passes", "--json"])

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    rows = json.loads(answer.stdout, parse_constant=refuse)
    assert [len(row["each_pass"]) for row in rows] == [3, 3, 3, 3]
    helped = CliRunner().invoke(cli, ["data", "inspect", "--help"]).stdout
    assert all(f" {name} " in helped for name in STATISTICS)
    assert all(key in helped for key in ("statistics", "scenario_9", "skew_bits", "bearing", "sha256", "folder_sha256"))


def test_the_table_shows_statistics_passes_skew_and_hash(federation: Path) -> None:
    out = CliRunner().invoke(cli, ["data", "inspect", str(federation), "--passes"]).stdout
    row = inspect_folder(federation)[0]
    assert all(word in out for word in ("entropy_bits", "30 -> 42", "validation", "100 %", "33 %", "0.311"))
    assert row["sha256"] in out and f"sha256 of labels and passes: {row['folder_sha256']}" in out


def test_a_conversion_shows_the_problems_of_its_release(tmp_path: Path) -> None:
    write_part(tmp_path / "made")
    record = {"scenario": "scenario9", "problems": ["row 3: no power"], "has_passes": True}
    (tmp_path / "made" / "conversion.json").write_text(json.dumps(record))
    (row,) = inspect_folder(tmp_path / "made")
    assert row["problems"] == ["row 3: no power"]


def test_a_release_shows_bearing_and_range_and_how_the_best_beam_follows(tmp_path: Path) -> None:
    folder = Release().write(tmp_path / "scenario7")
    (row,) = inspect_folder(folder)
    assert row["bearing"]["correlation"] > 0.99
    assert row["bearing"]["beams_per_degree"] == pytest.approx(0.7, abs=0.01)
    # The cars pass 12 m north of the mast, up to 10 m to the west and to the east.
    assert row["bearing"]["range_m"][1] == pytest.approx(13.0, abs=0.2)
    low, middle, high = row["bearing"]["bearing_deg"]
    assert middle % 360.0 == pytest.approx(0.0, abs=1.0) or middle % 360.0 == pytest.approx(360.0, abs=1.0)
    assert high - low == pytest.approx(2 * np.degrees(np.arctan2(9.0, 12.0)), abs=2.0)
    out = CliRunner().invoke(cli, ["data", "inspect", str(folder)]).stdout
    assert all(word in out for word in ("bearing deg", "range m", "beams / degree", "0.70"))


def test_a_recording_without_labels_shows_where_the_vehicles_were(tmp_path: Path) -> None:
    write_part(tmp_path / "public", labelled=False)
    (row,) = inspect_folder(tmp_path)
    assert row["bearing"]["range_m"] == pytest.approx((2**0.5,) * 3)
    assert row["bearing"]["correlation"] is None
    json.dumps(row, allow_nan=False)


@pytest.mark.parametrize("left", ["._server/recording.json", "__MACOSX/server/recording.json", ".draft/recording.json"])
def test_what_an_operating_system_leaves_is_no_recording(left: str, federation: Path) -> None:
    (federation / left).parent.mkdir(parents=True)
    (federation / left).write_bytes(b"\0\5\x16\7")
    assert len(inspect_folder(federation)) == 4
