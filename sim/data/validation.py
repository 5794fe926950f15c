"""Says what is wrong with a ready federation: every fault, with its file, its row and how to mend it.

docs/data.md specifies the form. Values are looked at in blocks of rows, so that a large federation needs little memory.

F frames, B beams.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.data.modalities import MODALITIES
from clients.data.recording import FORMAT, LABEL_TYPES, MANIFEST, PUBLIC_LABELS, PUBLIC_POWER
from configs.data_facts import recordings_of_clients
from configs.files import map_array, read_plain
from configs.schema import Experiment, Task
from configs.spelling import did_you_mean
from configs.world import MAX_BEAMS, MIN_BEAMS

BLOCK_ROWS = 1024
FEDERATION = "federation.json"
# Of one kind of fault in one file, so many rows are named; the last of them says how many there are.
ROWS_NAMED = 3
SPLITS = {"server": ("train", "validation"), "public": ("public",), "test": ("test",)}
CLIENT_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class FederationFault:
    """One thing that is wrong.

    Attributes:
        file: the file or folder, relative to the federation.
        row: the row of the array, from 0; None if the fault is of the whole file.
        found: what was found.
        mend: how to mend it.
    """

    file: str
    row: int | None
    found: str
    mend: str

    def __str__(self) -> str:
        where = self.file if self.row is None else f"{self.file}, row {self.row}"
        return f"{where}: {self.found}; {self.mend}"

    def to_json(self) -> dict[str, Any]:
        """The attributes by name."""
        return asdict(self)


@dataclass(frozen=True)
class _OpenedRecording:
    """A recording that could be opened.

    Attributes:
        name: its folder, relative to the federation.
        manifest: its ``recording.json``.
        arrays: the arrays that could be opened, by name.
    """

    name: str
    manifest: Mapping[str, Any]
    arrays: Mapping[str, NDArray[np.generic]]

    @property
    def label_file(self) -> str:
        """The array that holds its labels, if it has any: ``power`` or ``labels``."""
        return "power" if self.manifest.get("num_classes") is None else "labels"

    @property
    def sensors(self) -> list[str]:
        """The modalities that it claims to have."""
        return [name for name in self.manifest["modalities"] if isinstance(name, str)]


def require_valid(folder: Path, experiment: Experiment) -> None:
    """Refuse a federation that has a fault, or is not the one that the experiment is about.

    Raises:
        ValueError: the first fault, and how many there are.
    """
    faults = find_faults(folder)
    if faults:
        more = f" (and {len(faults) - 1} more: softbeam data validate {folder})" if len(faults) > 1 else ""
        raise ValueError(f"data.folder: {folder}: {faults[0]}{more}")
    senses = [json.loads((one / MANIFEST).read_text())["modalities"][0] for one in recordings_of_clients(folder)]
    wanted = [nodes.modality for nodes in experiment.data.nodes for _ in range(nodes.count)]
    if senses != wanted:
        raise ValueError(
            f"data.nodes: the clients of {folder} sense {', '.join(senses)}, but the nodes {', '.join(wanted)}; "
            "leave the nodes out, or name those that are there in their order"
        )
    task = experiment.task
    for name in ("server", "public", "test"):
        if not _num_windows(folder / name, task):
            raise ValueError(
                f"data.folder: {folder / name}: no pass is long enough for a window of task.num_frames + num_future = "
                f"{task.num_frames + task.num_future} rows; lower them (1 and 0 where rows are samples), or give "
                "longer passes"
            )


def find_faults(folder: Path) -> list[FederationFault]:
    """Every fault of a federation, in the order of its parts; empty if there is none.

    Raises:
        ValueError: there is no such folder.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; name the folder of a federation")
    names = ["server", "public", "test"]
    faults = [
        FederationFault(name, None, "is missing", _mend_missing(folder, name))
        for name in names
        if not _is_part(folder / name)
    ]
    faults += _faults_of_its_own_file(folder)
    clients = recordings_of_clients(folder)
    if lost := [one for one in sorted((folder / "clients").glob("[!.]*")) if one.is_dir() and not _is_part(one)]:
        faults += [
            FederationFault(f"clients/{one.name}/{MANIFEST}", None, "is missing", "write it, or remove the folder")
            for one in lost
        ]
    if not clients and not lost:
        faults.append(
            FederationFault(
                "clients", None, "holds no recording", "write at least one clients/000-name with a recording.json"
            )
        )
    # A folder that is no recording yet has its number all the same.
    for number, client in enumerate(sorted([*clients, *lost])):
        if client.name.partition("-")[0] != f"{number:03d}" or not client.name.partition("-")[2]:
            mend = f"call it {number:03d}-name: clients are numbered from 000, without a gap"
            faults.append(FederationFault(f"clients/{client.name}", None, f"is not number {number:03d}", mend))
    parts = []
    for name in [*(name for name in names if _is_part(folder / name)), *(f"clients/{one.name}" for one in clients)]:
        part, found = _open_part(folder, name)
        faults += found
        if part is not None:
            parts.append(part)
            faults += _faults_of_part(part)
    return [*faults, *_faults_between(folder, parts)]


