"""Classes that a script or a notebook passes where a YAML would name them.

A class of a module is named. A class of a notebook, or of the script that runs, has no module that another process
could import, so it becomes one: cloudpickle keeps it by value in ``<out>/.classes``, beside a module of two lines that
loads it. From there on it is a user's own module like any other, on Ray, on the command line and when a run is resumed.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from configs.files import write_durably, write_whole
from sim.launch import pickled

CLASSES = ".classes"
_MODULE = '''"""A class that was passed as an object."""

import pickle
from pathlib import Path

{name} = pickle.loads(Path(__file__).with_suffix(".pickle").read_bytes())
'''

# What Python itself adds to a class.
_MADE_BY_PYTHON = {
    *("__dict__", "__weakref__", "__module__", "__doc__", "__firstlineno__", "__static_attributes__"),
    *("_abc_impl", "__abstractmethods__"),
}


def name_of_class(cls: type[Any], out: Path) -> tuple[str, Path]:
    """The name ``module:Class`` under which a class is found again, and the folder in which its module is looked for.

    Args:
        cls: the class.
        out: the folder of the runs, which keeps what has no module.

    Raises:
        ValueError: the class holds what cannot be written, such as an open file.
    """
    module = sys.modules.get(cls.__module__)
    file = getattr(module, "__file__", None)
    if cls.__module__ != "__main__" and file and getattr(module, cls.__qualname__, None) is cls:
        depth = cls.__module__.count(".") + (Path(file).name == "__init__.py")
        return f"{cls.__module__}:{cls.__qualname__}", Path(file).resolve().parents[depth]
    try:
        content = pickled(cls)
        name = f"{cls.__name__}_{_fingerprint(cls)}"
    except Exception as error:  # whatever a class holds may refuse in its own way
        raise ValueError(
            f"{cls.__name__}: cannot be written down for other processes ({type(error).__name__}: {error}); move what "
            "it refers to into its methods, or the class into a file of its own"
        ) from error
    folder = out.resolve() / CLASSES
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(folder / f"{name}.pickle", content)
    write_whole(folder / f"{name}.py", _MODULE.format(name=cls.__name__))
    return f"{name}:{cls.__name__}", folder


def _fingerprint(cls: type[Any]) -> str:
    """The same for a class that is defined once more with the same content, in whatever process."""
    digest = hashlib.sha256()
    for part in _parts(cls, seen=set()):
        digest.update(part + b"\0")
    return digest.hexdigest()[:8]


def _parts(value: Any, *, seen: set[int]) -> Iterator[bytes]:
    """What a value consists of, without the places at which its source stood."""
    if isinstance(value, (staticmethod, classmethod)):
        value = value.__func__
    if id(value) in seen:
        return
    is_new = isinstance(value, (type, FunctionType, property))
    seen |= {id(value)} if is_new else set()
    if isinstance(value, ModuleType):
        yield value.__name__.encode()
    elif isinstance(value, type):
        yield value.__qualname__.encode()
        yield from _parts_of_class(value, seen)
    elif isinstance(value, FunctionType):
        yield from _parts_of_function(value, seen)
    elif isinstance(value, property):
        for one in (value.fget, value.fset, value.fdel):
            yield from _parts(one, seen=seen)
    elif isinstance(value, CodeType):
        yield from (value.co_code, repr((value.co_names, value.co_varnames, value.co_freevars)).encode())
        for one in value.co_consts:
            yield from _parts(one, seen=seen)
    else:
        yield pickled(value)


def _parts_of_class(cls: type[Any], seen: set[int]) -> Iterator[bytes]:
    if not _is_by_value(cls):
        yield cls.__module__.encode()
        return
    for base in cls.__bases__:
        yield from _parts(base, seen=seen)
    for name, member in sorted(vars(cls).items()):
        if name not in _MADE_BY_PYTHON:
            yield name.encode()
            yield from (() if inspect.isgetsetdescriptor(member) else _parts(member, seen=seen))


def _parts_of_function(function: FunctionType, seen: set[int]) -> Iterator[bytes]:
    if not _is_by_value(function):
        yield f"{function.__module__}.{function.__qualname__}".encode()
        return
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    names = sorted(_global_names(function.__code__) & function.__globals__.keys())
    kept = [function.__code__, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).items(), *cells]
    for one in [*kept, *(function.__globals__[name] for name in names)]:
        yield from _parts(one, seen=seen)


def _is_by_value(value: type[Any] | FunctionType) -> bool:
    module = sys.modules.get(value.__module__ or "")
    return value.__module__ == "__main__" or module is None or not hasattr(module, value.__qualname__.split(".")[0])


def _global_names(code: CodeType) -> set[str]:
    inner = (one for one in code.co_consts if isinstance(one, CodeType))
    return set(code.co_names).union(*(_global_names(one) for one in inner))


def plain_values(value: Any, out: Path, folders: list[Path]) -> Any:
    """Values as a YAML has them: classes by name, paths as text, numbers of numpy as those of Python.

    Args:
        value: nested mappings, lists and values.
        out: the folder of the runs.
        folders: gets the folders in which the modules of classes lie.
    """
    if isinstance(value, type):
        name, folder = name_of_class(value, out)
        folders.append(folder)
        return name
    if isinstance(value, Mapping):
        return {str(key): plain_values(one, out, folders) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_values(one, out, folders) for one in value]
    if isinstance(value, Path):
        return str(value)
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value
