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

import numpy as np

from configs.recipes import RECIPES

AGGREGATORS: dict[str, str] = {
    "mean": "strategies.aggregation:Mean",
    "example_weighted": "strategies.aggregation:ExampleWeighted",
    "entropy_mean": "strategies.aggregation:EntropyMean",
    "entropy_product": "strategies.aggregation:EntropyProduct",
    "weighted": "strategies.rules.weighted:Weighted",
    "covered_mean": "strategies.rules.robust:CoveredMean",
    "median": "strategies.rules.robust:Median",
    "trimmed_mean": "strategies.rules.robust:TrimmedMean",
    "geometric_median": "strategies.rules.robust:GeometricMedian",
    "consensus": "strategies.rules.robust:Consensus",
}
# The class of every recipe of `configs.recipes` that needs one of its own; the others are parts of the protocol.
STRATEGIES: dict[str, str] = {
    **dict.fromkeys(RECIPES, "strategies.methods.distillation:DistillationStrategy"),
    "personal": "strategies.methods.personal:PersonalStrategy",
    "fd": "strategies.methods.beams:BeamLabelStrategy",
    "fedproto": "strategies.methods.beams:PrototypeStrategy",
    "fedavg": "strategies.methods.baselines:FedAvgStrategy",
    "local": "strategies.methods.baselines:LocalStrategy",
    "centralised": "strategies.methods.baselines:CentralisedStrategy",
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


def check_options(cls: type[Any], options: Mapping[str, Any], *, key: str, base: type[Any] = object) -> None:
    """Refuse options that a class does not take.

    Args:
        cls: the class.
        options: from the YAML.
        key: dotted path of the options in the YAML, for the error.
        base: of the class; what it and its own bases take is not for the YAML to say.

    Raises:
        ValueError: an option is unknown.
    """
    known, takes_any = _parameters(cls, base)
    for option in options:
        if option not in known and not takes_any:
            raise ValueError(
                f"{key}.{option}: unknown option of {cls.__name__}; known are: {', '.join(known) or 'none'}"
            )


def _parameters(cls: type[Any], base: type[Any]) -> tuple[list[str], bool]:
    """Names of what a class takes, and whether it takes anything; ``**arguments`` stands for those of its bases.

    They are looked for up to ``base``, which is left out.
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
    from strategies.codecs.table import CODECS, SUFFIXES

    rows = [
        {"kind": "strategy", "name": name, "description": recipe.description, "source": recipe.source}
        for name, recipe in RECIPES.items()
    ]
    rows += [
        {"kind": "aggregator", "name": name, **_describe(find_class(name, AGGREGATORS, key="aggregator"))}
        for name in AGGREGATORS
    ]
    for name, codec in CODECS.items():
        num_bytes = codec.encode(np.full((1, 4, 64), 1 / 64, np.float32)).nbytes
        found = _describe(type(codec))
        size = f" {num_bytes} bytes for 4 horizons of 64 beams."
        rows.append({"kind": "codec", "name": name, **found, "description": found["description"] + size})
    rows += [
        {"kind": "codec suffix", "name": f"+{suffix}", "description": description, "source": source}
        for suffix, (description, source) in SUFFIXES.items()
    ]
    return rows


def _describe(cls: type[Any]) -> dict[str, str]:
    """First line and source of a docstring; a source goes on to the next empty line."""
    first, *paragraphs = (inspect.getdoc(cls) or "").split("\n\n")
    sources = (" ".join(text.split()) for text in paragraphs if text.startswith("Source:"))
    return {"description": first.split("\n")[0], "source": next(sources, "").removeprefix("Source:").strip()}
