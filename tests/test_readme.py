"""What the README shows works."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from configs.loading import find_config, load_experiment
from strategies.labels import Contribution, SoftLabels
from strategies.registry import AGGREGATORS, build_plugin, find_class

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_rule_in_the_readme_is_an_aggregator(tmp_path: Path) -> None:
    (snippet,) = re.findall(r"```python\n# my_rules\.py\n(.*?)```", README, flags=re.DOTALL)
    (tmp_path / "my_rules.py").write_text(snippet)
    (name,) = re.findall(r'aggregator: \{name: "(my_rules:\w+)"\}', README)
    rule = build_plugin(find_class(name, AGGREGATORS, key="name", folder=tmp_path), {}, key="options")
    ids = np.arange(2)
    agreeing = np.array([[[0.8, 0.1, 0.1]]] * 2, np.float32)
    odd = np.array([[[0.0, 0.1, 0.9]]] * 2, np.float32)
    voters = [("a", agreeing), ("b", agreeing), ("c", odd)]
    ensemble = rule.aggregate([Contribution(who, "gps", SoftLabels(ids, probs, 1.0), 1) for who, probs in voters])
    # The odd one out counts for less than a third.
    assert 0.1 < ensemble.probs[0, 0, 2] < (0.1 + 0.1 + 0.9) / 3


def test_every_config_that_the_readme_names_loads() -> None:
    names = set(re.findall(r"(?:softbeam run|data make) (?:configs/)?([a-z0-9-]+)", README))
    assert {"quickstart", "deepsense-scenario5", "deepsense-scenario9"} <= names
    for name in names:
        assert load_experiment(find_config(name)).name == name
