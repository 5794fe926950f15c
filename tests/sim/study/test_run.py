"""The engine of a study: passes and their split, the grid, how trackers learn, and a whole study that goes on."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from clients.data.deepsense import read_scenario
from clients.data.recording import Recording
from configs.schema import World
from configs.study import Fitting, Study, StudyPart, TrainingRecipe
from configs.study_loading import load_study
from sim.bench.tracker_cost import tracker_costs
from sim.cli.main import cli
from sim.data.deepsense_writer import Export, write_release
from sim.study.fitting import Knowledge, Observation, fit, knowledge_of
from sim.study.grid import Job, check_models, origin_of, self_jobs, student_jobs, teacher_jobs
from sim.study.passes import SENSORS, open_passes, split_passes
from sim.study.run import run_study
from sim.study.work import fresh_tracker, load_tracker, tracker_path

TINY_WORLD = World(preset="s9", speed_mps=12.0)
TINY: dict[str, Any] = {
    "name": "tiny",
    "seeds": [0, 1],
    # Fast vehicles make short passes.
    "data": {"source": "street", "world": {"preset": "s9", "speed_mps": 12.0}, "passes": 8},
    "lengths": [4, 3],
    "kd": ["none", "response", "relational", "mixed"],
    "short_kd": ["none", "response"],
    "pixels": 56,
    "parts": [
        {"future": 1, "train_share": 0.7, "teachers": ["image-wide", "fusion-wide"], "students": ["image-light"]}
    ],
    "ablations": [
        {"models": ["fusion-light"], "kd": ["none", "feature", "power"], "alignment": "paper"},
        {"models": ["radar-light"], "kd": ["none", "cross-modal"]},
    ],
    "fitting": {"epochs": 2, "batch_size": 8},
}
ONE_SEED = ["seeds=[0]", "ablations=[]", "lengths=[4]", "kd=[none, response]"]


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Passes are made once for all tests here."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTBEAM_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "study-tiny.yaml"
    path.write_text(yaml.safe_dump({**TINY, "quick": {"seeds": [3], "fitting": {"epochs": 1}}}))
    return path


@pytest.fixture(scope="module")
def study(config: Path) -> Study:
    return load_study(config)


def silent(what: str, done: int, total: int) -> None:
    del what, done, total


def without_clock(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in ("seconds", "latency_ms")}


# Passes


@pytest.mark.parametrize(
    ("share", "future", "train", "test"), [(0.7, 3, 3201, 1267), (0.8, 6, 3286, 774), (0.8, 3, 3610, 858)]
)
def test_windows_of_scenario_9_are_those_published(share: float, future: int, train: int, test: int) -> None:
    checkout = Path(__file__).resolve().parents[3]
    root = Path(os.environ.get("SOFTBEAM_DEEPSENSE", checkout.parent / "shared" / "real-deepsense"))
    if not (root / "scenario9").is_dir():
        pytest.skip(f"DeepSense 6G scenario 9 is not in {root}; set SOFTBEAM_DEEPSENSE to the folder that holds it")
    scenario = read_scenario(root / "scenario9")
    recording = Recording(root, scenario.pass_ids, {}, scenario.labelled_power, {})
    part = StudyPart(future=future, train_share=share, teachers=("image-teacher",), students=())
    split = split_passes(recording, part, num_frames=8, validation_share=0.15, seed=0)
    assert len(split.train) + len(split.validation) == train
    assert len(split.test) == test
    last = recording.pass_ids[np.concatenate([split.train, split.validation])].max()
    assert last < split.test_passes.min(), "tested on a pass before the last that was trained on"


def test_no_pass_is_in_two_splits_and_the_test_passes_are_those_of_every_seed(study: Study) -> None:
    recording, (part,) = open_passes(study.data), study.parts
    found = [split_passes(recording, part, num_frames=4, validation_share=0.3, seed=seed) for seed in range(4)]
    for split in found:
        owners = [set(recording.pass_ids[starts].tolist()) for starts in (split.train, split.validation, split.test)]
        assert all(owners)
        assert sum(map(len, owners)) == len(set.union(*owners)) == 8
        np.testing.assert_array_equal(split.test, found[0].test)
        np.testing.assert_array_equal(split.test_passes, recording.pass_ids[split.test])
    assert any(not np.array_equal(split.validation, found[0].validation) for split in found)


def test_passes_do_not_depend_on_the_number_of_workers(study: Study, tmp_path: Path, monkeypatch: Any) -> None:
    alone = open_passes(study.data)
    monkeypatch.setenv("SOFTBEAM_HOME", str(tmp_path))
    together = open_passes(study.data, workers=2)
    assert together.folder != alone.folder
    for name in SENSORS:
        np.testing.assert_array_equal(together.sensors[name], alone.sensors[name])


def test_a_release_with_pictures_and_cubes_is_studied_in_its_own_order(tmp_path: Path, config: Path) -> None:
    export = Export(TINY_WORLD, 5, modalities=("camera", "radar", "gps"), image_size=(96, 54))
    write_release(export, tmp_path / "scenario")
    wanted = load_study(config, [f"data={{source: deepsense, folder: {tmp_path / 'scenario'}}}"])
    recording = open_passes(wanted.data)
    assert len(np.unique(recording.pass_ids)) == 5
    assert recording.power is not None
    split = split_passes(recording, wanted.parts[0], num_frames=4, validation_share=0.3, seed=0)
    assert sorted(set(split.test_passes.tolist())) == sorted(np.unique(recording.pass_ids).tolist())[3:]
    for name in SENSORS:
        assert np.asarray(recording.sensors[name][1:3]).any()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data={source: deepsense, folder: /nowhere}", "data.folder: there is no folder /nowhere"),
        ("parts.0.students=[image-tiny]", "parts.0.students: there is no model 'image-tiny'; use image-teacher"),
        ("parts.0.teachers=[image-light]", "parts.0.teachers: image-light is a student; name a teacher"),
        ("parts.0.teachers=[image-wide]", None),
        ("parts.0.born_again=[fusion-teacher]", "parts.0.born_again: fusion-teacher is not among the teachers"),
        ("parts.0.students=[radar-light]", "parts.0.students: radar-light has no teacher with its sensors"),
        ("ablations.0.models=[image-wide]", "ablations.0.models: image-wide is a teacher; name a student"),
        ("recipes={image-tiny: {}}", "recipes: there is no model 'image-tiny'"),
        ("pixels=100", "pixels: must be 224, 112 or 56"),
        ("lengths=[3, 8]", "lengths: the first must be the longest"),
        ("lengths=[1]", "all at least 2"),
        ("seeds=[0, 0]", "seeds: name each once"),
        ("kd=[self]", "kd: self is for teachers"),
        ("ablations.0.kd=[self]", "kd: self is for teachers"),
        ("ablations.0.futures=[9]", "ablations.0.futures: no part has 9 future slots"),
        ("parts.0.teachers=[]", "parts.0.teachers: "),
        ("parts.0.teachers=[image-wide, image-wide]", "parts.0.teachers: name each model once"),
        ("fitting.epoch=3", "fitting.epoch: unknown key"),
    ],
)
def test_a_study_that_cannot_be_done_is_one_clear_error(
    override: str, message: str | None, config: Path, tmp_path: Path
) -> None:
    if message is None:
        check_models(load_study(config, [override]))
        return
    with pytest.raises(ValueError, match=message):
        run_study(load_study(config, [override]), tmp_path / "out", workers=1, progress=silent)


def test_studies_and_experiments_are_told_apart(config: Path, tmp_path: Path) -> None:
    found = CliRunner().invoke(cli, ["run", str(config)])
    assert "is a study, not an experiment; use softbeam study" in str(found.exception)
    with pytest.raises(ValueError, match="so it is not a study"):
        load_study("quickstart")
    plain = tmp_path / "plain.yaml"
    plain.write_text(yaml.safe_dump(TINY))
    with pytest.raises(ValueError, match="has no section quick"):
        load_study(plain, quick=True)


# The grid


def test_students_learn_from_the_teacher_with_their_sensors_that_validated_best(study: Study) -> None:
    first = teacher_jobs(study, "origin")
    teachers = [*first, *self_jobs(first)]
    validation = {job.key: 0.1 + 0.1 * (job.kd == "self") * (job.seed == 1) for job in teachers}
    jobs = {(job.model, job.kd, job.length, job.seed): job for job in student_jobs(study, teachers, validation)}
    assert len(teachers) == 2 * 2 * 2
    assert len(jobs) == 2 * (4 + 2 + 3 + 2)
    for seed, kd in ((0, "none"), (1, "self")):
        teacher = jobs["image-light", "mixed", 4, seed].teacher
        assert teacher is not None
        assert (teacher.model, teacher.kd, teacher.seed) == ("image-wide", kd, seed)
        across = jobs["radar-light", "cross-modal", 4, seed].teacher
        assert across is not None
        assert across.model == "fusion-wide"
    assert jobs["fusion-light", "power", 4, 0].teacher is None
    assert jobs["fusion-light", "none", 4, 0].alignment == "paper"
    assert jobs["radar-light", "none", 4, 0].alignment == "newest"


def test_a_key_changes_with_all_that_a_result_depends_on(study: Study) -> None:
    job = teacher_jobs(study, "origin")[0]
    others = [
        study.model_copy(update={"pixels": 112}),
        study.model_copy(update={"fitting": Fitting(epochs=3)}),
        study.model_copy(update={"recipes": {job.model: {"any": TrainingRecipe(learning_rate=0.5)}}}),
    ]
    keys = [job.key, *(replace(job, study=other).key for other in others)]
    keys += [
        replace(job, **{name: value}).key for name, value in (("seed", 7), ("origin", "x"), ("alignment", "paper"))
    ]
    assert len(set(keys)) == len(keys)
    assert replace(job, study=study.model_copy(update={"seeds": (0, 5)})).key == job.key


# Learning


def test_the_origin_of_all_keys_is_what_was_recorded_and_not_where_it_lies(study: Study) -> None:
    recording = open_passes(study.data)
    assert recording.power is not None
    same = replace(recording, folder=Path("/elsewhere"))
    other = replace(recording, power=recording.power * np.float32(2.0))
    assert origin_of(same) == origin_of(recording) != origin_of(other)


def setting(study: Study, **changes: Any) -> dict[str, Any]:
    recording, job = open_passes(study.data), teacher_jobs(study, "origin")[0]
    split = split_passes(recording, job.part, num_frames=4, validation_share=0.3, seed=0)
    observation = Observation(recording, ("motion",), torch.device("cpu"))
    return {
        "observation": observation,
        "train": split.train,
        "validation": split.validation,
        "kd": "none",
        "knowledge": None,
        "recipe": TrainingRecipe(),
        "fitting": study.fitting,
        "seed": 0,
        **changes,
    }


def student(study: Study) -> Job:
    return Job(study, 1, "image-light", "none", 4, "newest", 0, "origin")


def taught(study: Study) -> Knowledge:
    given = setting(study)
    return knowledge_of(fresh_tracker(teacher_jobs(study, "origin")[0]), given["observation"], given["train"])


@pytest.mark.parametrize("kd", ["response", "relational", "mixed", "feature", "cross-modal", "self"])
def test_a_weight_of_zero_is_exactly_no_distillation(kd: str, study: Study) -> None:
    plain = fit(fresh_tracker(student(study)), **setting(study))
    recipe, knowledge = TrainingRecipe(weight=0.0), taught(study)
    found = fit(fresh_tracker(student(study)), **setting(study, kd=kd, knowledge=knowledge, recipe=recipe))
    other = fit(
        fresh_tracker(student(study)), **setting(study, kd=kd, knowledge=knowledge, recipe=TrainingRecipe(weight=0.5))
    )
    assert all(torch.equal(value, found.state[name]) for name, value in plain.state.items())
    assert not all(torch.equal(value, other.state[name]) for name, value in plain.state.items())


def test_the_best_epoch_is_kept_and_without_a_better_one_it_stops(study: Study) -> None:
    # After the first epoch a rate of nearly zero changes nothing.
    fitting = Fitting(epochs=9, patience=2, batch_size=8)
    found = fit(
        fresh_tracker(student(study)), **setting(study, fitting=fitting, recipe=TrainingRecipe(learning_rate=1e-12))
    )
    assert found.epochs <= found.best_epoch + 2 < 9
    assert 0.0 < found.validation < 1.0


def test_a_loss_that_is_not_finite_says_what_to_do(study: Study) -> None:
    knowledge = taught(study)
    broken = Knowledge(knowledge.logits * float("nan"), knowledge.features)
    with pytest.raises(ValueError, match="lower the learning rate"):
        fit(fresh_tracker(student(study)), **setting(study, kd="response", knowledge=broken))


# A whole study


@pytest.fixture(scope="module")
def done(study: Study, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("done") / "tiny"
    steps: list[tuple[str, int, int]] = []
    rows = run_study(study, folder, workers=1, progress=lambda *step: steps.append(step))
    assert steps[-1] == ("trackers", len(rows), len(rows))
    return folder, [dict(row) for row in rows]


def test_a_study_leaves_a_row_for_every_tracker_and_its_tables(done: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, rows = done
    assert len(rows) == 8 + 22
    kept = json.loads((folder / "study.json").read_text())["rows"]
    assert kept == {row["key"]: row for row in rows}
    for row in rows:
        assert row["latency_ms"] > 0
        assert 0.0 < row["average"]["top10"] <= 1.0
        assert sum(row["by_pass"]["windows"]) == row["num_windows"]["test"]
        assert len(row["metrics"]["top5"]) == 2
        assert (row["int8_bytes"] is None) == (row["role"] == "teacher")
    assert {row["teacher"] for row in rows if row["kd"] == "cross-modal"} <= {"fusion-wide none", "fusion-wide self"}
    for name in ("study.yaml", "study.csv", "tables.md", "tables.tex"):
        assert (folder / name).stat().st_size > 100
    assert len(list((folder / "figures").glob("*.png"))) >= 2


def test_a_study_that_is_done_is_not_done_again(
    study: Study, done: tuple[Path, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("sim.study.work.fit", refuse)
    folder, rows = done
    assert run_study(study, folder, workers=1, progress=silent) == rows


def test_a_study_that_was_stopped_goes_on_and_ends_the_same(
    config: Path, done: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    folder, rows = done
    half = Path(shutil.copytree(folder, tmp_path / "half"))
    sheet = json.loads((half / "study.json").read_text())
    smaller = load_study(config, ONE_SEED)
    teacher, *_ = teacher_jobs(smaller, origin_of(open_passes(smaller.data)))
    # A teacher whose weights are gone, and one whose row was never written.
    tracker_path(half, teacher).unlink()
    lost = next(key for key in sheet["rows"] if key.startswith("image-light response L=4 J=1 seed 0"))
    del sheet["rows"][lost]
    # Written by an older version.
    old = next(key for key in sheet["rows"] if key.startswith("image-light none L=4 J=1 seed 0"))
    del sheet["rows"][old]["int8_top5"]
    (half / "study.json").write_text(json.dumps(sheet))
    found = {row["key"]: without_clock(dict(row)) for row in run_study(smaller, half, workers=2, progress=silent)}
    expected = {row["key"]: without_clock(row) for row in rows}
    assert {lost, old} <= found.keys()
    assert found == {key: expected[key] for key in found}
    kept = json.loads((half / "study.json").read_text())["rows"]
    assert {key: without_clock(row) for key, row in kept.items()} == expected, "rows of the other seed are gone"


def test_a_folder_of_another_study_or_one_that_is_worked_on_is_left_alone(
    config: Path, done: tuple[Path, list[dict[str, Any]]]
) -> None:
    folder, _ = done
    other = load_study(config, ["name=other"])
    before = (folder / "study.yaml").read_bytes()
    with pytest.raises(ValueError, match="it belongs to the study 'tiny'; name another --out"):
        run_study(other, folder, workers=1, progress=silent)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process works on this study"):
            run_study(load_study(config), folder, workers=1, progress=silent)
    assert (folder / "study.yaml").read_bytes() == before


def test_a_download_that_is_mostly_broken_is_refused_with_its_first_problem(tmp_path: Path, config: Path) -> None:
    export = Export(TINY_WORLD, 3, modalities=("camera", "radar", "gps"), image_size=(96, 54))
    write_release(export, tmp_path / "scenario")
    for path in sorted((tmp_path / "scenario" / "unit1" / "radar_data").iterdir())[::2]:
        path.write_bytes(b"half")
    wanted = load_study(config, [f"data={{source: deepsense, folder: {tmp_path / 'scenario'}}}"])
    with pytest.raises(
        ValueError, match=r"data\.folder: \d+ % of the frames of .* lack a file that can be read, the first"
    ):
        open_passes(wanted.data)


def test_a_tracker_whose_loss_is_not_finite_is_named_and_what_was_being_trained_is_kept(
    config: Path, tmp_path: Path
) -> None:
    broken = load_study(config, [*ONE_SEED, "recipes={fusion-wide: {any: {learning_rate: 1.0e+30}}}"])
    with pytest.raises(ValueError, match=r"fusion-wide none L=4 J=1 seed 0: the loss is .*recipes\.fusion-wide\.none"):
        run_study(broken, tmp_path, workers=2, progress=silent)
    (kept,) = json.loads((tmp_path / "study.json").read_text())["rows"]
    assert kept.startswith("image-wide none")


def test_a_tracker_that_was_kept_answers_as_when_it_was_scored(
    study: Study, done: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    folder, _ = done
    job = teacher_jobs(study, origin_of(open_passes(study.data)))[0]
    kept = load_tracker(folder, job)
    assert not kept.training
    fresh = fresh_tracker(job)
    assert not all(torch.equal(value, kept.state_dict()[name]) for name, value in fresh.state_dict().items())
    with pytest.raises(ValueError, match="no weights of image-wide none L=4 J=1 seed 0"):
        load_tracker(tmp_path, job)


def test_the_command_prints_the_tables_and_the_folder(config: Path, tmp_path: Path) -> None:
    arguments = ["study", str(config), "--quick", "--out", str(tmp_path / "out"), "--workers", "1"]
    for override in ONE_SEED:
        arguments += ["--set", override]
    found = CliRunner().invoke(cli, arguments)
    assert found.exit_code == 0, found.output
    assert found.stdout.strip().endswith(str(tmp_path / "out"))
    assert "image-light" in found.stdout
    again = CliRunner().invoke(cli, [*arguments, "--json"])
    rows = json.loads(again.stdout)
    assert len(rows) == 6
    assert {row["epochs"] for row in rows} == {1}
    assert {row["seed"] for row in rows} == {0}, "--set comes after --quick"


# What trackers cost


def test_costs_are_measured_side_by_side() -> None:
    (light,) = tracker_costs(["radar-light"], rounds=2)
    assert light.bytes == 4 * light.parameters
    assert light.slot_macs < light.window_macs < light.macs
    assert light.int8_bytes < light.bytes / 3
    assert min(light.window_ms, light.int8_ms, light.slot_ms) > 0
    found = CliRunner().invoke(cli, ["bench", "trackers", "--model", "radar-light", "--rounds", "1"])
    assert found.exit_code == 0
    assert "radar-light" in found.stdout
    with pytest.raises(ValueError, match="model: there is no 'radar-huge'"):
        tracker_costs(["radar-huge"])
