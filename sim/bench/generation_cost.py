"""Measures the cost of a frame of the street: the CPU time of the scene, the power and each sensor, on one thread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from configs.schema import World
from configs.seeding import rng_for
from sim.world.channel import beam_power
from sim.world.scene import draw_scene
from sim.world.sensors import SENSORS
from sim.world.site import make_site

Made = TypeVar("Made")


def generation_cost(world: World, *, seed: int, num_passes: int, sensors: Sequence[str]) -> dict[str, float]:
    """CPU milliseconds per frame, median over passes: ``scene``, ``power``, each sensor, and ``all`` together.

    A first pass, which also fills caches, is not counted. Torch runs on one thread after this call.

    Args:
        world: the street.
        seed: the seed that draws the passes.
        num_passes: the number of passes to time, >= 1.
        sensors: the sensors to time.

    Raises:
        ValueError: the street has no such sensor, or there is no pass to time.
    """
    if num_passes < 1:
        raise ValueError(f"--passes {num_passes}: at least one pass is needed")
    if unknown := [name for name in sensors if name not in SENSORS]:
        raise ValueError(f"sensors: the street has no sensor {unknown[0]!r}; use {', '.join(SENSORS)}")
    torch.set_num_threads(1)
    costs = [_cost_of_pass(world, seed, index, sensors) for index in range(num_passes + 1)][1:]
    return {part: statistics.median(cost[part] for cost in costs) for part in costs[0]}


def _cost_of_pass(world: World, seed: int, index: int, sensors: Sequence[str]) -> dict[str, float]:
    site = make_site(world, 0)
    scene, seconds = _timed(lambda: draw_scene(world, rng_for(seed, "cost", index, "scene"), site=site))
    spent = {"scene": seconds}
    _, spent["power"] = _timed(lambda: beam_power(world, scene, rng_for(seed, "cost", index, "power")))
    for name in sensors:
        sense, rng = SENSORS[name], rng_for(seed, "cost", index, name)
        _, spent[name] = _timed(lambda sense=sense, rng=rng: sense(world, scene, rng))  # type: ignore[misc]
    spent["all"] = sum(spent.values())
    return {part: 1e3 * seconds / len(scene.antenna) for part, seconds in spent.items()}


def _timed(make: Callable[[], Made]) -> tuple[Made, float]:
    begin = time.process_time()
    made = make()
    return made, time.process_time() - begin
