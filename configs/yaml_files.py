"""From a name or a path to the values of a YAML file, with those that it extends, and where each of them stands.

A YAML may say ``extends: NAME``, the name of one in ``configs/`` or a path relative to itself, and then only what
differs. What it extends may extend another one in turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from configs.paths import expanded
from configs.spelling import did_you_mean

CONFIG_FOLDER = Path(__file__).parent
GALLERY_FOLDER = CONFIG_FOLDER / "gallery"
EXTENDS = "extends"
# The deepest nesting of a YAML, and the number of values that all its aliases may stand for together. A few lines with
# aliases of aliases stand for more than any machine holds.
MAX_DEPTH = 100
MAX_REPEATED = 100_000


def checkout_folder() -> Path | None:
    """The checkout that this code lies in; None where Softbeam was installed as a wheel."""
    root = CONFIG_FOLDER.parent
    return root if (root / "pyproject.toml").is_file() else None


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
        source: a path, or the name of a YAML in ``configs/`` or in its gallery, with or without ``gallery/``.
        beside: the folder that a path is relative to; None means the current folder.

    Raises:
        ValueError: there is no such file.
    """
    folder = beside or Path()
    for path in (folder / expanded(source), CONFIG_FOLDER / f"{source}.yaml", GALLERY_FOLDER / f"{source}.yaml"):
        if path.is_file():
            return path
    presets = config_names()
    here = [path.name for path in folder.glob("[!.]*.y*ml")] if folder.is_dir() else []
    # A file whose ending was left out is nearer than any other name.
    nearest = [f"{source}{ending}" for ending in (".yaml", ".yml") if (folder / f"{source}{ending}").is_file()]
    meant = f"; did you mean {nearest[0]}?" if nearest else did_you_mean(source, [*presets, *here])
    raise ValueError(f"{source}: no such config; give a YAML file or one of {', '.join(presets)}{meant}")


def config_names() -> list[str]:
    """What :func:`find_config` finds by name: the YAML files in ``configs/``, then those of its gallery."""
    shipped = sorted(path.stem for path in CONFIG_FOLDER.glob("[!.]*.yaml"))
    return [*shipped, *(path.stem for path in gallery_files())]


def gallery_files() -> list[Path]:
    """The ready experiments of the gallery, by name."""
    return sorted(GALLERY_FOLDER.glob("[!.]*.yaml"))


def first_comment(path: Path) -> str:
    """The comment with which a YAML file begins, on one line: what the experiment is about, for whoever lists it."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = takewhile(lambda line: line.startswith("#"), lines)
    return " ".join(line.removeprefix("#").strip() for line in comment)


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
        return ConfigValues(_anchored(values, path, {}), (path,), places)
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
    values = _anchored(values, path, base.values)
    return ConfigValues(merged(base.values, values), (path, *base.files), {**base.places, **places})


def _anchored(values: dict[str, Any], path: Path, base: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a YAML with the folder of a ready federation relative to the YAML itself."""
    data, before = values.get("data"), base.get("data")
    if not isinstance(data, dict) or not isinstance(data.get("folder"), str):
        return values
    if data.get("source", before.get("source") if isinstance(before, dict) else None) != "folder":
        return values
    return {**values, "data": {**data, "folder": str(path.resolve().parent / expanded(data["folder"]))}}


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
        loader = BoundedLoader(path.read_text(encoding="utf-8"))
        try:
            node = loader.get_single_node()
            lines = dict(_lines(node, ""))
            values = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: not valid YAML, because it is not UTF-8 ({error.reason}); save it as UTF-8"
        ) from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    except (_RepeatedKeyError, OversizedYamlError) as error:
        raise ValueError(f"{path}: {error}") from None
    except ValueError as error:  # such as of the date 2026-13-01
        raise ValueError(f"{path}: not valid YAML ({error})") from None
    if not isinstance(values, dict):
        found = "an empty file" if values is None else type(values).__name__
        raise ValueError(f"{path}: expected `key: value` lines, got {found}")
    return values, lines


class OversizedYamlError(ValueError):
    """A YAML is nested too deeply, or its aliases stand for too much."""


class BoundedLoader(yaml.SafeLoader):
    """A loader that refuses, while it reads, what would have no end for whoever walks its values.

    Raises:
        OversizedYamlError: values lie deeper than `MAX_DEPTH`, an anchor contains itself, or aliases stand for more
            than `MAX_REPEATED` values.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = self._repeated = 0
        # The id of each whole node -> the number of values in it, with those that aliases stand for.
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """The next node of the text."""
        line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
        is_alias = self.check_event(yaml.AliasEvent)
        if self._depth > MAX_DEPTH:
            raise OversizedYamlError(f"line {line}: nested more than {MAX_DEPTH} levels deep; write it flatter")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is None:
            return None
        if is_alias:
            if id(node) not in self._sizes:
                raise OversizedYamlError(f"line {line}: an anchor (&) contains an alias (*) of itself; write it out")
            self._repeated += self._sizes[id(node)]
            if self._repeated > MAX_REPEATED:
                raise OversizedYamlError(
                    f"line {line}: the aliases (*) stand for more than {MAX_REPEATED} values; use fewer"
                )
            return node
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            parts = node.value
        elif isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        self._sizes[id(node)] = 1 + sum(self._sizes[id(part)] for part in parts)
        return node


class _RepeatedKeyError(ValueError):
    """A key stands twice in one mapping, where YAML would take the last one without a word."""


def _lines(node: yaml.Node | None, above: str) -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield f"{above}{index}", item.start_mark.line + 1
            yield from _lines(item, f"{above}{index}.")
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
            yield from _lines(value, f"{above}{key.value}.")
