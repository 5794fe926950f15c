"""What the exchange is worth: cases say what the server lacks, gains are paired, and a case runs a whole federation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sim.worth import (
    WorthCase,
    run_case,
    save_worth,
    scenario_cases,
    street_cases,
    worth_table,
    worths,
)

TINY = (
    "data.passes={public: 2, test: 2, client: 3, validation_share: 0.3}",
    "data.nodes=[{modality: lidar}, {modality: gps}]",
    *("teacher.width=4", "teacher.features=4", "teacher.hidden=4"),
    *("training.first_round_steps=2", "training.steps_per_round=2", "teaching.pretrain_steps=2"),
    *("teaching.first_round_steps=1", "teaching.steps_per_round=1", "strategy.rounds=2", "strategy.public_samples=10"),
)


def row(title: str, seed: int, **arms: list[float] | None) -> dict[str, Any]:
    return {
        "title": title,
        "seed": seed,
        "clients": {"000-gps": {"modality": "gps", **arms}},
        "teacher": {"before": 60.0, "after": 70.0},
    }


def cases(**changes: Any) -> list[WorthCase]:
    given: dict[str, Any] = {"labels": [4, 8], "lacking_at": 6, "lacks": ["night", "camera"], "seeds": [0, 1]}
    return street_cases(**{**given, **changes})


# Gains


def test_gains_are_paired_by_client_and_pass_over_the_seeds_of_a_title() -> None:
    rows = [
        row("a", 0, local=[10.0, 20.0], offline_kd=[12.0, 24.0], federated=[13.0, 23.0]),
        row("b", 0, local=[0.0], offline_kd=[0.0], federated=[1.0]),
        row("a", 1, local=[10.0, 20.0], offline_kd=[12.0, 20.0], federated=[14.0, 24.0]),
    ]
    first, second = worths(rows)
    assert (first.title, first.num_seeds, second.title, second.num_seeds) == ("a", 2, "b", 1)
    assert first.gains["offline_kd"].mean == pytest.approx(1.5)  # of 0 and 3
    assert first.gains["local"].mean == pytest.approx(3.5)  # of 3 and 4
    assert first.by_modality == {"gps": pytest.approx(1.5)}
    assert first.teacher == (60.0, 70.0)


def test_a_client_without_a_result_in_every_arm_is_left_out_and_a_title_without_any_is_refused() -> None:
    whole = row("a", 0, local=[1.0], offline_kd=[1.0], federated=[2.0])
    whole["clients"]["001-gps"] = {"modality": "gps", "local": [1.0], "offline_kd": None, "federated": [99.0]}
    assert worths([whole])[0].gains["local"].mean == 1.0
    with pytest.raises(ValueError, match="a: no client has a result in every arm"):
        worths([row("a", 0, local=None, offline_kd=[1.0], federated=[2.0])])


# Cases


def test_a_server_lacks_what_its_case_says_and_nothing_else() -> None:
    four, eight, night, camera = (case.experiment for case in cases(seeds=[0]))
    assert (four.data.passes.server, eight.data.passes.server) == (4, 8)
    assert night.data.passes.server == camera.data.passes.server == 6
    for one in (four, eight, camera):
        assert one.data.server_drive == "same" and one.data.world.night_probability == 0.0  # type: ignore[union-attr]
    assert night.data.server_drive == "day" and night.data.world.night_probability == 0.5  # type: ignore[union-attr]
    assert camera.data.server_modalities == ("radar", "lidar", "gps")
    assert four.data.server_modalities == ("camera", "radar", "lidar", "gps")
    assert len({case.key for case in cases()}) == 8


def test_a_server_that_lacks_a_site_has_labels_of_the_first_and_everything_else_is_from_both() -> None:
    (case,) = cases(labels=[], lacks=["site"], seeds=[0])
    data = case.experiment.data
    assert data.server_from == ("site-0",)
    assert data.public_from == data.test_from == ("site-0", "site-1")
    assert [nodes.count for nodes in data.nodes] == [2, 2, 2, 2]  # they are dealt to the sites in turn


def test_what_no_server_can_lack_is_refused() -> None:
    with pytest.raises(ValueError, match="--lacks: 'fog' is unknown; use night, rain, site, camera, radar, lidar, gps"):
        cases(lacks=["fog"])


def test_a_scenario_is_named_and_its_server_has_so_many_passes() -> None:
    (one, two) = scenario_cases(Path("scenario9"), labels=[2, 3], seeds=[5])
    assert one.title == "scenario9, 2 labelled passes"
    assert (two.experiment.data.passes.server, two.experiment.seed) == (3, 5)


# Runs


def test_a_case_runs_with_its_controls_on_every_pass_and_is_shown_and_drawn(tmp_path: Path) -> None:
    (case,) = street_cases(labels=[3], lacking_at=1, lacks=[], seeds=[0], overrides=(*TINY, "data.passes.server=3"))
    found = run_case(case)
    assert json.loads(json.dumps(found)) == found
    assert [one["modality"] for one in found["clients"].values()] == ["lidar", "gps"]
    for one in found["clients"].values():
        for arm in ("local", "offline_kd", "federated"):
            assert len(one[arm]) == 2 and all(0.0 <= share <= 100.0 for share in one[arm])
    assert worth_table(worths([found])).row_count == 1
    save_worth(worths([found]), tmp_path / "worth.svg")
    assert "minus offline KD" in (tmp_path / "worth.svg").read_text()