def _faults_of_its_own_file(folder: Path) -> list[FederationFault]:
    """What is wrong with ``federation.json``, which a federation may lack."""
    file = FEDERATION
    if not os.path.lexists(folder / file):
        return []
    mend = "write it again, or remove it: no number is taken from it"
    try:
        values = json.loads(read_plain(folder / file))
    except (OSError, ValueError) as error:
        return [FederationFault(file, None, f"is not readable JSON ({error})", mend)]
    if not isinstance(values, dict):
        return [FederationFault(file, None, f"is a {type(values).__name__}, no object", mend)]
    return [
        FederationFault(file, None, f"{key} is {values[key]!r}", "write a list of lines, or leave it out")
        for key in ("left_out", "warnings")
        if not isinstance(values.get(key, []), list)
    ]


def faults_of_recording(folder: Path, name: str) -> list[FederationFault]:
    """The faults of one recording of a federation by itself.

    Args:
        folder: the federation.
        name: the folder of the recording in it.
    """
    part, faults = _open_part(folder, name)
    return faults if part is None else [*faults, *_faults_of_part(part)]


def _is_part(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()


def _mend_missing(folder: Path, name: str) -> str:
    if any(folder.glob("*.csv")):
        return "this looks like a DeepSense 6G release: use data.source: deepsense"
    if name == "test":
        return "every run is scored on a common test set: set passes aside for it, which nobody learns from"
    return f"write {name}/{MANIFEST} and its arrays"


def _num_windows(folder: Path, task: Task) -> int:
    from clients.data.recording import open_recording

    return len(open_recording(folder).window_starts(task.num_frames, task.num_future))


def _open_part(folder: Path, name: str) -> tuple[_OpenedRecording | None, list[FederationFault]]:
    """A recording, and what keeps it or its arrays from being opened."""
    file = f"{name}/{MANIFEST}"
    try:
        manifest = json.loads((folder / file).read_text())
    except (OSError, ValueError) as error:
        return None, [FederationFault(file, None, f"is not readable JSON ({error})", "write it again")]
    faults = _manifest_faults(file, manifest)
    if faults:
        return None, faults
    arrays: dict[str, NDArray[np.generic]] = {}
    part = _OpenedRecording(name, manifest, arrays)
    for array in ["pass_ids", *([part.label_file] if manifest["labelled"] else []), *manifest["modalities"]]:
        opened, fault = _open_array(folder, f"{name}/{array}.npy", array)
        if fault is not None:
            faults.append(fault)
        if opened is not None:
            arrays[array] = opened
    for array, place in (("power", PUBLIC_POWER), ("labels", PUBLIC_LABELS)):
        if (folder / name / f"{array}.npy").exists() and not manifest["labelled"]:
            mend = "set labelled to true, or remove it" if name != "public" else f"move it to {place}"
            found = f"is there, but {file} says labelled: false"
            faults.append(FederationFault(f"{name}/{array}.npy", None, found, mend))
    return part, faults


def _manifest_faults(file: str, manifest: Any) -> list[FederationFault]:
    if not isinstance(manifest, dict):
        return [
            FederationFault(
                file, None, f"is a {type(manifest).__name__}", "write an object with the keys of docs/data.md"
            )
        ]
    faults = []
    if manifest.get("format") != FORMAT:
        faults.append(FederationFault(file, None, f"format is {manifest.get('format')!r}", f'write "format": {FORMAT}'))
    kinds: dict[str, type] = {"modalities": list, "labelled": bool, "splits": dict}
    for key, kind in kinds.items():
        if not isinstance(manifest.get(key), kind):
            faults.append(
                FederationFault(file, None, f"{key} is {manifest.get(key)!r}", f"write a JSON {kind.__name__}")
            )
    faults += _optional_key_faults(file, manifest)
    if not faults:
        for name in manifest["modalities"]:
            if name not in MODALITIES:
                meant = did_you_mean(str(name), list(MODALITIES))
                faults.append(
                    FederationFault(file, None, f"unknown modality {name!r}", f"use {', '.join(MODALITIES)}{meant}")
                )
        for name, ids in manifest["splits"].items():
            if not isinstance(ids, list) or not all(type(one) is int for one in ids):
                faults.append(FederationFault(file, None, f"splits.{name} is not a list of pass numbers", "write one"))
    return faults


def _optional_key_faults(file: str, manifest: Mapping[str, Any]) -> Iterator[FederationFault]:
    count = manifest.get("num_classes", MIN_BEAMS)
    if type(count) is not int or not MIN_BEAMS <= count <= MAX_BEAMS:
        mend = f"write a number from {MIN_BEAMS} to {MAX_BEAMS}, or leave it out where there is power.npy"
        yield FederationFault(file, None, f"num_classes is {count!r}", mend)
    if not isinstance(manifest.get("every_window", False), bool):
        yield FederationFault(file, None, f"every_window is {manifest['every_window']!r}", "write true or false")


def _open_array(folder: Path, file: str, name: str) -> tuple[NDArray[np.generic] | None, FederationFault | None]:
    try:
        array = map_array(folder / file)
    except FileNotFoundError:
        return None, FederationFault(file, None, "is missing", f"write it, or take {name} out of {MANIFEST}")
    except (ValueError, OSError, EOFError) as error:
        return None, FederationFault(
            file, None, f"is not a whole .npy array ({error})", "write it again with numpy.save"
        )
    dtype = np.dtype(LABEL_TYPES.get(name) or MODALITIES[name].dtype)
    row = array.shape[1:2] if name == "power" else () if name in LABEL_TYPES else MODALITIES[name].frame_shape
    if array.ndim == 0 or array.shape[1:] != row or (name == "power" and array.ndim != 2):
        shape = ", ".join(map(str, ("F", "B") if name == "power" else ("F", *row)))
        return None, FederationFault(
            file, None, f"has the shape {array.shape}", f"write ({shape}), a row for each frame"
        )
    if array.dtype != dtype:
        return None, FederationFault(file, None, f"has the type {array.dtype}", f"save array.astype('{dtype}')")
    return array, None


def _faults_of_part(part: _OpenedRecording) -> Iterator[FederationFault]:
    """Faults of a recording whose manifest is whole."""
    ids = part.arrays.get("pass_ids")
    for name, array in part.arrays.items():
        if ids is not None and len(array) != len(ids):
            found = f"has {len(array)} rows, but pass_ids.npy has {len(ids)}"
            yield FederationFault(f"{part.name}/{name}.npy", None, found, "write one row for each frame in all arrays")
        yield from _bad_rows(f"{part.name}/{name}.npy", name, array)
    if "labels" in part.arrays:
        yield from _bad_classes(f"{part.name}/labels.npy", part.arrays["labels"], part.manifest["num_classes"])
    if ids is not None:
        yield from _pass_faults(part, np.asarray(ids, np.int64))
    wanted = SPLITS.get(part.name, CLIENT_SPLITS)
    needs_labels = part.name != "public"
    if part.manifest["labelled"] != needs_labels and (needs_labels is False or part.name in SPLITS):
        place = PUBLIC_POWER if part.label_file == "power" else PUBLIC_LABELS
        mend = (
            f"the server and the test set need {part.label_file}.npy"
            if needs_labels
            else f"its {part.label_file} belongs into {place}"
        )
        yield FederationFault(f"{part.name}/{MANIFEST}", None, f"labelled is {part.manifest['labelled']}", mend)
    for name in part.manifest["splits"]:
        if name not in wanted:
            yield FederationFault(
                f"{part.name}/{MANIFEST}", None, f"unknown split {name!r}", f"use {', '.join(wanted)}"
            )
    if part.name.startswith("clients/") and len(part.sensors) != 1:
        found = f"has {len(part.sensors)} modalities ({', '.join(part.sensors)})"
        yield FederationFault(f"{part.name}/{MANIFEST}", None, found, "a client senses one; make a client of each")


def _pass_faults(part: _OpenedRecording, ids: NDArray[np.int64]) -> Iterator[FederationFault]:
    file = f"{part.name}/pass_ids.npy"
    if len(ids) == 0:
        yield FederationFault(file, None, "has no rows", "write at least one pass")
        return
    starts = np.flatnonzero(np.diff(ids, prepend=ids[0] - 1))
    _, first = np.unique(ids[starts], return_index=True)
    again = np.setdiff1d(np.arange(len(starts)), first)
    for number in again[:ROWS_NAMED]:
        row = int(starts[number])
        mend = "put the rows of a pass together, in the order of time, or give the second run another number"
        yield FederationFault(file, row, f"pass {ids[row]} begins again", mend)
    known, dealt = set(ids.tolist()), dict[int, str]()
    for name, passes in part.manifest["splits"].items():
        for one in passes:
            if one not in known:
                found = f"splits.{name} names pass {one}, which has no row"
                yield FederationFault(f"{part.name}/{MANIFEST}", None, found, "take it out of the split")
            if one in dealt:
                found = f"pass {one} is in the splits {dealt[one]} and {name}"
                yield FederationFault(f"{part.name}/{MANIFEST}", None, found, "leave it in one of them")
            dealt[one] = name
    if part.name not in ("public", "test") and part.manifest["labelled"] and not part.manifest["splits"].get("train"):
        yield FederationFault(f"{part.name}/{MANIFEST}", None, "splits.train is empty", "name the passes to learn from")


def _bad_rows(file: str, name: str, array: NDArray[np.generic]) -> Iterator[FederationFault]:
    """Rows of an array that nobody can learn from."""
    for found, mend, rows in _kinds_of_bad_rows(name, array):
        for place, row in enumerate(rows[:ROWS_NAMED]):
            more = len(rows) - ROWS_NAMED if place == ROWS_NAMED - 1 else 0
            yield FederationFault(file, row, found + (f" (and in {more} more rows)" if more > 0 else ""), mend)


def _kinds_of_bad_rows(name: str, array: NDArray[np.generic]) -> Iterator[tuple[str, str, list[int]]]:
    if name == "pass_ids" or not np.issubdtype(array.dtype, np.floating):
        return
    infinite: list[int] = []
    negative: list[int] = []
    silent: list[int] = []
    for first in range(0, len(array), BLOCK_ROWS):
        block = np.asarray(array[first : first + BLOCK_ROWS], np.float64).reshape(
            len(array[first : first + BLOCK_ROWS]), -1
        )
        with np.errstate(over="ignore"):
            # Models compute in float32, in which what is too large becomes infinite.
            is_whole = np.isfinite(block.astype(np.float32)).all(axis=1)
        if name == "box":
            is_whole |= np.isnan(block).all(axis=1)
        infinite += (first + np.flatnonzero(~is_whole)).tolist()
        if name == "power":
            is_negative = is_whole & (block < 0).any(axis=1)
            negative += (first + np.flatnonzero(is_negative)).tolist()
            silent += (first + np.flatnonzero(is_whole & ~is_negative & (block.max(axis=1, initial=0) <= 0))).tolist()
    what = {"power": "record the sweep again, or leave the frame out", "box": "four NaN mean that there is no box"}
    found = "holds values that are not finite" + (" as float32" if array.dtype.itemsize > 4 else "")
    yield found, what.get(name, "fill the gap, or leave the frame out"), infinite
    yield "holds a negative power", "power is linear: convert dB by 10 ** (dB / 10)", negative
    yield "no beam has any power, so none is the best", "leave the frame out", silent


def _bad_classes(file: str, labels: NDArray[np.generic], num_classes: int) -> Iterator[FederationFault]:
    values = np.asarray(labels, np.int64)
    rows = np.flatnonzero((values < 0) | (values >= num_classes)).tolist()
    for row in rows[:ROWS_NAMED]:
        found, mend = f"is {values[row]}", f"classes are 0 to {num_classes - 1}"
        yield FederationFault(file, row, found, mend)


def _faults_between(folder: Path, parts: list[_OpenedRecording]) -> Iterator[FederationFault]:
    """Faults that two recordings make together."""
    by_name = {part.name: part for part in parts}
    beams = {part.name: part.arrays["power"].shape[1] for part in parts if "power" in part.arrays}
    server = beams.get("server")
    if server is not None and not MIN_BEAMS <= server <= MAX_BEAMS:
        yield FederationFault("server/power.npy", None, f"has {server} beams", f"use {MIN_BEAMS} to {MAX_BEAMS}")
    for name, number in beams.items():
        if server is not None and number != server:
            mend = "all sweeps of a federation have the same beams"
            yield FederationFault(
                f"{name}/power.npy", None, f"has {number} beams, but server/power.npy has {server}", mend
            )
    if by_name and len({bool(part.manifest.get("every_window", False)) for part in parts}) > 1:
        odd = next(
            one
            for one in parts
            if bool(one.manifest.get("every_window")) != bool(parts[0].manifest.get("every_window"))
        )
        found = f"every_window is not what {parts[0].name}/{MANIFEST} says"
        yield FederationFault(f"{odd.name}/{MANIFEST}", None, found, "write the same in all recordings")
    sensed = list(dict.fromkeys(name for part in parts if part.name.startswith("clients/") for name in part.sensors))
    for name in ("public", "test"):
        lacking = [one for one in sensed if name in by_name and one not in by_name[name].sensors]
        for one in lacking:
            mend = f"record it there too, or leave the clients with {one} out"
            yield FederationFault(f"{name}/{MANIFEST}", None, f"has no {one}, which clients sense", mend)
    if "server" in by_name and sensed and not set(sensed) & set(by_name["server"].sensors):
        found = f"has none of {', '.join(sensed)}, which clients sense"
        yield FederationFault(f"server/{MANIFEST}", None, found, "the teacher needs at least one of them")
    counts = {part.name: part.manifest.get("num_classes") for part in parts if part.manifest["labelled"]}
    for name, count in counts.items():
        if count != counts.get("server", count):
            found = f"num_classes is {count}, and server/{MANIFEST} says {counts['server']}"
            yield FederationFault(f"{name}/{MANIFEST}", None, found, "all labels of a federation have the same classes")
    yield from _public_power_faults(folder, by_name.get("public"), server)
    yield from _public_label_faults(folder, by_name.get("public"), counts.get("server"))


def _public_power_faults(
    folder: Path, public: _OpenedRecording | None, num_beams: int | None
) -> Iterator[FederationFault]:
    if not (folder / PUBLIC_POWER).exists():
        return  # An unlabelled public set.
    power, fault = _open_array(folder, PUBLIC_POWER, "power")
    if fault is not None:
        yield fault
    if power is None or public is None:
        return
    rows = len(public.arrays.get("pass_ids", ()))
    if power.shape != (rows, num_beams or power.shape[1]):
        mend = "write a row for each frame of public/, and the beams of server/power.npy"
        yield FederationFault(PUBLIC_POWER, None, f"has the shape {power.shape}, expected {(rows, num_beams)}", mend)
    yield from _bad_rows(PUBLIC_POWER, "power", power)


def _public_label_faults(
    folder: Path, public: _OpenedRecording | None, num_classes: int | None
) -> Iterator[FederationFault]:
    if not (folder / PUBLIC_LABELS).exists():
        return
    labels, fault = _open_array(folder, PUBLIC_LABELS, "labels")
    if fault is not None:
        yield fault
    if labels is None or public is None:
        return
    if num_classes is None:
        yield FederationFault(PUBLIC_LABELS, None, "is there, but the server has no labels.npy", "remove it")
        return
    rows = len(public.arrays.get("pass_ids", ()))
    if len(labels) != rows:
        mend = "write one class for each row of public/"
        yield FederationFault(PUBLIC_LABELS, None, f"has {len(labels)} rows, but public/pass_ids.npy has {rows}", mend)
    yield from _bad_classes(PUBLIC_LABELS, labels, num_classes)
