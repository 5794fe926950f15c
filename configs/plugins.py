"""The search for a class that a YAML names: by a short name of a table, or in a user's own module.

``"my_rules:Trimmed"`` names a class in a user's own module, which may be a file that lies beside the YAML or in the
current folder. Such a file may import others beside it; a module that Python finds by itself comes before these.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from numbers import Integral, Real
from pathlib import Path
from types import ModuleType, UnionType
from typing import Any, ClassVar, TypeVar, Union, get_args, get_origin, get_type_hints

from configs.spelling import did_you_mean

Found = TypeVar("Found")


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


def find_object(target: str, kind: type[Found], *, key: str, folders: Sequence[Path] = ()) -> Found:
    """The object that ``"module:NAME"`` stands for in a user's own module; the arguments are those of `find_class`.

    Raises:
        ValueError: there is no such module or object, or it is of another kind.
    """
    module_name, sign, name = target.partition(":")
    if not sign:
        raise ValueError(f'{key}: expected "module:NAME", got {target!r}')
    module = _load_module(module_name, key=key, folders=folders)
    found = getattr(module, name, None)
    if not isinstance(found, kind):
        names = [one for one, value in vars(module).items() if isinstance(value, kind)]
        told = f"has no {name}" if found is None else f"{name} is {type(found).__name__}, not {kind.__name__}"
        raise ValueError(f"{key}: {module_name}: {told}{did_you_mean(name, names)}")
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
    """Refuse options that a class does not take, and values that are of another type than the class declares.

    Types count where they are numbers, whole numbers, texts or true and false, or None beside one of these; whatever
    else a class declares is its own to check.

    Args:
        cls: the class.
        options: the options that the YAML gives.
        key: the dotted path of the options in the YAML, for the error.
        base: a base of the class; a YAML cannot set the arguments of this base and of its own bases.

    Raises:
        ValueError: an option is unknown, or its value is of another type.
    """
    known, takes_any = _parameters(cls, base)
    for option, value in options.items():
        if option in known:
            _check_type(value, known[option], f"{key}.{option}")
        elif not takes_any:
            raise ValueError(
                f"{key}.{option}: unknown option of {cls.__name__}; known are: {', '.join(known) or 'none'}"
                f"{did_you_mean(option, known)}"
            )


def _parameters(cls: type[Any], base: type[Any]) -> tuple[dict[str, object], bool]:
    """The names and declared types of the arguments that a class takes, and whether it takes arguments of any name.

    ``**arguments`` stands for the arguments of its bases, which are searched up to ``base``; ``base`` is left out.
    """
    known: dict[str, object] = {}
    is_open = False
    for owner in cls.__mro__[: cls.__mro__.index(base)]:
        if "__init__" not in vars(owner):
            continue
        _, *parameters = inspect.signature(vars(owner)["__init__"]).parameters.values()
        types = _types_of(vars(owner)["__init__"])
        for one in parameters:
            if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL):
                known.setdefault(one.name, types.get(one.name))
        is_open = any(one.kind is one.VAR_KEYWORD for one in parameters)
        if not is_open:
            break
    return known, is_open and base is object


def _types_of(method: Any) -> Mapping[str, object]:
    """The types that a method declares for its arguments; none where they cannot be read."""
    try:
        return get_type_hints(method)
    except Exception:  # a hint may name what is imported for type checkers only
        return {}


# Type -> how an error names it, and the classes of its values; NumPy's numbers count, which Python may give.
_SCALARS: Mapping[object, tuple[str, tuple[type, ...]]] = {
    bool: ("true or false", (bool,)),
    int: ("a whole number", (Integral,)),
    float: ("a number", (Real,)),
    str: ("a text", (str,)),
    type(None): ("null", (type(None),)),
}


def _check_type(value: object, declared: object, key: str) -> None:
    """Refuse a value of another type than a declared number, text or truth value.

    Raises:
        ValueError: it is one.
    """
    options = get_args(declared) if isinstance(declared, UnionType) or get_origin(declared) is Union else (declared,)
    if any(one not in _SCALARS for one in options):
        return
    wanted = [_SCALARS[one] for one in options]
    if any(isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool)) for _, kinds in wanted):
        return
    asked = " or ".join(name for name, _ in wanted)
    raise ValueError(f"{key}: must be {asked}, got {'the text ' if isinstance(value, str) else ''}{value!r}")


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
    _Neighbours.of(file.parent)
    loader = _SourceLoader(file.stem, str(file))
    module = importlib.util.module_from_spec(ModuleSpec(file.stem, loader, origin=str(file)))
    module.__file__ = str(file)
    # A dataclass looks its module up while the class is made.
    sys.modules[file.stem] = module
    try:
        loader.exec_module(module)
    except Exception as error:
        # A user's file may fail in any way; the cause stays attached for whoever wants the traceback.
        del sys.modules[file.stem]
        raise ValueError(f"{file}: {type(error).__name__}: {error}") from error
    return module


class _SourceLoader(SourceFileLoader):
    """A loader that reads the source itself, and neither reads nor writes the bytecode of an earlier time.

    Python takes bytecode for that of a source of the same size and second; a file that a person or a notebook has just
    changed can be that.
    """

    def path_stats(self, path: str) -> Mapping[str, Any]:
        raise OSError(f"{path}: its bytecode is not kept")

    def get_data(self, path: str) -> bytes:
        self._read = super().get_data(path)
        return self._read

    def has_changed(self) -> bool:
        """Whether the file is another than when it was read."""
        try:
            return Path(self.path).read_bytes() != self._read
        except OSError:
            return True


class _Neighbours(MetaPathFinder):
    """Finds the files beside a user's own modules, after all else that Python can import."""

    folders: ClassVar[list[Path]] = []

    @classmethod
    def of(cls, folder: Path) -> None:
        """Look into a folder from now on, before others; a file there that has changed is read again."""
        cls.folders[:] = [folder, *(one for one in cls.folders if one != folder)]
        if not any(isinstance(finder, cls) for finder in sys.meta_path):
            sys.meta_path.append(cls())
        for name, module in list(sys.modules.items()):
            loader = getattr(module, "__loader__", None)
            if isinstance(loader, _SourceLoader) and loader.has_changed():
                del sys.modules[name]

    def find_spec(self, fullname: str, path: object, target: ModuleType | None = None) -> ModuleSpec | None:
        """The file of this name in the first folder that has it."""
        for folder in self.folders if path is None else ():
            if (file := folder / f"{fullname}.py").is_file():
                return importlib.util.spec_from_file_location(fullname, file, loader=_SourceLoader(fullname, str(file)))
        return None
