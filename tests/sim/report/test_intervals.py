"""An interval covers the groups and the members of each, and there is none around a single difference."""

from __future__ import annotations

import pytest

from sim.report.intervals import PairedMean, paired_interval


def test_a_mean_is_the_mean_over_groups_and_its_interval_covers_both() -> None:
    found = paired_interval([[1.0, 3.0], [5.0, 5.0, 5.0]], "test")
    assert found.mean == 3.5
    assert 1.0 <= found.low < 2.0 and found.high == pytest.approx(5.0)
    assert found == paired_interval([[1.0, 3.0], [5.0, 5.0, 5.0]], "test")


def test_equal_differences_have_no_width() -> None:
    assert paired_interval([[2.0, 2.0]], "test") == PairedMean(2.0, 2.0, 2.0)
    assert paired_interval([[2.0]], "test") == PairedMean(2.0, 2.0, 2.0)
