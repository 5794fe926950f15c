"""What the README shows works: its rule as it stands, and every command, at a size that takes seconds.

The pages that took over parts of the README are held to the same: each command of theirs has a line in `WAYS`.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from glob import glob
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.home import softbeam_home
from configs.loading import load_experiment
from configs.placement import HOME_VARIABLE
from sim.launch import offline_environment
from strategies.labels import Contribution, SoftLabels
from strategies.registry import AGGREGATORS, build_plugin, find_class
from tests.conftest import CHECKOUT, tiny_values

README = (CHECKOUT / "README.md").read_text()
PAGES = (
    "README.md",
    "docs/commands.md",
    "docs/comparison.md",
    "docs/results.md",
    "docs/flower.md",
    "docs/take-home.md",
    "docs/tutorials/first-run.md",
)
MAX_LINES, MAX_LENGTH = 120, 160

Words = list[str]


def test_the_readme_has_at_most_120_lines_of_readable_length() -> None:
    lines = README.splitlines()
    assert len(lines) <= MAX_LINES
    assert [line for line in lines if len(line) > MAX_LENGTH] == []


# The rule and its YAML, as they stand.


def snippet(language: str, name: str) -> str:
    """The one snippet that begins with its file's name."""
    (text,) = re.findall(rf"```{language}\n(# {re.escape(name)}\n.*?)```", README, flags=re.DOTALL)
    return str(text)


@pytest.fixture
def own_rule(tmp_path: Path) -> Path:
    """A folder with the rule and the YAML that the README shows; the path of the YAML."""
    (tmp_path / "my_rules.py").write_text(snippet("python", "my_rules.py"))
    (tmp_path / "mine.yaml").write_text(snippet("yaml", "mine.yaml"))
    return tmp_path / "mine.yaml"


def test_the_rule_in_the_readme_is_an_aggregator(own_rule: Path) -> None:
    name = load_experiment(own_rule).strategy.aggregator.name
    rule = build_plugin(find_class(name, AGGREGATORS, key="name", folders=(own_rule.parent,)), {}, key="options")
    ids = np.arange(2)
    agreeing = np.array([[[0.8, 0.1, 0.1]]] * 2, np.float32)
    odd = np.array([[[0.0, 0.1, 0.9]]] * 2, np.float32)
    voters = [("a", agreeing), ("b", agreeing), ("c", odd)]
    ensemble = rule.aggregate([Contribution(who, "gps", SoftLabels(ids, probs, 1.0), 1) for who, probs in voters])
    # The odd one out counts for less than a third.
    assert 0.1 < ensemble.probs[0, 0, 2] < (0.1 + 0.1 + 0.9) / 3


def test_the_yaml_of_the_first_run_is_whole(tmp_path: Path) -> None:
    text = (CHECKOUT / "docs/tutorials/first-run.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    (tmp_path / "mine.yaml").write_text(block)
    experiment, base = load_experiment(tmp_path / "mine.yaml"), load_experiment("first-look")
    assert (experiment.strategy.rounds, base.strategy.rounds) == (8, 5)
    assert experiment.training == base.training


# The commands.


def commands_in(text: str) -> list[str]:
    """Every command of the blocks that a shell is meant to read, without comments, in order."""
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.join(words) for line in lines if (words := shlex.split(line, comments=True))]


@dataclass(frozen=True)
class Place:
    """Where a page is read: a folder with what its commands need.

    Attributes:
        folder: the working directory.
        release: a small DeepSense 6G release.
    """

    folder: Path
    release: Path


def softbeam(words: Words) -> None:
    """Run a command in this process, by the entry point that the package declares."""
    target = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["scripts"]["softbeam"]
    module, _, name = target.partition(":")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", words)
        try:
            getattr(import_module(module), name)()
        except SystemExit as end:
            assert not end.code, f"{shlex.join(words)} ended with {end.code}"


def with_paths(words: Words, place: Place) -> Words:
    """The words as a shell and a reader would fill them in: a time, a glob, a folder of data."""
    found = []
    for word in words:
        if word in ("FOLDER", "OUT") or word.startswith("../shared/real-deepsense/"):
            found.append(str(place.release))
        elif word == "FEDERATION":
            found.append(str(sorted(path.parent for path in (softbeam_home() / "data").glob("*/federation.json"))[0]))
        elif "<time>" in word or "*" in word:
            paths = sorted(glob(word.replace("<time>", "*")))
            assert paths, f"{word}: there is none"
            found += paths[:1] if "<time>" in word else paths
        else:
            found.append(word)
    return found


