"""Compares the streets of the presets with the measured scenario, figure by figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from configs.presets import PRESETS
from configs.schema import World
from configs.seeding import rng_for
from configs.spelling import did_you_mean
from sim.data.generate import simulate_pass
from sim.data.statistics import SCENARIO_9, STATISTICS, beam_statistics, mask_density
from sim.world.camera import camera
from sim.world.scene import draw_scene
from sim.world.site import make_site

Columns = Mapping[str, Mapping[str, float | None]]

STREAM = "statistics"
MASK_PIXELS = (224, 224)


def preset_world(name: str) -> World:
    """The world of a preset.

    Raises:
        ValueError: there is no such preset.
    """
    if name not in PRESETS:
        raise ValueError(f"preset {name!r}: unknown; use {', '.join(PRESETS)}{did_you_mean(name, PRESETS)}")
    return World.model_validate({"preset": name})


def world_statistics(world: World, *, num_passes: int, num_camera_passes: int, seed: int) -> dict[str, float]:
    """The figures of passes that are drawn from a world, at each of its masts in turn.

    Args:
        world: the settings of the street.
        num_passes: the number of passes that give the beam statistics, >= 1.
        num_camera_passes: the number of passes filmed at 224x224 for the mask density; 0 leaves it out.
        seed: the seed that draws everything.
    """
    made = [
        simulate_pass(world, seed=seed, stream=STREAM, index=index, modalities=(), site=index % world.sites)["power"]
        for index in range(num_passes)
    ]
    pass_ids = np.repeat(np.arange(num_passes), [len(power) for power in made])
    found = beam_statistics(np.concatenate(made).astype(np.float64), pass_ids)
    if num_camera_passes:
        filmed = (_filmed_density(world, seed=seed, index=index) for index in range(num_camera_passes))
        found["mask_density"] = float(np.mean(list(filmed)))
    return found


def measured_statistics(folder: Path | None) -> Mapping[str, float]:
    """The figures of a DeepSense 6G scenario, or the stored ones of scenario 9 if ``folder`` is None.

    Raises:
        ValueError: the scenario cannot be read or has no power.
    """
    if folder is None:
        return SCENARIO_9
    from clients.data.deepsense import read_scenario

    scenario = read_scenario(folder)
    if scenario.power is None:
        raise ValueError(f"{folder}: the scenario has no power, so there are no beams to count; name another")
    return beam_statistics(scenario.power, scenario.pass_ids)


def statistics_rows(columns: Columns) -> list[list[str]]:
    """A line per statistic that any column has: its name, then a value with three digits per column."""
    known = [name for name in STATISTICS if any(column.get(name) is not None for column in columns.values())]
    return [[name, *(_shown(column.get(name)) for column in columns.values())] for name in known]


def markdown_table(columns: Columns) -> str:
    """The same table in Markdown for the documentation, with the meaning of each name."""
    header: Sequence[str] = ["statistic", *columns, "meaning"]
    lines = [[f"`{name}`", *values, STATISTICS[name]] for name, *values in statistics_rows(columns)]
    rule = ["---", *("---:" for _ in columns), "---"]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *lines))


def _filmed_density(world: World, *, seed: int, index: int) -> float:
    """The mask density of the same pass that `simulate_pass` makes under that number."""
    scene = draw_scene(world, rng_for(seed, STREAM, index, "scene"), site=make_site(world, index % world.sites))
    return mask_density(camera(world, scene, rng_for(seed, STREAM, index, "camera"), pixels=MASK_PIXELS))


def _shown(value: float | None) -> str:
    return "" if value is None or np.isnan(value) else f"{value:#.3g}".rstrip(".")
