"""The page of every key that a YAML may have, from the schema: type, range, default, and what its docstring says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from configs.schema import Experiment
from configs.section import Section
from configs.study import Study
from sim.reference.docstrings import cell, parse

_PLAIN = {int: "whole number", float: "number", bool: "true or false", str: "text", Any: "anything"}
_RANGES = {Ge: "at least", Gt: "above", Le: "at most", Lt: "below"}

HEAD = """# Every key of a YAML

Written from the schema by `make reference`; do not edit it. `softbeam run NAME --dry-run` prints a whole experiment
with all of its values. In a path, `[]` stands for the number of an entry in a list, as in `data.nodes.0.modality`,
and a word in capitals for a name of yours. A key in a table belongs to each path that stands above it, and `--set
PATH=VALUE` changes it. Where a text says None, YAML says `null`.
"""


def page() -> str:
    """The page of the keys of experiments and of studies."""
    of_run, of_study = sections(Experiment), sections(Study)
    parts = [HEAD, "## Experiments\n\nOf `softbeam run`."]
    parts += [_table(section, paths) for section, paths in of_run.items()]
    parts.append("## Studies\n\nOf `softbeam study`. What has no table here has the same one as above.")
    parts += [_table(section, paths) for section, paths in of_study.items() if section not in of_run]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def keys(kind: type[Section]) -> list[str]:
    """The dotted path of every key that a YAML of this kind may have."""
    return [
        f"{path}.{spelling}" if path else spelling
        for section, paths in sections(kind).items()
        for path in paths
        for name, field in section.model_fields.items()
        for spelling in spellings(name, field)
    ]


def spellings(name: str, field: FieldInfo) -> tuple[str, ...]:
    """What a YAML may call a key: its name, and another one if it has one."""
    return (name,) if field.alias is None else (name, field.alias)


def sections(kind: type[Section], path: str = "") -> dict[type[Section], list[str]]:
    """Every section of a kind of YAML with the paths at which it stands; the empty path is the file itself."""
    found: dict[type[Section], list[str]] = {}
    left: list[tuple[type[Section], str]] = [(kind, path)]
    while left:
        section, here = left.pop(0)
        if here not in found.setdefault(section, []):
            found[section].append(here)
            for name, field in section.model_fields.items():
                below = f"{here}.{name}" if here else name
                left += [(one, f"{below}{step}") for one, step in _inside(field.annotation)]
    return found


def meaning(section: type[Section], name: str) -> str:
    """What the docstring of a section, or of what it inherits from, says of a key; empty if none says anything."""
    docstrings = (parse(kind.__doc__) for kind in section.__mro__ if issubclass(kind, Section))
    return next((text for docstring in docstrings if (text := docstring.meaning(name))), "")


def _inside(annotation: Any) -> Iterator[tuple[type[Section], str]]:
    """The sections in a type, each with the step that leads to it: ``[]`` for lists, ``.NAME`` for mappings."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation, ""
    elif origin is tuple:
        for part in parts:
            yield from ((one, f"[]{step}") for one, step in _inside(part))
    elif origin is dict:
        yield from ((one, f".NAME{step}") for one, step in _inside(parts[1]))
    elif origin is not Literal:
        for part in parts:
            yield from _inside(part)


def _table(section: type[Section], paths: list[str]) -> str:
    docstring = parse(section.__doc__)
    rows = []
    for name, field in section.model_fields.items():
        named = " or ".join(f"`{one}`" for one in spellings(name, field))
        value = cell(_type(field.annotation)) + _range(field.metadata)
        rows.append(f"| {named} | {value} | {cell(_default(field))} | {cell(meaning(section, name))} |")
    where = f"Stands at {', '.join(f'`{path}`' for path in paths)}." if paths[0] else "This is the file itself."
    return "\n".join(
        [
            f"### {section.__name__}",
            f"\n{where} {docstring.text}",
            "\n| key | value | default | meaning |\n|---|---|---|---|",
            *rows,
        ]
    )


def _type(annotation: Any) -> str:
    """A type in words; sections are links to their tables."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    if origin is Annotated:
        return _type(parts[0]) + _range(parts[1:])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in parts)
    if origin is tuple:
        each = _type(parts[0])
        return f"list of: {each}" if parts[-1] is Ellipsis else f"list of {len(parts)}: {each}"
    if origin is dict:
        return f"mapping to: {_type(parts[1])}"
    if origin in (Union, UnionType):
        return " or ".join([_type(part) for part in parts if part is not NoneType] + ["null"] * (NoneType in parts))
    raise TypeError(f"{annotation}: this page has no words for it; add them to sim/reference/settings.py")


def _range(metadata: Any) -> str:
    found = []
    for one in metadata:
        if type(one) in _RANGES:
            found.append(f"{_RANGES[type(one)]} {getattr(one, type(one).__name__.lower())}")
        elif isinstance(one, MinLen) and one.min_length:
            found.append("not empty")
    return f", {', '.join(found)}" if found else ""


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True) if field.default_factory else field.default
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, Section):
        plain = {name: one.get_default(call_default_factory=True) for name, one in type(value).model_fields.items()}
        differs = {name: getattr(value, name) for name in plain if getattr(value, name) != plain[name]}
        return f"`{json.dumps(differs)}`" if differs else "as below"
    return f"`{json.dumps(value)}`"
