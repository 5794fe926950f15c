"""From a name in the YAML to an object, and how a wrong name or option is refused."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from strategies.codecs.table import CODECS
from strategies.registry import AGGREGATORS, STRATEGIES, build_plugin, describe, find_class
from strategies.rules.weighted import EntropyProduct, Mean

KEY = "strategy.aggregator.name"

RULES = '''
"""A user's rules."""
from dataclasses import dataclass
from strategies.rules.weighted import Mean

NUMBER = 3

@dataclass(frozen=True)
class Trimmed:
    share: float = 0.1
    def __post_init__(self):
        if not 0 <= self.share < 0.5:
            raise ValueError(f"share: must be in [0, 0.5), got {self.share}")
    def aggregate(self, contributions):
        return Mean().aggregate(contributions)

class Open:
    def __init__(self, **options):
        self.options = options

class Needy:
    def __init__(self, needed):
        self.needed = needed
'''


@pytest.fixture
def module(tmp_path: Path) -> str:
    """A name that no other test gives to its module."""
    return f"rules_of_{tmp_path.name}"


@pytest.fixture
def folder(tmp_path: Path, module: str) -> Path:
    """A folder with a user's module in it."""
    (tmp_path / f"{module}.py").write_text(RULES)
    return tmp_path


def refusal(name: str, *, folders: tuple[Path, ...] = ()) -> str:
    with pytest.raises(ValueError) as caught:
        find_class(name, AGGREGATORS, key=KEY, folders=folders)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("table", [AGGREGATORS, STRATEGIES])
def test_every_short_name_leads_to_a_class(table: dict[str, str]) -> None:
    for name, target in table.items():
        assert find_class(name, table, key=KEY).__name__ == target.partition(":")[2]


def test_a_class_may_be_named_by_its_module() -> None:
    assert find_class("strategies.rules.weighted:Mean", AGGREGATORS, key=KEY) is Mean


def test_a_class_may_lie_in_a_file_beside_the_yaml(folder: Path, module: str) -> None:
    cls = find_class(f"{module}:Trimmed", AGGREGATORS, key=KEY, folders=(folder,))
    assert build_plugin(cls, {"share": 0.2}, key="strategy.aggregator.options").share == 0.2


def test_a_file_that_was_changed_is_read_anew_even_in_the_same_second_and_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = tmp_path / "my_changed_rules.py"
    for share in ("0.1", "0.2"):
        file.write_text(RULES.replace("share: float = 0.1", f"share: float = {share}"))
        os.utime(file, (1_700_000_000, 1_700_000_000))
        found = find_class("my_changed_rules:Trimmed", AGGREGATORS, key=KEY, folders=[tmp_path])
        assert found().share == float(share)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_file_beside_the_yaml_does_not_hide_a_short_name(tmp_path: Path) -> None:
    (tmp_path / "strategies.py").write_text("raise RuntimeError('not this one')")
    assert find_class("mean", AGGREGATORS, key=KEY, folders=(tmp_path,)) is Mean


def test_an_unknown_name_is_refused_and_the_known_ones_are_given() -> None:
    text = refusal("loudest")
    assert text.startswith(f"{KEY}: unknown name 'loudest'")
    assert "entropy_product, example_weighted, geometric_median, mean" in text


@pytest.mark.parametrize(
    "name",
    [
        "no_such_module:Rule",
        "strategies.nothing:Rule",
        "strategies.nothing.deeper:Rule",
        ":Rule",
        ".labels:Rule",
        "a b:Rule",
    ],
)
def test_an_unknown_module_is_refused_by_the_key(name: str, tmp_path: Path) -> None:
    assert refusal(name).startswith(f"{KEY}: ")
    assert refusal(name, folders=(tmp_path,)).startswith(f"{KEY}: ")


def test_a_missing_module_names_the_folder_where_it_was_looked_for(tmp_path: Path) -> None:
    assert f"no no_such_module.py in {tmp_path}" in refusal("no_such_module:Rule", folders=(tmp_path,))


@pytest.mark.parametrize("name", ["strategies.aggregation:Median", "strategies.aggregation:", "math:pi", "math:sqrt"])
def test_what_is_not_a_class_is_refused_by_the_key(name: str) -> None:
    assert refusal(name).startswith(f"{KEY}: {name.partition(':')[0]} has no class")


def test_a_user_s_module_that_does_not_parse_is_refused_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "half_written_rules.py").write_text("class Trimmed(:\n")
    text = refusal("half_written_rules:Trimmed", folders=(tmp_path,))
    assert "half_written_rules.py" in text


def test_a_user_s_module_that_imports_something_missing_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "needy_rules.py").write_text("import no_such_library\n")
    with pytest.raises((ValueError, ModuleNotFoundError), match="no_such_library"):
        find_class("needy_rules:Trimmed", AGGREGATORS, key=KEY, folders=(tmp_path,))


def test_options_are_the_keyword_arguments_of_the_class() -> None:
    assert build_plugin(EntropyProduct, {"exponent": 2}, key="o") == EntropyProduct(exponent=2)
    assert build_plugin(Mean, {}, key="o") == Mean()


def test_an_unknown_option_is_refused_by_its_path_and_the_known_ones_are_given() -> None:
    with pytest.raises(ValueError) as caught:
        build_plugin(EntropyProduct, {"power": 2}, key="strategy.aggregator.options")
    assert str(caught.value) == (
        "strategy.aggregator.options.power: unknown option of EntropyProduct; known are: exponent"
    )
    with pytest.raises(ValueError, match="known are: none"):
        build_plugin(Mean, {"power": 2}, key="strategy.aggregator.options")


def test_an_option_out_of_range_is_refused_by_its_path() -> None:
    with pytest.raises(ValueError, match=r"^strategy\.aggregator\.options\.exponent: must be > 0, got -1$"):
        build_plugin(EntropyProduct, {"exponent": -1}, key="strategy.aggregator.options")


class Typed:
    def __init__(self, share: float = 0.1, *, count: int | None = None, name: str = "", hard: bool = False) -> None:
        self.values = share, count, name, hard


class TypedHeir(Typed):
    def __init__(self, *, pace: int = 1, **options: Any) -> None:
        super().__init__(**options)


@pytest.mark.parametrize("cls", [Typed, TypedHeir])
@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("share", "0.1", "must be a number, got the text '0.1'"),
        ("share", True, "must be a number, got True"),
        ("share", None, "must be a number, got None"),
        ("share", [0.1], "must be a number, got [0.1]"),
        ("count", 1.5, "must be a whole number or null, got 1.5"),
        ("count", "2", "must be a whole number or null, got the text '2'"),
        ("name", 3, "must be a text, got 3"),
        ("hard", 1, "must be true or false, got 1"),
        ("hard", "yes", "must be true or false, got the text 'yes'"),
    ],
)
def test_an_option_of_another_type_than_the_class_declares_is_refused_by_its_path(
    cls: type[Any], option: str, value: object, told: str
) -> None:
    with pytest.raises(ValueError) as caught:
        build_plugin(cls, {option: value}, key="strategy.aggregator.options")
    assert str(caught.value) == f"strategy.aggregator.options.{option}: {told}"


@pytest.mark.parametrize(
    "options", [{"share": 1}, {"share": np.float32(0.5), "count": np.int64(2)}, {"count": None}, {"hard": True}]
)
def test_an_option_of_the_declared_type_is_taken(options: dict[str, Any]) -> None:
    build_plugin(Typed, options, key="o")


def test_a_missing_option_is_refused_by_the_key(folder: Path, module: str) -> None:
    cls = find_class(f"{module}:Needy", AGGREGATORS, key=KEY, folders=(folder,))
    with pytest.raises(ValueError, match=r"^strategy\.aggregator\.options: .*needed"):
        build_plugin(cls, {}, key="strategy.aggregator.options")


def test_a_class_that_takes_anything_is_given_anything(folder: Path, module: str) -> None:
    cls = find_class(f"{module}:Open", AGGREGATORS, key=KEY, folders=(folder,))
    assert build_plugin(cls, {"a": 1, "b": 2}, key="o").options == {"a": 1, "b": 2}


def test_every_plug_in_is_described_in_a_line_of_its_own_with_its_source() -> None:
    rows = describe()
    assert {row["name"] for row in rows} == {*AGGREGATORS, *STRATEGIES, *CODECS, "+delta", "+zlib"}
    for row in rows:
        assert row["description"] and row["source"], row
        assert "\n" not in row["description"] + row["source"]
    assert len({row["description"] for row in rows}) == len(rows)


def test_a_source_is_told_to_its_end() -> None:
    sources = {row["name"]: row["source"] for row in describe()}
    assert sources["entropy_product"] == (
        "logarithmic opinion pool (Genest and Zidek 1986) with entropy weights, the rule that pooled heterogeneous "
        "sensors best by night and by day among those tried."
    )
    assert sources["mean"] == "FedMD, arXiv 1910.03581, on probabilities instead of logits."


def test_a_codec_is_described_by_what_it_costs() -> None:
    costs = {row["name"]: row["description"] for row in describe() if row["kind"] == "codec"}
    # Four horizons of 64 beams: 4 bytes a value, and for eight beams 10 bits each and a byte for the rest.
    assert costs["float32"] == "Floating-point probabilities. 1024 bytes for 4 horizons of 64 classes."
    assert costs["top8-uint4"].endswith(" 44 bytes for 4 horizons of 64 classes.")
