"""The house explains itself: one name for a thing, no circles, a test for every module, no source that is forgotten."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections import Counter
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path

import pytest

from configs.loading import DATA_SOURCES, SHARED_SOURCES
from sim.study.grid import STUDY_SOURCES
from tests.conftest import CHECKOUT
from tests.test_architecture import MODULES, ROOMS, imports_of, module_name

SOURCES = {module_name(path): path for path in MODULES if path.name != "__init__.py"}
# Modules whose tests lie elsewhere than in the mirrored place: the test module that holds each, below tests/.
TESTED_IN = {
    **{
        f"sim.beam_sets.{name}": "sim/test_beam_sweeps.py"
        for name in ("adaptive", "arms", "coverage", "drift", "report")
    },
    "clients.serving.margins": "clients/serving/test_canary.py",
    "configs.signals": "sim/cli/test_interruption.py",
    "sim.report.beam_sets": "server/test_set_scores.py",
    "sim.cli.examples": "sim/cli/test_command_tree.py",
    "sim.cli.preview": "sim/cli/test_command_tree.py",
    "sim.cli.sweep": "sim/sweep/test_search.py",
    "sim.sweep.trial_runs": "sim/sweep/test_search.py",
    "clients.data.by_class": "clients/learning/test_class_lessons.py",
    "clients.data.deepsense_cells": "clients/data/test_deepsense.py",
    "clients.data.deepsense_table": "clients/data/test_deepsense_layouts.py",
    "clients.data.geodesy": "clients/data/test_deepsense.py",
    "clients.data.material": "clients/learning/test_learner.py",
    "clients.data.scans": "clients/data/test_deepsense_files.py",
    "clients.data.sensor_files": "clients/data/test_deepsense_files.py",
    "clients.exchanges.base": "strategies/methods/test_cache_agreement.py",
    "clients.exchanges.baselines": "sim/test_strategy_laws.py",
    "clients.exchanges.classes": "sim/test_strategy_laws.py",
    "clients.exchanges.labels": "strategies/methods/test_cache_agreement.py",
    "clients.learning.task": "clients/learning/test_classification.py",
    "clients.exchanges.table": "clients/test_app.py",
    "clients.handlers": "clients/test_app.py",
    "clients.health": "sim/test_live_clients.py",
    "clients.models.blocks": "clients/models/test_models.py",
    "clients.models.complexity": "clients/models/test_models.py",
    "clients.models.light": "clients/models/test_models.py",
    "clients.models.published": "clients/models/test_models.py",
    "clients.models.quantised": "clients/models/test_models.py",
    "clients.models.registry": "clients/models/test_models.py",
    "clients.models.step_tracker": "clients/models/test_models.py",
    "clients.models.streaming": "clients/models/test_models.py",
    "clients.serving.manifest": "sim/take_home/test_writer.py",
    "clients.serving.beam_model": "sim/take_home/test_serving.py",
    "clients.serving.loading": "sim/take_home/test_serving.py",
    "clients.serving.onnx_model": "sim/take_home/test_serving.py",
    "clients.serving.predict": "sim/take_home/test_serving.py",
    "clients.serving.sources": "sim/take_home/test_serving.py",
    "clients.serving.torch_model": "sim/take_home/test_serving.py",
    "clients.told_sets": "server/test_set_scores.py",
    "clients.training": "clients/test_privacy.py",
    "configs.data": "configs/test_loading.py",
    "configs.data_facts": "sim/data/test_folder_source.py",
    "sim.run_note": "sim/test_experiments.py",
    "sim.temporary_run": "sim/test_few_passes.py",
    "configs.models": "clients/models/test_own.py",
    "configs.plugins": "strategies/test_registry.py",
    "configs.recipes": "sim/test_strategy_laws.py",
    "configs.schema": "configs/test_loading.py",
    "configs.section": "configs/test_loading.py",
    "configs.study": "sim/study/test_run.py",
    "configs.study_loading": "sim/study/test_run.py",
    "configs.world": "configs/test_presets.py",
    "server.session": "server/test_app.py",
    "sim.bench.distillation_gain": "sim/bench/test_learnability.py",
    "sim.bench.experiments": "sim/bench/test_learnability.py",
    "sim.bench.generation_cost": "sim/bench/test_learnability.py",
    "sim.bench.latency": "sim/study/test_run.py",
    "sim.bench.loopback": "sim/bench/test_warm_cost.py",
    "sim.bench.tables": "sim/bench/test_learnability.py",
    "sim.bench.tracker_cost": "sim/study/test_run.py",
    "sim.bench.world_statistics": "sim/data/test_statistics.py",
    "sim.cli.bench": "sim/bench/test_learnability.py",
    "sim.cli.data": "sim/data/test_conversion.py",
    "sim.cli.forget": "sim/test_forget.py",
    "sim.cli.store": "clients/serving/test_store_command.py",
    "sim.cli.take_home": "sim/take_home/test_commands.py",
    "sim.cli.study": "sim/study/test_run.py",
    "sim.data.federation": "sim/test_experiments.py",
    "sim.data.inspection": "sim/report/test_inspection.py",
    "sim.data.predictability": "sim/data/test_statistics.py",
    "sim.data.scenario9": "sim/data/test_statistics.py",
    "sim.deploy.credentials": "sim/deploy/test_check.py",
    "sim.deploy.flower": "sim/deploy/test_machine.py",
    "sim.deploy.fork_loop": "sim/deploy/test_forkserver.py",
    "sim.deploy.key_checks": "sim/deploy/test_check.py",
    "sim.deploy.programs": "sim/deploy/test_supervisor.py",
    "sim.deploy.registration": "sim/deploy/test_machine.py",
    "sim.deploy.shim": "sim/deploy/test_forkserver.py",
    "sim.deploy.templates": "sim/deploy/test_provision.py",
    "sim.deploy.trial": "sim/deploy/test_machine.py",
    "sim.deploy.warm": "sim/deploy/test_machine.py",
    "sim.inline": "sim/test_launch.py",
    "sim.report.budgets": "sim/test_unequal_nodes.py",
    "sim.report.faults": "sim/report/test_html.py",
    "sim.report.figures": "sim/report/test_html.py",
    "sim.report.page": "sim/report/test_html.py",
    "sim.report.pass_viewer_script": "sim/report/test_pass_viewer.py",
    "sim.report.sprites": "sim/report/test_pass_viewer.py",
    "sim.report.style": "clients/data/test_modalities.py",
    "sim.report.summaries": "sim/report/test_tables.py",
    "sim.study.cells": "sim/study/test_statistics.py",
    "sim.study.figures": "sim/study/test_outputs.py",
    "sim.study.fitting": "sim/study/test_run.py",
    "sim.study.grid": "sim/study/test_run.py",
    "sim.study.passes": "sim/study/test_run.py",
    "sim.study.published": "sim/study/test_outputs.py",
    "sim.study.scores": "sim/study/test_statistics.py",
    "sim.study.sheets": "sim/study/test_outputs.py",
    "sim.study.tables": "sim/study/test_outputs.py",
    "sim.study.work": "sim/study/test_run.py",
    **{f"sim.reference.{name}": "sim/reference/test_write.py" for name in ("commands", "names", "settings")},
    "sim.speed.conductor": "sim/speed/test_ratios.py",
    "sim.speed.plain_flower": "sim/speed/test_arms.py",
    "sim.speed.work": "sim/speed/test_arms.py",
    "sim.worksheet": "sim/bench/test_learnability.py",
    "sim.take_home.card": "sim/take_home/test_writer.py",
    "sim.take_home.onnx_graph": "sim/take_home/test_onnx_trackers.py",
    "sim.take_home.onnx_layers": "sim/take_home/test_onnx_trackers.py",
    "sim.take_home.onnx_traced": "sim/take_home/test_writer.py",
    "sim.take_home.quantisation": "sim/take_home/test_writer.py",
    "clients.models.weights": "sim/take_home/test_writer.py",
    "sim.take_home.device_probe": "sim/take_home/test_device_cost.py",
    "sim.take_home.verification": "sim/take_home/test_writer.py",
    "sim.watch.page": "sim/watch/test_server.py",
    "sim.world.raycast": "sim/world/test_sensors.py",
    "sim.world.sionna_channel": "sim/bench/test_referee.py",
    "sim.world.sionna_street": "sim/bench/test_referee.py",
    "strategies.attacks": "strategies/rules/test_robust.py",
    "strategies.codecs.dense": "strategies/codecs/test_table.py",
    "strategies.codecs.encoding": "strategies/messages/test_wire.py",
    "strategies.codecs.sparse": "strategies/codecs/test_table.py",
    "strategies.methods.base": "strategies/messages/test_mailbox.py",
    "strategies.rules.weighted": "strategies/test_aggregation.py",
}
UNTESTED = {
    "clients.sensing.streaming": "an old name; test_public_names.py imports it",
    "strategies.distillation": "an old name; test_public_names.py imports it",
}


def test_every_module_has_a_test_where_it_is_looked_for_or_the_list_says_where() -> None:
    missing = [
        name
        for name, path in SOURCES.items()
        if not (CHECKOUT / "tests" / path.relative_to(CHECKOUT).parent / f"test_{path.name}").is_file()
    ]
    assert sorted(missing) == sorted([*TESTED_IN, *UNTESTED])


@pytest.mark.parametrize(("name", "test"), TESTED_IN.items())
def test_a_test_module_that_holds_another_module_reaches_it(name: str, test: str) -> None:
    path = CHECKOUT / "tests" / test
    left, reached = [path], set[Path]()
    while left:
        found = {SOURCES.get(stem) for one in imports_of(left.pop().read_text()) for stem in _stems(one)} - {None}
        new = {one for one in found if one is not None} - reached
        reached |= new
        left += new
    assert SOURCES[name] in reached, f"tests/{test} does not use {name}, also not indirectly"


def _stems(name: str) -> tuple[str, str]:
    return name, name.rpartition(".")[0]


def test_no_two_classes_have_one_name_and_no_type_has_that_of_a_class() -> None:
    classes, types = Counter[str](), set[str]()
    for path in SOURCES.values():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                classes[node.name] += 1
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                types.add(node.targets[0].id)
    assert sorted(name for name, count in classes.items() if count > 1) == []
    assert sorted(types & classes.keys()) == []


def test_imports_run_in_no_circle() -> None:
    graph = {
        name: {stem for one in imports_of(path.read_text()) for stem in _stems(one) if stem in SOURCES} - {name}
        for name, path in SOURCES.items()
    }
    # What imports nothing of what is left cannot be in a circle; what is left in the end is.
    while leaves := {name for name, others in graph.items() if not others & graph.keys()}:
        graph = {name: others for name, others in graph.items() if name not in leaves}
    assert sorted(graph) == []


def test_circles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"a"}, "c": {"a"}, "d": set[str]()}
    while leaves := {name for name, others in graph.items() if not others & graph.keys()}:
        graph = {name: others for name, others in graph.items() if name not in leaves}
    assert sorted(graph) == ["a", "b", "c"]


def _matches(patterns: tuple[str, ...]) -> set[str]:
    return {path.relative_to(CHECKOUT).as_posix() for pattern in patterns for path in CHECKOUT.glob(pattern)}


@pytest.mark.parametrize("patterns", [SHARED_SOURCES, STUDY_SOURCES, DATA_SOURCES], ids=["shared", "study", "data"])
def test_every_pattern_of_sources_matches_files(patterns: tuple[str, ...]) -> None:
    assert [pattern for pattern in patterns if not _matches((pattern,))] == []


def test_what_server_and_clients_must_share_is_all_in_the_digest_of_sources() -> None:
    wanted = {
        path.relative_to(CHECKOUT).as_posix()
        for path in MODULES
        if path.relative_to(CHECKOUT).parts[0] in ("configs", "strategies", "clients")
    }
    assert wanted <= _matches(SHARED_SOURCES)


def test_what_trains_and_scores_a_tracker_of_a_study_is_all_in_its_key() -> None:
    # The settings are in the key as values, and the frames by their content.
    values = ("configs.", "sim.data.", "sim.world.", "sim.study.grid", "sim.worksheet", "strategies.codecs.packing")
    left, reached = ["sim.study.fitting", "sim.study.scores", "sim.study.passes", "sim.study.work"], set[str]()
    while left:
        name = left.pop()
        if name not in reached:
            reached.add(name)
            imported = imports_of(SOURCES[name].read_text())
            left += [stem for one in imported for stem in _stems(one) if stem in SOURCES]
    files = {SOURCES[name].relative_to(CHECKOUT).as_posix() for name in reached if not name.startswith(values)}
    assert sorted(files - _matches(STUDY_SOURCES)) == []


def test_every_source_is_in_the_bundle_for_nodes() -> None:
    import tomllib

    settings = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    patterns = settings["tool"]["flwr"]["app"]["fab-include"]
    files = {path.relative_to(CHECKOUT).as_posix() for path in MODULES}
    # Flower's patterns are gitignore's: ** stands for any number of folders, also for none.
    plain = [pattern.replace("**/", "*") for pattern in patterns]
    assert sorted(file for file in files if not any(fnmatch(file, pattern) for pattern in plain)) == []


# What one passes by when one follows a round for the first time: senses, models, arithmetic, and side roads that lead
# straight back unless a YAML asks for them.
PASSED_BY = (
    *("configs/", "sim/", "clients/data/", "clients/models/", "clients/learning/calibration.py"),
    *("clients/learning/density.py", "clients/learning/metrics.py", "clients/learning/optimizer.py"),
    *("clients/learning/state.py", "clients/learning/cohort.py", "clients/cohort.py"),
    *(
        "clients/learning/classification.py",
        "strategies/losses.py",
        "strategies/codecs/dense.py",
        "strategies/codecs/sparse.py",
    ),
    *("strategies/codecs/packing.py", "strategies/codecs/table.py", "server/status.py"),
    *("clients/adversary.py", "clients/privacy.py", "clients/health.py", "clients/profile.py"),
)
TRACE = """
import json, sys, tempfile
from pathlib import Path
from tests.conftest import CHECKOUT, tiny_experiment
from tests.federations import place, run_apps
from strategies.methods.base import Choreography

