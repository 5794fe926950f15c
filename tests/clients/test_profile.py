"""Who a client is, on a real machine and in simulation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clients.profile import ClientProfile, client_folders, profiles_of

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
    for clients_per_node, num_nodes in ((1, 4), (2, 2), (3, 2), (4, 1)):
        ids = [
            profile.id
            for partition in range(num_nodes)
            for profile in profiles_of({"partition-id": partition}, federation, clients_per_node=clients_per_node)
        ]
        assert ids == ["000-camera", "001-gps", "002-gps", "010-lidar"]


def test_a_folder_without_a_recording_is_no_client(federation: Path) -> None:
    assert [path.name for path in client_folders(federation)] == ["000-camera", "001-gps", "002-gps", "010-lidar"]


def test_a_federation_without_clients_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="softbeam data make"):
        client_folders(tmp_path)
