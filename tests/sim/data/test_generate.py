"""Passes and federations that come out the same in whatever order, and by whomever, they are made."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clients.data.modalities import MODALITIES
from clients.data.recording import open_recording
from configs.schema import Faults, Nodes, Passes, StreetData, World
from sim.data.generate import simulate_pass, write_street
from sim.data.plan import plan_federation
from sim.world.sensors import SENSORS
from tests.conftest import CHECKOUT

# The Doppler map takes ten times the time of all others together.
MODALITY_NAMES = tuple(name for name in SENSORS if name != "doppler")

# Prints what `hashes` gives, in a process whose number of threads the environment sets.
HASHES_OF_A_PROCESS = """
import json
from tests.sim.data.test_generate import hashes
print(json.dumps(hashes((0, 1, 2, 3))))
"""


def make(
    index: int, modalities: tuple[str, ...] = MODALITY_NAMES, *, world: World | None = None, **where: Any
) -> dict[str, NDArray[np.generic]]:
    arguments = {"seed": 5, "stream": "public", **where}
    return simulate_pass(world or World(), index=index, modalities=modalities, **arguments)


def hashes(order: tuple[int, ...]) -> dict[str, list[str]]:
    """SHA-256 of the power and of the best beams of passes, by pass, made in that order at different masts."""
    world = World(preset="multi-site-hard", night_probability=0.5, rain_probability=0.5)
    found = {}
    for index in order:
        power = np.ascontiguousarray(make(index, (), world=world, site=index % 4)["power"])
        beams = power.argmax(axis=1).astype(np.int64)
        found[str(index)] = [hashlib.sha256(array.tobytes()).hexdigest() for array in (power, beams)]
    return found


def street(**changes: Any) -> StreetData:
    fields: dict[str, Any] = {
        "source": "street",
        "passes": Passes(server=3, public=2, test=2, client=3, client_test=1, validation_share=0.2),
        "nodes": (Nodes(modality="lidar", count=2), Nodes(modality="gps", count=1)),
    }
    return StreetData(**{**fields, **changes})


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def manifest_of(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "federation.json").read_text())
    return manifest


def power_hashes(folder: Path) -> dict[str, str]:
    found: dict[str, str] = manifest_of(folder)["power_sha256"]
    return found


@pytest.mark.parametrize("preset", ["s9", "night-shift", "multi-site-hard"])
def test_frames_have_the_shapes_of_their_modality(preset: str) -> None:
    world = World.model_validate({"preset": preset})
    frames = make(0, world=world, site=world.sites - 1)
    assert set(frames) == {"power", *MODALITY_NAMES}
    assert frames["power"].shape == (len(frames["power"]), 64)
    assert frames["power"].dtype == np.float32
    assert frames["power"].min() > 0
    for name in MODALITY_NAMES:
        assert frames[name].shape == (len(frames["power"]), *MODALITIES[name].frame_shape)
        assert frames[name].dtype == MODALITIES[name].dtype
        assert np.isfinite(frames[name].astype(np.float64)).all()


def test_the_doppler_map_has_the_shape_of_its_modality() -> None:
    frames = make(0, ("doppler",), world=World(preset="s9", speed_mps=40.0))["doppler"]
    assert frames.shape == (13, *MODALITIES["doppler"].frame_shape)
    assert frames.dtype == MODALITIES["doppler"].dtype


def test_a_pass_made_alone_equals_the_pass_made_after_others() -> None:
    first = make(3)
    make(1)
    again = make(3)
    for name, frames in first.items():
        np.testing.assert_array_equal(frames, again[name])


def test_leaving_a_modality_out_changes_nothing_else() -> None:
    everything, some = make(2), make(2, ("gps", "lidar"))
    assert set(some) == {"power", "lidar", "gps"}
    for name, frames in some.items():
        np.testing.assert_array_equal(frames, everything[name])


@pytest.mark.parametrize("other", [{"seed": 6}, {"stream": "test"}, {"site": 1}])
def test_another_seed_stream_or_site_is_another_pass(other: dict[str, Any]) -> None:
    world = World(sites=2, site_offset_m=1.0)
    one, two = make(2, ("gps",), world=world), make(2, ("gps",), world=world, **other)
    assert one["gps"].shape != two["gps"].shape or not np.allclose(one["gps"], two["gps"], atol=0.01)


def test_an_unknown_sensor_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"data\.nodes: the street has no sensor 'box'; use camera, motion, radar"):
        make(0, ("box",))


def test_an_unknown_site_is_refused_with_the_dotted_path() -> None:
    with pytest.raises(ValueError, match=r"data\.world\.sites: there are 1 sites, so site 1 does not exist"):
        make(0, ("gps",), site=1)


def test_power_and_labels_do_not_depend_on_the_order_of_generation() -> None:
    assert hashes((0, 1, 2, 3)) == hashes((3, 1, 0, 2))


def test_power_and_labels_do_not_depend_on_the_number_of_threads() -> None:
    found = []
    for threads in ("1", "2"):
        environment = {
            **os.environ,
            **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads),
        }
        done = subprocess.run(
            [sys.executable, "-c", HASHES_OF_A_PROCESS],
            cwd=CHECKOUT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    assert found[0] == found[1] == hashes((0, 1, 2, 3))


def test_a_federation_is_the_same_with_one_worker_and_with_two(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_street(
        street(), tmp_path / "one", seed=7, workers=1, progress=lambda done, total: calls.append((done, total))
    )
    write_street(street(), tmp_path / "two", seed=7, workers=2)
    assert power_hashes(tmp_path / "one") == power_hashes(tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert calls[-1][0] == calls[-1][1] == len(calls)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_the_hash_of_a_part_is_that_of_its_power_labelled_or_not(tmp_path: Path) -> None:
    write_street(street(), tmp_path / "federation", seed=8, workers=1)
    found = power_hashes(tmp_path / "federation")
    assert set(found) == {"server", "public", "test", "clients/000-lidar", "clients/001-lidar", "clients/002-gps"}
    assert len(set(found.values())) == 6
    server = open_recording(tmp_path / "federation" / "server").power
    assert server is not None
    assert found["server"] == hashlib.sha256(np.asarray(server).tobytes()).hexdigest()
    public = [make(index, (), seed=8)["power"] for index in (1, 0)][::-1]
    assert found["public"] == hashlib.sha256(np.concatenate(public).tobytes()).hexdigest()


def test_a_written_federation_opens_and_holds_what_each_part_should(tmp_path: Path) -> None:
    folder = tmp_path / "federation"
    write_street(street(), folder, seed=8, workers=1)
    assert sorted(path.name for path in (folder / "clients").iterdir()) == ["000-lidar", "001-lidar", "002-gps"]
    server, public, test = (open_recording(folder / name) for name in ("server", "public", "test"))
    assert set(server.sensors) == set(public.sensors) == set(test.sensors) == {"lidar", "gps"}
    assert public.power is None
    assert sorted(server.splits["train"] + server.splits["validation"]) == [0, 1, 2]
    assert len(server.splits["validation"]) == 1
    assert test.splits == {"test": (0, 1)}

    client = open_recording(folder / "clients" / "002-gps")
    assert set(client.sensors) == {"gps"}
    assert len(client.splits["test"]) == 1
    assert client.window_starts(8, 3, "train").size > 0
    plan = plan_federation(street(), seed=8)[-1]
    alone = make(plan.passes[1], ("gps",), world=plan.world, seed=8, stream=plan.stream, site=plan.sites[0])
    np.testing.assert_array_equal(client.sensors["gps"][client.pass_ids == 1], alone["gps"])

    entries = manifest_of(folder)["clients"]
    assert [entry["id"] for entry in entries] == ["000-lidar", "001-lidar", "002-gps"]
    assert [entry["passes"] for entry in entries] == [len(p.passes) for p in plan_federation(street(), seed=8)[3:]]


def test_the_manifest_tells_the_world_from_which_it_can_be_made_again(tmp_path: Path) -> None:
    world = World(preset="s9", rician_k_db=7)
    write_street(street(world=world), tmp_path / "federation", seed=8, workers=1)
    assert World.model_validate_json(json.dumps(manifest_of(tmp_path / "federation")["world"])) == world


def test_no_two_recordings_share_a_pass(tmp_path: Path) -> None:
    write_street(street(), tmp_path / "federation", seed=9, workers=1)
    recordings = [open_recording(path.parent) for path in (tmp_path / "federation").rglob("recording.json")]
    first = [tuple(np.asarray(next(iter(r.sensors.values()))[0], np.float64).ravel()) for r in recordings]
    assert len(set(first)) == len(recordings) == 6


@pytest.mark.parametrize("workers", [1, 2])
def test_faults_change_the_recordings_of_their_nodes_and_neither_power_nor_the_public_set(
    tmp_path: Path, workers: int
) -> None:
    faults = Faults(dropout=0.4, raw_gps=True)
    broken = street(nodes=(Nodes(modality="lidar", count=2), Nodes(modality="gps", faults=faults)))
    write_street(street(), tmp_path / "sound", seed=10, workers=1)
    write_street(broken, tmp_path / "broken", seed=10, workers=workers)
    sound_files, broken_files = contents(tmp_path / "sound"), contents(tmp_path / "broken")
    changed = {name for name in sound_files if sound_files[name] != broken_files[name]}
    assert set(sound_files) == set(broken_files)
    assert changed == {"federation.json", "clients/002-gps/gps.npy"}
    assert power_hashes(tmp_path / "sound") == power_hashes(tmp_path / "broken")
    notes = manifest_of(tmp_path / "broken")["clients"][2]["faults"]
    assert notes == {"dropout": 0.4, "blind": 0.0, "raw_gps": True}


def test_a_faulty_pass_is_a_pass_whose_lost_frames_are_empty(tmp_path: Path) -> None:
    data = street(nodes=(Nodes(modality="camera", faults=Faults(dropout=0.4)),))
    write_street(data, tmp_path / "federation", seed=10, workers=1)
    recorded = np.asarray(open_recording(tmp_path / "federation" / "clients" / "000-camera").sensors["camera"])
    plan = plan_federation(data, seed=10)[-1]
    seen = np.concatenate(
        [make(i, ("camera",), world=plan.world, seed=10, stream=plan.stream)["camera"] for i in plan.passes]
    )
    is_lost = ~recorded.any(axis=(1, 2, 3))
    assert 0.05 < is_lost.mean() < 0.8
    np.testing.assert_array_equal(recorded[~is_lost], seen[~is_lost])


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists already"):
        write_street(street(), tmp_path, seed=0, workers=1)
    assert contents(tmp_path) == {"notes.txt": b"mine"}


def test_a_writer_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    def fail(done: int, total: int) -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_street(street(), tmp_path / "federation", seed=0, workers=1, progress=fail)
    assert list(tmp_path.iterdir()) == []


def test_parts_of_a_street_are_from_the_sites_that_the_yaml_names_and_know_of_each_pass_where_it_was(
    tmp_path: Path,
) -> None:
    world, nodes = World(preset="multi-site-mild"), (Nodes(modality="gps"), Nodes(modality="lidar", site="site-2"))
    data = street(world=world, nodes=nodes, server_from=("site-2", "site-0"), test_from=("site-3", "site-2"))
    write_street(data, tmp_path / "out", seed=1, workers=1)
    server, public, test = (open_recording(tmp_path / "out" / part) for part in ("server", "public", "test"))
    assert dict(server.sites) == {"site-2": (0, 2), "site-0": (1,)}
    assert dict(public.sites) == {"site-0": (0, 1)}
    assert dict(test.sites) == {"site-3": (0,), "site-2": (1,)}
    # Nobody learns from site 3.
    assert (server.held_out, test.held_out) == ((), ("site-3",))
    assert [client["site"] for client in manifest_of(tmp_path / "out")["clients"]] == ["site-0", "site-2"]
    assert list(open_recording(tmp_path / "out" / "clients" / "001-lidar").sites) == ["site-2"]
    expected = simulate_pass(world, seed=1, stream="test", index=0, modalities=("gps",), site=3)["gps"]
    np.testing.assert_array_equal(test.sensors["gps"][: len(expected)], expected)


def test_a_street_with_one_site_says_nothing_of_sites(tmp_path: Path) -> None:
    write_street(street(nodes=(Nodes(modality="gps"),)), tmp_path / "out", seed=1, workers=1)
    assert dict(open_recording(tmp_path / "out" / "test").sites) == {}
    assert "site" not in manifest_of(tmp_path / "out")["clients"][0]
    assert "sites" not in json.loads((tmp_path / "out" / "test" / "recording.json").read_text())
