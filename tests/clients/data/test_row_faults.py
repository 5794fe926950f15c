"""Each cause that spoils a whole release has a message of its own; damage of single rows costs these rows."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clients.data.deepsense import read_scenario
from clients.data.deepsense_cells import read_numbers
from clients.data.row_faults import ADVICE, RowFault, check_faults
from tests.releases import Arrays, Release, Table, damaged_copy
from tests.sim.data.test_partition import write_scenario


def in_each_file(folder: Path, pattern: str, change: Callable[[str], str]) -> None:
    for path in folder.glob(pattern):
        path.write_text(change(path.read_text()))


def swapped(text: str) -> str:
    return "\n".join(text.split()[::-1])


Before = Callable[[Release], None]
After = Callable[[Path], None]


def labels(change: Callable[[int], object]) -> Before:
    def before(release: Release) -> None:
        release.labels = [change(int(str(label))) for label in release.labels]

    return before


def power(change: Callable[[np.ndarray], np.ndarray]) -> Before:
    def before(release: Release) -> None:
        release.power = change(release.power)

    return before


def position(change: Callable[[np.ndarray], np.ndarray]) -> Before:
    def before(release: Release) -> None:
        release.position_deg = change(release.position_deg)

    return before


def station(change: Callable[[np.ndarray], np.ndarray]) -> Before:
    def before(release: Release) -> None:
        release.station_deg = change(release.station_deg)

    return before


def both(change: Callable[[np.ndarray], np.ndarray]) -> Before:
    def before(release: Release) -> None:
        release.position_deg, release.station_deg = change(release.position_deg), change(release.station_deg)

    return before


def minutes(degrees: np.ndarray) -> np.ndarray:
    whole = np.trunc(degrees)
    return 100.0 * whole + 60.0 * (degrees - whole)


def passes(cells: Callable[[Release], list[object]]) -> Before:
    def before(release: Release) -> None:
        release.passes = cells(release)

    return before


def files(pattern: str, change: Callable[[str], str]) -> After:
    return lambda folder: in_each_file(folder, pattern, change)


def remove(pattern: str) -> After:
    def after(folder: Path) -> None:
        for path in folder.glob(pattern):
            path.unlink()

    return after


# What was done to a release before or after it was written -> the cause that is named, and words of the message.
CAUSES: dict[str, tuple[Before | None, After | None, str, str]] = {
    "labels from 0": (labels(lambda label: label - 1), None, "label from 0", "but the strongest beam is"),
    "labels from 0, as 3.0": (labels(lambda label: f"{label - 1}.0"), None, "label from 0", "but the strongest beam"),
    "labels from the other end": (labels(lambda label: 65 - label), None, "label mirrored", "but the strongest beam"),
    "power from the other end": (power(lambda one: one[:, ::-1]), None, "label mirrored", "but the strongest beam"),
    "labels of other rows": (
        lambda one: random.Random(0).shuffle(one.labels),
        None,
        "label other",
        "but the strongest beam is",
    ),
    "labels shifted by five rows": (
        lambda one: setattr(one, "labels", one.labels[5:] + one.labels[:5]),
        None,
        "label other",
        "but the strongest beam is",
    ),
    "labels of 256 beams": (labels(lambda label: label + 128), None, "label other", "but the strongest beam is"),
    "labels with a fraction": (labels(lambda label: label + 0.5), None, "no whole number", "expected a whole number"),
    "labels in words": (labels(lambda label: f"beam{label}"), None, "no whole number", "unit1_beam_index is beam"),
    "blank labels": (labels(lambda label: ""), None, "label blank", "unit1_beam_index is blank"),
    "32 beams": (power(lambda one: one[:, ::2]), None, "num beams", "there are 32 power readings, expected 64"),
    "one beam": (power(lambda one: one[:, :1]), None, "num beams", "there are 1 power readings, expected 64"),
    "256 beams": (power(lambda one: np.tile(one, 4)), None, "num beams", "there are 256 power readings"),
    "power in dBm": (power(lambda one: 10 * np.log10(one) - 30), None, "decibel", "is negative; linear power is"),
    "power in dB, at most 0": (
        power(lambda one: 10 * np.log10(one / one.max(axis=1, keepdims=True))),
        None,
        "decibel",
        "is negative; linear power is",
    ),
    "columns of power and position swapped": (
        lambda one: setattr(one, "header", [one.header[at] for at in (0, 3, 2, 1, 4, 5, 6)]),
        None,
        "two readings",
        "there are 2 power readings",
    ),
    "positions swapped": (position(lambda one: one[:, ::-1]), None, "swapped", "is not a latitude and a longitude"),
    "station swapped": (station(lambda one: one[::-1]), None, "swapped", "the position of the base station is needed"),
    "all swapped": (both(lambda one: one[..., ::-1]), None, "swapped", "is not a latitude and a longitude"),
    "vehicle swapped, in Europe": (
        lambda one: (
            setattr(one, "position_deg", (one.position_deg - one.station_deg + [48.1, 11.6])[:, ::-1]),
            setattr(one, "station_deg", np.array([48.1, 11.6])),
        ),
        None,
        "swapped",
        "km from the base station",
    ),
    "sign of the longitude lost": (position(np.abs), None, "sign", "km from the base station"),
    "sign of the station lost": (station(np.abs), None, "sign", "km from the base station"),
    "degrees and minutes": (both(minutes), None, "minutes", "is not a latitude and a longitude in degrees"),
    "metres instead of degrees": (position(lambda one: one * 1e5), None, "no degrees", "is not a latitude"),
    "another continent": (station(lambda one: np.array([-33.9, 18.4])), None, "far", "km from the base station"),
    "no fix": (position(np.zeros_like), None, "no fix", "the position is 0, 0"),
    "positions with altitude": (
        position(lambda one: np.column_stack([one, one[:, 0]])),
        None,
        "no degrees",
        "is not a latitude and a longitude",
    ),
    "pass in the first row of each only": (
        passes(lambda one: [name if at % one.length == 0 else "" for at, name in enumerate(one.passes)]),
        None,
        "pass blank",
        "seq_index is blank, expected a whole number",
    ),
    "passes with names": (
        passes(lambda one: [f"drive{name}" for name in one.passes]),
        None,
        "no whole number",
        "seq_index is drive1, expected a whole number",
    ),
    "passes with fractions": (
        passes(lambda one: [float(str(name)) + 0.5 for name in one.passes]),
        None,
        "no whole number",
        "seq_index is 1.5, expected a whole number",
    ),
    "decimal commas in files": (
        None,
        files("unit1/power_*", lambda text: text.replace(".", ",")),
        "decimal comma",
        "holds numbers with a decimal comma",
    ),
    "pointers of Git LFS": (
        None,
        files("unit1/power_*", lambda text: "version https://git-lfs.github.com/spec/v1\noid sha256:1\n"),
        "pointer",
        "is a pointer of Git LFS",
    ),
    "words in files": (None, files("unit1/power_*", lambda text: "power"), "no numbers", "is not a file of numbers"),
    "no power files": (None, remove("unit1/power_*"), "file missing", "cannot be opened"),
    "empty power files": (None, files("unit1/power_*", lambda text: ""), "no power", "there are 0 power readings"),
    "no file of the station": (None, remove("unit1/station.txt"), "file missing", "of the base station is needed"),
    "the same power in all beams": (power(np.ones_like), None, "flat", "the power is 1 in every beam"),
    "power of nan": (power(lambda one: one * np.nan), None, "no power", "there is no finite power reading"),
    "commas within cells": (
        lambda one: setattr(one, "header", one.header[:-1]),
        None,
        "too many cells",
        "there are more cells than the 6 columns have names",
    ),
    "files in another folder": (
        None,
        files("*.csv", lambda text: text.replace("./unit1/power", "../unit1/power")),
        "elsewhere",
        "../unit1/power_0.txt is not in ",
    ),
}


@pytest.mark.parametrize("case", CAUSES)
def test_a_cause_that_spoils_the_whole_release_is_refused_with_a_message_of_its_own(case: str, tmp_path: Path) -> None:
    before, after, cause, words = CAUSES[case]
    release = Release()
    if before is not None:
        before(release)
    folder = release.write(tmp_path / "scenario7")
    if after is not None:
        after(folder)
    with pytest.raises(ValueError, match="of 120 rows") as caught:
        read_scenario(folder)
    message = str(caught.value)
    assert message.startswith(f"{folder / 'scenario7.csv'}: ")
    assert words in message and "scenario7.csv, line " in message
    assert message.endswith(f"; {ADVICE[cause]}")


def test_the_undamaged_release_is_read_without_a_word(tmp_path: Path) -> None:
    scenario = read_scenario(Release().write(tmp_path / "scenario7"))
    assert scenario.problems == ()
    assert len(scenario.beams) == 120


def test_every_advice_belongs_to_a_cause_that_a_test_provokes() -> None:
    provoked = {cause for _, _, cause, _ in CAUSES.values()}
    others = {"label range", "reading missing", "blank", "station", "too few cells"}
    assert set(ADVICE) - others == provoked


@pytest.mark.parametrize("cause", ["label other", "decibel", "swapped", "pass blank"])
def test_damage_of_up_to_half_of_the_rows_costs_these_rows_and_of_more_the_release(cause: str) -> None:
    def faults(count: int) -> list[tuple[str, RowFault]]:
        return [(f"line {at}", RowFault(cause, "is wrong")) for at in range(count)]

    check_faults("a.csv", faults(5), 10)
    with pytest.raises(ValueError, match=r"a\.csv: only 4 of 10 rows are whole \(line 0: is wrong\); "):
        check_faults("a.csv", faults(6), 10)


def test_files_that_are_missing_cost_their_rows_however_many_they_are() -> None:
    faults = [(f"line {at}", RowFault("file missing", "cannot be opened")) for at in range(9)]
    check_faults("a.csv", faults, 10)
    with pytest.raises(ValueError, match=r"not one of 9 rows is whole"):
        check_faults("a.csv", faults, 9)


def test_labels_without_power_that_count_from_0_are_refused_by_a_single_0(tmp_path: Path) -> None:
    lines = ["unit1_radar_1,beam_index_1", *(f"./r_{at}.mat,{at}" for at in range(64))]
    (tmp_path / "scenario9_dev_train.csv").write_text("\n".join(lines))
    for at in range(64):
        (tmp_path / f"r_{at}.mat").touch()
    with pytest.raises(ValueError, match=r"line 2: beam_index_1 is 0; the labels count from 0"):
        read_scenario(tmp_path)


def shift_labels(rows: Table, arrays: Arrays) -> None:
    for row in rows:
        row["unit1_beam_index"] = str(int(row["unit1_beam_index"]) - 1)


def turn_power(rows: Table, arrays: Arrays) -> None:
    arrays["unit1_pwr_60ghz"] = arrays["unit1_pwr_60ghz"][:, ::-1]


def to_decibel(rows: Table, arrays: Arrays) -> None:
    arrays["unit1_pwr_60ghz"] = 10 * np.log10(arrays["unit1_pwr_60ghz"])


def half_the_beams(rows: Table, arrays: Arrays) -> None:
    arrays["unit1_pwr_60ghz"] = arrays["unit1_pwr_60ghz"][:, ::2]


def swap_positions(rows: Table, arrays: Arrays) -> None:
    for name in arrays.keys() & {"unit2_loc", "unit2_loc_cal"}:
        arrays[name] = arrays[name][:, ::-1]


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (shift_labels, "label from 0"),
        (turn_power, "label mirrored"),
        (to_decibel, "decibel"),
        (half_the_beams, "num beams"),
        (swap_positions, "swapped"),
    ],
)
def test_a_damaged_copy_of_measured_data_is_refused_by_its_cause(
    number: int, damage: Callable[[Table, Arrays], None], cause: str, tmp_path: Path
) -> None:
    folder = damaged_copy(number, tmp_path, damage)
    with pytest.raises(ValueError, match=r"rows (is|are) whole") as caught:
        read_scenario(folder)
    assert str(caught.value).endswith(ADVICE[cause])


@pytest.mark.parametrize("kind", ["a folder", "a loop", "a pipe"])
def test_what_is_no_file_in_the_place_of_one_is_named_and_nobody_waits_for_it(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "power.txt"
    if kind == "a folder":
        path.mkdir()
    elif kind == "a loop":
        path.symlink_to(path)
    else:
        os.mkfifo(path)
    why = {"a folder": "Is a directory", "a loop": "Too many levels", "a pipe": "a pipe or a device"}[kind]
    with pytest.raises(RowFault, match=why):
        read_numbers(tmp_path, "unit1_pwr_60ghz", "power.txt")


def test_a_row_that_was_cut_off_is_left_out_and_named(tmp_path: Path) -> None:
    folder = write_scenario(tmp_path / "scenario", lengths=[20] * 4)
    table = next(folder.glob("*.csv"))
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines[:-1], lines[-1].rpartition(",")[0]]) + "\n")
    scenario = read_scenario(folder)
    assert len(scenario.pass_ids) == len(lines) - 2
    (problem,) = [one for one in scenario.problems if "fewer cells" in one]
    assert f"line {len(lines)}" in problem
