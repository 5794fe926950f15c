"""How vehicles of one lane move: free driving, following and stops."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sim.world.traffic import CLOSEST_M, Stop, drive

Floats = NDArray[np.float64]
SLOT_S = 0.111
CAR_M = 4.5


def run(
    start_m: list[float],
    desired_mps: list[float],
    *,
    slots: int = 100,
    stop: Stop | None = None,
    kicks: Floats | None = None,
    until_m: float = np.inf,
) -> tuple[Floats, Floats]:
    """Cars of 4.5 m on a lane, until the first is at ``until_m``."""
    return drive(
        np.array(start_m),
        lengths_m=np.full(len(start_m), CAR_M),
        desired_mps=np.array(desired_mps),
        kicks=np.zeros((slots, len(start_m))) if kicks is None else kicks,
        stop=stop,
        is_over=lambda position, frames: bool(position[0] >= until_m),
    )


def bumper_gaps(positions: Floats) -> Floats:
    return positions[:, :-1] - positions[:, 1:] - CAR_M


def wild(slots: int, count: int, seed: int = 0) -> Floats:
    return 3.0 * np.random.default_rng(seed).standard_normal((slots, count))


def test_a_free_vehicle_without_noise_keeps_its_speed() -> None:
    positions, speeds = run([-10.0], [5.0])
    np.testing.assert_allclose(speeds, 5.0)
    np.testing.assert_allclose(positions[:, 0], -10.0 + 5.0 * SLOT_S * np.arange(100))


def test_a_position_is_the_one_before_and_the_speed_over_a_slot() -> None:
    positions, speeds = run([0.0, -9.0, -20.0], [5.0, 9.0, 3.0], kicks=wild(100, 3), stop=Stop(0, 2.0, 9))
    np.testing.assert_allclose(np.diff(positions, axis=0), SLOT_S * speeds[1:], atol=1e-12)


def test_no_vehicle_ever_drives_backwards() -> None:
    _, speeds = run([0.0, -9.0], [1.0, 1.0], kicks=wild(300, 2), slots=300)
    assert speeds.min() == 0.0
    assert speeds.max() > 2.0


def test_it_lasts_as_many_frames_as_there_are_kicks_or_until_it_is_over() -> None:
    assert len(run([0.0], [5.0], slots=40)[0]) == 40
    # 5 m/s are 0.555 m a slot: frame 18 would be at 9.99 m and frame 19 beyond 10 m.
    assert len(run([0.0], [5.0], slots=40, until_m=10.0)[0]) == 19
    assert len(run([10.0], [5.0], until_m=10.0)[0]) == 0


def test_those_behind_do_not_change_how_those_ahead_drive() -> None:
    kicks = wild(120, 3)
    alone, _ = run([0.0, -10.0], [4.0, 6.0], kicks=kicks[:, :2], stop=Stop(0, 3.0, 20))
    followed, _ = run([0.0, -10.0, -18.0], [4.0, 6.0, 9.0], kicks=kicks, stop=Stop(0, 3.0, 20))
    np.testing.assert_array_equal(alone, followed[:, :2])


def test_a_follower_settles_at_the_speed_of_its_leader_and_the_gap_where_both_pulls_balance() -> None:
    # (6 - 3) / 2 s = 1.5 (s* / s)^2 with s* = 2 + 1 * 3 gives s = 5 m.
    positions, speeds = run([0.0, -15.0], [3.0, 6.0], slots=600)
    assert speeds[-1, 1] == pytest.approx(3.0, abs=0.01)
    assert bumper_gaps(positions)[-1, 0] == pytest.approx(5.0, abs=0.05)


def test_a_faster_vehicle_closes_in_but_never_touches_or_overtakes() -> None:
    for seed in range(20):
        positions, _ = run([0.0, -6.0, -12.0], [2.0, 12.0, 20.0], kicks=wild(150, 3, seed), slots=150)
        assert bumper_gaps(positions).min() >= CLOSEST_M - 1e-9


def test_a_stop_slows_down_for_exactly_as_many_slots_as_asked() -> None:
    _, speeds = run([0.0], [5.0], stop=Stop(0, 4.0, 20))
    # 0.555 m a slot: beyond 4 m after 8 slots; each slot of braking leaves 1 - 0.111 / 0.6 of the speed.
    np.testing.assert_allclose(speeds[:9, 0], 5.0)
    np.testing.assert_allclose(speeds[9:29, 0], 5.0 * 0.815 ** np.arange(1, 21))
    assert np.all(np.diff(speeds[28:, 0]) > 0)
    assert speeds[-1, 0] > 4.5


@pytest.mark.parametrize("stop", [Stop(0, 4.0, 0), Stop(0, 1e6, 20)])
def test_a_stop_of_no_length_or_beyond_the_street_changes_nothing(stop: Stop) -> None:
    np.testing.assert_array_equal(run([0.0, -9.0], [5.0, 6.0], stop=stop)[0], run([0.0, -9.0], [5.0, 6.0])[0])


def test_a_follower_stands_behind_a_leader_that_stands_and_then_goes_on() -> None:
    positions, speeds = run([0.0, -12.0], [5.0, 5.0], stop=Stop(0, 10.0, 250), slots=450)
    standing = slice(200, 265)
    np.testing.assert_allclose(speeds[standing], 0.0, atol=0.05)
    # At rest the pulls balance where 5 / 2 s = 1.5 (2 / s)^2: s = 2 sqrt(1.5 * 2 / 5).
    np.testing.assert_allclose(bumper_gaps(positions)[standing, 0], 2.0 * np.sqrt(0.6), atol=0.1)
    assert np.all(speeds[-1] > 4.0)


def test_a_vehicle_that_stops_lets_those_ahead_drive_off() -> None:
    stopped, _ = run([0.0, -12.0], [5.0, 5.0], stop=Stop(1, -2.0, 60))
    free, _ = run([0.0, -12.0], [5.0, 5.0])
    np.testing.assert_array_equal(stopped[:, 0], free[:, 0])
    assert stopped[-1, 1] < free[-1, 1] - 15.0
