"""Short names of plug-ins, in one explicit table, and the way to a user's own.

Nothing registers itself by being imported. ``"my_rules:Trimmed"`` names a class in a module of the user's;
the module may be a file that lies beside the YAML.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from configs.recipes import RECIPES

AGGREGATORS: dict[str, str] = {
    "mean": "strategies.aggregation:Mean",
    "example_weighted": "strategies.aggregation:ExampleWeighted",
    "entropy_mean": "strategies.aggregation:EntropyMean",
    "entropy_product": "strategies.aggregation:EntropyProduct",
    "weighted": "strategies.weights:Weighted",
    "covered_mean": "strategies.robust:CoveredMean",
    "median": "strategies.robust:Median",
    "trimmed_mean": "strategies.robust:TrimmedMean",
    "geometric_median": "strategies.robust:GeometricMedian",
    "consensus": "strategies.robust:Consensus",
}
# The class of every recipe of `configs.recipes` that needs one of its own; the others are parts of the protocol.
STRATEGIES: dict[str, str] = {
    **dict.fromkeys(RECIPES, "strategies.distillation:DistillationStrategy"),
    "personal": "strategies.personal:PersonalStrategy",
    "fd": "strategies.datafree:BeamLabelStrategy",
    "fedproto": "strategies.datafree:PrototypeStrategy",
    "fedavg": "strategies.yardsticks:FedAvgStrategy",
    "local": "strategies.yardsticks:LocalStrategy",
    "centralised": "strategies.yardsticks:CentralisedStrategy",
}


def find_class(name: str, table: Mapping[str, str], *, key: str, folder: Path | None = None) -> type[Any]:
    """The class that a short name or ``"module:Class"`` stands for.

    Args:
        name: as written in the YAML.
        table: short name -> ``"module:Class"``.
        key: dotted path of the name in the YAML, for the error.
        folder: where a user's own module may lie as a file: beside the YAML.

    Raises:
        ValueError: no such name, module or class.
    """
    target = table.get(name, name)
    module_name, sign, class_name = target.partition(":")
    if not sign:
        raise ValueError(f'{key}: unknown name {name!r}; known are {", ".join(sorted(table))}, or write "module:Class"')
    module = _load_module(module_name, key=key, folder=folder if name not in table else None)
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        raise ValueError(f"{key}: {module_name} has no class {class_name}")
    return found


def build_plugin(cls: type[Any], options: Mapping[str, Any], *, key: str) -> Any:
    """An instance with ``options`` as keyword arguments.

    Args:
        cls: the class.
        options: from the YAML.
        key: dotted path of the options in the YAML, for the error.

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


def check_options(cls: type[Any], options: Mapping[str, Any], *, key: str) -> None:
    """Refuse options that a class does not take.

    Raises:
        ValueError: an option is unknown.
    """
    known, takes_any = _parameters(cls)
    for option in options:
        if option not in known and not takes_any:
            raise ValueError(
                f"{key}.{option}: unknown option of {cls.__name__}; known are: {', '.join(known) or 'none'}"
            )


def _parameters(cls: type[Any]) -> tuple[list[str], bool]:
    """Names of what a class takes, and whether it takes anything; ``**arguments`` stands for those of its base."""
    known: list[str] = []
    is_open = False
    for base in cls.__mro__[:-1]:
        if "__init__" not in vars(base):
            continue
        _, *parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        known += [one.name for one in parameters if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)]
        is_open = any(one.kind is one.VAR_KEYWORD for one in parameters)
        if not is_open:
            break
    return known, is_open


def _load_module(name: str, *, key: str, folder: Path | None) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(f'{key}: {name!r} is not the name of a module; write "module:Class"')
    file = None if folder is None else folder / f"{name}.py"
    if file is not None and file.is_file():
        return _load_file(file)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        beside = "" if folder is None else f" and no {name}.py in {folder}"
        raise ValueError(f"{key}: no module {name}{beside}") from None


def _load_file(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ValueError(f"{file}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up while the class is made.
    sys.modules[file.stem] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        # A user's file may fail in any way; the cause stays attached for who wants the traceback.
        del sys.modules[file.stem]
        raise ValueError(f"{file}: {type(error).__name__}: {error}") from error
    return module


def describe() -> list[dict[str, str]]:
    """Every plug-in that a YAML may name: its kind, short name, one-line description and source."""
    from strategies.codecs import CODECS

    rows = [
        {"kind": "strategy", "name": name, "description": recipe.description, "source": recipe.source}
        for name, recipe in RECIPES.items()
    ]
    rows += [
        {"kind": "aggregator", "name": name, **_describe(find_class(name, AGGREGATORS, key="aggregator"))}
        for name in AGGREGATORS
    ]
    rows += [{"kind": "codec", "name": name, **_describe(type(codec))} for name, codec in CODECS.items()]
    return rows


def _describe(cls: type[Any]) -> dict[str, str]:
    text = inspect.getdoc(cls) or ""
    source = next((line.strip() for line in text.splitlines() if line.strip().startswith("Source:")), "")
    return {"description": text.partition("\n")[0], "source": source.removeprefix("Source:").strip()}
