"""What all commands have in common: help, wrong words, paths, JSON of errors, how fast they answer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from configs.loading import load_experiment
from configs.study_loading import load_study
from configs.yaml_files import CONFIG_FOLDER
from sim.cli.command_tree import run_command, speaks_json
from sim.cli.examples import EVERYWHERE, EXAMPLES
from sim.cli.main import cli
from sim.cli.preview import cost_of
from strategies.methods.baselines import FedAvgStrategy
from strategies.methods.distillation import DistillationStrategy
from tests.conftest import CHECKOUT
from tests.sim.cli.test_main import softbeam, write_yaml

ROOT = run_command(cli)


def commands(command: click.Command, words: str = "") -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from commands(below, f"{words} {name}".strip())
    else:
        yield words, command


COMMANDS = dict(commands(ROOT))


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_command_has_examples_and_every_example_a_command() -> None:
    assert sorted(EXAMPLES) == sorted(COMMANDS)


@pytest.mark.parametrize("line", [*(line for lines in EXAMPLES.values() for line in lines), *EVERYWHERE[:2]])
def test_an_example_is_understood(line: str) -> None:
    program, *words = line.split()
    assert program == "softbeam"
    command: click.Command = ROOT
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    command.make_context("softbeam", words)  # it raises where a word is not known


@pytest.mark.parametrize("words", COMMANDS)
def test_help_shows_what_arguments_are_and_examples_and_no_backslash(words: str) -> None:
    answer = softbeam(*words.split(), "--help")
    assert answer.code == 0
    assert "\\" not in answer.out
    assert answer.out.count("rguments:") <= 1
    assert "Examples:" in answer.out and f"  {EXAMPLES[words][0]}" in answer.out
    for parameter in COMMANDS[words].params:
        assert getattr(parameter, "help", None), f"{words} {parameter.name} has no help"


def test_the_version_is_that_of_the_project() -> None:
    text = (CHECKOUT / "pyproject.toml").read_text()
    version = text.partition('version = "')[2].partition('"')[0]
    assert softbeam("--version").out.split()[:2] == ["softbeam", version]


@pytest.mark.parametrize("words", ["--help", "--version", "run --help", "bench --help", "deploy status --help"])
def test_help_and_version_import_no_heavy_library(words: str) -> None:
    script = (
        "import sys\nfrom sim.cli.main import main\n"
        f"sys.argv = ['softbeam', *{words.split()!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'ray', 'flwr', 'numpy', 'scipy', 'matplotlib') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_where_fcntl_is_missing_one_line_names_the_systems_that_are_supported() -> None:
    script = "import sys; sys.modules['fcntl'] = None; from sim.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: Softbeam runs on Linux and macOS; on Windows, run it in WSL (wsl --install)\n"


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("rnu", "'run'"),
        ("bench codecz", "'codecs'"),
        ("deploy statsu", "'status'"),
        ("run quickstart --sedes 1", "--seeds"),
        ("run quikstart", "quickstart"),
        ("run quickstart --strategies scarlett --dry-run", "scarlet"),
        ("run quickstart --set strategy.aggregator.name=medain --dry-run", "median"),
        ("data make nite-shift", "night-shift"),
        ("study study-papr", "study-paper"),
        ("bench generation --preset stret", "street"),
        ("data export out --preset stret", "street"),
        ("bench attacks --rule medain", "median"),
        ("bench attacks --attack labelflip", "label_flip"),
        ("bench trackers --model image-techer", "image-teacher"),
        ("bench codecs --codec uint44", "uint4"),
    ],
)
def test_a_wrong_word_is_answered_with_the_right_one(words: str, meant: str) -> None:
    answer = softbeam(*words.split())
    assert answer.code in (1, 2) and answer.out == ""
    assert answer.err.lower().count("did you mean") == 1 and meant in answer.err.partition("id you mean")[2]
    assert "Traceback" not in answer.err


WITH_JSON = [
    words for words, command in COMMANDS.items() if any("--json" in one.opts and one.is_flag for one in command.params
    if isinstance(one, click.Option))
]  # fmt: skip


@pytest.mark.parametrize("words", WITH_JSON)
def test_a_wrong_option_is_one_object_of_json_where_the_command_speaks_json(words: str) -> None:
    answer = softbeam(*words.split(), "--json", "--no-such-option")
    assert answer.code == 2
    found = json.loads(answer.out)
    assert found["exit_code"] == 2 and "--no-such-option" in found["error"]
    assert "Error: " in answer.err


ONE_VALUE = [
    (words, max(one.opts, key=len))
    for words, command in COMMANDS.items()
    for one in command.params
    if isinstance(one, click.Option) and not (one.multiple or one.is_flag or one.count)
]


@pytest.mark.parametrize(("words", "option"), ONE_VALUE)
def test_an_option_of_one_value_that_is_given_twice_is_refused_whatever_else_is_wrong(words: str, option: str) -> None:
    answer = softbeam(*words.split(), option, "1", f"{option}=2")
    assert answer.code == 2
    assert f"Error: {option} was given 2 times, but takes one value: give it once" in " ".join(answer.err.split())


def test_options_of_many_values_and_flags_may_be_given_again() -> None:
    again = softbeam("run", "quickstart", "--set", "seed=1", "--set", "seed=2", "--dry-run", "--dry-run")
    assert again.code == 0 and "seed: 2" in again.out


@pytest.mark.parametrize(
    "words",
    [
        "run nowhere",
        "run quickstart --set strategy.rounds=0",
        "run quickstart --out /proc/nothing",
        "resume nowhere",
        "compare nowhere",
        "study nowhere",
        "data make nowhere",
        "data inspect nowhere",
        "data check nowhere",
        "data convert nowhere",
        "bench generation --preset nowhere",
        "bench trackers --model nowhere",
        "bench codecs --codec nowhere",
        "deploy status nowhere",
        "deploy check nowhere",
    ],
)
def test_an_error_is_one_object_of_json_with_the_exit_code_and_one_line_for_people(words: str) -> None:
    answer = softbeam(*words.split(), "--json")
    assert answer.code == 1
    found = json.loads(answer.out)
    assert found["exit_code"] == 1 and found["error"]
    assert answer.err == f"error: {found['error']}\n"


def test_a_json_option_that_names_a_file_keeps_errors_as_they_are() -> None:
    assert not speaks_json(ROOT, ["bench", "attacks", "--json", "cells.json", "--rule", "nowhere"])
    answer = softbeam("bench", "attacks", "--json", "cells.json", "--rule", "nowhere")
    assert (answer.code, answer.out) == (1, "")


@pytest.mark.parametrize("option", ["$PLACE/runs", "~/runs", "${PLACE}/runs"])
def test_options_take_paths_as_a_shell_would(option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PLACE", str(tmp_path))
    config = write_yaml(tmp_path, lambda values: values.update(controls=False), rounds=1)
    answer = softbeam("run", config, f"--out={option}")
    assert answer.code == 0
    assert Path(answer.out.splitlines()[-1]).parent == tmp_path / "runs"
    assert not list(tmp_path.glob("[$~]*"))


def test_an_option_with_a_variable_that_is_not_set_is_refused() -> None:
    answer = softbeam("resume", "$NOWHERE/run")
    assert answer.code == 2 and "the environment variable NOWHERE is not set" in answer.err


def test_who_says_no_to_a_question_gets_one_word(monkeypatch: pytest.MonkeyPatch) -> None:
    def says_no(entries: object) -> None:
        raise click.Abort

    monkeypatch.setattr("sim.data.cache.cache_entries", lambda: says_no(None))
    answer = softbeam("data", "clean")
    assert (answer.code, answer.out, answer.err) == (1, "", "error: nothing was done\n")


def test_a_dry_run_prints_an_experiment_that_can_be_run_and_does_nothing(tmp_path: Path, home: Path) -> None:
    before = sorted(home.rglob("*"))
    answer = softbeam("run", "quickstart", "--dry-run", "--set", "strategy.rounds=3")
    assert answer.code == 0
    (tmp_path / "resolved.yaml").write_text(answer.out)
    assert load_experiment(tmp_path / "resolved.yaml") == load_experiment("quickstart", ["strategy.rounds=3"])
    comments = [line for line in answer.out.splitlines() if line.startswith("#")]
    assert "450 of each of 8 clients in 3 rounds, 900 of its controls, 780 of the teacher" in comments[2]
    assert [path.name for path in tmp_path.iterdir()] == ["resolved.yaml"]
    assert sorted(home.rglob("*")) == before
    printed = json.loads(softbeam("run", "quickstart", "--dry-run", "--json", "--seeds", "0,1").out)
    assert [row["experiment"]["seed"] for row in printed] == [0, 1]


@pytest.mark.parametrize(
    ("overrides", "up", "down"),
    [
        # 4 horizons of 64 beams: float32 1,024 bytes, argmax 6 bits a horizon; 8 samples, and their ids.
        (["strategy.codec=float32"], 8 * 1024, 8 * 1024),
        (["strategy.codec=argmax"], 8 * 3, 8 * 3),
        (["strategy.codec=float32", "strategy.downlink_codec=argmax"], 8 * 1024, 8 * 3),
        (["strategy.codec=float32", "strategy.relations={pairs: 4}"], 8 * 1024, 8 * (1024 + 16)),
        (["strategy.codec=float32", "strategy.relations={share: 1.0}"], 8 * 1024, 8 * 16),
    ],
)
def test_the_bytes_of_a_message_are_those_of_its_codec(overrides: list[str], up: int, down: int) -> None:
    experiment = load_experiment("quickstart", ["strategy.public_samples=8", *overrides])
    size = cost_of(experiment, DistillationStrategy)["bytes"]
    ids = size["up"] - up
    assert 1 <= ids <= 16
    assert size["down"] - down == ids


def test_steps_are_those_of_the_schedule_and_a_method_without_soft_labels_has_no_bytes_of_them() -> None:
    experiment = load_experiment("quickstart", ["controls=false", "strategy.name=fedavg"])
    cost = cost_of(experiment, FedAvgStrategy)
    assert cost["bytes"]["up"] is None
    assert cost["steps"] == {"client": 750, "controls_of_a_client": 0, "teacher": 1020, "all": 8 * 750 + 1020}


def test_the_configs_that_examples_name_are_there_and_fit_the_command() -> None:
    lines = [line.split() for lines in EXAMPLES.values() for line in lines]
    named = {(words[1], word) for words in lines for word in words if (CONFIG_FOLDER / f"{word}.yaml").is_file()}
    assert named == {
        ("run", "quickstart"),
        ("sweep", "quickstart"),
        ("data", "night-shift"),
        ("data", "quickstart"),
        ("study", "study-paper"),
    }
    assert load_study("study-paper", quick=True) != load_study("study-paper")
