"""Inspects a folder of data, and checks by a baseline that a scenario was read correctly."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.data.bearing import fit_bearing
from clients.data.recording import MANIFEST, Recording, open_recording
from clients.data.sensor_files import FILE_KINDS
from configs.files import listed, read_plain
from configs.schema import Task
from sim.data.conversion import PROVENANCE, open_conversion
from sim.data.statistics import SCENARIO_9, beam_statistics, jensen_shannon_bits, known_or_none, mask_density


@dataclass(frozen=True)
class RecordingPart:
    """One recording of a folder.

    Attributes:
        name: the path of the recording below the folder, or the name of the scenario.
        recording: the recording itself.
        problems: the files that could not be read, one line each.
        files: kind of sensor file -> file of each frame of a release that is not converted, None if it is missing.
    """

    name: str
    recording: Recording
    problems: tuple[str, ...] = ()
    files: Mapping[str, tuple[Path | None, ...]] = field(default_factory=dict)

    @property
    def modalities(self) -> list[str]:
        """What was sensed, by name: what lies in arrays, and what lies in files and is read when it is needed."""
        return sorted({*self.recording.sensors, *(name for kind in self.files for name in FILE_KINDS[kind])})


def open_parts(folder: Path) -> list[RecordingPart]:
    """Open the recordings of a federation, a single recording or a DeepSense 6G scenario, with their names.

    A conversion holds the problems of the release from which it was made.

    Raises:
        ValueError: the folder is none of the three, or is broken.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; name the folder of a federation, a recording or a scenario")
    recordings = [path.parent for path in listed(folder, MANIFEST)]
    if recordings:
        return [
            RecordingPart(str(path.relative_to(folder)), open_recording(path), _problems(path)) for path in recordings
        ]
    from clients.data.deepsense import read_scenario

    scenario = read_scenario(folder)
    recording = Recording(folder, scenario.pass_ids, scenario.sensors, scenario.power, {})
    return [RecordingPart(scenario.name, recording, tuple(scenario.problems), scenario.files)]


def _problems(recording: Path) -> tuple[str, ...]:
    return open_conversion(recording).problems if (recording / PROVENANCE).exists() else ()


def left_out_of(federation: Path) -> list[str]:
    """What a federation that was cut from a release lacks of it, a line each; empty for a street."""
    return _lines_of(federation, "left_out")


def warnings_of(federation: Path) -> list[str]:
    """What is scarce in a federation, a line each."""
    return _lines_of(federation, "warnings")


def _lines_of(federation: Path, key: str) -> list[str]:
    if not (federation / "federation.json").exists() and (federation / "clients").is_dir():
        return []  # It was made by hand, and says nothing of itself.
    try:
        found = json.loads(read_plain(federation / "federation.json")).get(key, [])
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{federation}: not the folder of a federation ({error}); make it again") from None
    return [str(line) for line in found]


def inspect_folder(folder: Path) -> list[dict[str, Any]]:
    """Make one row per recording of a federation, or one row for a single recording or a DeepSense 6G scenario.

    Args:
        folder: the folder of any of the three.

    Returns:
        Rows with ``part``, ``modalities``, ``passes``, ``frames``, ``windows``, ``labelled``,
        ``best_to_second_db`` (median gap of the two strongest beams; None without labels), ``problems``, and

        - ``statistics``: name -> value, None if it is undefined; without labels, None instead of the whole.
        - ``scenario_9``: name -> the value measured in scenario 9; None in the same cases.
        - ``skew_bits``: for a client of a federation, the Jensen-Shannon divergence between its histogram of best beams
          and that of all clients together, in [0, 1]; None for other recordings.
        - ``bearing``: how the best beam follows the bearing of the vehicle, and where the vehicles were, as in
          `clients.data.bearing.BearingFit`; None without GPS.
        - ``sha256``: first 16 hex digits over power and pass ids; ``folder_sha256``: over those of all rows.

    Raises:
        ValueError: the folder is none of the three, or is broken.
    """
    parts = open_parts(folder)
    hashes = [_digest(part.recording) for part in parts]
    of_all = hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]
    skews = label_skews(parts)
    return [
        _row(part) | {"skew_bits": skews.get(part.name), "sha256": digest, "folder_sha256": of_all}
        for part, digest in zip(parts, hashes, strict=True)
    ]


def inspect_passes(part: RecordingPart) -> list[dict[str, Any]]:
    """Make one row per pass of a recording, in its order.

    Returns:
        Rows with ``pass``, ``frames``, ``first_beam`` and ``last_beam`` (from 0; None without labels), ``split`` (None
        if the pass is in no split) and ``missing``: modality -> share of its frames that are absent, in [0, 1]. An
        absent frame is NaN in GPS and box, and all zero in other modalities; one in a file that is not converted is
        absent where the file is not there.
    """
    recording = part.recording
    in_files = {name: files for kind, files in part.files.items() for name in FILE_KINDS[kind]}
    split_of = {number: name for name, numbers in recording.splits.items() for number in numbers}
    best = None if recording.power is None else np.argmax(recording.power, axis=1)
    rows = []
    for frames in pass_slices(recording.pass_ids):
        number = int(recording.pass_ids[frames.start])
        rows.append(
            {
                "pass": number,
                "frames": frames.stop - frames.start,
                "first_beam": None if best is None else int(best[frames.start]),
                "last_beam": None if best is None else int(best[frames.stop - 1]),
                "split": split_of.get(number),
                "missing": {
                    name: float(np.mean([path is None for path in in_files[name][frames]]))
                    if name in in_files
                    else float(_is_absent(name, recording.sensors[name][frames]).mean())
                    for name in part.modalities
                },
            }
        )
    return rows


