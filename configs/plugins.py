"""The search for a class that a YAML names: by a short name of a table, or in a user's own module.

``"my_rules:Trimmed"`` names a class in a user's own module, which may be a file that lies beside the YAML or in the
current folder.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from configs.spelling import did_you_mean


def find_class(name: str, table: Mapping[str, str], *, key: str, folders: Sequence[Path] = ()) -> type[Any]:
    """The class that a short name or ``"module:Class"`` stands for.

    Args:
        name: the name as the YAML writes it.
        table: short name -> ``"module:Class"``.
        key: the dotted path of the name in the YAML, for the error.
        folders: the folders in which a user's own module may be a file; the first that has it counts.

    Raises:
        ValueError: there is no such name, module or class.
    """
    target = table.get(name, name)
    module_name, sign, class_name = target.partition(":")
    if not sign:
        known = f'known are {", ".join(sorted(table))}, or write "module:Class"'
        raise ValueError(f"{key}: unknown name {name!r}; {known}{did_you_mean(name, table)}")
    module = _load_module(module_name, key=key, folders=folders if name not in table else ())
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        classes = [one for one, value in vars(module).items() if isinstance(value, type)]
        raise ValueError(f"{key}: {module_name} has no class {class_name}{did_you_mean(class_name, classes)}")
    return found


def build_plugin(cls: type[Any], options: Mapping[str, Any], *, key: str) -> Any:
    """An instance of a class, built with ``options`` as keyword arguments.

    Args:
        cls: the class.
        options: the options that the YAML gives.
        key: the dotted path of the options in the YAML, for the error.

    Raises:
        ValueError: an option is unknown, missing or refused by the class.
    """
    check_options(cls, options, key=key)
    try:
        return cls(**options)
    except ValueError as error:
        raise ValueError(f"{key}.{error}") from None
    except Exception as error:
        raise ValueError(f"{key}: {type(error).__name__}: {error}") from error


def check_options(cls: type[Any], options: Mapping[str, Any], *, key: str, base: type[Any] = object) -> None:
    """Refuse options that a class does not take.

    Args:
        cls: the class.
        options: the options that the YAML gives.
        key: the dotted path of the options in the YAML, for the error.
        base: a base of the class; a YAML cannot set the arguments of this base and of its own bases.

    Raises:
        ValueError: an option is unknown.
    """
    known, takes_any = _parameters(cls, base)
    for option in options:
        if option not in known and not takes_any:
            raise ValueError(
                f"{key}.{option}: unknown option of {cls.__name__}; known are: {', '.join(known) or 'none'}"
                f"{did_you_mean(option, known)}"
            )


def _parameters(cls: type[Any], base: type[Any]) -> tuple[list[str], bool]:
    """The names of the arguments that a class takes, and whether it takes arguments of any name.

    ``**arguments`` stands for the arguments of its bases, which are searched up to ``base``; ``base`` is left out.
    """
    known: list[str] = []
    is_open = False
    for owner in cls.__mro__[: cls.__mro__.index(base)]:
        if "__init__" not in vars(owner):
            continue
        _, *parameters = inspect.signature(vars(owner)["__init__"]).parameters.values()
        known += [one.name for one in parameters if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)]
        is_open = any(one.kind is one.VAR_KEYWORD for one in parameters)
        if not is_open:
            break
    return known, is_open and base is object


def _load_module(name: str, *, key: str, folders: Sequence[Path]) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(f'{key}: {name!r} is not the name of a module; write "module:Class"')
    for folder in folders:
        if (file := folder / f"{name}.py").is_file():
            return _load_file(file)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        beside = f" and no {name}.py in {' or '.join(str(folder) for folder in folders)}" if folders else ""
        files = [path.stem for folder in folders if folder.is_dir() for path in folder.glob("[!.]*.py")]
        raise ValueError(f"{key}: there is no module {name}{beside}{did_you_mean(name, files)}") from None


def _load_file(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ValueError(f"{file}: this is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its module up while the class is made.
    sys.modules[file.stem] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        # A user's file may fail in any way; the cause stays attached for whoever wants the traceback.
        del sys.modules[file.stem]
        raise ValueError(f"{file}: {type(error).__name__}: {error}") from error
    return module
