"""Where the slots of a prediction come from: a recording, a DeepSense 6G release, lines of JSON, a folder that grows.

A line of JSON is one slot. Its keys are sensors, whose values are frames as nested lists, or the path of a file of
NumPy (``.npy``) with a frame; besides it may have ``pass`` (another number begins another pass) and ``slot`` (a number
that was there before marks frames that come late; without it, slots follow one another).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.data.modalities import MODALITIES
from clients.data.recording import MANIFEST, open_recording

LINES = ".jsonl"
# How often a folder that grows is looked at.
POLL_S = 0.2


@dataclass(frozen=True)
class SlotFrames:
    """What the sensors gave in a slot.

    Attributes:
        source: where it is from, for messages.
        pass_id: the number of the pass; another one begins another stream.
        number: the number of the slot in its pass; None is the one after the newest.
        frames: modality -> frame; those that are missing are left out.
    """

    source: str
    pass_id: int
    number: int | None
    frames: dict[str, NDArray[Any]]


def slots_of(place: Path, modalities: Sequence[str]) -> Iterator[SlotFrames]:
    """The slots of a recording, of a file of JSON lines, or of a release, pass by pass.

    Args:
        place: the folder, or the file.
        modalities: the sensors that are wanted; those that are not there are left out.

    Raises:
        ValueError: there is nothing that can be read, or none of the sensors is there.
    """
    if place.suffix == LINES and place.is_file():
        with place.open() as lines:
            yield from slots_of_lines(lines, str(place))
    elif (place / MANIFEST).is_file():
        recording = open_recording(place)
        given = _wanted(place, recording.sensors, modalities)
        yield from _numbered(str(place), recording.pass_ids, {name: recording.sensors[name] for name in given})
    elif place.is_dir():
        yield from _slots_of_release(place, modalities)
    else:
        raise ValueError(f"{place}: not found; name a recording, a DeepSense 6G folder, a {LINES} file, or - for stdin")


def slots_of_lines(lines: Iterable[str], source: str) -> Iterator[SlotFrames]:
    """The slots of lines of JSON; blank lines are passed over.

    Raises:
        ValueError: a line is not a slot; the message has its number.
    """
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield slot_of_line(line, f"{source}, line {number}")


def slot_of_line(line: str, source: str) -> SlotFrames:
    """The slot in a line of JSON.

    Raises:
        ValueError: the line is not a slot.
    """
    try:
        values = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{source}: not JSON ({error}); write one object for each slot") from None
    if not isinstance(values, dict):
        raise ValueError(f'{source}: expected an object such as {{"gps": [3.1, 12.0]}}, got {type(values).__name__}')
    numbers = {}
    for key in ("pass", "slot"):
        numbers[key] = values.pop(key, None)
        if numbers[key] is not None and (not isinstance(numbers[key], int) or numbers[key] < 0):
            raise ValueError(f"{source}: {key} must be a whole number from 0, got {numbers[key]!r}")
    if unknown := [name for name in values if name not in MODALITIES]:
        raise ValueError(f"{source}: unknown sensor {unknown[0]}; known are {', '.join(MODALITIES)}, pass and slot")
    frames = {name: _frame(name, value, source) for name, value in values.items() if value is not None}
    return SlotFrames(source, numbers["pass"] or 0, numbers["slot"], frames)


def watched(folder: Path, modalities: Sequence[str], *, idle_s: float | None = None) -> Iterator[SlotFrames]:
    """The slots of what comes into a folder: recordings in folders of their own, and lines that are added to files.

    What is there already comes first, in the order of names. A recording counts once its ``recording.json`` is there,
    which is written last.

    Args:
        folder: the folder.
        modalities: the sensors that are wanted.
        idle_s: for how many seconds nothing may come until this ends; None never ends.

    Raises:
        ValueError: the folder is missing, or something in it cannot be read.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; name one that recordings or {LINES} files come into")
    done: set[Path] = set()
    places: dict[Path, int] = {}
    last = time.monotonic()
    while idle_s is None or time.monotonic() - last < idle_s:
        found = 0
        for path in sorted(folder.iterdir()):
            if path.name.startswith("."):
                continue
            new: Iterator[SlotFrames] = iter(())
            if path.suffix == LINES:
                new = _added(path, places)
            elif path not in done and (path / MANIFEST).is_file():
                done.add(path)
                new = slots_of(path, modalities)
            for slot in new:
                found += 1
                yield slot
        if found:
            last = time.monotonic()
        else:
            time.sleep(POLL_S)


def _added(path: Path, places: dict[Path, int]) -> Iterator[SlotFrames]:
    """The whole lines that were added to a file since it was last read."""
    with path.open("rb") as file:
        file.seek(places.get(path, 0))
        content = file.read()
    whole = content[: content.rfind(b"\n") + 1]
    places[path] = places.get(path, 0) + len(whole)
    yield from slots_of_lines(whole.decode().splitlines(), str(path))


def _slots_of_release(folder: Path, modalities: Sequence[str]) -> Iterator[SlotFrames]:
    """The slots of a release, whose files are read pass by pass."""
    from clients.data.deepsense import read_scenario

    scenario = read_scenario(folder)
    bounds = [0, *(np.flatnonzero(np.diff(scenario.pass_ids)) + 1).tolist(), len(scenario.pass_ids)]
    in_memory = [name for name in modalities if name in scenario.sensors]
    kinds = {kind: tuple(name for name in modalities if MODALITIES[name].file == kind) for kind in scenario.files}
    names = {kind: made for kind, made in kinds.items() if made}
    _wanted(folder, [*in_memory, *(name for made in names.values() for name in made)], modalities)
    for begin, end in pairwise(bounds):
        frames: dict[str, NDArray[Any]] = {name: scenario.sensors[name][begin:end] for name in in_memory}
        for kind, made in names.items():
            frames |= _read_files(folder, kind, scenario.files[kind][begin:end], made)
        yield from _numbered(str(folder), scenario.pass_ids[begin:end], frames)


def _read_files(folder: Path, kind: str, files: Sequence[Path | None], names: Sequence[str]) -> dict[str, NDArray[Any]]:
    try:
        from clients.data.sensor_files import read_frames
    except ImportError as error:
        raise ValueError(
            f"{folder}: files of a {kind} need {error.name}, which is not installed; pip install pillow scipy, or "
            "convert the release where it is installed: softbeam data convert"
        ) from None
    return dict(read_frames(kind, files, names)[0])


def _numbered(source: str, pass_ids: NDArray[np.int32], sensors: dict[str, NDArray[Any]]) -> Iterator[SlotFrames]:
    number, before = -1, None
    for row, pass_id in enumerate(pass_ids.tolist()):
        number = number + 1 if pass_id == before else 0
        before = pass_id
        yield SlotFrames(source, pass_id, number, {name: np.asarray(values[row]) for name, values in sensors.items()})


def _wanted(place: Path, there: Iterable[str], modalities: Sequence[str]) -> list[str]:
    found = [name for name in modalities if name in set(there)]
    if not found:
        raise ValueError(f"{place}: has no frames of {', '.join(modalities)}, which the model senses")
    return found


def _frame(name: str, value: Any, source: str) -> NDArray[Any]:
    row = MODALITIES[name]
    try:
        array = np.load(value, allow_pickle=False) if isinstance(value, str) else np.asarray(value, np.float64)
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and counts as missing
            array = array.astype(row.dtype)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{source}: {name}: not a frame ({error}); give nested lists or the path of a .npy") from None
    if array.shape != row.frame_shape:
        raise ValueError(f"{source}: {name} has the shape {array.shape}, expected {row.frame_shape} ({row.unit})")
    return array
