"""Choosing among runs by validation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.loading import to_values
from server.recorder import VALIDATION_FILE
from sim.report.selection import select_by_validation
from sim.report.tables import compare
from tests.conftest import tiny_experiment

METRICS = ("top1", "top3", "top5", "dba", "dba_k3", "power_loss_db")


def make_run(folder: Path, *, schedule: str, test: float, validation: dict[str, Any], seed: int = 0) -> Path:
    """A finished run of one client whose every metric is ``test``."""
    folder.mkdir()
    values = {name: [test, test] for name in METRICS}
    client = {
        "id": "000-gps", "modality": "gps", "parameters": 10, "passes": 2, "local": values, "offline_kd": values,
        "federated": values, "uplink_bytes": 1, "downlink_bytes": 1, "refused": 0,
    }  # fmt: skip
    summary: dict[str, Any] = {
        "experiment": "tiny", "seed": seed, "engine": "inline",
        "seconds": {"data": 0, "start": 0, "rounds": 0, "total": 0},
        "clients": [client], "teacher": {"parameters": 20, "before": values, "after": values},
        "break_even_samples": 1, "rounds": 1,
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary))
    arms = {arm: validation[arm] for arm in ("local", "offline_kd", "federated")}
    teacher = {when: validation[when] for when in ("before", "after")}
    (folder / VALIDATION_FILE).write_text(json.dumps({"clients": {"000-gps": arms}, "teacher": teacher}))
    settings = to_values(tiny_experiment())
    settings["training"]["schedule"] = schedule
    (folder / "experiment.yaml").write_text(yaml.safe_dump(settings))
    return folder


def test_each_arm_and_the_teacher_come_from_the_run_that_validated_best(tmp_path: Path) -> None:
    cosine = {"local": 0.5, "offline_kd": 0.2, "federated": 0.3, "before": 0.5, "after": 0.1}
    plateau = {"local": 0.4, "offline_kd": 0.6, "federated": 0.3, "before": 0.5, "after": 0.2}
    runs = [
        make_run(tmp_path / "a", schedule="cosine", test=0.25, validation=cosine),
        make_run(tmp_path / "b", schedule="plateau", test=0.75, validation=plateau),
    ]
    (chosen,) = select_by_validation(runs)
    # A tie goes to the earlier run; a better test score decides nothing.
    arms = {arm: chosen["clients"][0][arm]["top5"][0] for arm in ("local", "offline_kd", "federated")}
    assert arms == {"local": 0.25, "offline_kd": 0.75, "federated": 0.25}
    assert (chosen["teacher"]["before"]["top5"][0], chosen["teacher"]["after"]["top5"][0]) == (0.25, 0.75)


@pytest.mark.parametrize("nothing", [None, -1.0])
def test_who_was_never_validated_is_not_chosen_where_another_was_and_is_named_where_none_was(
    tmp_path: Path, nothing: float | None
) -> None:
    without: dict[str, Any] = dict.fromkeys(("local", "offline_kd", "federated", "before", "after"), nothing)
    runs = [
        make_run(tmp_path / "a", schedule="cosine", test=0.25, validation=without),
        make_run(tmp_path / "b", schedule="plateau", test=0.75, validation={**without, "local": 0.01, "after": 0.01}),
    ]
    (chosen,) = select_by_validation(runs)
    arms = {arm: chosen["clients"][0][arm]["top5"][0] for arm in ("local", "offline_kd", "federated")}
    assert arms == {"local": 0.75, "offline_kd": 0.25, "federated": 0.25}
    assert chosen["teacher"]["after"]["top5"][0] == 0.75
    assert chosen["unselected"] == ["000-gps: offline_kd", "000-gps: federated", "teacher: before"]


def test_seeds_are_kept_apart_and_averaged_afterwards(tmp_path: Path) -> None:
    same = dict.fromkeys(("local", "offline_kd", "federated", "before", "after"), 0.5)
    runs = [
        make_run(tmp_path / f"{seed}{schedule}", schedule=schedule, test=0.5 * seed, validation=same, seed=seed)
        for seed in (0, 1)
        for schedule in ("cosine", "constant")
    ]
    chosen = select_by_validation(runs)
    assert [summary["seed"] for summary in chosen] == [0, 1]
    assert len(compare(chosen)) == 1 or "runs" in json.dumps(compare(chosen))


def test_a_run_without_validation_scores_is_one_clear_error(tmp_path: Path) -> None:
    same = dict.fromkeys(("local", "offline_kd", "federated", "before", "after"), 0.5)
    run = make_run(tmp_path / "a", schedule="cosine", test=0.5, validation=same)
    (run / VALIDATION_FILE).unlink()
    with pytest.raises(ValueError, match=r"validation\.json: not readable"):
        select_by_validation([run])
