"""What broken sensors write."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from configs.schema import Faults, Nodes, World
from configs.seeding import rng_for
from sim.world.faults import MEAN_BURST, faulty_world, lost_frames, spoil
from sim.world.sensors import gps
from tests.streets import car, scene_of


def numbered(num_frames: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(F, 2) fixes that say which frame they are of, from 1."""
    return np.repeat(np.arange(1.0, num_frames + 1)[:, None], 2, axis=1)


def bursts_of(lost: np.ndarray[Any, np.dtype[np.bool_]]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Lengths of the runs of lost frames that neither begin nor end the recording."""
    edges = np.diff(lost.astype(np.int64))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return ends[ends > starts[0]][: len(starts)] - starts[: len(ends[ends > starts[0]])]


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9, 0.95, 0.99])
def test_over_many_passes_the_share_of_lost_frames_is_that_asked_for(share: float) -> None:
    lost = [lost_frames(40, share, rng_for(seed, "lost")) for seed in range(1500)]
    # 60000 frames in bursts of nine are some 6000 independent draws: three s.d. are at most 0.02.
    assert np.mean(lost) == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_frames_are_lost_in_bursts_of_a_second(share: float) -> None:
    bursts = bursts_of(lost_frames(200_000, share, rng_for(0, "lost")))
    assert bursts.mean() == pytest.approx(MEAN_BURST, rel=0.06)
    assert np.mean(bursts == 1) == pytest.approx(1.0 / MEAN_BURST, abs=0.02)


def test_no_dropout_loses_nothing_and_an_empty_pass_stays_empty() -> None:
    assert not lost_frames(5000, 0.0, rng_for(0)).any()
    assert lost_frames(0, 0.5, rng_for(0)).shape == (0,)


def test_the_first_frame_is_lost_as_often_as_any_other() -> None:
    assert np.mean([lost_frames(1, 0.3, rng_for(seed))[0] for seed in range(2000)]) == pytest.approx(0.3, abs=0.035)


@pytest.mark.parametrize("modality", ["camera", "radar", "doppler", "lidar"])
def test_a_lost_frame_is_empty_and_the_others_are_untouched(modality: str) -> None:
    frames = np.ones((400, 3), np.float16)
    spoilt = spoil(frames, Faults(dropout=0.4), modality, rng_for(1)).astype(np.float64)
    assert spoilt.dtype == np.float64
    assert set(np.unique(spoilt.sum(axis=1))) == {0.0, 3.0}
    assert np.mean(spoilt == 0) == pytest.approx(0.4, abs=0.15)
    assert np.all(frames == 1)


def test_gps_repeats_its_last_fix() -> None:
    fixes = numbered(300)
    held = spoil(fixes, Faults(dropout=0.4), "gps", rng_for(1))[:, 0]
    is_new = held == fixes[:, 0]
    assert np.mean(is_new) == pytest.approx(0.6, abs=0.2)
    assert np.all(np.diff(held) >= 0)
    np.testing.assert_array_equal(held[1:][~is_new[1:]], held[:-1][~is_new[1:]])


def test_a_blind_pass_is_empty_from_end_to_end_and_blind_passes_come_as_often_as_asked() -> None:
    frames = np.ones((20, 2), np.uint8)
    seen = [spoil(frames, Faults(blind=0.3), "camera", rng_for(seed)) for seed in range(1000)]
    assert {int(pass_.sum()) for pass_ in seen} == {0, 40}
    assert np.mean([pass_.sum() == 0 for pass_ in seen]) == pytest.approx(0.3, abs=0.045)
    assert {pass_.dtype for pass_ in seen} == {np.dtype(np.uint8)}


def test_raw_gps_is_metres_off_and_calibrated_gps_is_not() -> None:
    world, scene = World(gps_bias_m=(0.39, 0.56)), scene_of(car(0.0), num_frames=1)
    for faults, along, across in ((Faults(), 0.56, 0.39), (Faults(raw_gps=True), 8.9, 3.4)):
        recorded = faulty_world(world, faults)
        errors = np.array([gps(recorded, scene, rng_for(seed))[0] - scene.antenna[0, :2] for seed in range(600)])
        np.testing.assert_allclose(errors.std(axis=0), [along, across], rtol=0.1)


def test_other_faults_leave_the_world_as_it_is_and_raw_gps_changes_the_bias_alone() -> None:
    world = World(preset="night-shift")
    assert faulty_world(world, Faults(dropout=0.5, blind=0.5)) == world
    raw = faulty_world(world, Faults(raw_gps=True))
    assert raw.model_copy(update={"gps_bias_m": world.gps_bias_m}) == world


@pytest.mark.parametrize(
    ("modality", "faults", "message"),
    [
        ("camera", {"raw_gps": True}, "faults.raw_gps: camera nodes have no GPS"),
        ("gps", {"blind": 0.1}, "faults.blind: a GPS node cannot be blind"),
    ],
)
def test_a_fault_that_a_sensor_cannot_have_is_refused(modality: str, faults: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Nodes.model_validate({"modality": modality, "faults": Faults(**faults)})
