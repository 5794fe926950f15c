"""The table of plug-in names, the search for a user's own plug-in, and the check of every plug-in that a YAML names.

Nothing registers itself by being imported. ``"my_rules:Trimmed"`` names a class in a user's own module;
the module may be a file that lies beside the YAML or in the current folder.
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

import numpy as np

from configs.placement import Placement
from configs.recipes import RECIPES, Traits
from configs.spelling import did_you_mean
from configs.strategy import Strategy, check_traits
from strategies.aggregation import Aggregator
from strategies.attacks import ATTACKS
from strategies.codecs.encoding import Encoding
from strategies.codecs.table import CODECS, SUFFIXES
from strategies.methods.base import Choreography
from strategies.methods.distillation import DistillationStrategy
from strategies.methods.fedgems import FedGemsStrategy
from strategies.methods.secure_sum import SecureSumStrategy

AGGREGATORS: dict[str, str] = {
    "mean": "strategies.rules.weighted:Mean",
    "example_weighted": "strategies.rules.weighted:ExampleWeighted",
    "entropy_mean": "strategies.rules.weighted:EntropyMean",
    "entropy_product": "strategies.rules.weighted:EntropyProduct",
    "weighted": "strategies.rules.weighted:Weighted",
    "covered_mean": "strategies.rules.robust:CoveredMean",
    "median": "strategies.rules.robust:Median",
    "trimmed_mean": "strategies.rules.robust:TrimmedMean",
    "geometric_median": "strategies.rules.robust:GeometricMedian",
    "consensus": "strategies.rules.robust:Consensus",
}
STRATEGIES: dict[str, str] = {name: recipe.strategy for name, recipe in RECIPES.items()}


def find_plugins(placement: Placement) -> tuple[type[Choreography], Aggregator]:
    """The class of the strategy, and the aggregator, that the YAML names, checked before anything starts.

    Raises:
        ValueError: a name is unknown or an option is refused; the message begins with its dotted path.
    """
    experiment, folders = placement.experiment, placement.plugins
    strategy = experiment.strategy
    strategy_class = _find_strategy(strategy, folders)
    aggregator_class = find_class(
        strategy.aggregator.name, AGGREGATORS, key="strategy.aggregator.name", folders=folders
    )
    aggregator = build_plugin(aggregator_class, strategy.aggregator.options, key="strategy.aggregator.options")
    if not callable(getattr(aggregator, "aggregate", None)):
        raise ValueError(f"strategy.aggregator.name: {aggregator_class.__name__} has no method aggregate; write one")
    experiment.check_hostility(strategy_class.traits)
    if experiment.hostility is not None and experiment.hostility.attack not in ATTACKS:
        attack = experiment.hostility.attack
        raise ValueError(
            f"hostility.attack: unknown attack {attack!r}; known are {', '.join(ATTACKS)}"
            f"{did_you_mean(attack, ATTACKS)}"
        )
    for key, codec in (("codec", strategy.codec), ("downlink_codec", strategy.codec_down)):
        try:
            Encoding(codec, experiment.task.num_horizons, experiment.task.num_beams)
        except ValueError as error:
            raise ValueError(f"strategy.{key}: {error}") from None
    return strategy_class, aggregator


def _find_strategy(strategy: Strategy, folders: Sequence[Path]) -> type[Choreography]:
    """The class that a ``strategy`` section names; ``publish`` and ``secure_sum`` may replace it or add to it."""
    found = find_class(strategy.name, STRATEGIES, key="strategy.name", folders=folders)
    if not issubclass(found, Choreography):
        raise ValueError(f"strategy.name: {found.__name__} is no subclass of Choreography; make it one")
    if not isinstance(getattr(found, "traits", None), Traits):
        raise ValueError(f"strategy.name: {found.__name__} declares no traits; write traits = Traits(...) in its body")
    try:
        check_traits(strategy, found.traits)
    except ValueError as error:
        raise ValueError(f"strategy.{error}") from None
    check_options(found, strategy.options, key="strategy.options", base=Choreography)
    try:
        found.check_options(**strategy.options)
    except ValueError as error:
        raise ValueError(f"strategy.options.{error}") from None
    except TypeError as error:
        raise ValueError(f"strategy.options: {error}") from None
    if found is FedGemsStrategy:
        found = DistillationStrategy  # its recipe differs by what is published, and a YAML may publish something else
    if strategy.secure_sum:
        if found is not DistillationStrategy:
            raise ValueError(f"strategy.secure_sum: {strategy.name} has its own choreography; leave secure_sum out")
        found = SecureSumStrategy
    if strategy.publish == "corrected" and issubclass(found, DistillationStrategy):
        return FedGemsStrategy if found is DistillationStrategy else _combined(FedGemsStrategy, found)
    return found


def _combined(first: type[Choreography], second: type[Choreography]) -> type[Choreography]:
    """A class that inherits from both, from ``first`` before ``second``, with the traits of the second."""
    return type(f"{first.__name__}Of{second.__name__}", (first, second), {"traits": second.traits})


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


def describe() -> list[dict[str, str]]:
    """Every plug-in that a YAML may name: its kind, short name, one-line description and source."""
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
    """The first line and the source of a docstring; a source ends at the next empty line."""
    first, *paragraphs = (inspect.getdoc(cls) or "").split("\n\n")
    sources = (" ".join(text.split()) for text in paragraphs if text.startswith("Source:"))
    return {"description": first.split("\n")[0], "source": next(sources, "").removeprefix("Source:").strip()}
