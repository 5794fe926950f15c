"""A federation that was damaged in one way has one fault, which says where and how to mend it; a whole one has none."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.data.recording import PUBLIC_POWER
from configs.seeding import rng_for
from sim.cli.main import main
from sim.data.federation_writer import FederationWriter, SensorTable
from sim.data.splitting import Even
from sim.data.validation import find_faults
from tests.conftest import tiny_experiment
from tests.federations import place


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "mine"
    rng, num_rows = rng_for(0), 20 * 12
    table = SensorTable(
        {"gps": rng.normal(size=(num_rows, 2)), "lidar": rng.random((num_rows, 216))},
        power=rng.random((num_rows, 8)) + 0.1,
        passes=np.repeat(np.arange(20), 12),
    )
    with FederationWriter(folder, num_beams=8) as writer:
        writer.deal(table, Even(3))
    return folder


def manifest(**change: Any) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | change))

    return damage


def array(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        np.save(path, change(np.load(path)))

    return damage


def put(row: int, value: float) -> Callable[[Path], None]:
    def change(values: Any) -> Any:
        values[row] = value
        return values

    return array(change)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def rename(name: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.rename(path.with_name(name))

    return damage


def as_archive(path: Path) -> None:
    values = np.load(path)
    with path.open("wb") as file:
        np.savez(file, values)


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


NO_ARRAYS: list[tuple[str, Callable[[Path], None], str]] = [
    (file, damage, rf"^{file}: is not a whole .npy array \(.*{text}")
    for file in ("server/power.npy", "server/gps.npy", "clients/000-gps/gps.npy", PUBLIC_POWER)
    for damage, text in ((as_archive, "archive of numpy.savez"), (as_pipe, "a pipe or a device and no file"))
]

DAMAGE: list[tuple[str, Callable[[Path], None], str]] = [
    *NO_ARRAYS,
    ("federation.json", cut, r"^federation.json: is not readable JSON \(.*\); write it again, or remove it"),
    ("federation.json", as_pipe, r"^federation.json: is not readable JSON \(.*a pipe or a device and no file"),
    ("federation.json", lambda path: path.write_text("[]"), r"^federation.json: is a list, no object"),
    ("federation.json", manifest(left_out=3), r"^federation.json: left_out is 3; write a list of lines"),
    ("clients/000-gps/recording.json", Path.unlink, r"^clients/000-gps/recording.json: is missing; write it"),
    ("server/gps.npy", put(5, 1e300), r"^server/gps.npy, row 5: holds values that are not finite as float32; fill"),
    ("clients/000-gps/gps.npy", put(0, -1e39), r"^clients/000-gps/gps.npy, row 0: .* not finite as float32"),
    ("public", shutil.rmtree, r"^public: is missing; write public/recording.json"),
    ("test", shutil.rmtree, r"^test: is missing; every run is scored on a common test set"),
    ("clients", shutil.rmtree, r"^clients: holds no recording"),
    ("clients/001-lidar", rename("007-lidar"), r"^clients/007-lidar: is not number 002; call it 002-name"),
    ("server/recording.json", Path.unlink, r"^server: is missing"),
    ("server/recording.json", cut, r"^server/recording.json: is not readable JSON"),
    ("server/recording.json", manifest(format=2), r"^server/recording.json: format is 2; write \"format\": 1"),
    ("server/recording.json", manifest(splits=[]), r"splits is \[\]; write a JSON dict"),
    ("server/recording.json", manifest(modalities=["gps", "lidr"]), r"unknown modality 'lidr'.*did you mean lidar"),
    ("server/recording.json", manifest(labelled=False), r"server/power.npy: is there, but .* labelled: false"),
    ("server/recording.json", manifest(splits={"train": [0, 99]}), r"splits.train names pass 99, which has no row"),
    ("server/recording.json", manifest(splits={"train": [0], "validation": [0]}), r"pass 0 is in the splits train and"),
    ("server/recording.json", manifest(splits={"train": []}), r"splits.train is empty"),
    ("server/recording.json", manifest(splits={"train": [0], "extra": [1]}), r"unknown split 'extra'; use train, "),
    ("test/recording.json", manifest(every_window=False), r"test/recording.json: every_window is not what server/"),
    ("public/recording.json", manifest(every_window="yes"), r"every_window is 'yes'; write true or false"),
    (
        "public/recording.json",
        manifest(modalities=["gps"]),
        r"public/recording.json: has no lidar, which clients sense",
    ),
    ("server/gps.npy", Path.unlink, r"^server/gps.npy: is missing; write it, or take gps out"),
    ("server/gps.npy", cut, r"^server/gps.npy: is not a whole .npy array"),
    ("server/gps.npy", array(lambda a: a[:, :1]), r"^server/gps.npy: has the shape \(\d+, 1\); write \(F, 2\)"),
    ("server/gps.npy", array(lambda a: a.astype("f4")), r"has the type float32; save array.astype\('float64'\)"),
    ("server/gps.npy", array(lambda a: a[:-1]), r"^server/gps.npy: has 47 rows, but pass_ids.npy has 48"),
    ("server/gps.npy", put(5, np.nan), r"^server/gps.npy, row 5: holds values that are not finite as float32; fill"),
    ("server/power.npy", put(7, np.inf), r"^server/power.npy, row 7: holds values that are not finite; record"),
    ("server/power.npy", put(7, -3.0), r"^server/power.npy, row 7: holds a negative power; power is linear"),
    ("server/power.npy", put(7, 0.0), r"^server/power.npy, row 7: no beam has any power"),
    ("test/power.npy", array(lambda a: a[:, :4]), r"^test/power.npy: has 4 beams, but server/power.npy has 8"),
    (PUBLIC_POWER, array(lambda a: a[:-1]), r"^server/public-power.npy: has the shape \(\d+, 8\), expected"),
    (PUBLIC_POWER, put(2, -1.0), r"^server/public-power.npy, row 2: holds a negative power"),
    ("server/pass_ids.npy", put(30, 0), r"^server/pass_ids.npy, row 30: pass 0 begins again; put the rows"),
]


@pytest.mark.parametrize(("file", "damage", "text"), DAMAGE)
def test_damage_is_found_where_it_is(
    file: str, damage: Callable[[Path], None], text: str, whole: Path, tmp_path: Path
) -> None:
    import re

    folder = tmp_path / "a copy"
    shutil.copytree(whole, folder)
    assert find_faults(folder) == []
    damage(folder / file)
    found = [str(fault) for fault in find_faults(folder)]
    assert [line for line in found if re.search(text, line)], found
    # A gap in the middle of a pass makes two of it; a missing part or array may lack elsewhere, too.
    assert len(found) <= 3, found


def test_a_client_without_its_recording_is_the_only_fault_and_comes_first(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(whole, folder)
    (folder / "clients" / "000-gps" / "recording.json").unlink()
    assert [fault.file for fault in find_faults(folder)] == ["clients/000-gps/recording.json"]


def test_of_many_bad_rows_the_first_are_named_and_all_are_counted(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(whole, folder)
    array(lambda values: values * np.nan)(folder / "server" / "gps.npy")
    faults = find_faults(folder)
    assert [fault.row for fault in faults] == [0, 1, 2]
    assert "and in 45 more rows" in faults[2].found


def test_what_the_simulator_writes_has_no_fault(tmp_path: Path) -> None:
    assert find_faults(place(tiny_experiment(), tmp_path / "run").federation) == []


def validate(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["softbeam", "data", "validate", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_the_command_says_every_fault_and_exits_with_1(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "a copy"
    shutil.copytree(whole, folder)
    assert validate(monkeypatch, str(folder)) == 0
    assert "no fault" in capsys.readouterr().out
    put(3, np.nan)(folder / "test" / "gps.npy")
    put(4, -1.0)(folder / "server" / "power.npy")
    assert validate(monkeypatch, str(folder)) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["server/power.npy, row 4", "test/gps.npy, row 3"]
    assert validate(monkeypatch, str(folder), "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert [(one["file"], one["row"]) for one in told["faults"]] == [("server/power.npy", 4), ("test/gps.npy", 3)]
    assert all(set(one) == {"file", "row", "found", "mend"} for one in told["faults"])


def test_a_release_and_a_folder_that_is_not_there_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "scenario9.csv").write_text("index\n")
    assert "use data.source: deepsense" in find_faults(tmp_path)[0].mend
    with pytest.raises(ValueError, match="no such folder"):
        find_faults(tmp_path / "nothing")


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classes") / "mine"
    rng = rng_for(1)
    with FederationWriter(folder, num_classes=4) as writer:
        writer.deal(SensorTable({"gps": rng.normal(size=(200, 2))}, labels=rng.integers(4, size=200)), Even(3))
    return folder


@pytest.mark.parametrize(
    ("file", "damage", "expected"),
    [
        ("server/labels.npy", put(2, 4), "server/labels.npy, row 2: is 4; classes are 0 to 3"),
        ("test/labels.npy", put(0, -1), "test/labels.npy, row 0: is -1; classes are 0 to 3"),
        ("server/public-labels.npy", put(1, 9), "server/public-labels.npy, row 1: is 9; classes are 0 to 3"),
        ("server/public-labels.npy", array(lambda values: values[:-1]), "server/public-labels.npy: has 49 rows, but"),
        ("test/recording.json", manifest(num_classes=5), "test/recording.json: num_classes is 5, and server/recording"),
        ("test/recording.json", manifest(num_classes="4"), "test/recording.json: num_classes is '4'; write a number"),
        ("test/labels.npy", array(lambda values: values.astype(np.int64)), "test/labels.npy: has the type int64"),
        ("test/labels.npy", Path.unlink, "test/labels.npy: is missing"),
    ],
)
def test_labels_that_are_no_classes_are_named(
    file: str, damage: Callable[[Path], None], expected: str, classes: Path, tmp_path: Path
) -> None:
    assert find_faults(classes) == []
    folder = tmp_path / "damaged"
    shutil.copytree(classes, folder)
    damage(folder / file)
    assert any(str(fault).startswith(expected) for fault in find_faults(folder)), find_faults(folder)
