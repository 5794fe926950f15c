"""Benchmarks of learning, distillation and generation: laws on tiny sizes, and sheets that outlive a stop."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table
from typer.testing import CliRunner

from clients.data.recording import open_recording
from configs.schema import Experiment, Task
from sim.bench import learnability
from sim.bench.distillation_gain import DistillationJob, distil_job
from sim.bench.experiments import CONDITIONS, bench_experiment, scenario_data, street_data, under, world_name
from sim.bench.generation_cost import generation_cost
from sim.bench.learnability import LearningJob, aligned_starts, learn_job
from sim.bench.tables import conditions_table, distillation_table, generation_table, learning_table, tops
from sim.bench.world_statistics import preset_world
from sim.cli.main import cli
from sim.data.federation import ensure_federation
from sim.worksheet import fill_sheet, read_sheet, row_key

PASSES = {"server": 3, "public": 2, "test": 1, "client": 2, "validation_share": 0.3}
TINY = [f"teacher.{name}=4" for name in ("width", "features", "hidden")]


def tiny(*overrides: str, seed: int = 0, **passes: float) -> Experiment:
    data = street_data("street", {**PASSES, **passes})
    return bench_experiment(data, seed=seed, steps=10, overrides=[*TINY, *overrides])


def shown(table: Table | None) -> str:
    assert table is not None
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table)
    console.file.close()
    return console.export_text()


def learned(row: dict[str, Any]) -> dict[str, Any]:
    """A row without its seconds."""
    return {name: value for name, value in row.items() if name != "cpu_seconds"}


# Windows


def test_windows_of_one_frame_and_of_eight_ask_for_the_same_slots() -> None:
    recording = open_recording(ensure_federation(tiny())[0] / "server")
    longest = Task(num_frames=8)
    starts = aligned_starts(recording, longest, longest=longest, split="train")
    np.testing.assert_array_equal(starts, recording.window_starts(8, 3, "train"))
    expected = recording.powers(starts, 8, 3)
    assert len(expected) > 20
    for length in (1, 3):
        shorter = aligned_starts(recording, Task(num_frames=length), longest=longest, split="train")
        np.testing.assert_array_equal(recording.powers(shorter, length, 3), expected)


# Learning


def test_the_same_job_gives_the_same_row_and_another_seed_or_length_another() -> None:
    job = LearningJob(tiny(), "gps", 8)
    row = learned(learn_job(job))
    assert row == learned(learn_job(job))
    for other in (LearningJob(tiny(seed=1), "gps", 8), LearningJob(tiny(), "gps", 1)):
        assert learned(learn_job(other))["metrics"] != row["metrics"]
        assert other.key != job.key


def test_a_row_says_what_was_trained_and_how_good_it_is_at_every_slot() -> None:
    row = learn_job(LearningJob(tiny(), "all", 3, ("night",)))
    assert json.loads(json.dumps(row)) == row
    assert {name: row[name] for name in ("world", "seed", "inputs", "num_frames", "num_steps")} == {
        "world": "street",
        "seed": 0,
        "inputs": "all",
        "num_frames": 3,
        "num_steps": 10,
    }
    assert set(row["metrics"]) == {"test", "night"}
    for metrics in row["metrics"].values():
        assert len(metrics["top5"]) == 4
        assert all(0 <= one <= five <= 1 for one, five in zip(metrics["top1"], metrics["top5"], strict=True))


def test_what_is_kept_does_not_depend_on_the_test_passes() -> None:
    one, other = (learn_job(LearningJob(tiny(test=number), "gps", 8)) for number in (1, 2))
    assert one["metrics"] != other["metrics"]
    for name in ("validation", "best_check", "num_windows"):
        assert one[name] == other[name]


def test_an_input_that_the_street_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="--inputs: 'sonar' is unknown; use camera, radar, lidar, gps, all"):
        learn_job(LearningJob(tiny(), "sonar", 8))


# Experiments


def test_a_condition_holds_throughout_and_no_other_does() -> None:
    mixed = tiny("data.world.rain_probability=0.5")
    world = under(mixed, "night").data.world  # type: ignore[union-attr]
    assert (world.night_probability, world.rain_probability, world.rush_probability) == (1.0, 0.0, 0.0)
    assert under(mixed, "night").data.passes.test == mixed.data.passes.test
    assert tuple(CONDITIONS) == ("day", "night", "rain", "rush")
    with pytest.raises(ValueError, match="--conditions: 'fog' is unknown; use day, night, rain, rush"):
        under(mixed, "fog")


def test_a_measured_scenario_keeps_its_weather_and_its_number_of_passes(tmp_path: Path) -> None:
    data = scenario_data(
        tmp_path / "scenario9", {**PASSES, "server": 95, "test": 41, "public": 1, "client": 1}, ["gps"]
    )
    experiment = bench_experiment(data, seed=0, steps=1)
    passes = experiment.data.passes
    assert passes.server + passes.public + passes.client + passes.test == 136
    assert world_name(experiment) == "scenario9"
    with pytest.raises(ValueError, match="scenario9 was measured"):
        under(experiment, "night")


# Distillation


def test_with_no_step_on_targets_both_arms_are_one() -> None:
    row = distil_job(DistillationJob(tiny("training.digest_share=0.0")))
    assert list(row["students"]) == ["camera", "radar", "lidar", "gps"]
    for arms in row["students"].values():
        assert arms["local"] == arms["distilled"]


def test_a_teacher_changes_what_a_node_learns_and_the_same_seed_gives_the_same_row() -> None:
    one, other = (distil_job(DistillationJob(tiny("training.first_round_steps=40"))) for _ in range(2))
    assert one == other
    assert any(arms["local"] != arms["distilled"] for arms in one["students"].values())
    assert len(one["teacher"]["top1"]) == 4


# Sheets


def test_a_sheet_computes_only_what_it_lacks(tmp_path: Path) -> None:
    sheet, done = tmp_path / "new" / "sheet.json", []

    def work(job: str) -> dict[str, Any]:
        done.append(job)
        return {"length": len(job)}

    jobs = {"one": "a", "two": "bb"}
    assert dict(fill_sheet(jobs, work, sheet=sheet, workers=1)) == {"one": {"length": 1}, "two": {"length": 2}}
    more = dict(fill_sheet({**jobs, "three": "ccc"}, work, sheet=sheet, workers=1))
    assert more == {"one": {"length": 1}, "two": {"length": 2}, "three": {"length": 3}}
    assert done == ["a", "bb", "ccc"]
    assert read_sheet(sheet) == more


def test_a_sheet_keeps_what_was_done_before_a_failure(tmp_path: Path) -> None:
    def work(job: str) -> dict[str, Any]:
        if job == "bad":
            raise ValueError("no data")
        return {"job": job}

    sheet = tmp_path / "sheet.json"
    with pytest.raises(ValueError, match="no data"):
        list(fill_sheet({"one": "good", "two": "bad"}, work, sheet=sheet, workers=1))
    assert read_sheet(sheet) == {"one": {"job": "good"}}


def test_several_workers_write_the_same_rows(tmp_path: Path) -> None:
    jobs, sheet = {"one": "aab", "two": "abc", "three": ""}, tmp_path / "sheet.json"
    assert dict(fill_sheet(jobs, Counter, sheet=sheet, workers=2)) == {
        "one": {"a": 2, "b": 1},
        "two": {"a": 1, "b": 1, "c": 1},
        "three": {},
    }
    assert read_sheet(sheet).keys() == jobs.keys()


@pytest.mark.parametrize("text", ["{", "[]", '{"runs": 1}', '{"rows": []}'])
def test_a_file_that_is_no_sheet_is_left_alone(tmp_path: Path, text: str) -> None:
    sheet = tmp_path / "notes.json"
    sheet.write_text(text)
    with pytest.raises(ValueError, match=r"notes\.json: not a sheet of results"):
        list(fill_sheet({"one": "a"}, Counter, sheet=sheet, workers=1))
    assert sheet.read_text() == text


def test_a_key_names_its_job_and_changes_with_every_fact() -> None:
    assert row_key("gps", 1, {"a": 2}).startswith("gps ")
    assert row_key("gps", 1, {"a": 2, "b": 3}) == row_key("gps", 1, {"b": 3, "a": 2})
    assert len({row_key("gps", 1), row_key("gps", 2), row_key("gps", 1, None)}) == 3


# Generation


def test_the_cost_of_a_frame_has_every_part_and_all_is_no_less_than_any() -> None:
    cost = generation_cost(preset_world("s9"), seed=0, num_passes=2, sensors=("gps", "lidar"))
    assert list(cost) == ["scene", "power", "gps", "lidar", "all"]
    assert cost["all"] >= max(cost.values()) > 0


def test_an_unknown_sensor_or_no_pass_has_no_cost() -> None:
    with pytest.raises(ValueError, match="no sensor 'sonar'"):
        generation_cost(preset_world("s9"), seed=0, num_passes=1, sensors=("sonar",))
    with pytest.raises(ValueError, match="--passes 0"):
        generation_cost(preset_world("s9"), seed=0, num_passes=0, sensors=("gps",))


# Tables


def row(world: str, seed: int, top1: float, **more: Any) -> dict[str, Any]:
    metrics = {"top1": [top1, top1 - 0.2], "top3": [0.8, 0.7], "top5": [0.9, 0.9]}
    return {
        "world": world,
        "seed": seed,
        "inputs": "radar",
        "num_frames": 8,
        "cpu_seconds": 3.0,
        "metrics": {"test": metrics},
        **more,
    }


def test_two_seeds_give_mean_and_standard_deviation_in_percent() -> None:
    # 40 and 60: mean 50, s.d. sqrt(2 * 10^2 / 1) = 14.1.
    found = tops([row("s9", 0, 0.4)["metrics"]["test"], row("s9", 1, 0.6)["metrics"]["test"]], lambda slots: slots[0])
    assert found == "50.0/80.0/90.0 ±14.1/0.0/0.0"
    assert tops([row("s9", 0, 0.4)["metrics"]["test"]], lambda slots: slots[-1]) == "20.0/70.0/90.0"
    assert tops([], lambda slots: slots[0]) == "-"


def test_what_was_published_stands_beside_the_preset_that_is_like_it_only() -> None:
    text = shown(learning_table([row("s9", 0, 0.4), row("street", 0, 0.3)]))
    assert text.count("45.4/80.6/92.7") == 1
    assert "40.0/80.0/90.0" in text and "30.0/75.0/90.0" in text and "10.0/70.0/90.0" in text


def test_conditions_have_a_table_if_there_are_any() -> None:
    assert conditions_table([row("s9", 0, 0.4)]) is None
    metrics = row("s9", 0, 0.4)["metrics"]["test"]
    assert "30.0/75.0/90.0" in shown(conditions_table([row("s9", 0, 0.4, metrics={"test": metrics, "night": metrics})]))


def test_a_gain_is_the_difference_of_the_arms_seed_by_seed() -> None:
    def arm(top1: float) -> dict[str, list[float]]:
        return {"top1": [top1], "top3": [0.5], "top5": [0.5]}

    # Gains of 10 and 30 points: 20 on average with an s.d. of 14.1, though both arms vary by more.
    rows = [
        {
            "world": "street",
            "seed": seed,
            "teacher": arm(0.9),
            "students": {"gps": {"local": arm(a), "distilled": arm(b)}},
        }
        for seed, a, b in ((0, 0.1, 0.2), (1, 0.5, 0.8))
    ]
    assert "20.0/0.0/0.0 ±14.1/0.0/0.0" in shown(distillation_table(rows))


def test_costs_are_shown_by_preset_and_part() -> None:
    text = shown(generation_table({"s9": {"scene": 0.25, "all": 4.0}}))
    assert "scene" in text and "0.25" in text and "4.00" in text


# Commands


def test_a_second_call_with_the_same_sheet_trains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sheet = tmp_path / "learning.json"
    arguments = ["bench", "learning", "--preset", "street", "--seeds", "0", "--inputs", "gps", "--frames", "2,1"]
    arguments += ["--passes", "3", "--test-passes", "1", "--steps", "10", "--workers", "1", "--json", str(sheet)]
    first = CliRunner().invoke(cli, arguments)
    assert first.exit_code == 0, first.output
    assert len(read_sheet(sheet)) == 2

    def refuse(job: LearningJob) -> dict[str, Any]:
        raise AssertionError(job.key)

    monkeypatch.setattr(learnability, "learn_job", refuse)
    second = CliRunner().invoke(cli, arguments)
    assert second.exit_code == 0, second.output
    assert second.stdout == first.stdout
    assert CliRunner().invoke(cli, [*arguments, "--seeds", "1"]).exit_code != 0


def test_numbers_that_are_none_are_refused_by_the_name_of_their_option() -> None:
    result = CliRunner().invoke(cli, ["bench", "learning", "--frames", "8;1"])
    assert str(result.exception) == "--frames 8;1: expected numbers with commas between them, such as 0,1,2"


def test_the_cost_of_generation_is_printed_as_json() -> None:
    result = CliRunner().invoke(cli, ["bench", "generation", "--preset", "s9", "--passes", "1", "--json"])
    assert set(json.loads(result.stdout)["s9"]) == {"scene", "power", "camera", "radar", "lidar", "gps", "all"}
