"""Scores of windows by hand, and the laws of the study's intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from clients.learning.metrics import BeamMetrics
from configs.seeding import rng_for
from sim.study.cells import Cell, cells_of, teachers_of, untaught
from sim.study.scores import METRICS, summarise, window_scores
from sim.study.statistics import SMALLEST_GAP, closed_share, difference, level
from tests.study_rows import row


def cell(*rows: dict[str, Any]) -> Cell:
    (found,) = cells_of(rows).values()
    return found


def noise(seed: int, count: int, spread: float = 0.1) -> list[float]:
    return (0.7 + spread * rng_for(seed, "study test").standard_normal(count)).tolist()


# Scores


def test_the_means_of_window_scores_are_the_beam_metrics() -> None:
    rng = rng_for(0, "window scores")
    # Few levels, so that there are ties among scores and among powers.
    logits, power = rng.integers(0, 5, (200, 4, 64)).astype(float), rng.integers(1, 9, (200, 4, 64)).astype(float)
    scores, expected = window_scores(logits, power), BeamMetrics.of(logits, power).to_dict()
    assert set(expected) < set(METRICS) == set(scores)
    for name, values in expected.items():
        np.testing.assert_allclose(scores[name].mean(axis=0), values, rtol=1e-12)


def test_each_window_and_horizon_is_scored_by_itself() -> None:
    power = np.full((2, 2, 64), 0.1)
    power[0, :, 10] = power[1, :, 20] = 1.0
    logits = np.zeros((2, 2, 64))
    logits[0, 0, [12, 11, 10]] = [3.0, 2.0, 1.0]
    logits[0, 1, 10] = logits[1, 0, 20] = 1.0
    logits[1, 1, 60:63] = [3.0, 2.0, 1.0]
    scores = window_scores(logits, power)
    np.testing.assert_array_equal(scores["top1"], [[0, 1], [1, 0]])
    np.testing.assert_array_equal(scores["top2"], [[0, 1], [1, 0]])
    np.testing.assert_array_equal(scores["top3"], [[1, 1], [1, 0]])
    np.testing.assert_allclose(scores["dba"], [[0.8, 1.0], [1.0, 0.0]])
    np.testing.assert_array_equal(scores["dba_k3"], [[1, 1], [1, 0]])
    np.testing.assert_allclose(scores["power_loss_db"], [[10.0, 0.0], [0.0, 10.0]])


def test_of_equal_scores_the_first_ten_beams_are_the_ten_guesses() -> None:
    power = np.full((2, 1, 64), 0.1)
    power[0, 0, 9] = power[1, 0, 10] = 1.0
    scores = window_scores(np.zeros((2, 1, 64)), power)
    np.testing.assert_array_equal(scores["top10"], [[1], [0]])
    np.testing.assert_array_equal(scores["top5"], [[0], [0]])


def test_a_summary_keeps_means_by_horizon_and_sums_by_pass() -> None:
    scores = {name: np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]]) for name in METRICS}
    found = summarise(scores, np.array([7, 3, 7, 7]))
    assert found["metrics"]["top5"] == [0.75, 0.25]
    assert found["average"]["top5"] == 0.5
    assert found["by_pass"]["windows"] == [1, 3]
    assert found["by_pass"]["top5"] == [1.0, 1.0]
    assert set(found["metrics"]) == set(found["average"]) == set(found["by_pass"]) - {"windows"} == set(METRICS)


def test_without_a_window_there_is_nothing_to_summarise() -> None:
    with pytest.raises(ValueError, match="no window"):
        summarise({name: np.empty((0, 4)) for name in METRICS}, np.empty(0, np.int64))


# Cells


def test_rows_that_differ_in_seed_and_teacher_alone_are_one_cell_in_the_order_of_seeds() -> None:
    rows = [row(kd="response", seed=1, teacher="image-teacher self"), row(kd="response", teacher="image-teacher none")]
    assert list(cell(*rows).rows) == [0, 1]
    assert len(cells_of([*rows, row(kd="response", alignment="newest"), row()])) == 3


def test_the_same_tracker_twice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"b: this is the same tracker as a"):
        cells_of([row(key="a"), row(key="b")])


def test_each_seed_is_measured_against_the_teacher_that_taught_it() -> None:
    teachers = [
        row("image-teacher", kd, seed=seed, top5=(top5, top5), teacher=None)
        for kd, seed, top5 in (("none", 0, 0.91), ("self", 0, 0.92), ("none", 1, 0.93), ("self", 1, 0.94))
    ]
    teachers.append(row("image-teacher", "self", future=6, top5=(0.5, 0.5)))
    taught = [row(kd="response", seed=0, teacher="image-teacher none", input_length=3)]
    taught.append(row(kd="response", seed=1, teacher="image-teacher self", input_length=3))
    cells = cells_of([*teachers, *taught])
    (student,) = [one for one in cells.values() if one.setting.kd == "response"]
    found = teachers_of(cells, student)
    assert found is not None
    assert {seed: one["average"]["top5"] for seed, one in found.rows.items()} == pytest.approx({0: 0.91, 1: 0.94})
    assert teachers_of(cells_of(taught), student) is None
    assert untaught(cells, student) is None


# Intervals


def test_the_value_is_the_mean_over_windows_and_seeds_in_percent_and_losses_stay_in_db() -> None:
    found = level(cell(row(top5=(0.8, 0.9)), row(seed=1, top5=(0.6, 0.7))), "top5")
    assert found.value == pytest.approx(100 * (0.875 + 0.675) / 2)  # ten windows and thirty
    assert found.num_seeds == 2
    losses = row()
    losses["by_pass"]["power_loss_db"] = [10.0, 60.0]
    assert level(cell(losses), "power_loss_db").value == pytest.approx(1.75)


def test_equal_passes_of_one_seed_leave_no_doubt_and_a_second_seed_does() -> None:
    alone = level(cell(row(top5=(0.9, 0.9))), "top5")
    assert alone.low == pytest.approx(90.0) and alone.high == pytest.approx(90.0)
    both = level(cell(row(top5=(0.9, 0.9)), row(seed=1, top5=(0.8, 0.8))), "top5")
    assert (both.low, both.value, both.high) == pytest.approx((80.0, 85.0, 90.0))


def test_intervals_are_the_same_every_time() -> None:
    rows = [row(seed=seed, top5=noise(seed, 41), windows=[30] * 41) for seed in range(3)]
    assert level(cell(*rows), "top5") == level(cell(*reversed(rows)), "top5")


def test_the_interval_over_equally_long_passes_is_that_of_their_mean() -> None:
    levels = noise(0, 400)
    found = level(cell(row(top5=levels, windows=[30] * 400)), "top5")
    error = 100 * float(np.std(levels)) / 20
    assert found.value == pytest.approx(100 * np.mean(levels))
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.08)


def test_seeds_alone_give_the_interval_of_the_mean_over_seeds() -> None:
    levels = noise(1, 40, spread=0.02)
    found = level(cell(*(row(seed=seed, top5=(x, x)) for seed, x in enumerate(levels))), "top5")
    assert found.high - found.low == pytest.approx(2 * 196 * float(np.std(levels)) / 40**0.5, rel=0.08)


def test_fewer_passes_give_a_wider_interval() -> None:
    many = level(cell(row(top5=noise(2, 160), windows=[30] * 160)), "top5")
    few = level(cell(row(top5=noise(2, 160)[:10], windows=[30] * 10)), "top5")
    assert few.high - few.low > 2 * (many.high - many.low)


def test_a_cell_differs_from_itself_by_exactly_nothing() -> None:
    one = cell(*(row(seed=seed, top5=noise(seed, 9), windows=[30] * 9) for seed in range(3)))
    found = difference(one, one, "dba")
    assert found is not None
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_a_gain_that_every_pass_shares_is_certain_however_much_the_passes_differ() -> None:
    plain, taught = ([x + gain for x in noise(3, 20)] for gain in (0.0, 0.03))
    windows = list(range(10, 30))
    found = difference(
        cell(row(kd="response", top5=taught, windows=windows)), cell(row(top5=plain, windows=windows)), "top5"
    )
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((3.0, 3.0, 3.0))


def test_a_seed_that_one_of_two_cells_lacks_is_left_out_of_both() -> None:
    plain = cell(row(seed=0, top5=(0.8, 0.8)), row(seed=1, top5=(0.1, 0.1)))
    taught = cell(row(kd="response", seed=0, top5=(0.9, 0.9)), row(kd="response", seed=2, top5=(0.2, 0.2)))
    found = difference(taught, plain, "top5")
    assert found is not None
    assert (found.value, found.num_seeds) == (pytest.approx(10.0), 1)
    assert difference(cell(row(kd="response", seed=5)), plain, "top5") is None


def test_trackers_that_were_tested_on_other_windows_are_not_compared() -> None:
    with pytest.raises(ValueError, match="its test windows are not those of"):
        difference(cell(row(kd="response", windows=(10, 31))), cell(row()), "top5")


# Share of the gap


def shares(*, plain: float, taught: float, teacher: float) -> Any:
    return closed_share(
        cell(row(kd="response", top5=(taught, taught))),
        cell(row(top5=(plain, plain))),
        cell(row("image-teacher", top5=(teacher, teacher))),
    )


def test_the_share_is_the_gain_over_the_gap() -> None:
    found = shares(plain=0.90, taught=0.93, teacher=0.94)
    assert found.gap.value == pytest.approx(4.0)
    assert (found.closed.value, found.closed.low, found.closed.high) == pytest.approx((0.75, 0.75, 0.75))
    assert shares(plain=0.90, taught=0.95, teacher=0.94).closed.value == pytest.approx(1.25)
    assert shares(plain=0.90, taught=0.89, teacher=0.94).closed.value == pytest.approx(-0.25)


@pytest.mark.parametrize("teacher", [0.85, 0.90, 0.90 + 0.99 * SMALLEST_GAP / 100])
def test_there_is_no_share_of_a_gap_that_is_not_there_or_too_small(teacher: float) -> None:
    found = shares(plain=0.90, taught=0.93, teacher=teacher)
    assert found.closed is None
    assert found.gap.value == pytest.approx(100 * (teacher - 0.90))


def test_there_is_no_share_of_a_gap_that_a_few_passes_decide() -> None:
    plain, taught, teacher = [0.8] * 4, [0.85] * 4, [0.75, 0.75, 0.75, 1.0]
    windows = [30] * 4
    found = closed_share(
        cell(row(kd="response", top5=taught, windows=windows)),
        cell(row(top5=plain, windows=windows)),
        cell(row("image-teacher", top5=teacher, windows=windows)),
    )
    assert found is not None
    assert found.gap.value == pytest.approx(1.25) and found.gap.low < 0
    assert found.closed is None


def test_the_share_is_a_ratio_of_means_over_the_seeds_of_all_three() -> None:
    plain = cell(*(row(seed=seed, top5=(0.8, 0.8)) for seed in (0, 1, 2)))
    taught = cell(*(row(kd="response", seed=seed, top5=(x, x)) for seed, x in ((0, 0.82), (1, 0.88))))
    teacher = cell(*(row("image-teacher", seed=seed, top5=(x, x)) for seed, x in ((0, 0.84), (1, 0.96), (2, 0.1))))
    found = closed_share(taught, plain, teacher)
    assert found is not None and found.closed is not None
    assert (found.closed.value, found.closed.num_seeds) == (pytest.approx(0.5), 2)  # (2 + 8) / (4 + 16)
    assert closed_share(taught, plain, cell(row("image-teacher", seed=7))) is None
