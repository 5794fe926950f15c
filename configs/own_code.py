"""The files of a user's own that an experiment names, and the digest that tells two versions of them apart.

A rule, a model or a task that was edited is another experiment, though its YAML is the same. What counts is the text of
each file that a YAML names as ``"module:Name"``, and of the files beside it that these import. Modules that Python
finds by itself, such as those of an installed package, do not count.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.loading import NOT_STUDIED


def own_files(values: Mapping[str, Any], folders: Sequence[Path]) -> list[Path]:
    """The files of a user's own that the values of an experiment name, and those beside them that these import.

    What changes no result does not count, such as trackers.

    Args:
        values: the experiment, as `configs.loading.to_values` gives it.
        folders: the folders in which a user's own module may be a file; the first that has it counts.
    """
    found: dict[str, Path] = {}
    studied = {name: value for name, value in values.items() if name not in NOT_STUDIED}
    waiting = [text.partition(":")[0] for text in _texts(studied) if ":" in text]
    while waiting:
        name = waiting.pop()
        if name in found or not name.isidentifier():
            continue
        for folder in folders:
            if (file := folder / f"{name}.py").is_file():
                found[name] = file
                waiting += _imported(file)
                break
    return [found[name] for name in sorted(found)]


def own_code_digest(values: Mapping[str, Any], folders: Sequence[Path]) -> str:
    """A digest of the names and texts of these files; empty where an experiment names none."""
    files = own_files(values, folders)
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16] if files else ""


def _texts(values: Any) -> Iterator[str]:
    if isinstance(values, str):
        yield values
    elif isinstance(values, Mapping):
        for value in values.values():
            yield from _texts(value)
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _texts(value)


def _imported(file: Path) -> list[str]:
    """The modules that a file imports by their plain names; none where it is no Python, which its loader tells."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return []
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.append(node.module)
    return names
