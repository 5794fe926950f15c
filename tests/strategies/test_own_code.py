"""A mistake in a user's own rule or strategy is one line that names the class, the place and the round."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from configs.loading import build_experiment
from server.recorder import read_rounds
from sim.experiments import run_experiment
from strategies.own_code import OwnCodeError, place_in_own_code
from tests.conftest import tiny_values
from tests.federations import quiet

RULES = """
from dataclasses import replace
import sys
import numpy as np
from strategies.labels import SoftLabels
from strategies.rules.weighted import Mean

def mean(contributions):
    return Mean().aggregate(contributions)

class Raises:
    def aggregate(self, contributions):
        return 1 / 0
class Ends:
    def aggregate(self, contributions):
        sys.exit(3)
class Deep:
    def aggregate(self, contributions):
        return np.zeros(3) @ np.zeros(4)
class Nothing:
    def aggregate(self, contributions):
        mean(contributions)
class Array:
    def aggregate(self, contributions):
        return mean(contributions).probs
class NotANumber:
    def aggregate(self, contributions):
        found = mean(contributions)
        found.probs[:] = np.nan
        return found
class Logits:
    def aggregate(self, contributions):
        found = mean(contributions)
        return replace(found, probs=np.log(found.probs))
class Narrow:
    def aggregate(self, contributions):
        found = mean(contributions)
        return SoftLabels(found.sample_ids, np.full((*found.probs.shape[:2], 32), 1 / 32, np.float32), 1.0)
class Noted:
    note = "of its own"
    def aggregate(self, contributions):
        return mean(contributions)
class Fewer:
    def aggregate(self, contributions):
        found = mean(contributions)
        return found.take(found.sample_ids[1:])
class FailsLater:
    num_calls = 0
    def aggregate(self, contributions):
        self.num_calls += 1
        return mean(contributions) if self.num_calls == 1 else None
"""
STRATEGIES = """
import numpy as np
from strategies.methods.distillation import DistillationStrategy

class NanTargets(DistillationStrategy):
    def targets(self, ensemble):
        found = super().targets(ensemble)
        found.probs[:] = np.nan
        return found
class NoTargets(DistillationStrategy):
    def targets(self, ensemble):
        return None
class RaisingTargets(DistillationStrategy):
    def targets(self, ensemble):
        raise KeyError("camera")
class OddSamples(DistillationStrategy):
    def choose_samples(self, round_number):
        return [0.5, 1.5]
class BeyondSamples(DistillationStrategy):
    def choose_samples(self, round_number):
        return np.array([0, self.num_public])
class AsksRule(DistillationStrategy):
    def targets(self, ensemble):
        raise KeyError(self.aggregator.note)
class ExtraTargets(DistillationStrategy):
    def targets(self, ensemble):
        found = super().targets(ensemble)
        return type(found)(found.sample_ids + 1000, found.probs, found.temperature)
class InvitesGhosts(DistillationStrategy):
    def invite(self, round_number):
        return ["007-ghost"]
class InvitesOne(DistillationStrategy):
    def invite(self, round_number):
        return "000-gps"
class InvitesTwice(DistillationStrategy):
    def invite(self, round_number):
        return 2 * super().invite(round_number)
class InvitesNobody(DistillationStrategy):
    def invite(self, round_number):
        return []
class WrongOwn(DistillationStrategy):
    def targets_for(self, contributions, ensemble):
        return {contributions[0].client: ensemble.probs}
