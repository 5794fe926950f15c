"""The table of rules under attack: who attacks, with what, and what a rule makes of it, on three made-up clients."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sim.bench.attack_table import RULES, AttackCell, Voters, attack_cells, attacked
from sim.bench.tables import attacks_table
from strategies.attacks import EXAGGERATION
from strategies.labels import Contribution, SoftLabels
from strategies.registry import AGGREGATORS

BEAMS = 8
# Best beams of two public samples, and what they are when beam b is called 7 - b.
TRUTH, MIRRORED = [1, 2], [6, 5]
WINDOWS = {"000-gps": 2, "001-gps": 5, "002-gps": 1}
LARGEST = "001-gps"


def naming(beams: list[int], certainty: float = 0.93) -> NDArray[np.float32]:
    """(N, 1, B) rows that give one beam most and all others the same."""
    probs = np.full((len(beams), 1, BEAMS), (1 - certainty) / (BEAMS - 1), np.float32)
    probs[np.arange(len(beams)), 0, beams] = certainty
    return probs


def voters() -> Voters:
    """Three clients that are right about both samples; each was otherwise certain of them at first."""
    contributions = tuple(
        Contribution(client, "gps", SoftLabels(np.arange(2), naming(TRUTH), 2.0), num_examples)
        for client, num_examples in WINDOWS.items()
    )
    first = np.stack([naming([number, number]) for number in (3, 4, 7)])
    power = naming(TRUTH, 0.5)
    return Voters(contributions, first, power)


def under(attack: str, num_attackers: int) -> dict[str, Contribution]:
    return {one.client: one for one in attacked(voters(), attack, num_attackers, seed=0)}


def table(*rules: str, attacks: list[str], counts: list[int]) -> dict[tuple[str, str, int], AttackCell]:
    cells = attack_cells(voters(), seed=0, rules=rules, attacks=attacks, counts=counts)
    return {(cell.rule, cell.attack, cell.num_attackers): cell for cell in cells}


def test_the_client_with_the_most_windows_lies_and_the_others_answer_as_they_would() -> None:
    found = under("label_flip", 1)
    np.testing.assert_array_equal(found[LARGEST].labels.probs, naming(MIRRORED))
    for client in ("000-gps", "002-gps"):
        np.testing.assert_array_equal(found[client].labels.probs, naming(TRUTH))
    np.testing.assert_array_equal(under("label_flip", 2)["000-gps"].labels.probs, naming(MIRRORED))


def test_without_an_attack_nobody_lies() -> None:
    for one in under("", 3).values():
        np.testing.assert_array_equal(one.labels.probs, naming(TRUTH))


def test_an_impostor_claims_a_hundred_times_its_windows() -> None:
    found = under("impersonation", 1)
    assert {client: one.num_examples for client, one in found.items()} == {**WINDOWS, LARGEST: 5 * EXAGGERATION}


def test_a_stale_client_replays_its_own_first_answer() -> None:
    np.testing.assert_array_equal(under("stale", 1)[LARGEST].labels.probs, naming([4, 4]))


def test_an_answer_that_is_no_distribution_is_left_out() -> None:
    assert set(under("nan", 1)) == {"000-gps", "002-gps"}


def test_the_table_holds_the_clean_cell_of_every_rule_and_then_its_attacked_ones() -> None:
    cells = table("mean", "median", attacks=["label_flip", "nan"], counts=[1, 2])
    each = [("", 0), ("label_flip", 1), ("label_flip", 2), ("nan", 1), ("nan", 2)]
    assert list(cells) == [(rule, *what) for rule in ("mean", "median") for what in each]
    assert {cell.seed for cell in cells.values()} == {0}


def test_accuracies_of_the_ensembles_by_hand() -> None:
    cells = table("mean", "example_weighted", attacks=["label_flip"], counts=[1, 2])
    scores = {key: (cell.top1, cell.top3, cell.top5) for key, cell in cells.items()}
    # One liar of three: the plain mean still names the true beam first. Of eight windows the liar has five.
    assert scores["mean", "", 0] == scores["example_weighted", "", 0] == (1.0, 1.0, 1.0)
    assert scores["mean", "label_flip", 1] == (1.0, 1.0, 1.0)
    assert scores["example_weighted", "label_flip", 1] == (0.0, 1.0, 1.0)
    # Two liars of three: the true beam is second.
    assert scores["mean", "label_flip", 2] == (0.0, 1.0, 1.0)


def test_a_named_rule_is_built_with_its_options() -> None:
    # Nobody says which beams it has seen, so coverage makes no difference here.
    cells = table("median", "median, covered", attacks=["label_flip"], counts=[1])
    assert [cell.top1 for cell in cells.values()] == [1.0, 1.0, 1.0, 1.0]
    assert {short for short, _ in RULES.values()} == set(AGGREGATORS)


@pytest.mark.parametrize(
    ("rules", "attacks", "text"),
    [
        (["mean", "mode"], ["nan"], "--rule: 'mode' is unknown"),
        (["mean"], ["bribery"], "--attack: 'bribery' is unknown"),
    ],
)
def test_an_unknown_rule_or_attack_is_refused_by_its_option(rules: list[str], attacks: list[str], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        list(attack_cells(voters(), seed=0, rules=rules, attacks=attacks, counts=[1]))


def test_the_table_has_a_line_for_each_number_of_attackers_and_the_mean_over_seeds() -> None:
    cells = [
        AttackCell("mean", "", 0, 0, 0.4, 0.5, 0.6),
        AttackCell("mean", "", 0, 1, 0.2, 0.5, 0.6),
        AttackCell("mean", "nan", 4, 0, 0.1, 0.5, 0.6),
        AttackCell("mean", "nan", 6, 0, 0.05, 0.5, 0.6),
    ]
    table = attacks_table(cells, "top1")
    assert [column.header for column in table.columns] == ["rule", "clean", "nan"]
    assert [list(column.cells) for column in table.columns] == [["mean"], ["30.0"], ["10.0\n5.0"]]
