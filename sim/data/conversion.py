"""Converts a DeepSense 6G release into one recording, pass by pass, once.

Images, radar cubes and LiDAR scans are tens of gigabytes in tens of thousands of files; a learner sees only some tens
of kilobytes of each frame. Passes that are done stay in a draft beside the result, so that a stopped conversion can be
continued; a digest in the draft says from which files it is made. The result appears whole or not at all: it is a
recording (`clients.data.recording`) with ``conversion.json``, which says where it came from. F frames.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from clients.data.deepsense import Scenario, read_scenario
from clients.data.modalities import MODALITIES
from clients.data.recording import MANIFEST, open_recording, write_recording
from clients.data.sensor_files import EXTRA_KINDS, FILE_KINDS, read_frames
from configs.advice import again
from configs.files import LOCK, fresh_folder, reserve, waited_for
from configs.home import hold, softbeam_home
from configs.placement import release_contents
from configs.progress import Progress

# The version of the conversion; it is raised when the same files would give other frames.
FORMAT = 1
# The licence of DeepSense 6G, and so of all data that is made from it.
LICENCE = "CC BY-NC-SA 4.0"
PROVENANCE = "conversion.json"
_DONE = "done.jsonl"


def load_scenario(folder: Path, modalities: Sequence[str], *, progress: Progress | None = None) -> Scenario:
    """Load a scenario whose ``sensors`` hold everything that ``modalities`` needs.

    A conversion is opened. A release is read; if a modality needs files other than positions and power, it is
    converted first, into ``converted/`` of :func:`configs.placement.softbeam_home`, unless that was done before.

    Args:
        folder: the folder of a conversion or of a release.
        modalities: the modalities that are needed; those that the release lacks stay absent.
        progress: is called with the number of converted passes and of all passes.

    Raises:
        ValueError: the folder can be neither opened nor read.
    """
    if (folder / MANIFEST).exists():
        return open_conversion(folder)
    scenario = read_scenario(folder)
    in_files = {name for kind in scenario.files for name in (*FILE_KINDS[kind], *EXTRA_KINDS[kind])}
    if not in_files & set(modalities):
        return scenario
    extras = tuple(sorted(set(modalities) & {name for names in EXTRA_KINDS.values() for name in names}))
    return open_conversion(convert_scenario(folder, progress=progress, scenario=scenario, extras=extras))


def open_conversion(folder: Path) -> Scenario:
    """Map a conversion into memory.

    Raises:
        ValueError: the folder is not a conversion, or is broken.
    """
    recording = open_recording(folder)
    try:
        provenance = json.loads((folder / PROVENANCE).read_text())
        return Scenario(
            name=provenance["scenario"],
            pass_ids=recording.pass_ids,
            sensors=recording.sensors,
            power=recording.power,
            problems=tuple(provenance["problems"]),
            has_passes=provenance["has_passes"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / PROVENANCE}: not the record of a conversion ({error}); convert it again") from None


def convert_scenario(
    folder: Path,
    out: Path | None = None,
    *,
    progress: Progress | None = None,
    scenario: Scenario | None = None,
    extras: Sequence[str] = (),
) -> Path:
    """Convert a release; continue a stopped conversion, and keep one that exists.

    Args:
        folder: the folder of the release.
        out: the folder of the recording; None means one in ``converted/`` that is named by scenario and digest.
        progress: is called with the number of converted passes and of all passes.
        scenario: the result of :func:`read_scenario` for ``folder``, if it is known already.
        extras: the modalities of `EXTRA_KINDS` that are wanted besides the usual ones.

    Returns:
        The folder of the recording.

    Raises:
        ValueError: the release cannot be read, or ``out`` is something else.
        OSError: the disk takes no more; what is converted stays in the draft.
    """
    scenario = scenario or read_scenario(folder)
    digest = scenario_digest(scenario, folder, extras)
    out = out or softbeam_home() / "converted" / f"{scenario.name}-{digest[:12]}"
    hold(out)
    draft = out.with_name(f".{out.name}.draft")
    with waited_for(out.with_name(f".{out.name}{LOCK}")):
        if out.exists():
            _check_same(out, digest)
            return out
        _begin_draft(draft, digest)
        frames, problems = _convert_passes(scenario, draft, extras, progress)
        for kind, told in _unreadable(scenario, problems).items():
            frames = {
                name: array for name, array in frames.items() if name not in (*FILE_KINDS[kind], *EXTRA_KINDS[kind])
            }
            problems.insert(0, told)
        provenance = {
            "format": FORMAT,
            "scenario": scenario.name,
            "licence": LICENCE,
            "digest": digest,
            "has_passes": scenario.has_passes,
            "problems": [*scenario.problems, *problems],
        }
        with fresh_folder(out) as whole:
            sensors = {**scenario.sensors, **frames}
            write_recording(whole, pass_ids=scenario.pass_ids, sensors=sensors, power=scenario.power, splits={})
            (whole / PROVENANCE).write_text(json.dumps(provenance, indent=1) + "\n")
        shutil.rmtree(draft)
    return out


def scenario_digest(scenario: Scenario, folder: Path, extras: Sequence[str] = ()) -> str:
    """SHA-256 of the data that was read, and of the names and contents of the files that will be read."""
    wanted = "".join(f" {name}" for name in sorted(extras))
    digest = hashlib.sha256(f"{FORMAT} {scenario.name} {scenario.has_passes} {scenario.problems}{wanted}".encode())
    arrays: dict[str, NDArray[np.generic]] = {"pass_ids": scenario.pass_ids, **scenario.sensors}
    if scenario.power is not None:
        arrays["power"] = scenario.power
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes())
    contents = release_contents(folder)
    for kind, files in sorted(scenario.files.items()):
        named = [f"{path.relative_to(folder)} {contents.digest_of(path)}" if path else "-" for path in files]
        digest.update("\n".join([kind, *named]).encode())
    contents.keep()
    return digest.hexdigest()


def _check_same(out: Path, digest: str) -> None:
    try:
        found = json.loads((out / PROVENANCE).read_text())["digest"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"{out}: exists and is not a conversion; remove it or name another folder") from None
    if found != digest:
        raise ValueError(f"{out}: was converted from other files; remove it or name another folder")


def _begin_draft(draft: Path, digest: str) -> None:
    """Make the draft, or keep the one that is there; one made from other files is begun anew."""
    draft.mkdir(parents=True, exist_ok=True)
    known = draft / "digest"
    if not known.exists() or known.read_text() != digest:
        for path in draft.iterdir():
            path.unlink()
        known.write_text(digest)


def _convert_passes(
    scenario: Scenario, draft: Path, extras: Sequence[str], progress: Progress | None
) -> tuple[dict[str, NDArray[np.generic]], list[str]]:
    """Convert every frame that is in a file; return the frames, mapped from the draft, and the problems."""
    done: dict[int, list[str]] = {}
    if (draft / _DONE).exists():
        # The last line of a process that was killed may be cut off; its pass is done again.
        lines = (draft / _DONE).read_text().split("\n")[:-1]
        done = {entry["pass"]: entry["problems"] for entry in map(json.loads, lines)}
        (draft / _DONE).write_text("".join(f"{line}\n" for line in lines))
    wanted = {
        kind: (*FILE_KINDS[kind], *(name for name in EXTRA_KINDS[kind] if name in extras)) for kind in scenario.files
    }
    names = [name for names in wanted.values() for name in names]
    num_frames = len(scenario.pass_ids)
    frames = {name: _map_frames(draft / f"{name}.npy", name, num_frames, is_begun=bool(done)) for name in names}
    passes, starts = np.unique(scenario.pass_ids, return_index=True)
    bounds = [*starts.tolist(), len(scenario.pass_ids)]
    for number, pass_id in enumerate(passes.tolist()):
        if pass_id not in done:
            rows = slice(bounds[number], bounds[number + 1])
            done[pass_id] = _convert_pass(scenario, rows, wanted, frames)
            with (draft / _DONE).open("a") as file:
                file.write(json.dumps({"pass": pass_id, "problems": done[pass_id]}) + "\n")
        if progress is not None:
            progress(number + 1, len(passes))
    problems = [f"pass {pass_id}, {problem}" for pass_id in sorted(done) for problem in done[pass_id]]
    return dict(frames), problems


def _unreadable(scenario: Scenario, problems: Sequence[str]) -> dict[str, str]:
    """Kind of sensor file of which not one could be read -> the line that says so; it is then absent, not dark."""
    found = {}
    for kind, files in scenario.files.items():
        broken = [line for line in problems if line.partition(", ")[2].startswith(f"{kind}: ")]
        if len(broken) == sum(path is not None for path in files):
            found[kind] = f"{kind}: none of {len(broken)} files can be read, so it is left out (the first: {broken[0]})"
    return found


def _convert_pass(
    scenario: Scenario, rows: slice, wanted: Mapping[str, Sequence[str]], frames: dict[str, np.memmap[Any, Any]]
) -> list[str]:
    problems: list[str] = []
    for kind, files in scenario.files.items():
        made, broken = read_frames(kind, files[rows], wanted[kind])
        problems += broken
        for name, values in made.items():
            frames[name][rows] = values
            frames[name].flush()
    return problems


def _map_frames(path: Path, name: str, num_frames: int, *, is_begun: bool) -> np.memmap[Any, Any]:
    if is_begun:
        return open_memmap(path, mode="r+")
    modality = MODALITIES[name]
    shape = (num_frames, *modality.frame_shape)
    try:
        open_memmap(path, mode="w+", dtype=modality.dtype, shape=shape).flush()
    except OSError as error:
        raise OSError(f"{path}: cannot be written ({error.strerror or error}); {again(error)}") from error
    reserve(path, path.stat().st_size)
    return open_memmap(path, mode="r+")
