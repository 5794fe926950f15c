"""Beams that run against the bearings are refused, and a base station of another site is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clients.data.bearing import beam_angles_deg, check_bearing, find_boresight, fit_bearing
from clients.data.deepsense import read_scenario
from clients.data.geodesy import to_array_frame
from tests.releases import Arrays, Release, Table, damaged_copy, measured


def test_the_fit_of_a_straight_line_is_exact() -> None:
    bearing = np.radians(np.linspace(100.0, 140.0, 41))
    position_m = 20.0 * np.stack([np.sin(bearing), np.cos(bearing)], axis=1)
    fit = fit_bearing(np.arange(41), position_m)
    assert fit is not None
    assert fit.correlation == pytest.approx(1.0)
    assert fit.beams_per_degree == pytest.approx(1.0)
    assert fit.range_m == pytest.approx((20.0, 20.0, 20.0))
    assert fit.bearing_deg == pytest.approx((102.0, 120.0, 138.0))


@pytest.mark.parametrize("middle", [0.0, 90.0, 179.0, 180.0, 270.0, 359.5])
def test_bearings_do_not_wrap_wherever_the_mast_looks(middle: float) -> None:
    bearing = np.radians(middle + np.linspace(-40.0, 40.0, 81))
    fit = fit_bearing(np.arange(0, 81) // 2, np.stack([np.sin(bearing), np.cos(bearing)], axis=1))
    assert fit is not None
    assert fit.correlation > 0.99
    assert fit.bearing_deg[1] == pytest.approx(middle, abs=1e-6)


def test_frames_without_a_position_do_not_count_and_none_with_one_is_no_fit() -> None:
    position_m = np.full((60, 2), np.nan)
    assert fit_bearing(np.arange(60), position_m) is None
    assert check_bearing(np.arange(60), position_m) == ()
    position_m[:3] = [[-1.0, 5.0], [0.0, 5.0], [1.0, 5.0]]
    fit = fit_bearing(np.arange(60), position_m)
    assert fit is not None and fit.correlation > 0.99


@pytest.mark.parametrize(("number", "correlation"), [(1, 0.99), (3, 0.80), (5, 0.97), (8, 0.98), (9, 0.99)])
def test_measured_beams_follow_the_bearing_and_nothing_is_said(number: int, correlation: float) -> None:
    scenario = read_scenario(measured(f"scenario{number}"))
    fit = fit_bearing(scenario.beams, scenario.sensors["gps"].astype(np.float64))
    assert fit is not None
    assert fit.correlation == pytest.approx(correlation, abs=0.005)
    assert 0.45 < fit.beams_per_degree < 0.8
    assert not any("bearing" in problem for problem in scenario.problems)


def turn_all(rows: Table, arrays: Arrays) -> None:
    arrays["unit1_pwr_60ghz"] = arrays["unit1_pwr_60ghz"][:, ::-1]
    for row in rows:
        row["unit1_beam_index"] = str(65 - int(row["unit1_beam_index"]))


def lose_signs(rows: Table, arrays: Arrays) -> None:
    for name in arrays.keys() & {"unit1_loc", "unit2_loc", "unit2_loc_cal"}:
        arrays[name] = np.abs(arrays[name])


@pytest.mark.parametrize("number", [3, 5])
@pytest.mark.parametrize("damage", [turn_all, lose_signs])
def test_a_mirrored_copy_of_measured_data_is_refused(
    number: int, damage: Callable[[Table, Arrays], None], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"the best beam falls where it should grow: .* counted from the other end"):
        read_scenario(damaged_copy(number, tmp_path, damage))


@pytest.mark.parametrize(("number", "other"), [(1, 3), (1, 5), (1, 9), (3, 1), (3, 9), (5, 1), (5, 9), (8, 1), (8, 9)])
def test_the_base_station_of_another_site_is_refused_or_told(number: int, other: int, tmp_path: Path) -> None:
    with np.load(measured(f"scenario{other}") / f"scenario{other}_arrays.npz") as archive:
        station = np.array(archive["unit1_loc"], np.float64)

    def move(rows: Table, arrays: Arrays) -> None:
        arrays["unit1_loc"] = station

    folder = damaged_copy(number, tmp_path, move)
    try:
        problems = read_scenario(folder).problems
    except ValueError as error:
        problems = (str(error),)
    is_same = (number, other) == (8, 9)  # They have one mast.
    assert any("base station of another site" in line or "of another site?" in line for line in problems) != is_same


def test_rows_whose_positions_are_those_of_other_rows_are_told(tmp_path: Path) -> None:
    release = Release()
    release.position_deg = np.random.default_rng(0).permutation(release.position_deg)
    (problem,) = read_scenario(release.write(tmp_path / "scenario7")).problems
    assert "hardly follows the position" in problem
    assert "are positions calibrated, and of these rows?" in problem


def test_positions_that_never_move_are_told(tmp_path: Path) -> None:
    release = Release()
    release.position_deg = np.round(release.position_deg, 2) + 0.01
    (problem,) = read_scenario(release.write(tmp_path / "scenario7")).problems
    assert "the vehicle never moves as the base station sees it" in problem


def test_a_few_rows_are_not_judged() -> None:
    position_m = np.stack([np.linspace(5.0, -5.0, 49), np.full(49, 9.0)], axis=1)
    assert check_bearing(np.arange(49), position_m) == ()
    with pytest.raises(ValueError, match="falls where it should grow"):
        check_bearing(np.arange(50), np.vstack([position_m, [[-6.0, 9.0]]]))


def test_power_that_may_be_in_db_is_told_though_it_is_positive(tmp_path: Path) -> None:
    release = Release()
    release.power = 10 * np.log10(release.power) + 40
    (problem,) = read_scenario(release.write(tmp_path / "scenario7")).problems
    assert "linear powers of the releases lie between 0.007 and 1.05, so is it in dB?" in problem


@pytest.mark.parametrize("boresight_deg", [0.0, 37.5, 90.0, 180.0, 359.0])
def test_a_boresight_is_found_wherever_the_mast_looks_and_bearings_are_then_the_angles_of_beams(
    boresight_deg: float,
) -> None:
    beams = np.random.default_rng(0).integers(2, 60, 300)
    bearing = np.radians(boresight_deg + beam_angles_deg(64)[beams])
    position_m = 20.0 * np.stack([np.sin(bearing), np.cos(bearing)], axis=1)
    spoiled = np.concatenate([position_m, -position_m[:40], np.full((5, 2), np.nan)])
    found = find_boresight(np.concatenate([beams, beams[:40], beams[:5]]), spoiled, 64)
    assert found is not None
    # A seventh of the positions are behind the mast, and move it by less than half a beam.
    assert abs((found - boresight_deg + 180.0) % 360.0 - 180.0) < 0.7
    exact = find_boresight(beams, position_m, 64)
    assert exact is not None and (exact - boresight_deg + 180.0) % 360.0 - 180.0 == pytest.approx(0.0, abs=1e-9)
    right, ahead = to_array_frame(position_m, exact).T
    assert np.degrees(np.arctan2(right, ahead)) == pytest.approx(beam_angles_deg(64)[beams])
    assert np.hypot(right, ahead) == pytest.approx(20.0)


def test_without_a_position_there_is_no_boresight_and_at_zero_degrees_nothing_is_turned() -> None:
    assert find_boresight(np.arange(5), np.full((5, 2), np.nan), 64) is None
    position_m = np.random.default_rng(0).normal(size=(50, 2))
    np.testing.assert_array_equal(to_array_frame(position_m, 0.0), position_m)


@pytest.mark.parametrize(("number", "correlation"), [(1, 0.98), (3, 0.78), (5, 0.96), (8, 0.97), (9, 0.98)])
def test_measured_bearings_are_the_angles_of_the_best_beams_once_turned_to_the_boresight(
    number: int, correlation: float
) -> None:
    scenario = read_scenario(measured(f"scenario{number}"))
    position_m, angles = scenario.sensors["gps"].astype(np.float64), beam_angles_deg(64)[scenario.beams]
    # Found in half of the passes, by pairs since lanes take turns, and looked at in the rest.
    known = scenario.pass_ids % 4 < 2
    found = find_boresight(scenario.beams[known], position_m[known], 64)
    assert found is not None
    right, ahead = to_array_frame(position_m[~known], found).T
    bearing = np.degrees(np.arctan2(right, ahead))
    assert np.corrcoef(bearing, angles[~known])[0, 1] > correlation
    # Of scenario 3, the two lanes lie 35 degrees apart as the beams see them; elsewhere it is a beam or two.
    assert abs(np.median(bearing - angles[~known])) < (20.0 if number == 3 else 3.0)
