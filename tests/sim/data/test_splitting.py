"""Passes of any table are dealt whole, reproducibly, and as unevenly as asked for."""

from __future__ import annotations

import numpy as np
import pytest

from configs.seeding import rng_for
from sim.data.splitting import By, ClientSplit, Dealt, Dirichlet, Even, majority


def table(num_passes: int = 200, num_labels: int = 10) -> Dealt:
    labels = rng_for(0, "labels").integers(0, num_labels, num_passes)
    return Dealt(labels, {"city": np.array(["Rom", "Bonn", "Oslo", "Bern"])[np.arange(num_passes) % 4]})


@pytest.mark.parametrize("split", [Even(7), By("city"), Dirichlet(7, 0.1), Dirichlet(7, 100.0), Dirichlet(150, 0.05)])
def test_every_pass_goes_to_one_client_and_every_client_has_one(split: ClientSplit) -> None:
    dealt = split.deal(table(), rng_for(3))
    assert sorted(one for _, hand in dealt for one in hand) == list(range(200))
    assert all(hand for _, hand in dealt)
    assert split.deal(table(), rng_for(3)) == dealt
    assert split == By("city") or split.deal(table(), rng_for(4)) != dealt


def test_even_parts_differ_by_one_pass_at_most() -> None:
    assert {len(hand) for _, hand in Even(7).deal(table(), rng_for(0))} == {28, 29}


def test_a_column_gives_a_client_for_each_of_its_values_in_their_order() -> None:
    dealt = By("city").deal(table(), rng_for(0))
    assert [name for name, _ in dealt] == ["Bern", "Bonn", "Oslo", "Rom"]
    assert dealt[3][1] == list(range(0, 200, 4))


def test_a_small_alpha_gives_clients_fewer_labels() -> None:
    def labels_of_a_client(alpha: float) -> float:
        found = table(2000)
        dealt = Dirichlet(10, alpha).deal(found, rng_for(1))
        shares = [np.bincount(found.labels[hand], minlength=10) / len(hand) for _, hand in dealt]
        return float(np.mean([1 / np.sum(share**2) for share in shares]))

    assert labels_of_a_client(0.1) < 4 < labels_of_a_client(1.0) < 8 < labels_of_a_client(100.0)


def test_what_cannot_be_dealt_is_refused() -> None:
    with pytest.raises(ValueError, match="200 passes cannot be dealt to 201 clients"):
        Even(201).deal(table(), rng_for(0))
    with pytest.raises(ValueError, match="no column 'town'; there are city"):
        By("town").deal(table(), rng_for(0))
    with pytest.raises(ValueError, match="alpha must be > 0, got 0"):
        Dirichlet(2, 0).deal(table(), rng_for(0))


def test_a_pass_counts_under_the_label_that_most_of_its_rows_have() -> None:
    labels, passes = np.array([4, 4, 2, 7, 1, 1, 7]), np.array([0, 0, 0, 1, 2, 2, 2], np.int32)
    assert majority(labels, passes, [2, 0, 1]).tolist() == [1, 4, 7]
