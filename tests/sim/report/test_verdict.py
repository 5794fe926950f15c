"""A verdict is about both controls, client by client, and is never good for a tie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from sim.report.verdict import gain_over, verdict_of
from tests.sim.report.test_tables import client, metrics, summary


def run(differences: Sequence[tuple[float | None, float | None]], seed: int = 0) -> dict[str, Any]:
    """A run whose clients differ from local only and from offline KD by so many points."""
    clients = []
    for number, (alone, taught) in enumerate(differences):
        one = client(f"{number:03d}-gps", federated=0.6)
        one["local"] = None if alone is None else metrics(0.6 - alone / 100)
        one["offline_kd"] = None if taught is None else metrics(0.6 - taught / 100)
        clients.append(one)
    return summary(*clients, seed=seed)


@pytest.mark.parametrize(
    ("differences", "words", "is_worth_it"),
    [
        ([(9, 3), (5, 2), (7, 4)], "helped the clients, more than a teacher", True),
        ([(9, 0.1), (5, -0.1), (7, 0.2)], "no clear difference to offline KD", False),
        ([(9, 6), (5, -6), (7, 1)], "no clear difference to offline KD", False),
        ([(9, -3), (5, -2), (7, -4)], "less than by offline KD", False),
        ([(0.2, 3), (0.1, 2), (0.4, 4)], "no clear difference to the clients", False),
        ([(20, 3), (-15, 2), (1, 4)], "no clear difference to the clients", False),
        ([(-9, 3), (-5, 2), (-7, 4)], "hurt the clients", False),
        ([(9, 3)], "no clear difference to the clients", False),
        ([(9, None), (5, None)], "against offline KD they cannot be compared", False),
        ([(None, 3), (None, 4)], "cannot be compared", False),
        ([(None, None)], "no controls", False),
    ],
)
def test_the_verdict_follows_from_both_controls(
    differences: list[tuple[float | None, float | None]], words: str, is_worth_it: bool
) -> None:
    verdict, found = verdict_of([run(differences)])
    assert words in verdict
    assert found == is_worth_it


def test_a_gain_is_paired_by_client_and_its_interval_covers_the_seeds() -> None:
    one = gain_over([run([(4, 1), (6, 1)])], "local")
    assert one is not None
    assert (round(100 * one.mean, 6), one.num_better, one.num) == (5.0, 2, 2)
    assert 0.04 <= one.low < one.high <= 0.06 + 1e-9
    both = gain_over([run([(4, 1), (6, 1)]), run([(14, 1), (16, 1)], seed=1)], "local")
    assert both is not None
    assert both.mean == pytest.approx(0.10)
    assert both.low < 0.06 and both.high > 0.14
    assert both == gain_over([run([(4, 1), (6, 1)]), run([(14, 1), (16, 1)], seed=1)], "local")
