"""Reads frames from the files of a DeepSense 6G release: images, radar cubes and LiDAR scans.

Each file holds one frame of its kind. If a file is missing or broken, its frame is all zeros, as if the sensor had been
covered. F files.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tokenize import TokenError
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clients.data.matlab import read_matlab_array
from clients.data.modalities import MODALITIES, FileKind, made_of
from clients.data.motion import PIXELS, MotionDetector
from clients.data.radar_maps import doppler_angle_map, range_angle_map, unscaled_maps
from clients.data.scans import ranges_of_cloud, ranges_of_scan, read_ply
from configs.files import read_plain

Frame = Mapping[str, NDArray[np.generic]]
Reader = Callable[[Path, Sequence[str]], Frame]
# The name of the array in a .mat file, which is the same in every release.
MAT_KEY = "data"
# The errors that the libraries raise for a damaged file; there is no single one.
DAMAGE = (
    *(OSError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, SyntaxError, OverflowError),
    *(MemoryError, NotImplementedError, struct.error, zlib.error, TokenError, Image.DecompressionBombError),
)


def read_frames(
    kind: str, files: Sequence[Path | None], modalities: Sequence[str]
) -> tuple[dict[str, NDArray[np.generic]], list[str]]:
    """Read the files of one kind, one at a time.

    Args:
        kind: the kind of the files, one of `FILE_KINDS`.
        files: the file of each frame of one pass, in the order of time; None gives zeros.
        modalities: the modalities to make, which must belong to the kind.

    Returns:
        Modality -> (F, *frame_shape), and one line for each broken file that says why it is broken.
    """
    frames = {
        name: np.zeros((len(files), *MODALITIES[name].frame_shape), MODALITIES[name].dtype) for name in modalities
    }
    problems = []
    # The detector is reset at every gap, because the picture before the gap says nothing about motion after it.
    detector = MotionDetector()
    readers: dict[str, Reader] = {**_READERS, "camera": partial(read_camera, detector=detector)}
    for row, path in enumerate(files):
        if path is None:
            detector.reset()
            continue
        try:
            # A damaged file may hold any number; the readers check their results, not every step.
            with np.errstate(all="ignore"):
                found = readers[kind](path, modalities)
            for name, frame in found.items():
                frames[name][row] = frame
        except ValueError as error:
            detector.reset()
            problems.append(f"{kind}: {path.name} is left out: {error}")
    return dict(frames), problems


def read_camera(path: Path, modalities: Sequence[str] = ("camera",), detector: MotionDetector | None = None) -> Frame:
    """The frames of an image of any size: ``camera``, area-averaged to (64, 64, 3), and ``motion``, a packed mask.

    The image is stretched to these sizes; the mask has 224 x 224 pixels.

    Args:
        path: the path of the image.
        modalities: the frames to make: ``camera``, ``motion`` or both.
        detector: the motion detector that has seen the earlier pictures of the pass; None takes a new one.

    Raises:
        ValueError: the file is not a complete image.
    """
    height, width, _ = MODALITIES["camera"].frame_shape
    found: dict[str, NDArray[np.generic]] = {}
    try:
        with Image.open(io.BytesIO(read_plain(path))) as image:
            # A JPEG is decoded at the smallest scale that is still twice as fine, which is four times as fast.
            finest = PIXELS if "motion" in modalities else width
            image.draft("RGB", (2 * finest, 2 * finest))
            whole = image.convert("RGB")
            if "camera" in modalities:
                found["camera"] = np.asarray(whole.resize((width, height), Image.Resampling.BOX))
            if "motion" in modalities:
                picture = np.asarray(whole.resize((PIXELS, PIXELS), Image.Resampling.BOX))
                found["motion"] = np.packbits((detector or MotionDetector()).push(picture), axis=-1)
    except DAMAGE as error:
        raise ValueError(_damaged("image", error)) from None
    return found


def read_radar(path: Path, modalities: Sequence[str] = ("radar",)) -> Frame:
    """The maps of a raw radar cube (4, 256, C) in a .mat or .npy file, for the modalities asked for.

    Raises:
        ValueError: the file is not a complete radar cube.
    """
    cube = _read_array(path, "radar cube")
    makers = {"radar": range_angle_map, "doppler": doppler_angle_map, "maps": unscaled_maps}
    return {name: makers[name](cube) for name in modalities}


def read_lidar(path: Path, modalities: Sequence[str] = ("lidar",)) -> Frame:
    """The ranges (216,) of a planar scan in a .mat or .npy file, or of a point cloud in a .ply file.

    Raises:
        ValueError: the file is not a complete scan.
    """
    del modalities
    if path.suffix.lower() != ".ply":
        return {"lidar": ranges_of_scan(_read_array(path, "LiDAR scan"))}
    try:
        return {"lidar": ranges_of_cloud(read_ply(path))}
    except OSError as error:
        raise ValueError(_damaged("LiDAR scan", error)) from None


def _read_array(path: Path, what: str) -> NDArray[np.generic]:
    suffix = path.suffix.lower()
    if suffix not in (".mat", ".npy"):
        raise ValueError(f"{suffix or 'no ending'} is not the ending of a {what}; are columns swapped?")
    try:
        data = read_plain(path)
    except OSError as error:
        raise ValueError(_damaged(what, error)) from None
    if suffix == ".mat":
        return read_matlab_array(data, MAT_KEY)
    try:
        array: NDArray[np.generic] = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except DAMAGE as error:
        raise ValueError(_damaged(what, error)) from None
    return array


def _damaged(what: str, error: BaseException) -> str:
    return f"it is no whole {what} ({' '.join(str(error).split()) or type(error).__name__}); download it again"


_READERS: dict[str, Reader] = {"radar": read_radar, "lidar": read_lidar}
# Kind of file -> the modalities that are always made from it.
FILE_KINDS: dict[str, tuple[str, ...]] = {kind: made_of(kind) for kind in get_args(FileKind)}
# Kind of file -> the modalities that are made from it only on request, because they take twenty times the disk.
EXTRA_KINDS: dict[str, tuple[str, ...]] = {kind: made_of(kind, on_request=True) for kind in FILE_KINDS}
