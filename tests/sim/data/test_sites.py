"""A federation of several sites: each scenario dealt by itself, in the frame of its array, and put together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.data.bearing import beam_angles_deg
from clients.data.recording import Recording, open_recording
from configs.schema import DeepSenseData
from sim.data.sites import write_deepsense

NUM_PASSES, NUM_FRAMES = 24, 16
BORESIGHTS = {"north": 350.0, "east": 80.0, "south": 185.0}


def write_site(folder: Path, boresight_deg: float, *, seed: int = 0, sensors: Sequence[str] = ("gps",)) -> Path:
    """A made-up scenario of vehicles that drive by, in which the best beam is the one that points at the vehicle."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    angles = np.concatenate([np.linspace(-30.0, 30.0, NUM_FRAMES) + rng.uniform(-8, 8) for _ in range(NUM_PASSES)])
    beams = np.abs(beam_angles_deg(64) - angles[:, None]).argmin(axis=1)
    passes = np.repeat(np.arange(NUM_PASSES) + 1, NUM_FRAMES)
    power = rng.uniform(0.1, 0.5, (len(beams), 64))
    power[np.arange(len(beams)), beams] = 1.0
    bearing, station = np.radians(boresight_deg + angles), np.array([33.42, -111.93])
    metres = 15.0 * np.stack([np.cos(bearing), np.sin(bearing)], axis=1)
    degrees = station + metres / [110_900.0, 92_900.0]
    rows = [f"{k + 1},{beams[k] + 1},{passes[k]}" for k in range(len(beams))]
    (folder / "scenario7.csv").write_text("\n".join(["index,unit1_beam_index,seq_index", *rows]) + "\n")
    arrays: dict[str, Any] = {"unit1_pwr_60ghz": power, "unit1_loc": station[None]}
    if "gps" in sensors:
        arrays["unit2_loc"] = degrees
    if "box" in sensors:
        arrays["unit1_bbox_tx"] = rng.uniform(0.2, 0.8, (len(beams), 4))
    np.savez(folder / "scenario7_arrays.npz", **arrays)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("sites")
    return {name: write_site(root / name, deg, seed=n) for n, (name, deg) in enumerate(BORESIGHTS.items())}


def sites_of(folders: dict[str, Path], changes: dict[str, dict[str, Any]], **data: Any) -> DeepSenseData:
    sites = tuple({"name": name, "folder": str(path), **changes.get(name, {})} for name, path in folders.items())
    values = {"source": "deepsense", "sites": sites, "nodes": ({"modality": "gps", "count": 2},), **data}
    return DeepSenseData.model_validate(values)


def written(out: Path, folders: dict[str, Path], changes: dict[str, dict[str, Any]] | None = None, **data: Any) -> Path:
    write_deepsense(sites_of(folders, changes or {}, **data), out, seed=0)
    return out