seen, run_round = {}, Choreography.run_round

def note(frame, event, argument):
    name = frame.f_code.co_filename
    if event == "call" and name.startswith(str(CHECKOUT)) and not name.startswith(str(CHECKOUT / "tests")):
        seen.setdefault(name, set()).add(frame.f_code.co_firstlineno)

def traced(self, grid, number, timeout):
    sys.setprofile(note if number == 2 else None)
    try:
        return run_round(self, grid, number, timeout)
    finally:
        sys.setprofile(None)

Choreography.run_round = traced
run_apps(place(tiny_experiment(), Path(tempfile.mkdtemp()) / "run"))
print(json.dumps({name: sorted(lines) for name, lines in seen.items()}))
"""


def test_one_round_is_followed_through_at_most_22_files_and_3200_lines(home: Path) -> None:
    """Counts the files that a round of the default strategy runs through, and the lines of the functions it enters."""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "SOFTBEAM_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", TRACE], cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=True
    )
    import json

    entered: dict[str, list[int]] = json.loads(done.stdout.splitlines()[-1])
    lines = Counter[str]()
    for name, first_lines in entered.items():
        file = Path(name).relative_to(CHECKOUT).as_posix()
        if not file.startswith(ROOMS) or file.startswith(PASSED_BY):
            continue
        lines[file] += 0
        for node in ast.walk(ast.parse(Path(name).read_text())):
            if isinstance(node, ast.FunctionDef):
                first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
                if first in first_lines:
                    lines[file] += (node.end_lineno or first) - first + 1
    assert {"strategies/messages/mailbox.py", "clients/exchanges/labels.py"} <= lines.keys()
    assert len(lines) <= 22, sorted(lines)
    assert lines.total() <= 3200


def _naming(*words: str) -> list[str]:
    texts = {path.relative_to(CHECKOUT).as_posix(): path.read_text().lower() for path in MODULES}
    return sorted(file for file, text in texts.items() if any(word in text for word in words))


def test_a_kind_of_knowledge_is_named_in_at_most_9_files() -> None:
    assert 3 <= len(_naming("prototype", "fedproto")) <= 9


def test_a_modality_is_named_in_at_most_6_files() -> None:
    assert 3 <= len(_naming('"doppler"')) <= 6


def test_the_decisions_are_numbered_without_a_gap() -> None:
    numbers = sorted(int(path.name[:4]) for path in (CHECKOUT / "docs/decisions").glob("[0-9]*.md"))
    assert numbers[0] == 1
    assert all(after == before + 1 for before, after in pairwise(numbers))


# What is about beams in the room of the protocol: the loss of beam tracking, on measured power.
ABOUT_BEAMS = {"strategies/losses.py"}
# The name of a stream of random numbers, which stays what it was.
STREAM = 'rng_for(known.seed, "attack", "beams")'


def test_the_protocol_speaks_of_beams_only_where_a_beam_is_meant() -> None:
    """Strategies, rules, codecs, caches, privacy and attacks work for the classes of any task."""
    speak = {
        path.relative_to(CHECKOUT).as_posix()
        for path in SOURCES.values()
        if path.is_relative_to(CHECKOUT / "strategies")
        and re.search(r"(?i)(?<!soft)beam", path.read_text().replace(STREAM, ""))
    }
    assert speak == ABOUT_BEAMS
    loss = (CHECKOUT / "strategies/losses.py").read_text()
    parts = ast.parse(loss).body
    named = {
        part.name
        for part in parts
        if isinstance(part, ast.FunctionDef) and re.search("(?i)beam", ast.get_source_segment(loss, part) or "")
    }
    assert named == {"best_beams", "focal_loss", "power_targets", "task_loss"}
