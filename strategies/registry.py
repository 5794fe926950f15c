"""The table of plug-in names of the protocol, and the check of every one that a YAML names.

Nothing registers itself by being imported; `configs.plugins` finds a user's own class.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from configs.placement import Placement
from configs.plugins import build_plugin, check_options, find_class
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
from strategies.own_code import check_rule, is_own, try_rule

__all__ = ["AGGREGATORS", "STRATEGIES", "build_plugin", "check_options", "describe", "find_class", "find_plugins"]

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
# A rule is tried on made-up answers of at most so many clients.
MAX_TRIED = 32
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
    check_rule(aggregator)
    if is_own(aggregator):
        # Another one is tried: a rule may remember what it saw.
        tried = build_plugin(aggregator_class, strategy.aggregator.options, key="strategy.aggregator.options")
        modalities = [nodes.modality for nodes in experiment.data.groups for _ in range(min(nodes.count, MAX_TRIED))]
        clients = [(f"{number:03d}-{modality}", modality) for number, modality in enumerate(modalities or ["gps"] * 3)]
        try_rule(tried, clients[:MAX_TRIED], shape=(experiment.task.num_horizons, experiment.task.num_classes))
    experiment.check_hostility(strategy_class.traits)
    experiment.check_shares(strategy_class.traits)
    experiment.check_students(strategy_class.traits)
    if experiment.hostility is not None and experiment.hostility.attack not in ATTACKS:
        attack = experiment.hostility.attack
        raise ValueError(
            f"hostility.attack: unknown attack {attack!r}; known are {', '.join(ATTACKS)}"
            f"{did_you_mean(attack, ATTACKS)}"
        )
    for key, codec in (("codec", strategy.codec), ("downlink_codec", strategy.codec_down)):
        try:
            Encoding(codec, experiment.task.num_horizons, experiment.task.num_classes)
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
    _check_constructor(found, strategy)
    if found is FedGemsStrategy:
        found = DistillationStrategy  # its recipe differs by what is published, and a YAML may publish something else
    if strategy.secure_sum:
        if found is not DistillationStrategy:
            raise ValueError(f"strategy.secure_sum: {strategy.name} has its own choreography; leave secure_sum out")
        found = SecureSumStrategy
    if strategy.publish == "corrected" and issubclass(found, DistillationStrategy):
        return FedGemsStrategy if found is DistillationStrategy else _combined(FedGemsStrategy, found)
    return found


def _check_constructor(found: type[Choreography], strategy: Strategy) -> None:
    """Refuse a class that the server could not make, because it does not take the arguments of `Choreography`.

    Raises:
        ValueError: it does not take them.
    """
    _, *needed = inspect.signature(Choreography.__init__).parameters
    try:
        inspect.signature(found).bind(**dict.fromkeys([*needed, *strategy.options]))
    except TypeError as error:
        if str(error).startswith("missing a required"):
            raise ValueError(f"strategy.options: {found.__name__}: {error}; give it, or give it a default") from None
        raise ValueError(
            f"strategy.name: {found.__name__}: __init__ must take **arguments and pass them on ({error}); write "
            "def __init__(self, **arguments) and super().__init__(**arguments)"
        ) from None


def _combined(first: type[Choreography], second: type[Choreography]) -> type[Choreography]:
    """A class that inherits from both, from ``first`` before ``second``, with the traits of the second."""
    return type(f"{first.__name__}Of{second.__name__}", (first, second), {"traits": second.traits})


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
        size = f" {num_bytes} bytes for 4 horizons of 64 classes."
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
