"""Rows of a study by hand: what a tracker scores is given for each test pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clients.models.registry import MODELS
from sim.study.scores import METRICS

MODALITIES = {"image": "image", "fusion": "image+radar", "long": "image"}
WINDOWS = (10, 30)


def row(
    model: str = "image-student",
    kd: str = "none",
    *,
    seed: int = 0,
    future: int = 3,
    top5: Sequence[float] = (0.9, 0.9),
    windows: Sequence[int] = WINDOWS,
    teacher: str | None = None,
    **others: Any,
) -> dict[str, Any]:
    """A trained tracker.

    Args:
        model: as in the registry.
        kd: kind of knowledge.
        seed: of the training.
        future: J.
        top5: in each test pass, the same at each horizon; every other metric is below it by 0.01 for each place that it
            stands before or after Top-5 in `METRICS`.
        windows: of each test pass.
        teacher: model and kind of knowledge.
        others: keys to replace.
    """
    levels = {
        name: [level - 0.01 * abs(METRICS.index(name) - METRICS.index("top5")) for level in top5] for name in METRICS
    }
    sums = {name: [n * x for n, x in zip(windows, found, strict=True)] for name, found in levels.items()}
    average = {name: sum(found) / sum(windows) for name, found in sums.items()}
    values = {
        "key": f"{model} {kd} J={future} seed {seed}",
        "model": model,
        "modality": MODALITIES[model.partition("-")[0]],
        "role": MODELS[model].role,
        "input_length": 8,
        "future": future,
        "kd": kd,
        "teacher": teacher,
        "alignment": MODELS[model].alignment,
        "pixels": 224,
        "seed": seed,
        "train_share": 0.7,
        "metrics": {name: [average[name]] * (future + 1) for name in METRICS},
        "average": average,
        "by_pass": {"windows": list(windows), **sums},
        "parameters": 94_778,
        "macs": 94_300_000,
        "window_macs": 80_000_000,
        "bytes": 379_112,
        "latency_ms": 20.0,
        "int8_bytes": 99_000,
        "int8_top5": 0.5,
        "num_windows": {"train": 100, "validation": 20, "test": sum(windows)},
        "epochs": 9,
        "best_epoch": 7,
        "validation": 0.5,
        "seconds": 1.5,
        "device": "cpu",
    }
    return values | others
