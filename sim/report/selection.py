"""Model selection over runs of one seed, by validation passes, for each learner and arm separately.

Runs that differ only in ``training`` or ``teaching``, such as in the learning-rate schedule, are candidates.
The *local only*, *offline KD* and federated student of each client, and the teacher, come from the
candidate in which they scored best on the validation passes; the test set decides nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from server.recorder import ARMS, VALIDATION_FILE
from sim.report.summaries import load_summary

_CANDIDATE_SECTIONS = ("training.", "teaching.")


def select_by_validation(runs: Sequence[Path]) -> list[dict[str, Any]]:
    """Make one summary per experiment and seed from the candidates that validated best.

    Bytes, seconds and refusals are those of the first candidate; among equal candidates the earlier run is taken. A
    candidate without a validation score is taken only where no candidate has one; then ``unselected`` of the summary
    names learner and arm.

    Args:
        runs: the folders of finished runs.

    Raises:
        ValueError: a run is not finished or its validation scores are missing.
    """
    candidates: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {}
    for run in runs:
        summary = load_summary(run)
        summary["settings"] = {
            key: value
            for key, value in summary["settings"].items()
            if not key.startswith(_CANDIDATE_SECTIONS) and not key.endswith(".schedule")
        }
        key = json.dumps([summary["experiment"], summary["seed"], summary["settings"]], sort_keys=True)
        candidates.setdefault(key, []).append((summary, _read_validation(run)))
    return [_merge(group) for group in candidates.values()]


def _merge(candidates: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    first = candidates[0][0]
    clients = []
    for client in first["clients"]:
        scored = [
            (validation["clients"].get(client["id"], {}), other)
            for summary, validation in candidates
            for other in summary["clients"]
            if other["id"] == client["id"]
        ]
        best = {arm: max(scored, key=lambda one, arm=arm: _score(one[0].get(arm)))[1][arm] for arm in ARMS}  # type: ignore[misc]
        clients.append({**client, **best})
    teachers = [(validation["teacher"], summary["teacher"]) for summary, validation in candidates]
    best_teacher = {
        when: max(teachers, key=lambda one, when=when: _score(one[0].get(when)))[1][when]  # type: ignore[misc]
        for when in ("before", "after")
    }
    # What is chosen from several runs is that of none of their folders.
    merged = {key: value for key, value in first.items() if len(candidates) == 1 or key != "folder"}
    unselected = _unselected(first, [validation for _, validation in candidates])
    return {**merged, "clients": clients, "teacher": {**first["teacher"], **best_teacher}, "unselected": unselected}


def _score(value: float | None) -> float:
    # Runs of older versions say -1 where there is no score.
    return -1.0 if value is None or value < 0 else value


def _unselected(first: dict[str, Any], validations: Sequence[dict[str, Any]]) -> list[str]:
    """Every learner and arm that no candidate validated, such as ``000-gps: local``."""
    scores = {
        f"{client['id']}: {arm}": [one["clients"].get(client["id"], {}).get(arm) for one in validations]
        for client in first["clients"]
        for arm in ARMS
    }
    scores |= {f"teacher: {when}": [one["teacher"].get(when) for one in validations] for when in ("before", "after")}
    return [name for name, found in scores.items() if max(_score(value) for value in found) < 0]


def _read_validation(run: Path) -> dict[str, Any]:
    path = run / VALIDATION_FILE
    try:
        validation: dict[str, Any] = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not readable ({error}); run the experiment again") from None
    return validation
