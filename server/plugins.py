"""What the YAML names, found and checked before anything starts."""

from __future__ import annotations

from typing import Any

from configs.placement import Placement
from strategies.attacks import ATTACKS
from strategies.codecs.encoding import Encoding
from strategies.methods.base import Choreography
from strategies.methods.distillation import DistillationStrategy
from strategies.methods.secure_sum import SecureSumStrategy
from strategies.registry import AGGREGATORS, STRATEGIES, build_plugin, check_options, find_class

# Kinds of knowledge beside which relations of public samples are told.
RELATES = (DistillationStrategy.kind, SecureSumStrategy.kind)


def find_plugins(placement: Placement) -> tuple[type[Any], Any]:
    """The class of the strategy, and the aggregator, that the YAML names.

    Raises:
        ValueError: an unknown name or a refused option, with its dotted path.
    """
    strategy = placement.experiment.strategy
    folder = placement.plugins
    strategy_class = find_class(strategy.name, STRATEGIES, key="strategy.name", folder=folder)
    if not issubclass(strategy_class, Choreography):
        raise ValueError(f"strategy.name: {strategy_class.__name__} is no subclass of Choreography")
    aggregator_class = find_class(strategy.aggregator.name, AGGREGATORS, key="strategy.aggregator.name", folder=folder)
    aggregator = build_plugin(aggregator_class, strategy.aggregator.options, key="strategy.aggregator.options")
    if not callable(getattr(aggregator, "aggregate", None)):
        raise ValueError(f"strategy.aggregator.name: {aggregator_class.__name__} has no method aggregate")
    if strategy.secure_sum:
        if strategy_class is not DistillationStrategy:
            raise ValueError(f"strategy.secure_sum: {strategy.name} is a choreography of its own; it cannot be masked")
        strategy_class = SecureSumStrategy
    tells = issubclass(strategy_class, DistillationStrategy) and strategy_class.kind in RELATES
    if strategy.relations is not None and not tells:
        raise ValueError(f"strategy.relations: {strategy.name} tells no relations of public samples; leave it out")
    check_options(strategy_class, strategy.options, key="strategy.options", base=Choreography)
    try:
        strategy_class.check_options(**strategy.options)
    except ValueError as error:
        raise ValueError(f"strategy.options.{error}") from None
    except TypeError as error:
        raise ValueError(f"strategy.options: {error}") from None
    hostility = placement.experiment.hostility
    if hostility is not None and hostility.attack not in ATTACKS:
        raise ValueError(f"hostility.attack: unknown attack {hostility.attack!r}; known are {', '.join(ATTACKS)}")
    task = placement.experiment.task
    for key, codec in (("codec", strategy.codec), ("downlink_codec", strategy.codec_down)):
        try:
            Encoding(codec, task.num_horizons, task.num_beams)
        except ValueError as error:
            raise ValueError(f"strategy.{key}: {error}") from None
    return strategy_class, aggregator