"""


def failure(tmp_path: Path, kind: type[ValueError] = OwnCodeError, **strategy: Any) -> ValueError:
    (tmp_path / "own_rules.py").write_text(RULES)
    (tmp_path / "own_strategies.py").write_text(STRATEGIES)
    experiment = build_experiment({**tiny_values(**strategy), "controls": False}, origin="test")
    with pytest.raises(kind) as caught:
        run_experiment(experiment, plugins=(tmp_path,), out=tmp_path / "runs", progress=quiet)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("Raises", "Raises raised ZeroDivisionError: division by zero (own_rules.py, line 13, in aggregate)"),
        ("Ends", "Ends raised SystemExit: 3 (own_rules.py, line 16, in aggregate)"),
        ("Deep", "Deep raised ValueError: matmul"),
        ("Nothing", "Nothing.aggregate returned NoneType; return SoftLabels"),
        ("Array", "Array.aggregate returned ndarray; return SoftLabels"),
        ("NotANumber", "NotANumber.aggregate: probs must be finite, found NaN or infinity"),
        ("Logits", "Logits raised ValueError: probs must be class distributions; did you pass logits?"),
        (
            "Narrow",
            "Narrow.aggregate returned rows of shape (4, 32); the horizons and classes of this task are (4, 64)",
        ),
        ("Fewer", "Fewer.aggregate returned 7 samples, other than the 8"),
    ],
)
def test_a_mistake_of_a_rule_is_told_before_anything_starts(rule: str, text: str, tmp_path: Path) -> None:
    found = str(failure(tmp_path, ValueError, aggregator={"name": f"own_rules:{rule}"}))
    assert found.startswith(f"strategy.aggregator.name: tried on made-up answers: own_rules:{text}")
    assert not (tmp_path / "runs").exists()


def test_a_rule_is_tried_apart_and_a_mistake_that_it_makes_later_names_the_round(tmp_path: Path) -> None:
    found = str(failure(tmp_path, aggregator={"name": "own_rules:FailsLater"}))
    assert found.startswith("round 2: own_rules:FailsLater.aggregate returned NoneType")


@pytest.mark.parametrize(
    ("strategy", "text"),
    [
        ("NanTargets", "NanTargets.targets: probs must be finite"),
        ("NoTargets", "NoTargets.targets returned NoneType; return SoftLabels"),
        ("RaisingTargets", "RaisingTargets raised KeyError: 'camera' (own_strategies.py, line 15, in targets)"),
        ("OddSamples", "OddSamples.choose_samples returned list '[0.5, 1.5]'; return an array of integers"),
        (
            "BeyondSamples",
            "BeyondSamples.choose_samples returned ndarray '[ 0 91]'; return an array of integers from 0 to 90",
        ),
        ("ExtraTargets", "ExtraTargets.targets returned sample 1071; public samples have the numbers 0 to 90"),
        ("InvitesGhosts", "InvitesGhosts.invite names '007-ghost', which is no client; there are 000-gps"),
        ("InvitesOne", "InvitesOne.invite returned str '000-gps'; return a list of ids of clients"),
        ("InvitesTwice", "InvitesTwice.invite names a client twice"),
        ("WrongOwn", "WrongOwn.targets_for returned ndarray; return SoftLabels"),
    ],
)
def test_a_mistake_of_a_strategy_names_it(strategy: str, text: str, tmp_path: Path) -> None:
    assert str(failure(tmp_path, name=f"own_strategies:{strategy}")).startswith(f"round 1: own_strategies:{text}")


def test_a_strategy_reaches_what_a_rule_of_ones_own_has(tmp_path: Path) -> None:
    text = str(failure(tmp_path, name="own_strategies:AsksRule", aggregator={"name": "own_rules:Noted"}))
    assert "KeyError: 'of its own'" in text


def test_a_strategy_that_is_combined_with_one_of_ours_is_a_users_own(tmp_path: Path) -> None:
    text = str(failure(tmp_path, name="own_strategies:NanTargets", publish="corrected"))
    assert text.startswith("round 1: own_strategies:NanTargets")


def test_a_rule_with_another_signature_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "odd_rules.py").write_text(
        "class Args:\n    def aggregate(self, probs, weights):\n        return probs\n"
    )
    experiment = build_experiment(tiny_values(aggregator={"name": "odd_rules:Args"}), origin="test")
    with pytest.raises(ValueError, match=r"odd_rules:Args\.aggregate must take the contributions and nothing else"):
        run_experiment(experiment, plugins=(tmp_path,), out=tmp_path / "runs", progress=quiet)
    assert not (tmp_path / "runs").exists()


def test_a_round_to_which_nobody_is_invited_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "own_strategies.py").write_text(STRATEGIES)
    values = tiny_values(name="own_strategies:InvitesNobody", rounds=2, round_timeout_s=600.0)
    experiment = build_experiment({**values, "controls": False}, origin="test")
    begin = time.monotonic()
    run = run_experiment(experiment, plugins=(tmp_path,), out=tmp_path / "runs", progress=quiet)
    assert time.monotonic() - begin < 300
    assert [line["clients"] for line in read_rounds(run)] == [{}, {}]


@pytest.mark.parametrize("called", ["None + 1", "json.loads('{')", "np.zeros(3) @ np.zeros(4)"])
def test_what_a_user_s_code_raises_itself_or_in_a_library_has_its_place(called: str, tmp_path: Path) -> None:
    file = tmp_path / "my_models.py"
    file.write_text(f"import json\nimport numpy as np\nclass Tiny:\n    def features(self):\n        return {called}\n")
    names: dict[str, Any] = {}
    exec(compile(file.read_text(), str(file), "exec"), names)
    with pytest.raises((TypeError, ValueError)) as caught:
        names["Tiny"]().features()
    # The call in this test stands for that of Softbeam.
    assert place_in_own_code(caught.value).startswith("(my_models.py, line 5, in ")
    assert place_in_own_code(caught.value).endswith("features)")


def test_what_our_code_raises_has_no_place_in_a_user_s_code() -> None:
    with pytest.raises(ValueError) as caught:
        build_experiment({}, origin="test")
    assert place_in_own_code(caught.value) == ""
