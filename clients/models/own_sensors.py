"""Sensors of a user's own: each is one row like those of Softbeam, in a file beside the YAML.

    data:
      sensors: {imu: "my_sensors:IMU"}    name -> module and row, which is a `clients.data.modalities.Modality`

The row says what a frame is, and its ``encoder`` names one of `clients.models.encoders.ENCODERS` or is a class of the
user's own that inherits from `Encoder`; "Encoder" takes frames that are vectors. Frames come from a recording that has
``imu.npy``. Every process that works on an experiment adds its sensors to the table, so whoever looks a modality up by
its name finds them there. U frames, D features.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clients.data.modalities import MODALITIES, SHIPPED, Modality
from clients.models.encoders import ENCODERS, Encoder, make_encoder
from clients.models.seeding import torch_seeded
from configs.plugins import find_object
from configs.seeding import rng_for

# What both NumPy and torch compute with.
DTYPES = ("float16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64")
# Frames of a trial, and the sizes of its encoder: no two alike, so that an axis that is mixed up with another shows.
NUM_FRAMES, WIDTH, NUM_FEATURES = 6, 2, 5


def add_sensors(sensors: Mapping[str, str], folders: Sequence[Path]) -> None:
    """Read the sensors of an experiment, try them on made-up frames, and add them to the table of modalities.

    A name that an earlier experiment of this process had added stands for the new row from now on.

    Args:
        sensors: name -> ``"module:ROW"``, which is ``data.sensors`` of the experiment.
        folders: the folders in which a user's own modules may be files.

    Raises:
        ValueError: a row is missing or cannot work; the message begins with its dotted path.
    """
    _added.cache_clear()
    known_sensors(sensors, folders)


def add_row(row: Modality) -> None:
    """Check a sensor, try it on made-up frames, and add it to the table of modalities of this process.

    Raises:
        ValueError: it cannot work.
    """
    _add({row.name: _checked(row.name, row)}, {row.name: row.name})


def known_sensors(sensors: Mapping[str, str], folders: Sequence[Path]) -> None:
    """Add sensors as :func:`add_sensors` does, unless this process has just done that."""
    _added(tuple(sensors.items()), tuple(folders))


@lru_cache(maxsize=1)
def _added(sensors: tuple[tuple[str, str], ...], folders: tuple[Path, ...]) -> None:
    rows = {}
    for name, target in sensors:
        key = f"data.sensors.{name}"
        row = find_object(target, Modality, key=key, folders=folders)
        try:
            rows[name] = _checked(name, row)
        except ValueError as error:
            raise ValueError(f"{key}: {target}: {error}") from None
    _add(rows, {name: f"data.sensors.{name}: {target}" for name, target in sensors})


def _add(rows: Mapping[str, Modality], where: Mapping[str, str]) -> None:
    """Add rows to the table and try them; after an error the table is what it was."""
    before = {name: MODALITIES[name] for name in rows if name in MODALITIES}
    MODALITIES.update(rows)
    try:
        for name, row in rows.items():
            _try(where[name], row)
    except ValueError:
        for name in rows:
            del MODALITIES[name]
        MODALITIES.update(before)
        raise


def _checked(name: str, row: Modality) -> Modality:
    """The row, if its values are such as the rows of Softbeam have.

    Raises:
        ValueError: one of them is not.
    """
    if name in SHIPPED:
        raise ValueError(f"{name} is a sensor of Softbeam; choose another name")
    if row.name != name:
        raise ValueError(f"name is {row.name!r}, and data.sensors calls it {name}; make them equal")
    for key, (is_right, wanted) in _RULES.items():
        value = getattr(row, key)
        if not is_right(value):
            raise ValueError(f"{key} must be {wanted}, got {value!r}")
    if row.file is not None or row.is_on_request or row.is_of_power:
        raise ValueError("file, is_on_request and is_of_power are for sensors of Softbeam; leave them out")
    return replace(row, dtype=np.dtype(row.dtype))


def _is_shape(value: object) -> bool:
    return isinstance(value, tuple) and bool(value) and all(type(size) is int and size > 0 for size in value)


def _is_dtype(value: Any) -> bool:
    try:
        return np.dtype(value) in map(np.dtype, DTYPES)
    except TypeError:
        return False


def _are_spreads(value: object) -> bool:
    return isinstance(value, tuple) and bool(value) and all(_is_number(one) and one > 0 for one in value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _is_encoder(value: object) -> bool:
    return value in ENCODERS if isinstance(value, str) else isinstance(value, type) and issubclass(value, Encoder)


# Field of a row -> whether a value is right, and what it must be.
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "frame_shape": (_is_shape, "a tuple of sizes above 0, such as (6,)"),
    "dtype": (_is_dtype, f"one of {', '.join(DTYPES)}"),
    "unit": (lambda value: isinstance(value, str), "a text"),
    "colour": (lambda value: bool(re.fullmatch("#[0-9a-f]{6}", str(value))), "#rrggbb in lower case, such as #332288"),
    "least_spread": (_are_spreads, "a tuple of numbers above 0, such as (0.01,)"),
    "lost_frame": (lambda value: value in ("zeros", "repeated"), "zeros or repeated"),
    "jitter": (lambda value: _is_number(value) and value >= 0, "a number of at least 0"),
    "encoder": (_is_encoder, f"one of {', '.join(ENCODERS)}, or a class that inherits from Encoder"),
}


def _try(where: str, row: Modality) -> None:
    """Encode made-up frames, and let a gradient reach the weights.

    Raises:
        ValueError: that is not possible, or what comes out is not (U, D) finite features.
    """
    rng, shape = rng_for(0, "sensor", row.name), (NUM_FRAMES, *row.frame_shape)
    is_whole = np.issubdtype(row.dtype, np.integer)
    values = rng.integers(0, 100, shape) if is_whole else 10.0 * rng.random(shape)
    frames = torch.from_numpy(values.astype(row.dtype))
    try:
        with torch_seeded(1):
            encoder = make_encoder(row.name, width=WIDTH, num_features=NUM_FEATURES)
            if not isinstance(encoder, Encoder):
                raise ValueError(f"build returns {type(encoder).__name__}, which is no Encoder")
            encoder.fit_scale(frames)
            features = encoder(frames)
        if features.shape != (NUM_FRAMES, NUM_FEATURES):
            raise ValueError(f"expected features {(NUM_FRAMES, NUM_FEATURES)}, got {tuple(features.shape)}")
        if not torch.isfinite(features).all():
            raise ValueError("features are not finite (NaN or infinite) for ordinary frames; scale the inputs")
        features.sum().backward()
        if all(one.grad is None for one in encoder.parameters()):
            raise ValueError("no parameter gets a gradient from the features, so it would never learn")
    except Exception as error:  # a class of a user's own may fail in any way
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        name = row.encoder if isinstance(row.encoder, str) else row.encoder.__name__
        raise ValueError(
            f"{where}: {name} cannot encode frames {row.frame_shape}: {' '.join(f'{kind}{error}'.split())}"
        ) from error
