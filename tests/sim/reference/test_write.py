"""The reference is up to date, and holds every key, every command and every public name."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import softbeam
from configs.loading import load_experiment, set_value, to_values
from configs.schema import Experiment
from configs.study import Study
from sim.cli.command_tree import run_command
from sim.cli.main import cli
from sim.reference import names, write
from sim.reference.commands import commands
from sim.reference.settings import keys, meaning, sections, spellings
from tests.conftest import CHECKOUT
from tests.test_public_names import TAUGHT

FOLDER = CHECKOUT / "docs" / "reference"
PAGES = write.pages()
COMMANDS = dict(commands(run_command(cli)))


def test_the_pages_are_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["write", str(tmp_path)])
    write.main()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in FOLDER.glob("*.md"))
    stale = [path.name for path in sorted(tmp_path.iterdir()) if path.read_text() != (FOLDER / path.name).read_text()]
    assert stale == [], "write them again with make reference"


@pytest.mark.parametrize(("kind", "at_least"), [(Experiment, 150), (Study, 60)])
def test_every_key_is_in_the_reference_with_its_meaning(kind: type[Experiment] | type[Study], at_least: int) -> None:
    page, count = PAGES["settings.md"], 0
    for section, paths in sections(kind).items():
        (table,) = re.findall(rf"^### {section.__name__}\n(.*?)(?=^##|\Z)", page, flags=re.MULTILINE | re.DOTALL)
        assert all(f"`{path}`" in table for path in paths if path), section
        for name, field in section.model_fields.items():
            assert meaning(section, name), f"{section.__name__}.{name}: its docstring does not say what it means"
            (row,) = re.findall(
                rf"^\| {' or '.join(f'`{one}`' for one in spellings(name, field))} \|.*$", table, flags=re.MULTILINE
            )
            assert row.endswith(f"{meaning(section, name)} |".replace("|", "\\|").removesuffix("\\|") + "|")
            count += len(paths) * len(spellings(name, field))
    assert count == len(keys(kind)) >= at_least


def test_the_keys_are_those_that_an_experiment_has() -> None:
    def below(values: object, path: str) -> list[str]:
        if isinstance(values, list):
            return [one for value in values for one in below(value, f"{path}[]")]
        if not isinstance(values, dict):
            return []
        found = []
        for key, value in values.items():
            step = "NAME" if path == "students" else key
            where = f"{path}.{step}" if path else step
            found += ([] if path == "students" else [where]) + ([] if key == "options" else below(value, where))
        return found

    values = to_values(load_experiment("quickstart"))
    set_value(values, "students={gps: {width: 4}}")
    assert set(below(values, "")) <= set(keys(Experiment))


def test_every_command_is_in_the_reference_with_every_option() -> None:
    page = PAGES["commands.md"]
    assert len(COMMANDS) > 40
    for words, command in COMMANDS.items():
        (text,) = re.findall(rf"^##+ softbeam {words}\n(.*?)(?=^##|\Z)", page, flags=re.MULTILINE | re.DOTALL)
        for parameter in command.params:
            if parameter.name != "help":
                shown = parameter.opts[0] if parameter.param_type_name == "option" else f"| `{parameter.name}".upper()
                assert shown in text, f"{words}: {shown}"


def test_every_public_name_is_in_the_reference() -> None:
    titles = re.findall(r"^### (\S+)$", PAGES["python.md"], flags=re.MULTILINE)
    wanted = [f"softbeam.{name}" for name in softbeam.__all__]
    wanted += [f"{module}.{name}" for module, taught in TAUGHT.items() for name in taught]
    assert titles == wanted
    assert names.PLUGIN_NAMES == TAUGHT


def test_every_public_name_has_a_text() -> None:
    sections = re.split(r"^###+ ", PAGES["python.md"], flags=re.MULTILINE)[1:]
    empty = [
        text.split("\n")[0] for text in sections if len(re.sub(r"```.*?```", "", text, flags=re.DOTALL).split()) < 4
    ]
    assert empty == []
