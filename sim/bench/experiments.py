"""The experiments that benchmarks train on: a preset of the street, a measured scenario, a street in one condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.loading import build_experiment, set_value, to_values
from configs.schema import Experiment
from sim.data.plan import BLOCKS, CLEAR

SENSORS = ("camera", "radar", "lidar", "gps")
# The changes to the street on which a tracker is tested after it was trained on the unchanged street.
CONDITIONS: Mapping[str, Mapping[str, float]] = {name: {**CLEAR, **block} for name, block in BLOCKS.items()}

PassCounts = Mapping[str, int | float]


def street_data(preset: str, passes: PassCounts) -> dict[str, Any]:
    """The section ``data`` of a preset with one node per sensor; all have the same traffic and number of passes."""
    return {
        "source": "street",
        "world": {"preset": preset},
        "passes": dict(passes),
        "nodes": [{"modality": name} for name in SENSORS],
        "traffic_skew": 1e6,
        "amount_spread": 0.0,
    }


def scenario_data(folder: Path, passes: PassCounts, sensors: Sequence[str]) -> dict[str, Any]:
    """The section ``data`` of a measured scenario; the passes of public set and clients are taken from the server."""
    spare = int(passes["public"]) + int(passes["client"])
    return {
        "source": "deepsense",
        "folder": str(folder.resolve()),
        "passes": {**passes, "server": passes["server"] - spare},
        "nodes": [{"modality": name} for name in sensors],
    }


def bench_experiment(
    data: Mapping[str, Any], *, seed: int, steps: int, num_frames: int = 8, overrides: Sequence[str] = ()
) -> Experiment:
    """The experiment of a benchmark; students and teacher have the sizes of the quickstart.

    Args:
        data: the section ``data`` of the experiment.
        seed: the seed of data and networks.
        steps: the optimizer steps of every learner.
        num_frames: the number of frames of the longest window.
        overrides: entries ``dotted.path=value`` that override the settings above.

    Raises:
        ValueError: a preset or key is unknown, or a number is out of range.
    """
    values: dict[str, Any] = {
        "name": "bench",
        "seed": seed,
        "task": {"num_frames": num_frames},
        "data": data,
        "training": {"first_round_steps": steps, "learning_rate": 0.002},
        "teaching": {"first_round_steps": steps, "pretrain_steps": steps, "learning_rate": 0.002},
    }
    for override in overrides:
        set_value(values, override)
    return build_experiment(values, origin="benchmark")


def world_name(experiment: Experiment) -> str:
    """The name of the world of a benchmark: its preset, or the folder of a measured scenario."""
    data = experiment.data
    if data.source == "street":
        return data.world.preset
    sites = data.sites if data.source == "deepsense" else ()
    return "-".join(site.name for site in sites) or Path(data.folder).name


def under(experiment: Experiment, condition: str) -> Experiment:
    """The same experiment on a street that is always in one condition; it is for tests and has nothing to learn from.

    Raises:
        ValueError: there is no such condition, or the world was measured and cannot change.
    """
    if condition not in CONDITIONS:
        raise ValueError(f"--conditions: {condition!r} is unknown; use {', '.join(CONDITIONS)}")
    values = to_values(experiment)
    if experiment.data.source != "street":
        raise ValueError(f"--conditions: {world_name(experiment)} was measured; conditions need a street")
    values["data"]["world"] |= CONDITIONS[condition]
    values["data"]["passes"] |= {"server": 1, "client": 1, "public": 1}
    return build_experiment(values, origin=condition)