def pass_slices(pass_ids: NDArray[np.integer]) -> list[slice]:
    """The frames of each pass, in the order of the recording."""
    bounds = [0, *(np.flatnonzero(np.diff(pass_ids)) + 1).tolist(), len(pass_ids)]
    return [slice(start, end) for start, end in pairwise(bounds) if end > start]


def check_scenario(folder: Path, *, split: str, num_seeds: int) -> dict[str, Any]:
    """Run the position baseline over some seeds.

    Args:
        folder: the folder of a DeepSense 6G scenario, or of a conversion of one.
        split: ``random`` or ``pass``.
        num_seeds: the number of seeds; they are 0 to ``num_seeds`` - 1.

    Returns:
        ``scenario``, ``split``, ``seeds``, ``metrics``: name -> ``mean`` and ``sd`` over the seeds; ``bearing`` as in
        `inspect_folder`, and ``problems``.

    Raises:
        ValueError: the scenario cannot be read or the split is unknown.
    """
    from clients.data.deepsense import read_scenario
    from sim.data.position_baseline import position_baseline

    if split not in ("random", "pass"):
        raise ValueError(f"--split {split}: expected random or pass")
    scenario = open_conversion(folder) if (folder / PROVENANCE).exists() else read_scenario(folder)
    seeds = range(num_seeds)
    # In a split by pass, no neighbouring frames are learned, and the networks overfit sooner.
    if split == "random":
        scores = position_baseline(scenario, split="random", seeds=seeds, epochs=60)
    else:
        scores = position_baseline(scenario, split="pass", seeds=seeds, epochs=40)
    names = ("top1", "top2", "top3", "dba", "power_loss_db")
    metrics = {name: _spread(np.array([getattr(score, name) for score in scores])) for name in names}
    return {
        "scenario": scenario.name,
        "split": split,
        "seeds": list(seeds),
        "metrics": metrics,
        "bearing": _bearing(scenario.power, scenario.sensors),
        "problems": list(scenario.problems),
    }


def _spread(values: NDArray[np.float64]) -> dict[str, float]:
    return {"mean": float(values.mean()), "sd": float(values.std(ddof=1)) if len(values) > 1 else 0.0}


def _row(part: RecordingPart) -> dict[str, Any]:
    task, recording = Task(), part.recording
    statistics = _statistics(recording)
    return {
        "part": part.name,
        "modalities": part.modalities,
        "passes": len(np.unique(recording.pass_ids)),
        "frames": len(recording.pass_ids),
        "windows": len(recording.window_starts(task.num_frames, task.num_future)),
        "labelled": recording.is_labelled,
        "best_to_second_db": None if statistics is None else statistics["gap_2nd_db"],
        "bearing": _bearing(recording.power, recording.sensors),
        "problems": list(part.problems),
        "statistics": statistics,
        "scenario_9": None if statistics is None else known_or_none(SCENARIO_9),
    }


def _bearing(
    power: NDArray[np.float32] | None, sensors: Mapping[str, NDArray[np.generic]]
) -> dict[str, float | tuple[float, ...] | None] | None:
    """Of a recording without labels, where the vehicles were."""
    if "gps" not in sensors or not len(sensors["gps"]):
        return None
    position_m = np.asarray(sensors["gps"], np.float64)
    fit = fit_bearing(np.zeros(len(position_m), np.int64) if power is None else np.argmax(power, axis=1), position_m)
    return None if fit is None else fit.to_json()


def _statistics(recording: Recording) -> dict[str, float | None] | None:
    if recording.power is None or not len(recording.power):
        return None
    try:
        found = beam_statistics(recording.power, recording.pass_ids)
    except ValueError as error:
        raise ValueError(f"{recording.folder}: {error}") from None
    if "camera" in recording.sensors:
        images = np.asarray(recording.sensors["camera"], np.uint8)
        passes = [images[frames] for frames in pass_slices(recording.pass_ids) if frames.stop - frames.start > 1]
        found["mask_density_64"] = float(np.mean([mask_density(image) for image in passes])) if passes else np.nan
    return known_or_none(found)


def label_skews(parts: Sequence[RecordingPart]) -> dict[str, float]:
    """Name of each labelled client -> divergence of its beams or classes from those of all clients, in bits."""
    counts = {
        part.name: found
        for part in parts
        if part.name.startswith("clients/") and (found := _counts_of(part.recording)) is not None
    }
    if not counts:
        return {}
    together = np.sum(list(counts.values()), axis=0)
    return {name: jensen_shannon_bits(own, together) for name, own in counts.items()}


def _counts_of(recording: Recording) -> NDArray[np.int64] | None:
    """The number of rows of each beam or class; None without labelled rows."""
    if recording.labels is not None and len(recording.labels):
        return np.bincount(recording.labels, minlength=recording.num_classes or 0)
    if recording.power is None or not len(recording.power):
        return None
    return np.bincount(np.argmax(recording.power, axis=1), minlength=recording.power.shape[1])


def _digest(recording: Recording) -> str:
    digest = hashlib.sha256(recording.pass_ids.tobytes())
    if recording.power is not None:
        digest.update(np.ascontiguousarray(recording.power).tobytes())
    if recording.labels is not None:
        digest.update(np.ascontiguousarray(recording.labels).tobytes())
    return digest.hexdigest()[:16]


def _is_absent(modality: str, frames: NDArray[np.generic]) -> NDArray[np.bool_]:
    """(F,) whether each frame is absent."""
    flat: NDArray[np.float64] = np.asarray(frames, np.float64).reshape(len(frames), -1)
    is_empty: NDArray[np.bool_] = (
        np.isnan(flat.sum(axis=1)) if modality in ("gps", "box") else np.all(flat == 0, axis=1)
    )
    return is_empty
