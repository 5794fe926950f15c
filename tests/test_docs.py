"""What the guide to strategies shows works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from configs.recipes import RECIPES
from server.checkpoint import load_checkpoint
from server.recorder import read_rounds
from sim.cli.main import main
from strategies.codecs.table import CODECS
from strategies.registry import AGGREGATORS
from tests.conftest import tiny_values

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


@pytest.mark.usefixtures("without_report")
def test_the_rule_of_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run(written(tmp_path, "my_rules", "my_rules:Loudest"), monkeypatch)
    assert [line["num_targets"] for line in read_rounds(folder)] == [24, 24, 24]


@pytest.mark.usefixtures("without_report")
def test_the_strategy_of_the_guide_publishes_half_and_then_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run(written(tmp_path, "my_strategy", "my_strategy:Curriculum"), monkeypatch)
    checkpoint = load_checkpoint(folder)
    assert checkpoint is not None and checkpoint.federation.cache is not None
    published = [len(holding) for holding in checkpoint.federation.cache.recent]
    assert published == [line["num_targets"] for line in read_rounds(folder)] == [12, 24, 24]


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
