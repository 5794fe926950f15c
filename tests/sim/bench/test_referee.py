"""The referee and the optional engine ``sionna``: what they say where the ray tracer is absent, and what they find."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from configs.schema import World
from configs.seeding import rng_for
from sim.bench.referee import agreements, judge, spread
from sim.cli.main import cli
from sim.world import sionna_channel
from sim.world.channel import NUM_BEAMS, beam_angles, received_power
from sim.world.scene import MAST, Scene, draw_scene
from sim.world.sionna_channel import probe, sionna_available, sionna_beam_power
from sim.world.site import make_site


def drawn(world: World, index: int = 0) -> Scene:
    return draw_scene(world, rng_for(0, "referee", index, "scene"), site=make_site(world, 0))


def heard(*best: int) -> np.ndarray:
    """(F, B) powers of 1e-3, but 1 at one beam of each frame."""
    power = np.full((len(best), NUM_BEAMS), 1e-3)
    power[np.arange(len(best)), list(best)] = 1.0
    return power


@pytest.fixture
def without_sionna(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sionna_channel, "sionna_available", lambda: "sionna-rt is not installed")


def traced_or_skipped() -> None:
    reason = sionna_available()
    if reason is not None:
        pytest.skip(f"the ray tracer cannot run here: {reason}")


def test_best_beams_10_20_30_against_10_21_34_agree_on_one_two_and_two_of_three_frames() -> None:
    every, *_ = agreements(heard(10, 20, 30), heard(10, 21, 34), np.zeros(3), noise=0.1)
    assert every.within == pytest.approx((1 / 3, 2 / 3, 2 / 3))


def test_frames_are_told_apart_by_blockage_and_by_the_noise_floor() -> None:
    traced = heard(1, 2, 9) * np.array([[1.0], [1.0], [0.05]])
    rows = agreements(heard(1, 2, 3), traced, np.array([0.0, 12.0, 30.0]), noise=0.1)
    assert [(row.name, row.num_frames) for row in rows] == [("all", 3), ("clear", 1), ("blocked", 2), ("audible", 2)]
    assert [row.within[0] for row in rows if row.within] == pytest.approx([2 / 3, 1.0, 0.5, 1.0])


def test_no_frames_have_no_agreement_and_two_have_no_correlation() -> None:
    rows = agreements(heard(1, 2), heard(1, 2), np.zeros(2), noise=0.1)
    assert (rows[2].name, rows[2].within, rows[2].power_correlation) == ("blocked", None, None)
    assert rows[0].power_correlation is None


def test_powers_in_proportion_correlate_wholly() -> None:
    scale = np.array([[1.0], [2.0], [8.0]])
    every, *_ = agreements(heard(1, 2, 3) * scale, heard(1, 2, 3) * scale * 0.3, np.zeros(3), noise=1e-9)
    assert every.power_correlation == pytest.approx(1.0)


def test_frames_are_spread_over_the_pass_and_never_more_than_it_has() -> None:
    assert spread(10, 4).tolist() == [0, 2, 5, 7]
    assert spread(3, 20).tolist() == [0, 1, 2]


def test_the_received_power_is_the_same_for_other_gains_and_noise_of_the_pass() -> None:
    scene = drawn(World(density=0.0))
    powers = [
        received_power(world, scene, rng_for(0, "power"))
        for world in (World(pass_gain_db=0, snr_db=0), World(pass_gain_db=9, snr_db=30))
    ]
    np.testing.assert_array_equal(*powers)


def test_a_missing_package_is_the_reason_why_rays_cannot_be_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sionna_channel, "find_spec", lambda name: None)
    assert sionna_available.__wrapped__() == "sionna-rt is not installed"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os.abort()", "tracing one ray ended the process with signal 6 (a wrong LLVM?)"),
        ("raise SystemExit('LLVM could not\\nbe found')", "tracing one ray failed: LLVM could not be found"),
        ("import time; time.sleep(60)", "tracing one ray took more than 1 s"),
    ],
)
def test_a_trial_that_aborts_fails_or_hangs_is_a_reason(
    code: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sionna_channel, "PROBE_TIMEOUT_S", 1.0 if "sleep" in code else 60.0)
    assert probe([sys.executable, "-c", code]) == reason


def test_a_trial_that_succeeds_is_no_reason() -> None:
    assert probe([sys.executable, "-c", ""]) is None


@pytest.mark.usefixtures("without_sionna")
def test_the_engine_without_the_ray_tracer_says_what_to_install() -> None:
    with pytest.raises(ValueError, match=r'not installed; it needs pip install "softbeam\[sionna\]" and LLVM 19'):
        sionna_beam_power(World(), drawn(World()), rng_for(0, "power"))


@pytest.mark.usefixtures("without_sionna")
def test_the_command_without_the_ray_tracer_says_what_to_install() -> None:
    answer = CliRunner().invoke(cli, ["bench", "referee"])
    assert isinstance(answer.exception, ValueError)
    assert "apt-get install libllvm19" in str(answer.exception)


@pytest.mark.slow
def test_the_ray_tracer_hears_a_clear_vehicle_straight_and_as_loud_as_free_space() -> None:
    traced_or_skipped()
    from sim.world.sionna_street import TracedStreet

    scene = drawn(World(density=0.0))
    way = scene.antenna[3] - MAST
    paths = TracedStreet(scene).trace(3)
    direct = int(np.argmin(paths.lengths))
    assert paths.lengths[direct] == pytest.approx(np.linalg.norm(way), abs=1e-3)
    assert abs(paths.gains[direct]) == pytest.approx(10.0 / np.linalg.norm(way), rel=1e-3)
    np.testing.assert_allclose(paths.directions[direct], way / np.linalg.norm(way), atol=1e-4)


@pytest.mark.slow
def test_a_vehicle_on_the_right_gets_a_beam_on_the_right() -> None:
    traced_or_skipped()
    from sim.world.sionna_street import traced_power

    scene = drawn(World(density=0.0))
    azimuths = np.arctan2(scene.antenna[:, 0], scene.antenna[:, 1])
    right = int(np.argmin(np.abs(azimuths - np.deg2rad(30.0))))
    best = int(traced_power(scene, [right])[0].argmax())
    assert np.rad2deg(beam_angles()[best]) == pytest.approx(30.0, abs=6.0)


@pytest.mark.slow
def test_an_array_mounted_out_of_true_hears_the_same_beams_in_both_channels() -> None:
    traced_or_skipped()
    from sim.world.sionna_street import traced_power

    world = World(density=0.0, sites=2, site_yaw_deg=12.0)
    site = make_site(world, 1)
    assert abs(site.yaw_rad) > np.deg2rad(3.0)
    scene = draw_scene(world, rng_for(0, "yaw"), site=site)
    frames = spread(scene.num_frames, 12)[2:10]
    embedded = received_power(world.model_copy(update={"rician_k_db": 99.0}), scene, rng_for(0, "power"))[frames]
    apart = np.abs(traced_power(scene, frames.tolist()).argmax(axis=1) - embedded.argmax(axis=1))
    assert np.median(apart) <= 1


@pytest.mark.slow
def test_the_engine_gives_the_same_bits_again_with_all_beams_above_the_error_of_the_noise_floor() -> None:
    traced_or_skipped()
    world = World(density=3.0, speed_mps=15.0, snr_db=10.0)
    scene = drawn(world)
    first, second = (sionna_beam_power(world, scene, rng_for(0, "power")) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape == (scene.num_frames, NUM_BEAMS)
    assert first.min() > 0.1 * 10.0 ** (-6 * 0.2 / 10.0)


@pytest.mark.slow
def test_embedded_channel_and_ray_tracer_pick_the_same_best_beam_in_80_percent_and_neighbours_in_92() -> None:
    traced_or_skipped()
    every, _, blocked, _ = judge(World(), seed=1, passes=12, frames=200)
    assert every.num_frames >= 190
    assert blocked.num_frames > 0
    assert every.within is not None
    assert every.within[0] >= 0.80
    assert every.within[1] >= 0.92