def as_it_stands(words: Words, place: Place) -> None:
    softbeam(with_paths(words, place))


def at_a_small_size(words: Words, place: Place) -> None:
    """Run an experiment with its own settings but for the sizes, on two GPS nodes."""
    config = words[words.index("run" if "run" in words else "make") + 1]
    small = tiny_values()
    data = {"passes": small["data"]["passes"], "nodes": [{"modality": "gps", "count": 2}]}
    own = load_experiment(config).data
    if own.source == "deepsense":
        # One site is enough, unless the command says something of another one.
        num_sites = len(own.sites) if "data.sites." in shlex.join(words) else 1
        folders = [place.release, *(place.folder / f"release{number}" for number in range(1, num_sites))]
        for copy in folders[1:]:
            shutil.copytree(place.release, copy, dirs_exist_ok=True)
        data |= {"passes": {"server": 2, "public": 2, "test": 2, "client": 4}}
        data |= (
            {"sites": [{"name": f"site{number}", "folder": str(folder)} for number, folder in enumerate(folders)]}
            if own.sites
            else {"folder": str(place.release)}
        )
    sizes: dict[str, Any] = {
        **{f"data.{key}": value for key, value in data.items()},
        **{f"training.{key}": value for key, value in small["training"].items()},
        **{f"teaching.{key}": value for key, value in small["teaching"].items()},
        "students": {"gps": small["students"]["gps"]},
        "teacher": small["teacher"],
        "strategy.rounds": 2,
        "strategy.public_samples": 24,
        "engine": {"name": "inline", "workers": 1},
    }
    # Ahead of the command's own settings, which win.
    position = words.index(config) + 1
    replaced = [word for key, value in sizes.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    fewer = ["--seeds", "0,1"] if "--seeds" in words else []
    softbeam(instead([*words[:position], *replaced, *words[position:]], *fewer))


def instead(words: Words, *options: str) -> Words:
    """The words with these options, each of which takes the place of one of that name, but ``--set`` is added."""
    found, named = list(words), {option for option in options if option.startswith("--") and option != "--set"}
    for option in named.intersection(words):
        position = found.index(option)
        del found[position : position + 2]
    return [*found, *options]


def with_(*more: str) -> Callable[[Words, Place], None]:
    """A way with options which make a command small."""
    return lambda words, place: softbeam(instead(with_paths(words, place), *more))


# One case of the benchmark of few passes, with as few steps as there are rounds.
SMALLEST = (
    *("--passes", "1", "--seeds", "0", "--workers", "1"),
    *("--set", "strategy.rounds=2", "--set", "training.first_round_steps=2", "--set", "training.steps_per_round=1"),
    *("--set", "teaching.pretrain_steps=2", "--set", "teaching.first_round_steps=1"),
)


def export(words: Words, place: Place) -> None:
    """Write the positions of a few passes to a folder of its own."""
    own = ["another" if word == "OUT" else word for word in words]
    softbeam(instead(own, "--passes", "2", "--modalities", "gps"))
    assert list((place.folder / "another").glob("*.csv"))


def predict(words: Words, place: Place) -> None:
    """Predict with the first model of its sensor, or with a store that holds one, and wait for nothing."""
    if "store" in words:
        softbeam(["softbeam", "store", "add", "store", *sorted(glob("models/*-gps"))[:1]])
        softbeam([*with_paths(words, place), "--idle", "0"])
        return
    (sensor,) = {word.rpartition("-")[2] for word in words if word.startswith("models/")}
    first = sorted(glob(f"models/*-{sensor}"))[0]
    Path("incoming").mkdir(exist_ok=True)
    own = [first if word.startswith("models/") else "0" if word == "60" else word for word in words]
    softbeam(with_paths(own, place))


def by_its_recipe(words: Words, place: Place) -> None:
    """Every command that make would run, once the environment is there."""
    done = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "--old-file=.venv/installed", *words[1:]],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    for line in done.stdout.splitlines():
        run_command(line.removeprefix(".venv/bin/"), place)


def collect(words: Words, place: Place) -> None:
    """Let pytest read its options and collect this file; running the tests here would never end."""
    command = [sys.executable, "-m", *words, "--collect-only", "-p", "no:cacheprovider", "tests/test_readme.py"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "test_readme" in done.stdout, done.stdout + done.stderr


# Beginning of a command -> how it is run here, or the name of the test that runs it.
WAYS: dict[str, Callable[[Words, Place], None] | str] = {
    "make": by_its_recipe,
    "pytest": collect,
    "softbeam run": at_a_small_size,
    "softbeam resume": as_it_stands,
    "softbeam watch": as_it_stands,
    "softbeam track": as_it_stands,
    "softbeam compare": as_it_stands,
    "softbeam report": as_it_stands,
    "softbeam models": as_it_stands,
    "softbeam export": as_it_stands,
    "softbeam predict": predict,
    "softbeam store": "test_a_store_is_filled_shown_and_rolled_back",
    # The runs of these pages have other clients.
    "softbeam bench devices": "test_the_command_takes_no_more_windows_than_it_is_told",
    "softbeam forget": "test_in_place_nothing_of_the_client_is_left",
    "softbeam sweep": "test_a_sweep_that_was_killed_goes_on_and_ends_as_if_it_had_not_been",
    "softbeam strategies": as_it_stands,
    "softbeam gallery": as_it_stands,
    "softbeam data make": at_a_small_size,
    "softbeam data validate": as_it_stands,
    "softbeam data inspect": as_it_stands,
    "softbeam data convert": as_it_stands,
    "softbeam data list": as_it_stands,
    "softbeam data clean": with_("--yes"),
    "softbeam data export": export,
    "softbeam data check": with_("--seeds", "1"),
    "softbeam bench few": with_(*SMALLEST),
    "export": "test_the_switches_for_native_flower_are_those_of_a_run",
    # Flower's own processes, in a clean copy of the checkout.
    "flwr run": "test_flwr_run_on_a_clean_copy_gives_the_same_bits_as_this_process",
}


def way_of(command: str) -> Callable[[Words, Place], None] | str:
    """How a command is run.

    Raises:
        LookupError: no entry of `WAYS` says it.
    """
    ways = [way for beginning, way in WAYS.items() if f"{command} ".startswith(f"{beginning} ")]
    if len(ways) != 1:
        raise LookupError(f"{command}: no entry of WAYS says how a test runs it")
    return ways[0]


def run_command(command: str, place: Place) -> None:
    way = way_of(command)
    if isinstance(way, str):
        assert any(f"def {way}(" in path.read_text() for path in (CHECKOUT / "tests").rglob("test_*.py")), way
        return
    way(shlex.split(command), place)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Positions and power of a few passes in the official layout."""
    folder = tmp_path_factory.mktemp("deepsense") / "scenario9"
    softbeam(["softbeam", "data", "export", str(folder), "--passes", "10", "--preset", "s9", "--modalities", "gps"])
    return folder


@pytest.fixture
def place(own_rule: Path, release: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A folder in which nothing was made yet."""
    monkeypatch.chdir(own_rule.parent)
    monkeypatch.delenv(HOME_VARIABLE)
    (own_rule.parent / "configs").symlink_to(CHECKOUT / "configs")
    yield Place(own_rule.parent, release)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_is_run(page: str, place: Place) -> None:
    text = (CHECKOUT / page).read_text()
    commands = commands_in(text)
    assert commands
    if page == "README.md":
        commands += re.findall(r"`(softbeam run mine\.yaml)`", text)
        assert len([command for command in commands if "mine.yaml" in command]) == 1
    for command in commands:
        run_command(command, place)


def test_the_switches_for_native_flower_are_those_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    exports = [shlex.split(line) for line in commands_in((CHECKOUT / "docs/flower.md").read_text())]
    given = dict(word.split("=", 1) for first, *words in exports if first == "export" for word in words)
    assert given == {**offline_environment(), HOME_VARIABLE: "$PWD/.softbeam"}


def test_a_command_that_no_test_runs_is_found() -> None:
    (command,) = commands_in("```bash\nsoftbeam conjure \\\n  --all   # nobody knows\n```")
    assert command == "softbeam conjure --all"
    with pytest.raises(LookupError, match="softbeam conjure --all"):
        way_of(command)
