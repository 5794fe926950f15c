"""Who a client is, on a real machine and in simulation."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from clients.profile import AUTO_COHORT, ClientProfile, client_folders, cohorts_of, even_parts, profiles_of
from configs.loading import load_experiment

REAL = {"client-id": "mast-3", "modality": "radar", "recording": "/data/own", "public": "/data/public"}


@pytest.fixture
def federation(tmp_path: Path) -> Path:
    for name in ("000-camera", "001-gps", "002-gps", "010-lidar", "9-half-made"):
        folder = tmp_path / "clients" / name
        folder.mkdir(parents=True)
        if "half" not in name:
            modality = name.partition("-")[2]
            (folder / "recording.json").write_text(json.dumps({"modalities": [modality]}))
    (tmp_path / "clients" / "notes.txt").write_text("not a client")
    return tmp_path


def test_a_real_machine_says_what_it_senses_and_where_its_data_lies() -> None:
    (profile,) = profiles_of(REAL, None)
    assert profile == ClientProfile(
        "mast-3", "radar", Path("/data/own"), Path("/data/public"), test=None, memory=None, is_virtual=False
    )


def test_a_real_machine_may_have_a_test_set() -> None:
    (profile,) = profiles_of({**REAL, "test": "/data/test"}, None)
    assert profile.test == Path("/data/test")


def test_a_real_machine_without_an_id_is_called_after_its_modality() -> None:
    (profile,) = profiles_of({key: value for key, value in REAL.items() if key != "client-id"}, None)
    assert profile.id == "radar"


def test_a_real_machine_may_have_a_folder_for_its_memory() -> None:
    (profile,) = profiles_of({**REAL, "memory": "/state/runs"}, None)
    assert profile.memory == Path("/state/runs")


def test_a_real_machine_without_a_recording_only_digests() -> None:
    (profile,) = profiles_of({"modality": "gps", "public": "/data/public"}, None)
    assert profile.recording is None


def test_a_missing_public_set_is_refused_by_its_key() -> None:
    with pytest.raises(ValueError, match="node config: public missing"):
        profiles_of({"modality": "gps", "recording": "/data/own"}, None)


@pytest.mark.parametrize("name", ["", ".", "..", "../other", "a/b", "a\\b", "a\0b"])
def test_a_client_id_that_is_no_name_of_a_folder_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="node config: client-id must be the name of one folder"):
        profiles_of({**REAL, "client-id": name}, None)


def test_a_machine_that_says_nothing_is_asked_what_it_senses(federation: Path) -> None:
    with pytest.raises(ValueError, match="modality missing"):
        profiles_of({}, federation)
    with pytest.raises(ValueError, match="modality missing"):
        profiles_of({"partition-id": 0}, None)


def test_a_simulated_node_is_the_client_of_its_partition(federation: Path) -> None:
    (profile,) = profiles_of({"partition-id": 1, "num-partitions": 4}, federation)
    assert profile == ClientProfile(
        "001-gps", "gps", federation / "clients" / "001-gps", federation / "public", federation / "test"
    )


def test_every_client_lives_on_exactly_one_node(federation: Path) -> None:
    for cohort, num_nodes in ((1, 4), (2, 2), (3, 2), (4, 1), ("auto", 4)):
        experiment = load_experiment("quickstart", [f"engine.cohort={cohort}"])
        assert len(cohorts_of(federation, experiment)) == num_nodes
        ids = [
            profile.id
            for partition in range(num_nodes)
            for profile in profiles_of({"partition-id": partition}, federation, experiment)
        ]
        assert ids == ["000-camera", "001-gps", "002-gps", "010-lidar"]
        assert not profiles_of({"partition-id": num_nodes}, federation, experiment)


@pytest.fixture
def crowd(tmp_path: Path) -> Path:
    """A camera, 45 GPS clients with a LiDAR among them, and another LiDAR."""
    for number in range(48):
        modality = "camera" if number == 0 else "lidar" if number in (10, 47) else "gps"
        folder = tmp_path / "clients" / f"{number:03d}-{modality}"
        folder.mkdir(parents=True)
        (folder / "recording.json").write_text(json.dumps({"modalities": [modality]}))
    return tmp_path


def ids_of(federation: Path, *overrides: str) -> list[list[str]]:
    experiment = load_experiment("quickstart", ["engine.cohort=auto", *overrides])
    return [[folder.name for folder in cohort] for cohort in cohorts_of(federation, experiment)]


def test_auto_puts_clients_that_stack_on_an_even_number_of_nodes_and_leaves_convolutions_alone(crowd: Path) -> None:
    cohorts = ids_of(crowd)
    assert [cohort for cohort in cohorts if len(cohort) == 1] == [["000-camera"], ["010-lidar"], ["047-lidar"]]
    together = [cohort for cohort in cohorts if len(cohort) > 1]
    assert [len(cohort) for cohort in together] == [11, 11, 12, 11]
    assert max(map(len, together)) <= AUTO_COHORT
    everyone = sorted(path.name for path in (crowd / "clients").iterdir())
    assert sorted(client for cohort in cohorts for client in cohort) == everyone
    assert ids_of(crowd) == cohorts


def test_auto_leaves_students_alone_that_are_no_trackers_of_ours(crowd: Path) -> None:
    assert all(len(cohort) == 1 for cohort in ids_of(crowd, "students={gps: {model: 'mine:Tracker'}}"))


@pytest.mark.parametrize("count", [1, 2, 3, 39, 40, 41, 1000])
def test_even_parts_hold_everyone_once_and_differ_by_at_most_one(count: int) -> None:
    parts = even_parts(count)
    assert [number for part in parts for number in part] == list(range(count))
    sizes = {len(part) for part in parts}
    assert max(sizes) - min(sizes) <= 1 and max(sizes) <= AUTO_COHORT
    assert count == 1 or len(parts) % 2 == 0


@pytest.mark.parametrize("cohort", ["0", "many", "1.5", "true", "null"])
def test_a_cohort_that_is_no_size_is_refused_with_what_it_may_be(cohort: str) -> None:
    with pytest.raises(ValueError, match=r"engine\.cohort: must be auto or a whole number from 1, got"):
        load_experiment("quickstart", [f"engine.cohort={cohort}"])


def test_a_folder_without_a_recording_is_no_client(federation: Path) -> None:
    assert [path.name for path in client_folders(federation)] == ["000-camera", "001-gps", "002-gps", "010-lidar"]


def test_a_federation_without_clients_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="softbeam data make"):
        client_folders(tmp_path)


def test_a_client_that_joins_a_federation_is_found_by_a_process_that_listed_it_before(federation: Path) -> None:
    assert not profiles_of({"partition-id": 4}, federation)
    os.utime(federation / "clients", (1, 1))  # a file system may have no finer clock than the time until the next line
    folder = federation / "clients" / "011-gps"
    folder.mkdir()
    (folder / "recording.json").write_text(json.dumps({"modalities": ["gps"]}))
    assert [profile.id for profile in profiles_of({"partition-id": 4}, federation)] == ["011-gps"]
