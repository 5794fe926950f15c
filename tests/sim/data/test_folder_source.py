"""A ready federation runs where it lies: found from its YAML, read only, told by its content, resumed on the same."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from clients.data.recording import PUBLIC_POWER
from configs.loading import build_experiment, load_experiment, to_values
from configs.placement import federation_folder
from configs.schema import Experiment
from configs.seeding import rng_for
from server.recorder import read_rounds
from sim.data.federation import ensure_federation
from sim.data.federation_writer import FederationWriter, SensorTable
from sim.data.splitting import Dirichlet, Even
from sim.experiments import continue_experiment, resume_experiment, run_experiment
from tests.conftest import tiny_values
from tests.federations import assert_same_outcome, place, quiet, run_apps


def settings(**data: Any) -> dict[str, Any]:
    """A tiny experiment on a folder, for a YAML."""
    return {**tiny_values(rounds=2), "name": "mine", "data": {"source": "folder", **data}, "controls": False}


def write_samples(folder: Path, num_beams: int = 16, num_rows: int = 200) -> Path:
    rng = rng_for(0, "samples")
    places = rng.normal(size=(num_rows, 2)) * 20
    labels = (np.arctan2(places[:, 0], places[:, 1]) / np.pi * num_beams / 2 + num_beams / 2).astype(int) % num_beams
    with FederationWriter(folder, num_beams=num_beams) as writer:
        writer.deal(
            SensorTable({"gps": places, "lidar": rng.random((num_rows, 216))}, labels=labels), Dirichlet(3, 0.5)
        )
    return folder


def yaml_beside(tmp_path: Path, **data: Any) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(settings(**data)))
    return path


@pytest.mark.parametrize("num_beams", [16, 128])
def test_samples_without_passes_run_with_the_number_of_beams_of_the_folder(num_beams: int, tmp_path: Path) -> None:
    write_samples(tmp_path / "my data", num_beams)
    experiment = load_experiment(yaml_beside(tmp_path, folder="my data"))
    assert (experiment.task.num_frames, experiment.task.num_future, experiment.task.num_beams) == (1, 0, num_beams)
    assert [nodes.modality for nodes in experiment.data.nodes] == ["gps", "lidar", "gps"]
    run = run_experiment(experiment, plugins=(), out=tmp_path / "runs", progress=quiet)
    for line in read_rounds(run):
        assert [client["problem"] for client in line["clients"].values()] == ["", "", ""]
        assert all(client["common"] is not None for client in line["clients"].values())


def test_a_federation_of_the_simulator_gives_the_same_bits_as_a_folder(tmp_path: Path) -> None:
    street = build_experiment(tiny_values(rounds=2), origin="test")
    made = place(street, tmp_path / "street")
    values = {**to_values(street), "data": {"source": "folder", "folder": str(made.federation)}}
    ready = place(build_experiment(values, origin="test"), tmp_path / "ready")
    assert ready.federation == made.federation
    for placement in (made, ready):
        run_apps(placement)
    assert_same_outcome(made.run, ready.run)


def test_a_folder_is_relative_to_its_yaml_or_to_the_current_folder_or_to_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_samples(tmp_path / "one" / "my data")
    (tmp_path / "two").mkdir()
    monkeypatch.chdir(tmp_path / "two")
    config = yaml_beside(tmp_path / "one", folder="my data")
    expected = tmp_path / "one" / "my data"
    assert federation_folder(load_experiment(config)) == expected
    (tmp_path / "two" / "other.yaml").write_text("extends: ../one/mine.yaml\nname: other\n")
    assert federation_folder(load_experiment("other.yaml")) == expected
    (tmp_path / "two" / "link").symlink_to(expected)
    (tmp_path / "two" / "other.yaml").write_text("extends: ../one/mine.yaml\ndata: {folder: link}\n")
    linked = load_experiment("other.yaml")
    assert federation_folder(linked) == tmp_path / "two" / "link"
    assert ensure_federation(linked)[0] == tmp_path / "two" / "link"
    assert federation_folder(load_experiment(config, ["data.folder=link"])) == tmp_path / "two" / "link"
    monkeypatch.setenv("HOME", str(tmp_path / "one"))
    assert federation_folder(load_experiment(config, ["data.folder=~/my data"])) == expected


def test_what_a_run_keeps_of_its_experiment_is_readable_without_the_data(tmp_path: Path) -> None:
    folder = write_samples(tmp_path / "data")
    experiment = load_experiment(yaml_beside(tmp_path, folder="data"))
    shutil.rmtree(folder)
    assert build_experiment(to_values(experiment), origin="test") == experiment
    with pytest.raises(ValueError, match=r"data\.folder: .*: not a whole federation .*softbeam data validate"):
        load_experiment(tmp_path / "mine.yaml")


def test_nothing_is_written_into_a_folder_that_is_read_only(tmp_path: Path) -> None:
    folder = write_samples(tmp_path / "data")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for path in (folder, *folder.rglob("*")):
        os.chmod(path, 0o555 if path.is_dir() else 0o444)
    try:
        run_experiment(load_experiment(yaml_beside(tmp_path, folder="data")), plugins=(), out=tmp_path, progress=quiet)
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    finally:
        for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
            os.chmod(path, 0o755)


def test_a_run_goes_on_with_the_data_it_began_with_and_no_other(tmp_path: Path) -> None:
    folder = write_samples(tmp_path / "data")
    experiment = load_experiment(yaml_beside(tmp_path, folder="data"))
    run = run_experiment(experiment, plugins=(), out=tmp_path / "runs", progress=quiet)
    again = continue_experiment(experiment, plugins=(), out=tmp_path / "runs", progress=quiet)
    assert again == run
    (run / "summary.json").unlink()
    # The same bytes in new files are the same data.
    shutil.copytree(folder, tmp_path / "copy")
    shutil.rmtree(folder)
    (tmp_path / "copy").rename(folder)
    assert resume_experiment(run, quiet) == run
    (run / "summary.json").unlink()
    power = np.load(folder / "server" / "power.npy")
    np.save(folder / "server" / "power.npy", power[:, ::-1])
    with pytest.raises(ValueError, match=r"holds other data than when mine-.* began; put back what was there"):
        resume_experiment(run, quiet)
    other = continue_experiment(experiment, plugins=(), out=tmp_path / "runs", progress=quiet)
    assert other != run


def test_a_damaged_folder_leaves_no_run_behind(tmp_path: Path) -> None:
    folder = write_samples(tmp_path / "data")
    experiment = load_experiment(yaml_beside(tmp_path, folder="data"))
    values = np.load(folder / "test" / "gps.npy")
    values[3] = np.nan
    np.save(folder / "test" / "gps.npy", values)
    with pytest.raises(ValueError, match=r"data\.folder: .*test/gps\.npy, row 3: holds values that are not finite"):
        run_experiment(experiment, plugins=(), out=tmp_path / "runs", progress=quiet)
    assert not (tmp_path / "runs").exists()


def test_an_unlabelled_public_set_no_validation_and_a_sensor_that_the_server_lacks(tmp_path: Path) -> None:
    rng = rng_for(1)

    def part(num_rows: int, *sensors: str, labelled: bool = True) -> SensorTable:
        frames = {"gps": rng.normal(size=(num_rows, 2)), "lidar": rng.random((num_rows, 216))}
        labels = np.arange(num_rows) % 5 if labelled else None
        return SensorTable({name: frames[name] for name in sensors}, labels=labels)

    with FederationWriter(tmp_path / "data", num_beams=5, validation=0.0) as writer:
        writer.server(part(20, "gps"))
        writer.public(part(40, "gps", "lidar", labelled=False))
        writer.test(part(20, "gps", "lidar"))
        writer.client(part(20, "lidar"), name="roof")
        writer.client(part(20, "gps", labelled=False), name="only digests")
    assert not (tmp_path / "data" / PUBLIC_POWER).exists()
    experiment = load_experiment(yaml_beside(tmp_path, folder="data"))
    assert experiment.data.server_modalities == ("gps",)
    run = run_experiment(experiment, plugins=(), out=tmp_path / "runs", progress=quiet)
    clients = read_rounds(run)[-1]["clients"]
    assert set(clients) == {"000-roof", "001-only digests"}
    assert [client["problem"] for client in clients.values()] == ["", ""]
    assert clients["000-roof"]["common"] is not None


def refusal(experiment: Experiment) -> str:
    with pytest.raises(ValueError) as caught:
        ensure_federation(experiment)
    return str(caught.value)


def test_settings_that_do_not_fit_the_folder_are_refused(tmp_path: Path) -> None:
    write_samples(tmp_path / "data")
    config = yaml_beside(tmp_path, folder="data")
    with pytest.raises(ValueError, match=r"task\.num_beams: the power in .*data has 16 beams, got 64"):
        load_experiment(config, ["task.num_beams=64"])
    assert "no pass is long enough for a window of task.num_frames + num_future = 11 rows" in refusal(
        load_experiment(config, ["task.num_frames=8", "task.num_future=3"])
    )
    one = load_experiment(config, ["data.nodes=[{modality: gps, count: 2}, {modality: lidar}]"])
    assert "sense gps, lidar, gps, but the nodes gps, gps, lidar" in refusal(one)
    with pytest.raises(ValueError, match=r"data\.nodes\.0\.faults: the data of a folder stays as it is"):
        load_experiment(config, ["data.nodes=[{modality: gps, faults: {dropout: 0.5}}]"])
    with pytest.raises(ValueError, match=r"server_from\.0: the folder says which site"):
        load_experiment(config, ["data.server_from=[rome]"])


def test_nodes_may_be_given_to_choose_their_students(tmp_path: Path) -> None:
    write_samples(tmp_path / "data")
    small = "{modality: gps, student: {hidden: 4}}"
    nodes = f"data.nodes=[{small}, {{modality: lidar}}, {{modality: gps}}]"
    experiment = load_experiment(yaml_beside(tmp_path, folder="data"), [nodes])
    ensure_federation(experiment)
    assert experiment.student_size("gps", "000-gps").hidden == 4
    assert experiment.student_size("gps", "002-gps").hidden == 8


def test_a_pass_of_exactly_one_window_has_it_in_a_folder(tmp_path: Path) -> None:
    rng = rng_for(2)
    table = SensorTable(
        {"gps": rng.normal(size=(24 * 5, 2))}, power=rng.random((120, 8)), passes=np.repeat(np.arange(24), 5)
    )
    with FederationWriter(tmp_path / "data", num_beams=8) as writer:
        writer.deal(table, Even(2))
    config = yaml_beside(tmp_path, folder="data")
    experiment = load_experiment(config, ["task.num_frames=4", "task.num_future=1", "students={}"])
    run = run_experiment(experiment, plugins=(), out=tmp_path / "runs", progress=quiet)
    assert json.loads((run / "passes.json").read_text())["passes"] == list(range(4))
