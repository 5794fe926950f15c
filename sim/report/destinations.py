"""Where a command is asked to write a file of its results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def check_destination(option: str, path: Path, endings: Sequence[str]) -> None:
    """Refuse the name of a file that could not be written, before any work.

    Args:
        option: the option that gave the name, such as ``--out``.
        path: the name of the file.
        endings: the endings of the formats, at least two, in lower case and with their dots.

    Raises:
        ValueError: the ending is not that of a format, or the folder is not there.
    """
    if path.suffix.lower() not in endings:
        raise ValueError(f"{option} {path}: expected a name that ends in {', '.join(endings[:-1])} or {endings[-1]}")
    if path.is_dir() or not path.parent.is_dir():
        what = "is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise ValueError(f"{option} {path}: {what}; name a file in a folder that is there")
