"""The audit of a curious server: its measures by hand, and that it finds out more from more."""

from __future__ import annotations

import numpy as np
import pytest

from sim.bench.membership import Leak, auc, audit, caught, scores
from sim.bench.tables import leaks_table


def test_the_area_under_the_curve_by_hand() -> None:
    # Of six pairs the member is higher in four, equal in one: 4.5 / 6.
    assert auc(np.array([1.0, 3.0]), np.array([0.0, 1.0, 2.0])) == pytest.approx(4.5 / 6)
    assert auc(np.arange(5.0), np.arange(5.0)) == pytest.approx(0.5)


def test_members_are_caught_above_what_one_in_twenty_others_exceeds() -> None:
    others = np.arange(101.0)
    assert caught(np.array([94.0, 95.0, 95.5, 200.0]), others) == pytest.approx(0.5)


def test_the_score_is_the_log_probability_of_the_best_beams() -> None:
    probs = np.array([[[0.5, 0.5], [0.25, 0.75]], [[1.0, 0.0], [0.0, 1.0]]], np.float32)
    found = scores(probs, np.array([[0, 1], [0, 1]]))
    np.testing.assert_allclose(found, [(np.log(0.5) + np.log(0.75)) / 2, 0.0], atol=1e-6)


def test_an_audit_reports_every_release_and_noise_hides_who_was_a_member() -> None:
    leaks = {leak.release: leak for leak in audit(0, num_steps=40)}
    assert {"soft labels", "top8-uint4", "best beam alone", "clip 0.5, noise 1.0", "50% of its windows"} <= set(leaks)
    for leak in leaks.values():
        assert 0 <= leak.auc <= 1 and 0 <= leak.caught <= 1 and 0 <= leak.top5 <= 1
    # Raw soft labels give members away, and the best beam alone less so.
    assert leaks["soft labels"].auc > 0.58 and leaks["soft labels"].caught > 0.08
    assert leaks["soft labels"].auc > leaks["best beam alone"].auc
    noisy = leaks["clip 0.5, noise 1.0"]
    assert noisy.auc == pytest.approx(0.5, abs=0.06)
    assert noisy.epsilon < leaks["clip 0.5, noise 0.2"].epsilon < np.inf
    assert noisy.delta == 1e-5 and leaks["soft labels"].delta == 0
    half = leaks["50% of its windows"]
    # n ln((n + 1) / n) / 2 and 1 - ((n - 1) / n)^(n / 2) of some hundred windows.
    assert half.epsilon == pytest.approx(0.5, abs=0.01)
    assert half.delta == pytest.approx(1 - np.exp(-0.5), abs=0.01)


def test_the_table_of_an_audit_tells_a_bound_with_its_delta() -> None:
    leaks = [
        Leak("soft labels", 0, 0.7, 0.2, 0.9, np.inf, 0.0),
        Leak("half", 0, 0.6, 0.1, 0.8, 0.5, 0.39),
        Leak("noise", 0, 0.5, 0.05, 0.1, 13254.2, 1e-5),
    ]
    cells = [list(column.cells) for column in leaks_table(leaks).columns]
    assert cells[-2:] == [["-", "0.50", "13,254"], ["-", "0.39", "1e-05"]]
