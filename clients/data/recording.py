"""The form in which a recording of a mast is stored on disk, with its writer and its only reader.

A *recording* is a folder of arrays with one row per frame, which are memory-mapped when they are read:

    recording.json        format, modalities, whether there are labels, splits; of several sites, the passes of each;
                          perhaps every_window (see `Recording.window_starts`); num_classes where there is labels.npy
    pass_ids.npy          (F,) int32, frames of one pass are contiguous and in time order
    power.npy             (F, B) float32 linear receive power per beam; absent if there are no labels
    labels.npy            (F,) int32 the class of each row, instead of power, where the classes are no beams
    camera.npy, radar.npy, lidar.npy, gps.npy, box.npy    see `clients.data.modalities`

A *federation* is a folder of recordings: ``server/``, ``public/``, ``test/`` and ``clients/NNN-modality/``. It also has
``federation.json``, which says where the data came from, and ``server/public-power.npy`` (or ``public-labels.npy``),
which only the server may read. Virtual and real clients read the same form.

F frames, N windows, T frames of a window, H horizons, B beams.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clients.data.modalities import MODALITIES
from configs.files import map_array

FORMAT = 1
MANIFEST = "recording.json"
# The file in a federation with the power (F, B) of the frames of ``public/``, or the one with their classes (F,); only
# the server may read it.
PUBLIC_POWER, PUBLIC_LABELS = "server/public-power.npy", "server/public-labels.npy"
# The arrays of a recording that no sensor gave, and their types.
LABEL_TYPES: Mapping[str, type[np.generic]] = {"pass_ids": np.int32, "labels": np.int32, "power": np.float32}
SITE_TESTS: Mapping[str, str] = {"own_site": "own site", "unseen_site": "unseen site"}
"""The parts of the common test set on which learners of several sites are scored besides, with their titles."""


@dataclass(frozen=True)
class Recording:
    """What one mast recorded.

    Attributes:
        folder: the folder that holds it.
        pass_ids: (F,) pass of each frame.
        sensors: modality name -> (F, *frame_shape).
        power: (F, B) linear receive power; None if the recording has no labels, or classes that are no beams.
        splits: split name -> pass ids; a pass is in at most one split.
        sites: name of each site -> pass ids, if the federation has several sites; empty otherwise.
        held_out: those of ``sites`` that nobody learns from.
        every_window: whether passes have every window that fits, or one less (see :meth:`window_starts`).
        labels: (F,) class of each row; None if the recording has power or no labels.
        num_classes: the number of classes of ``labels``; None without them.
    """

    folder: Path
    pass_ids: NDArray[np.int32]
    sensors: Mapping[str, NDArray[np.generic]]
    power: NDArray[np.float32] | None
    splits: Mapping[str, tuple[int, ...]]
    sites: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    held_out: tuple[str, ...] = ()
    every_window: bool = False
    labels: NDArray[np.int32] | None = None
    num_classes: int | None = None

    @property
    def is_labelled(self) -> bool:
        """Whether its rows have labels: power or classes."""
        return self.power is not None or self.labels is not None

    def stored_labels(self, rows: NDArray[np.int64]) -> NDArray[np.generic]:
        """What is known of the labels of some rows: (..., B) linear power, or (...) classes.

        Raises:
            ValueError: the recording has no labels.
        """
        if self.labels is None:
            return self.power_at(rows)
        found: NDArray[np.generic] = self.labels[rows]
        return found

    def windows_at(self, starts: NDArray[np.int64], sites: Collection[str]) -> NDArray[np.int64]:
        """Those of the windows with these first frames whose pass was recorded at one of the sites.

        Args:
            starts: (N,) first frames of windows.
            sites: names of sites; those that this recording does not know have no window.
        """
        passes = [number for site in sites for number in self.sites.get(site, ())]
        return starts[np.isin(self.pass_ids[starts], passes)]

    def window_starts(self, num_frames: int, num_future: int, split: str | None = None) -> NDArray[np.int64]:
        """The first frame of every window of ``num_frames`` frames with ``num_future`` labelled slots after it.

        Windows have stride 1. In a pass of ``len`` frames they start while ``start + L + J < len``, so each pass has
        len - L - J windows. With ``every_window`` there is one more, which ends with the pass: then a pass of L + J
        frames has a window, and with L = 1 and J = 0 every row is a sample of its own.

        Source: the split rule of arXiv 2603.16116, which gives 3,201 and 1,267 windows on scenario 9.

        Args:
            num_frames: L, the number of frames in a window.
            num_future: J, the number of slots ahead.
            split: the split whose passes are taken; None takes all passes.

        Returns:
            (N,) first frames, strictly increasing.
        """
        wanted = None if split is None else set(self.splits.get(split, ()))
        bounds = np.flatnonzero(np.diff(self.pass_ids)) + 1
        starts = [0, *bounds.tolist()]
        ends = [*bounds.tolist(), len(self.pass_ids)]
        runs = [
            np.arange(start, end - num_frames - num_future + self.every_window)
            for start, end in zip(starts, ends, strict=True)
            if len(self.pass_ids) and (wanted is None or int(self.pass_ids[start]) in wanted)
        ]
        return np.concatenate(runs).astype(np.int64) if runs else np.empty(0, np.int64)

    def windows_by_site(self, starts: NDArray[np.int64], own: Collection[str]) -> dict[str, NDArray[np.int64]]:
        """The windows of a common test set from the sites of a learner, and from those that are held out.

        Args:
            starts: (N,) first frames of windows of this recording.
            own: the sites that the learner has labelled passes from.

        Returns:
            Name of `SITE_TESTS` -> first frames; parts without a window are left out.
        """
        parts = {"own_site": self.windows_at(starts, own), "unseen_site": self.windows_at(starts, self.held_out)}
        return {name: found for name, found in parts.items() if len(found)}

    def beams(self, starts: NDArray[np.int64], num_frames: int, num_future: int) -> NDArray[np.int64]:
        """(N, H) best beam, from 0, in the window's last frame and in the ``num_future`` slots after it.

        Raises:
            ValueError: the recording has no power.
        """
        best: NDArray[np.int64] = np.argmax(self.powers(starts, num_frames, num_future), axis=-1)
        return best

    def powers(self, starts: NDArray[np.int64], num_frames: int, num_future: int) -> NDArray[np.float32]:
        """(N, H, B) linear power of every beam at each horizon.

        Raises:
            ValueError: the recording has no power.
        """
        return self.power_at(starts[:, None] + num_frames - 1 + np.arange(num_future + 1))

    def power_at(self, slots: NDArray[np.int64]) -> NDArray[np.float32]:
        """(..., B) linear power of every beam in some slots, which are rows of the recording.

        Raises:
            ValueError: the recording has no power.
        """
        if self.power is None:
            raise ValueError(f"{self.folder}: there is no power.npy, so this recording has no beam labels")
        powers: NDArray[np.float32] = self.power[slots]
        return powers


def write_recording(
    folder: Path,
    *,
    pass_ids: NDArray[np.int32],
    sensors: Mapping[str, NDArray[np.generic]],
    power: NDArray[np.float32] | None,
    splits: Mapping[str, Sequence[int]],
    sites: Mapping[str, Sequence[int]] | None = None,
    held_out: Sequence[str] = (),
    every_window: bool = False,
    labels: NDArray[np.integer] | None = None,
    num_classes: int | None = None,
) -> None:
    """Write a recording; the folder must not hold one already.

    Args:
        folder: the folder to write; it is made if it is missing.
        pass_ids: (F,) pass of each frame.
        sensors: modality name -> (F, *frame_shape).
        power: (F, B) linear receive power; None for a recording without labels.
        splits: split name -> pass ids.
        sites: name of each site -> pass ids; None for a recording of a federation with one site.
        held_out: those of ``sites`` that nobody learns from.
        every_window: whether passes have every window that fits.
        labels: (F,) class of each row, instead of power; None for a recording with power or without labels.
        num_classes: the number of classes of ``labels``.

    Raises:
        ValueError: the folder holds a recording, or the shape of an array does not fit its modality or the number of
            frames.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> power = np.zeros((12, 64), np.float32)
        >>> power[:, 7] = 1.0  # beam 7 is the best in every frame
        >>> with TemporaryDirectory() as folder:
        ...     write_recording(
        ...         Path(folder) / "mast",
        ...         pass_ids=np.zeros(12, np.int32),
        ...         sensors={"gps": np.zeros((12, 2))},
        ...         power=power,
        ...         splits={"train": [0]},
        ...     )
        ...     sorted(path.name for path in (Path(folder) / "mast").iterdir())
        ['gps.npy', 'pass_ids.npy', 'power.npy', 'recording.json']
    """
    if (folder / MANIFEST).exists():
        raise ValueError(f"{folder}: holds a recording already; delete it first")
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, NDArray[np.generic]] = {"pass_ids": pass_ids.astype(np.int32)}
    if power is not None:
        arrays["power"] = power.astype(np.float32)
    if labels is not None:
        arrays["labels"] = labels.astype(np.int32)
    for name, frames in sensors.items():
        arrays[name] = frames.astype(MODALITIES[name].dtype) if name in MODALITIES else frames
    _check_shapes(folder, arrays)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    manifest = {
        "format": FORMAT,
        "modalities": sorted(sensors),
        "labelled": power is not None or labels is not None,
        "splits": _as_lists(splits),
    }
    if labels is not None:
        manifest["num_classes"] = num_classes
    if sites is not None:
        manifest |= {"sites": _as_lists(sites), "held_out": list(held_out)}
    if every_window:
        manifest["every_window"] = True
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def _as_lists(passes: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    return {name: [int(i) for i in ids] for name, ids in passes.items()}


@lru_cache(maxsize=4096)
def open_recording(folder: Path) -> Recording:
    """Map a recording into memory; each process opens it only once.

    Args:
        folder: the folder of the recording.

    Raises:
        ValueError: a file is missing, unreadable or of the wrong shape; the message names the file.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> passes, positions = np.repeat([0, 1], [12, 14]), {"gps": np.zeros((26, 2))}
        >>> with TemporaryDirectory() as folder:
        ...     write_recording(Path(folder), pass_ids=passes, sensors=positions, power=None, splits={"train": [1]})
        ...     open_recording(Path(folder)).window_starts(num_frames=8, num_future=3, split="train").tolist()
        [12, 13, 14]
    """
    manifest_path = folder / MANIFEST
    try:
        manifest = json.loads(manifest_path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{manifest_path}: not found; is this the folder of a recording?") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{manifest_path}: not valid JSON ({error}); make the data again") from None
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != FORMAT:
        raise ValueError(f"{manifest_path}: format {found!r}, expected {FORMAT}; make the data again")
    if missing := {"modalities", "labelled", "splits"} - set(manifest):
        raise ValueError(f"{manifest_path}: {', '.join(sorted(missing))} missing; make the data again")
    _check_manifest(manifest_path, manifest)
    num_classes = manifest.get("num_classes")
    label_file = "power" if num_classes is None else "labels"
    names = ["pass_ids", *([label_file] if manifest["labelled"] else []), *manifest["modalities"]]
    arrays = {name: _map_array(folder / f"{name}.npy") for name in names}
    _check_shapes(folder, arrays)
    return Recording(
        folder=folder,
        pass_ids=np.asarray(arrays["pass_ids"], np.int32),
        sensors={name: arrays[name] for name in manifest["modalities"]},
        power=arrays.get("power"),  # type: ignore[arg-type]
        splits={name: tuple(ids) for name, ids in manifest["splits"].items()},
        sites={name: tuple(ids) for name, ids in manifest.get("sites", {}).items()},
        held_out=tuple(manifest.get("held_out", ())),
        every_window=manifest.get("every_window", False),
        labels=arrays.get("labels"),  # type: ignore[arg-type]
        num_classes=num_classes if "labels" in arrays else None,
    )


def _map_array(path: Path) -> NDArray[np.generic]:
    try:
        return map_array(path)
    except FileNotFoundError:
        raise ValueError(f"{path}: not found; make the data again") from None
    except OSError as error:
        if error.errno is not None:
            raise ValueError(f"{path}: cannot be opened ({error.strerror})") from None
        raise ValueError(f"{path}: not a readable .npy array ({type(error).__name__}); make the data again") from None
    except (ValueError, EOFError) as error:
        # The text of NumPy's error may quote the file, and errors are sent to the server.
        raise ValueError(f"{path}: not a readable .npy array ({type(error).__name__}); make the data again") from None


def _check_manifest(path: Path, manifest: Mapping[str, object]) -> None:
    modalities, splits = manifest["modalities"], manifest["splits"]
    if not isinstance(modalities, list) or not all(isinstance(name, str) for name in modalities):
        raise ValueError(f"{path}: modalities must be a list of names; make the data again")
    for key, by_name in (("splits", splits), ("sites", manifest.get("sites", {}))):
        lists = list(by_name.values()) if isinstance(by_name, dict) else [None]
        if not all(isinstance(ids, list) and all(isinstance(number, int) for number in ids) for ids in lists):
            raise ValueError(f"{path}: {key} must be lists of pass numbers by name; make the data again")
    held_out = manifest.get("held_out", [])
    if not isinstance(held_out, list) or not all(isinstance(name, str) for name in held_out):
        raise ValueError(f"{path}: held_out must be a list of names; make the data again")
    if type(manifest.get("num_classes", 2)) is not int:
        raise ValueError(f"{path}: num_classes must be a whole number; make the data again")
    if not isinstance(manifest.get("every_window", False), bool):
        raise ValueError(f"{path}: every_window must be true or false; make the data again")


def _check_shapes(folder: Path, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    num_frames = len(arrays["pass_ids"])
    for name, array in arrays.items():
        path = folder / f"{name}.npy"
        rows: dict[str, tuple[int, ...]] = {"pass_ids": (), "labels": (), "power": array.shape[-1:]}
        if name not in rows and name not in MODALITIES:
            raise ValueError(
                f"{path}: unknown modality {name}; known are {', '.join(MODALITIES)}, and what data.sensors declares"
            )
        row = rows[name] if name in rows else MODALITIES[name].frame_shape
        dtype = np.dtype(LABEL_TYPES.get(name) or MODALITIES[name].dtype)
        if array.shape != (num_frames, *row):
            raise ValueError(f"{path}: has the shape {array.shape}, expected {(num_frames, *row)}; make the data again")
        if array.dtype != dtype:
            raise ValueError(f"{path}: has the type {array.dtype}, expected {dtype}; make the data again")
