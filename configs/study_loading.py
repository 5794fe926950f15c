"""From YAML, ``--quick`` and ``--set`` to a frozen `Study`, with errors that name the dotted path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from configs.loading import DATA_SOURCES, checked, digest_with_sources, find_config, read_yaml, set_value
from configs.study import Study, StudyPasses


def load_study(source: str | Path, overrides: Sequence[str] = (), *, quick: bool = False) -> Study:
    """Read a study.

    Args:
        source: a YAML file, or the name of one in ``configs/``.
        overrides: ``dotted.path=value`` entries, values as in YAML.
        quick: whether the values in the section ``quick`` replace those of the same path.

    Raises:
        ValueError: the file is missing, not YAML, not a study or without a section ``quick``; or a key, a type or a
            range is wrong.
    """
    path = find_config(source)
    values = read_yaml(path)
    if "parts" not in values:
        raise ValueError(f"{path}: has no parts, so it is not a study; experiments are for softbeam run")
    smaller = values.pop("quick", None)
    if quick:
        if not isinstance(smaller, dict):
            raise ValueError(f"{path}: has no section quick; leave --quick out")
        values = _merged(values, smaller)
    for override in overrides:
        set_value(values, override)
    return checked(Study, values, origin=str(path))


@lru_cache(maxsize=16)
def passes_digest(data: StudyPasses) -> str:
    """The digest of what the passes of a study depend on, which includes the code that makes them."""
    return digest_with_sources({"study": data.model_dump(mode="json")}, DATA_SOURCES)


def _merged(values: Mapping[str, Any], smaller: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with the leaves of ``smaller`` put in their place."""
    merged = dict(values)
    for key, value in smaller.items():
        before = merged.get(key)
        merged[key] = _merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return merged
