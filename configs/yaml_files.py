"""From a name or a path to the values of a YAML file, with those that it extends, and where each of them stands.

A YAML may say ``extends: NAME``, the name of one in ``configs/`` or a path relative to itself, and then only what
differs. What it extends may extend another one in turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from configs.paths import expanded
from configs.spelling import did_you_mean

CONFIG_FOLDER = Path(__file__).parent
EXTENDS = "extends"


@dataclass(frozen=True)
class ConfigValues:
    """The values of a YAML file and of those that it extends.

    Attributes:
        values: nested dictionaries and lists, without ``extends``.
        files: the YAML file itself, then what it extends, the nearest first.
        places: dotted path -> where that key stands, such as ``line 3`` or ``base.yaml, line 3``.
    """

    values: dict[str, Any]
    files: tuple[Path, ...]
    places: dict[str, str]

    @property
    def plugin_folders(self) -> tuple[Path, ...]:
        """Where a user's own modules are looked for: beside these files, then in the current folder."""
        return tuple(dict.fromkeys([*(file.resolve().parent for file in self.files), Path.cwd()]))


def find_config(source: str | Path, *, beside: Path | None = None) -> Path:
    """The YAML file that a user means by a path or a short name.

    Args:
        source: a path, or the name of a YAML in ``configs/``.
        beside: the folder that a path is relative to; None means the current folder.

    Raises:
        ValueError: there is no such file.
    """
    folder = beside or Path()
    for path in (folder / expanded(source), CONFIG_FOLDER / f"{source}.yaml"):
        if path.is_file():
            return path
    presets = sorted(path.stem for path in CONFIG_FOLDER.glob("[!.]*.yaml"))
    here = [path.name for path in folder.glob("[!.]*.y*ml")] if folder.is_dir() else []
    # A file whose ending was left out is nearer than any other name.
    nearest = [f"{source}{ending}" for ending in (".yaml", ".yml") if (folder / f"{source}{ending}").is_file()]
    meant = f"; did you mean {nearest[0]}?" if nearest else did_you_mean(source, [*presets, *here])
    raise ValueError(f"{source}: no such config; give a YAML file or one of {', '.join(presets)}{meant}")


def read_config(path: Path) -> ConfigValues:
    """Read a YAML file and what it extends.

    Mappings merge key by key; everything else, lists included, replaces what was there. Three things would make no
    sense for one another and are not mixed: ``data`` with another ``source`` and a student or teacher with another
    ``model`` replace the whole section, and another ``name`` drops the ``options`` of the old one.

    Raises:
        ValueError: a file is missing or not YAML, a key stands twice, or files extend each other in a circle.
    """
    return _read(path, above=())


def _read(path: Path, *, above: tuple[Path, ...]) -> ConfigValues:
    values, lines = _parse(path)
    place = "line {}" if not above else f"{path}, line {{}}"
    places = {dotted: place.format(line) for dotted, line in lines.items()}
    if EXTENDS not in values:
        return ConfigValues(values, (path,), places)
    source, where = values.pop(EXTENDS), f"{path}: {EXTENDS}"
    if not isinstance(source, str):
        raise ValueError(f"{where}: must be the name of a config or the path of a YAML file, got {source!r}")
    try:
        found = find_config(source, beside=path.parent)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    chain = (*above, path)
    if found.resolve() in [one.resolve() for one in chain]:
        circle = " extends ".join(str(one) for one in (*chain, found))
        raise ValueError(f"{where}: the files extend each other in a circle ({circle}); leave one {EXTENDS} out")
    base = _read(found, above=chain)
    return ConfigValues(merged(base.values, values), (path, *base.files), {**base.places, **places})


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with ``changes`` on top of them, as :func:`read_config` says.

    Example:
        >>> merged({"data": {"passes": {"test": 3, "client": 4}}, "seeds": [0, 1]}, {"data": {"passes": {"test": 5}}})
        {'data': {'passes': {'test': 5, 'client': 4}}, 'seeds': [0, 1]}
    """
    if _is_other("source", values, changes) or changes.get("model", values.get("model")) != values.get("model"):
        return dict(changes)
    result = dict(values)
    if _is_other("name", values, changes):
        result.pop("options", None)
    for key, value in changes.items():
        before = result.get(key)
        result[key] = merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return result


def _is_other(key: str, values: Mapping[str, Any], changes: Mapping[str, Any]) -> bool:
    return key in values and key in changes and values[key] != changes[key]


def _parse(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The values of one YAML file, and dotted path -> line of each key."""
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        try:
            node = loader.get_single_node()
            lines = dict(_lines(node, ""))
            values = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    except _RepeatedKeyError as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected `key: value` lines, got {type(values).__name__}")
    return values, lines


class _RepeatedKeyError(ValueError):
    """A key stands twice in one mapping, where YAML would take the last one without a word."""


def _lines(node: yaml.Node | None, above: str, seen: tuple[int, ...] = ()) -> Iterator[tuple[str, int]]:
    if id(node) in seen:  # an alias of what it is in
        return
    seen = (*seen, id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield f"{above}{index}", item.start_mark.line + 1
            yield from _lines(item, f"{above}{index}.", seen)
    if not isinstance(node, yaml.MappingNode):
        return
    first: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
            if key.value in first:
                raise _RepeatedKeyError(
                    f"{above}{key.value}: stands in line {first[key.value]} and again in line {line}; leave one out"
                )
            first[key.value] = line
            yield f"{above}{key.value}", line
            yield from _lines(value, f"{above}{key.value}.", seen)
