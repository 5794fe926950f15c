"""From YAML, ``--quick`` and ``--set`` to a frozen `Study`, with errors that name the dotted path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from configs.loading import DATA_SOURCES, checked_config, digest_with_sources
from configs.study import Study, StudyPasses
from configs.yaml_files import find_config, merged, read_config


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
    config = read_config(find_config(source))
    path, values = config.files[0], config.values
    if "parts" not in values:
        raise ValueError(f"{path}: has no parts, so it is not a study; experiments are for softbeam run")
    smaller = values.pop("quick", None)
    if quick:
        if not isinstance(smaller, dict):
            raise ValueError(f"{path}: has no section quick; leave --quick out")
        values = merged(values, smaller)
        quick_places = {path: place for path, place in config.places.items() if path.startswith("quick.")}
        config.places.update({path.removeprefix("quick."): place for path, place in quick_places.items()})
    return checked_config(Study, replace(config, values=values), overrides)


@lru_cache(maxsize=16)
def passes_digest(data: StudyPasses) -> str:
    """The digest of what the passes of a study depend on, which includes the code that makes them."""
    return digest_with_sources({"study": data.model_dump(mode="json")}, DATA_SOURCES)