def manifest_of(federation: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((federation / "federation.json").read_text())
    return found


def at(recording: Recording, site: str) -> dict[str, Any]:
    """What a recording holds of one site, with pass ids from zero on."""
    rows = np.isin(recording.pass_ids, recording.sites[site])
    found: dict[str, Any] = {name: values[rows] for name, values in recording.sensors.items()}
    return found | {"power": None if recording.power is None else recording.power[rows]}


def test_every_part_knows_which_of_its_passes_were_recorded_where(tmp_path: Path, folders: dict[str, Path]) -> None:
    out = written(tmp_path / "out", folders)
    assert [(one["id"], one["site"]) for one in manifest_of(out)["clients"]] == [
        (f"{number:03d}-gps", site) for number, site in enumerate(np.repeat(list(BORESIGHTS), 2).tolist())
    ]
    seen: set[int] = set()
    for part in ("server", "public", "test", *(f"clients/{one['id']}" for one in manifest_of(out)["clients"])):
        recording = open_recording(out / part)
        passes = [number for ids in recording.sites.values() for number in ids]
        assert sorted(passes) == np.unique(recording.pass_ids).tolist()
        assert not seen & set(passes)
        seen |= set(passes)
        own = next((one["site"] for one in manifest_of(out)["clients"] if part.endswith(one["id"])), None)
        assert list(recording.sites) == (list(BORESIGHTS) if own is None else [own])
        starts = recording.window_starts(8, 3)
        dealt = [recording.windows_at(starts, [site]) for site in recording.sites]
        assert sorted(np.concatenate(dealt).tolist()) == starts.tolist()
        assert recording.windows_at(starts, ["nowhere"]).tolist() == []
    assert len(seen) == 3 * NUM_PASSES
    public = open_recording(out / "public")
    assert len(np.load(out / "server" / "public-power.npy")) == len(public.pass_ids)


def test_positions_are_in_the_frame_of_each_array_and_its_boresight_is_found(
    tmp_path: Path, folders: dict[str, Path]
) -> None:
    out = written(tmp_path / "out", folders, {"east": {"boresight": 80.0}})
    found = {one["name"]: one["boresight_deg"] for one in manifest_of(out)["sites"]}
    assert found == pytest.approx(BORESIGHTS, abs=0.5)
    assert found["east"] == 80.0
    test = open_recording(out / "test")
    assert test.power is not None
    right, ahead = np.asarray(test.sensors["gps"], np.float64).T
    angles = beam_angles_deg(64)[test.power.argmax(axis=1)]
    assert np.degrees(np.arctan2(right, ahead)) == pytest.approx(angles, abs=1.5)


def test_a_boresight_is_found_without_a_look_at_any_test(
    tmp_path: Path, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[np.ndarray[Any, Any]] = []
    monkeypatch.setattr(
        "sim.data.sites.find_boresight", lambda beams, position_m, _: looked_at.append(position_m) or 0.0
    )
    out = written(tmp_path / "out", folders)
    assert len(looked_at) == 3
    known = {tuple(row) for rows in looked_at for row in rows}
    tests = [open_recording(out / "test"), *(open_recording(path) for path in sorted((out / "clients").iterdir()))]
    for recording in tests:
        for row in np.flatnonzero(np.isin(recording.pass_ids, recording.splits["test"])):
            assert tuple(recording.sensors["gps"][row]) not in known
    assert tuple(open_recording(out / "server").sensors["gps"][0]) in known


def test_one_site_is_the_federation_of_its_folder_to_the_bit(tmp_path: Path, folders: dict[str, Path]) -> None:
    one = {"north": folders["north"]}
    there = written(tmp_path / "sites", one, {"north": {"boresight": 0}})
    data = DeepSenseData.model_validate(
        {"source": "deepsense", "folder": str(folders["north"]), "nodes": ({"modality": "gps", "count": 2},)}
    )
    write_deepsense(data, tmp_path / "folder", seed=0)
    arrays = sorted(path.relative_to(there) for path in there.rglob("*.npy"))
    assert len(arrays) == 4 + 2 + 3 * 3
    for path in arrays:
        assert (there / path).read_bytes() == (tmp_path / "folder" / path).read_bytes()
    for part in ("server", "public", "test", "clients/000-gps", "clients/001-gps"):
        alone, sited = (json.loads((top / part / "recording.json").read_text()) for top in (tmp_path / "folder", there))
        assert {key: value for key, value in sited.items() if key not in ("sites", "held_out")} == alone
    alone, sited = manifest_of(tmp_path / "folder"), manifest_of(there)
    assert "sites" not in alone and "site" not in alone["clients"][0]
    assert {key for key in sited if sited[key] != alone.get(key)} == {"sites", "clients"}


def test_a_site_that_is_held_out_gives_tests_alone_and_nothing_else_changes(
    tmp_path: Path, folders: dict[str, Path]
) -> None:
    whole, without = (
        written(tmp_path / "whole", folders),
        written(tmp_path / "without", folders, {"east": {"held_out": True}}),
    )
    assert [one["site"] for one in manifest_of(without)["clients"]] == ["north", "north", "south", "south"]
    tests = [open_recording(out / "test") for out in (whole, without)]
    np.testing.assert_array_equal(tests[0].pass_ids, tests[1].pass_ids)
    np.testing.assert_array_equal(tests[0].sensors["gps"], tests[1].sensors["gps"])
    assert (tests[0].held_out, tests[1].held_out) == ((), ("east",))
    for part in ("server", "public"):
        found = [open_recording(out / part) for out in (whole, without)]
        assert list(found[1].sites) == ["north", "south"]
        for site in found[1].sites:
            np.testing.assert_array_equal(at(found[0], site)["gps"], at(found[1], site)["gps"])


@pytest.mark.parametrize("part", ["server", "public", "test"])
def test_the_yaml_says_which_sites_a_part_is_from(tmp_path: Path, folders: dict[str, Path], part: str) -> None:
    out = written(tmp_path / "out", folders, **{f"{part}_from": ("south", "north")})
    for name in ("server", "public", "test"):
        expected = ["north", "south"] if name == part else list(BORESIGHTS)
        assert list(open_recording(out / name).sites) == expected
    assert len(manifest_of(out)["clients"]) == 6
    power = np.load(out / "server" / "public-power.npy")
    assert len(power) == len(open_recording(out / "public").pass_ids)


def test_nodes_of_one_modality_may_differ_from_site_to_site(tmp_path: Path, folders: dict[str, Path]) -> None:
    nodes = ({"modality": "gps", "count": 3, "site": "south"}, {"modality": "gps", "site": "north"})
    data = sites_of(folders, {}, nodes=nodes)
    write_deepsense(data, tmp_path / "out", seed=0)
    clients = [(one["id"], one["site"]) for one in manifest_of(tmp_path / "out")["clients"]]
    assert clients == [("000-gps", "north"), ("001-gps", "south"), ("002-gps", "south"), ("003-gps", "south")]
    assert [(group.site, group.count) for group in data.groups] == [("north", 1), ("south", 3)]
    # A site without a node gives to server, public set and test as the others do.
    assert list(open_recording(tmp_path / "out" / "server").sites) == list(BORESIGHTS)


def test_what_a_site_lacks_is_said_with_the_site(tmp_path: Path, folders: dict[str, Path]) -> None:
    missing = {**folders, "west": tmp_path / "west"}
    with pytest.raises(ValueError, match=r"data\.sites\.3\.folder: there is no folder .*west; get the scenario"):
        written(tmp_path / "out", missing)
    box = write_site(tmp_path / "box", 0.0, sensors=("gps", "box"))
    nodes = ({"modality": "gps"}, {"modality": "box", "site": "box"})
    with pytest.raises(ValueError, match=r"data\.nodes: .*north has no box that can be read; use gps"):
        written(tmp_path / "out", {"box": box, **folders}, nodes=nodes)
    with pytest.raises(ValueError, match=r"data\.passes\.client: asks for 90 passes, .* \(at north\)"):
        written(tmp_path / "out", folders, passes={"client": 90})
    assert not (tmp_path / "out").exists()


def test_a_site_without_positions_needs_no_boresight(tmp_path: Path) -> None:
    places = {name: write_site(tmp_path / name, 0.0, seed=n, sensors=("box",)) for n, name in enumerate("ab")}
    out = written(tmp_path / "out", places, nodes=({"modality": "box"},))
    assert [one["boresight_deg"] for one in manifest_of(out)["sites"]] == [None, None]
