from __future__ import annotations

import numpy as np
import pytest

from clients.learning.coverage_monitor import STAKES, CoverageMonitor


def share_of_alarms(mean: float, *, low: float, high: float, num_passes: int, runs: int = 400) -> float:
    """How many monitors raise an alarm on passes that are missed as a whole with this probability."""
    rng = np.random.default_rng(0)
    found = [
        CoverageMonitor(low=low, high=high, delta=0.1).first_alarm(rng.random(num_passes) < mean) for _ in range(runs)
    ]
    return float(np.mean([one is not None for one in found]))


@pytest.mark.parametrize("num_passes", [100, pytest.param(500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("mean", [0.0, 0.05, 0.1])
def test_in_the_band_a_false_alarm_is_as_rare_as_promised_however_long_it_watches(mean: float, num_passes: int) -> None:
    assert share_of_alarms(mean, low=0.0, high=0.1, num_passes=num_passes) <= 0.1 + 3 * np.sqrt(0.09 / 400)


def test_losses_that_depend_on_the_past_raise_no_more_false_alarms() -> None:
    """A pass is bad only after a good one: the mean given the past is in the band, and passes are not independent."""
    rng, alarms = np.random.default_rng(1), 0
    for _ in range(400):
        monitor, last = CoverageMonitor(high=0.2, delta=0.1), 0.0
        for _ in range(200):
            last = float(rng.random() < (0.0 if last else 0.2))
            monitor.update(last)
        alarms += monitor.alarm is not None
    assert alarms / 400 <= 0.1 + 3 * np.sqrt(0.09 / 400)


def test_a_loss_above_the_band_is_found_and_the_larger_it_is_the_earlier() -> None:
    assert share_of_alarms(0.4, low=0.0, high=0.1, num_passes=60) > 0.95
    first = [CoverageMonitor(high=0.1).first_alarm([loss] * 200) for loss in (0.15, 0.3, 0.6, 1.0)]
    numbers = [one for one in first if one is not None]
    assert len(numbers) == 4 and sorted(numbers, reverse=True) == numbers and numbers[-1] == 3


def test_sets_that_are_too_large_are_found_only_where_the_band_has_a_lower_end() -> None:
    assert share_of_alarms(0.0, low=0.3, high=0.6, num_passes=100) == 1.0
    monitor = CoverageMonitor(low=0.3, high=0.6)
    monitor.first_alarm([0.0] * 100)
    assert monitor.alarm == "loss too low"


def test_the_wealth_is_the_product_of_the_bets() -> None:
    monitor = CoverageMonitor(low=0.1, high=0.2)
    monitor.update(0.5)
    monitor.update(0.0)
    high = np.mean((1 + STAKES * (0.5 / 0.2 - 1)) * (1 - STAKES))
    low = np.mean((1 + STAKES * (0.5 / 0.9 - 1)) * (1 + STAKES * (1 / 0.9 - 1)))
    np.testing.assert_allclose(monitor.evidence, (high, low))


def test_an_alarm_stays_and_years_of_losses_overflow_nothing() -> None:
    monitor = CoverageMonitor(high=0.1)
    monitor.first_alarm([1.0] * 5)
    for _ in range(3000):
        assert monitor.update(1.0) == "loss too high"
    for _ in range(20000):
        assert monitor.update(0.0) == "loss too high"
    assert np.isfinite(monitor.evidence).all()


def test_nonsense_is_refused() -> None:
    for low, high in ((0.2, 0.1), (-0.1, 0.1), (0.0, 1.0), (0.1, 0.1)):
        with pytest.raises(ValueError, match="0 <= low < high < 1"):
            CoverageMonitor(low=low, high=high)
    with pytest.raises(ValueError, match="delta: must be between 0 and 1"):
        CoverageMonitor(high=0.1, delta=0.0)
    for loss in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"loss: must be in \[0, 1\]"):
            CoverageMonitor(high=0.1).update(loss)
