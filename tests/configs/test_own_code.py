"""A user's own file that is edited is another experiment, and may import files beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.own_code import own_code_digest, own_files
from configs.plugins import find_class

NAMED = {"strategy": {"aggregator": {"name": "my_rules:Half"}}, "nodes": [{"student": "unknown:Net"}], "text": "a: b"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_rules.py").write_text("from my_helper import SHARE\n\nclass Half:\n    share = SHARE\n")
    (tmp_path / "my_helper.py").write_text("import os\nSHARE = 0.5\n")
    (tmp_path / "unrelated.py").write_text("")
    return tmp_path


def test_the_files_of_an_experiment_are_those_it_names_and_those_that_these_import(folder: Path) -> None:
    assert [file.name for file in own_files(NAMED, [folder])] == ["my_helper.py", "my_rules.py"]
    assert own_files({"strategy": "fedmd"}, [folder]) == []
    assert own_files({"track": ["my_rules:Half"]}, [folder]) == []
    assert own_code_digest({"strategy": "fedmd"}, [folder]) == ""


@pytest.mark.parametrize(("name", "counts"), [("my_rules.py", True), ("my_helper.py", True), ("unrelated.py", False)])
def test_the_digest_changes_with_the_text_of_these_files_alone(name: str, counts: bool, folder: Path) -> None:
    before = own_code_digest(NAMED, [folder])
    (folder / name).write_text((folder / name).read_text() + "# edited\n")
    assert (own_code_digest(NAMED, [folder]) != before) == counts


def test_a_file_imports_another_beside_it_also_after_that_was_edited(folder: Path) -> None:
    assert find_class("my_rules:Half", {}, key="rule", folders=[folder]).share == 0.5
    (folder / "my_helper.py").write_text("SHARE = 0.7\n")
    assert find_class("my_rules:Half", {}, key="rule", folders=[folder]).share == 0.7


def test_what_python_can_import_by_itself_comes_before_a_file_beside(folder: Path) -> None:
    (folder / "json.py").write_text("raise RuntimeError('not this one')\n")
    (folder / "my_rules.py").write_text("import json\n\nclass Half:\n    share = json.loads('0.25')\n")
    assert find_class("my_rules:Half", {}, key="rule", folders=[folder]).share == 0.25
