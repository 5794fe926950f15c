"""A recording that grows: passes that arrive while the federation runs.

In the folder of a recording, ``arrivals/`` may hold further recordings of the ordinary form. They are written elsewhere
and renamed into place (:func:`append_arrival`), so each is complete as soon as it exists, and it never changes:

    recording.json, ...             what was recorded at the beginning; may be missing if ``arrivals/`` exists
    arrivals/20260301T0800/         one pass or several; sorted by name, and no name begins with a dot

A learner sees one recording whose rows are in several files. There were two alternatives. With a `Material` of several
recordings, the number of a window would have become a pair in the learner, all lessons and all exchanges. Appending to
the arrays themselves takes more than one step, so a reader could have found half a pass.

F frames.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from clients.data.recording import MANIFEST, Recording, open_recording, write_recording
from configs.files import is_foreign, is_plain_name, make_folder, sync, temporary_beside

log = logging.getLogger(__name__)

ARRIVALS = "arrivals"


class Stitched:
    """The rows of several arrays, used as one array; only the rows that are asked for are read.

    Args:
        parts: the arrays, whose rows have one shape and dtype.
    """

    def __init__(self, parts: Sequence[NDArray[np.generic]]) -> None:
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts])
        self.shape: tuple[int, ...] = (int(self._ends[-1]), *parts[0].shape[1:])
        self.dtype = parts[0].dtype
        self.nbytes = sum(part.nbytes for part in parts)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.generic]:
        """(*rows.shape, ...) the rows with these numbers, which count from 0 and may have any order."""
        found = np.empty((*rows.shape, *self.shape[1:]), self.dtype)
        owner = np.searchsorted(self._ends, rows, side="right")
        for number in np.unique(owner):
            here, end = owner == number, self._ends[number]
            found[here] = self._parts[number][rows[here] - (end - len(self._parts[number]))]
        return found


def open_growing(folder: Path, *, modality: str, num_classes: int, validation_share: float) -> Recording | None:
    """Open a recording with everything that has arrived so far; without ``arrivals/`` it is like `open_recording`.

    New passes are for training, except a share for validation: in the order of names, a pass is for validation as soon
    as the share asks for one more. A pass that its own recording keeps for ``test`` is used for neither. An arrival
    that cannot be read, has no labels or lacks the modality is left out with a warning, and tried again the next time.

    Args:
        folder: the folder of the recording.
        modality: the modality that the client senses; a recording with arrivals holds no other.
        num_classes: the number of beams or classes.
        validation_share: the share of new passes for validation, in [0, 1).

    Returns:
        The recording; None if nothing has been recorded yet.

    Raises:
        ValueError: there is neither a recording nor ``arrivals/``, or the recording itself is broken.
    """
    begins_empty = (folder / ARRIVALS).is_dir() and not (folder / MANIFEST).exists()
    base = None if begins_empty else open_recording(folder)
    arrivals = []
    for name in _names(folder):
        try:
            arrivals.append(_open_arrival(folder / ARRIVALS / name, modality, num_classes))
        except (ValueError, OSError) as error:
            log.warning("left out until it is mended: %s", error)
    if not arrivals:
        return base
    if base is not None and modality not in base.sensors:
        raise ValueError(f"{folder}: has no {modality}, which its arrivals have; record them in another folder")
    # Frames without labels teach nothing, and they have none that the rows of arrivals could join.
    labelled = [base] if base is not None and base.is_labelled else []
    return _stitch(folder, modality, labelled, arrivals, validation_share)


def append_arrival(recording_folder: Path, source_recording: Path, name: str) -> Path:
    """Add the passes of a recording to a growing one in one step: a reader finds all of them or none.

    Args:
        recording_folder: the folder of the growing recording.
        source_recording: the folder of a labelled recording, which is copied.
        name: the name of the arrival; it must sort after the names of earlier arrivals, as times do.

    Returns:
        The folder of the arrival.

    Raises:
        ValueError: the source is not a recording, has no power, or has values that are not finite; or the name is
            wrong.
        OSError: the disk is full or broken; nothing has been added then.
    """
    if not is_plain_name(name) or name.startswith("."):
        raise ValueError(f"name: must be the name of a folder and not begin with a dot, got {name!r}")
    # A name between two others would move later passes from training to validation.
    if (names := _names(recording_folder)) and name <= names[-1]:
        raise ValueError(f"name: must sort after {names[-1]!r}, which has arrived already, got {name!r}")
    source = open_recording(source_recording)
    _check_values(source, [sensor for sensor in source.sensors if sensor != "box"])  # NaN means that there is no box.
    arrival = recording_folder / ARRIVALS / name
    make_folder(arrival.parent)
    temporary = temporary_beside(arrival)
    try:
        write_recording(
            temporary,
            pass_ids=source.pass_ids,
            sensors=source.sensors,
            power=source.power,
            splits=source.splits,
            every_window=source.every_window,
            labels=source.labels,
            num_classes=source.num_classes,
        )
        for path in (*temporary.iterdir(), temporary):
            sync(path)
        os.rename(temporary, arrival)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync(arrival.parent)
    return arrival


def _names(folder: Path) -> list[str]:
    """The sorted names of the arrivals; a name that begins with a dot is still being written."""
    try:
        return sorted(path.name for path in (folder / ARRIVALS).iterdir() if not is_foreign(path.name))
    except FileNotFoundError:
        return []


def _open_arrival(folder: Path, modality: str, num_classes: int) -> Recording:
    arrival = open_recording(folder)
    if modality not in arrival.sensors:
        raise ValueError(f"{folder}: has no {modality}")
    _check_values(arrival, [])
    if arrival.power is not None and arrival.power.shape[1] != num_classes:
        raise ValueError(f"{folder}: has power of {arrival.power.shape[1]} beams, expected {num_classes}")
    if arrival.num_classes not in (None, num_classes):
        raise ValueError(f"{folder}: has labels of {arrival.num_classes} classes, expected {num_classes}")
    return arrival


def _check_values(recording: Recording, sensors: Sequence[str]) -> None:
    """Refuse a recording that cannot be learned from: one value that is not finite would spoil every later round."""
    if not recording.is_labelled:
        raise ValueError(f"{recording.folder}: no power.npy, so this recording has no beam labels")
    power = [] if recording.power is None else [("power", recording.power)]
    for name, values in (*power, *((name, recording.sensors[name]) for name in sensors)):
        if not np.all(np.isfinite(values)):
            raise ValueError(f"{recording.folder / name}.npy: holds values that are not finite; record it again")


def _stitch(
    folder: Path, modality: str, base: list[Recording], arrivals: list[Recording], validation_share: float
) -> Recording:
    """All rows as one recording; passes of the base keep their numbers and splits, arrivals get the next numbers."""
    pass_ids = [one.pass_ids for one in base]
    splits = {name: list(ids) for one in base for name, ids in one.splits.items()}
    num_dealt = 0
    first = max((int(ids.max(initial=-1)) for ids in pass_ids), default=-1) + 1
    for arrival in arrivals:
        ids, positions = np.unique(arrival.pass_ids, return_inverse=True)
        pass_ids.append((first + positions).astype(np.int32))
        for_test = set(arrival.splits.get("test", ()))
        for number in np.flatnonzero([int(one) not in for_test for one in ids]).tolist():
            name = "validation" if _is_validation(num_dealt, validation_share) else "train"
            splits.setdefault(name, []).append(first + number)
            num_dealt += 1
        first += len(ids)
    parts = [*base, *arrivals]
    powers = [part.power for part in parts if part.power is not None] or None
    labels = [part.labels for part in parts if part.labels is not None] or None
    if powers and labels:
        raise ValueError(f"{folder}: some of its parts have power and others have classes; record them in one form")
    # A learner only asks these arrays for rows, and a `Stitched` can give them.
    return Recording(
        folder=folder,
        pass_ids=np.concatenate(pass_ids),
        sensors={modality: cast("NDArray[np.generic]", Stitched([part.sensors[modality] for part in parts]))},
        power=None if powers is None else cast("NDArray[np.float32]", Stitched(powers)),
        labels=None if labels is None else cast("NDArray[np.int32]", Stitched(labels)),
        num_classes=parts[0].num_classes,
        splits={name: tuple(ids) for name, ids in splits.items()},
        sites=next((one.sites for one in base), {}),
        every_window=parts[0].every_window,
    )


def _is_validation(number: int, share: float) -> bool:
    """Whether pass ``number``, from 0, is for validation: with this pass, the share asks for one pass more."""
    exactly = 1e-9  # A product such as five times 0.2 counts as a whole number, even if rounding made it smaller.
    return int((number + 1) * share + exactly) > int(number * share + exactly)
