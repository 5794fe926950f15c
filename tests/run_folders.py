"""Folders of runs as a server writes them while it works, for tests of what reads them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml


def write_run(
    folder: Path,
    *,
    scores: Sequence[Sequence[float | None]] = (),
    problems: Sequence[str] = (),
    seconds: float = 2.0,
    task: str = "beams",
    metric: str = "top5",
    **status: Any,
) -> Path:
    """A run that a server of this process works on, unless ``status`` says otherwise.

    Args:
        folder: the folder to write.
        scores: for each round the Top-5 of each client, in [0, 1], the same for both horizons; None for no test set.
        problems: for each client why its last answer did not count.
        seconds: how long a round took.
        task: the name of the task.
        metric: the metric of the scores.
        status: what differs in ``status.json``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "experiment.yaml").write_text(yaml.safe_dump({"name": "street", "seed": 4, "task": {"name": task}}))
    values = {"state": "running", "phase": "federation", "done": 0, "total": 8, "round": len(scores), "rounds": 4}
    (folder / "status.json").write_text(json.dumps({**values, "error": "", "pid": os.getpid(), **status}))
    lines = []
    for number, of_clients in enumerate(scores, start=1):
        is_last = number == len(scores)
        clients = {
            f"{index:03}-gps": {
                "common": None if score is None else {metric: [score, score]},
                "uplink_bytes": 100,
                "downlink_bytes": 1000,
                "problem": problems[index] if is_last and problems else "",
            }
            for index, score in enumerate(of_clients)
        }
        teacher = {"common": {metric: [0.8, 0.6]}}
        lines.append({"round": number, "seconds": {"clients": seconds}, "teacher": teacher, "clients": clients})
    (folder / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder
