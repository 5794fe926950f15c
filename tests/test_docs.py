"""What the guide to strategies shows works, and every command that a page shows is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import yaml
from typer.main import get_command

from configs.loading import load_experiment
from configs.placement import Placement
from configs.recipes import RECIPES
from configs.yaml_files import read_config
from server.checkpoint import load_checkpoint
from server.recorder import read_rounds
from sim.cli.main import cli, main
from strategies.codecs.table import CODECS
from strategies.registry import AGGREGATORS, find_plugins
from tests.conftest import CHECKOUT, tiny_values
from tests.test_pages import PAGES

GUIDE = (Path(__file__).parents[1] / "docs" / "strategies.md").read_text()


def written(tmp_path: Path, name: str, settings: str) -> Path:
    """A snippet of the guide as a file, beside a tiny experiment with the settings that the guide shows."""
    (snippet,) = re.findall(rf"```python\n# {name}\.py\n(.*?)```", GUIDE, flags=re.DOTALL)
    (block,) = [text for text in re.findall(r"```yaml\n(.*?)```", GUIDE, flags=re.DOTALL) if settings in text]
    (tmp_path / f"{name}.py").write_text(snippet)
    values = tiny_values(**yaml.safe_load(block)["strategy"], codec="float16", publish="ensemble", teacher_starts=False)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**values, "controls": False}))
    return tmp_path / "mine.yaml"


def run(config: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> Path:
    out = config.parent / "runs"
    monkeypatch.setattr("sys.argv", ["softbeam", "run", str(config), "--out", str(out), "--json", *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    (folder,) = out.iterdir()
    return folder


def test_the_rule_of_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run(written(tmp_path, "my_rules", "my_rules:Loudest"), monkeypatch)
    assert [line["num_targets"] for line in read_rounds(folder)] == [24, 24, 24]


def test_the_strategy_of_the_guide_publishes_half_and_then_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run(written(tmp_path, "my_strategy", "my_strategy:Curriculum"), monkeypatch)
    checkpoint = load_checkpoint(folder)
    assert checkpoint is not None and checkpoint.federation.cache is not None
    published = [len(holding) for holding in checkpoint.federation.cache.recent]
    assert published == [line["num_targets"] for line in read_rounds(folder)] == [12, 24, 24]


YAMLS = [
    (page.name, block)
    for page in [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
    for block in re.findall(r"```yaml\n(# [a-z-]+\.yaml\n.*?)```", page.read_text(), flags=re.DOTALL)
]


def test_the_pages_show_yamls_of_a_reader() -> None:
    assert [page for page, _ in YAMLS] == [
        "README.md",
        "commands.md",
        "commands.md",
        "strategies.md",
        "strategies.md",
        "trackers.md",
    ]


@pytest.mark.parametrize(("page", "block"), YAMLS)
def test_a_yaml_of_a_page_is_whole_and_its_modules_are_those_that_the_page_shows(
    page: str, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.yaml").write_text(block)
    text = (CHECKOUT / ("" if page == "README.md" else "docs") / page).read_text()
    for name, snippet in re.findall(r"```python\n# (\w+)\.py\n(.*?)```", text, flags=re.DOTALL):
        (tmp_path / f"{name}.py").write_text(snippet)
    experiment = load_experiment(tmp_path / "mine.yaml")
    assert experiment.name != "quickstart"
    assert experiment.teaching == load_experiment("quickstart").teaching
    # Beside the YAML, and in the current folder.
    for folder in (tmp_path, Path.cwd()):
        monkeypatch.chdir(folder)
        find_plugins(Placement(experiment, tmp_path, tmp_path, read_config(tmp_path / "mine.yaml").plugin_folders))


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        (
            "my_rules",
            "strategy.aggregator.options.horizon=-1",
            "strategy.aggregator.options.horizon: must be >= 0, got -1",
        ),
        ("my_strategy", "strategy.options.share=2", "strategy.options.share: must be in (0, 1], got 2"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_starts(
    name: str,
    options: str,
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = written(tmp_path, name, f"{name}:")
    monkeypatch.setattr("sys.argv", ["softbeam", "run", str(config), "--set", options, "--out", str(tmp_path / "runs")])
    with pytest.raises(SystemExit):
        main()
    assert problem in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", [*RECIPES, *AGGREGATORS, *CODECS])
def test_the_guide_names_everything_that_a_yaml_may_name(name: str) -> None:
    assert f"`{name}`" in GUIDE


def typed(page: Path) -> list[str]:
    """The commands that the blocks of a page tell a reader to type."""
    blocks = re.findall(r"```(?:bash)?\n(.*?)```", page.read_text(), flags=re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith("softbeam ")]


def parse(line: str) -> None:
    """Read the words of a command as it would itself.

    Raises:
        LookupError: there is no such command.
        click.UsageError: it has no such option.
    """
    command, words = get_command(cli), shlex.split(line, comments=True)[1:]
    context = click.Context(command)
    while isinstance(command, click.Group) and not words[0].startswith("--"):
        found = command.get_command(context, words[0])
        if found is None:
            raise LookupError(f"{line}: there is no {words[0]}")
        command, words, context = found, words[1:], click.Context(found, parent=context)
    _, left, _ = command.make_parser(context).parse_args(list(words))
    assert not left, f"{line}: nothing takes {left}"


@pytest.mark.parametrize("page", [page for page in PAGES if typed(page)], ids=lambda page: page.name)
def test_every_command_of_a_page_is_there_with_its_options(page: Path) -> None:
    for line in typed(page):
        parse(line)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("softbeam conjure", LookupError),
        ("softbeam run quickstart --sed 3", click.UsageError),
        ("softbeam list", LookupError),
    ],
)
def test_a_command_that_is_not_there_is_found(line: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        parse(line)
