"""What is in a folder of data, and whether a scenario is what it seems."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.sensing.recording import Recording, open_recording
from configs.schema import Task


def inspect_folder(folder: Path) -> list[dict[str, Any]]:
    """One row per recording of a federation, or one for a recording or a DeepSense 6G scenario.

    Args:
        folder: of any of the three.

    Returns:
        Rows with ``part``, ``modalities``, ``passes``, ``frames``, ``windows``, ``labelled``,
        ``best_to_second_db`` (median gap of the two strongest beams; None without labels) and ``problems``.

    Raises:
        ValueError: it is none of the three, or broken.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    recordings = [path.parent for path in sorted(folder.glob("**/recording.json"))]
    if recordings:
        return [_row(str(path.relative_to(folder)), open_recording(path), ()) for path in recordings]
    from clients.sensing.deepsense import read_scenario

    scenario = read_scenario(folder)
    recording = Recording(folder, scenario.pass_ids, scenario.sensors, scenario.power, {})
    return [_row(scenario.name, recording, scenario.problems)]


def check_scenario(folder: Path, *, split: str, num_seeds: int) -> dict[str, Any]:
    """Run the position baseline over some seeds.

    Args:
        folder: of a DeepSense 6G scenario.
        split: ``random`` or ``pass``.
        num_seeds: seeds 0 to ``num_seeds`` - 1.

    Returns:
        ``scenario``, ``split``, ``seeds`` and ``metrics``: name -> ``mean`` and ``sd`` over the seeds.

    Raises:
        ValueError: the scenario cannot be read or the split is unknown.
    """
    from clients.sensing.deepsense import read_scenario
    from sim.position_baseline import position_baseline

    if split not in ("random", "pass"):
        raise ValueError(f"--split {split}: expected random or pass")
    scenario = read_scenario(folder)
    seeds = range(num_seeds)
    # By pass there is less to learn from its neighbours, and the networks overfit sooner.
    if split == "random":
        scores = position_baseline(scenario, split="random", seeds=seeds, epochs=60)
    else:
        scores = position_baseline(scenario, split="pass", seeds=seeds, epochs=40)
    names = ("top1", "top2", "top3", "dba", "power_loss_db")
    metrics = {name: _spread(np.array([getattr(score, name) for score in scores])) for name in names}
    return {"scenario": scenario.name, "split": split, "seeds": list(seeds), "metrics": metrics}


def _spread(values: NDArray[np.float64]) -> dict[str, float]:
    return {"mean": float(values.mean()), "sd": float(values.std(ddof=1)) if len(values) > 1 else 0.0}


def _row(part: str, recording: Recording, problems: Sequence[str]) -> dict[str, Any]:
    task = Task()
    gap = None
    if recording.power is not None and len(recording.power):
        strongest = np.sort(np.asarray(recording.power, np.float64), axis=1)[:, -2:]
        gap = float(np.median(10.0 * np.log10(strongest[:, 1] / np.maximum(strongest[:, 0], 1e-12))))
    return {
        "part": part,
        "modalities": sorted(recording.sensors),
        "passes": len(np.unique(recording.pass_ids)),
        "frames": len(recording.pass_ids),
        "windows": len(recording.window_starts(task.num_frames, task.num_future)),
        "labelled": recording.power is not None,
        "best_to_second_db": gap,
        "problems": list(problems),
    }
