"""Maps of a radar cube: where a tone of known range, angle and speed appears, and what level noise has."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from clients.data.radar_maps import doppler_angle_map, range_angle_map, unscaled_maps

STANDING = 0.0


def noise(num_chirps: int = 128, seed: int = 0) -> NDArray[np.complex64]:
    """Unit noise after a Hann-windowed FFT over 256 samples, scaled to a tone's amplitude."""
    window = np.hanning(256)
    scale = window.sum() / np.sqrt((window**2).sum() * 2.0)
    drawn = np.random.default_rng(seed).standard_normal((4, 256, num_chirps, 2)) @ [1.0, 1.0j]
    return (scale * drawn).astype(np.complex64)


def tone(*, range_bin: float, sine: float, turns: float, num_chirps: int = 128) -> NDArray[np.complex64]:
    """One point: range in bins, sine of its azimuth, turns of its phase from chirp to chirp."""
    receiver, sample, chirp = np.arange(4)[:, None, None], np.arange(256)[:, None], np.arange(num_chirps)
    phase = sine * receiver / 2.0 + range_bin * sample / 256.0 + turns * chirp
    return np.exp(2j * np.pi * phase).astype(np.complex64)


def peak(image: NDArray[np.float16]) -> tuple[int, int]:
    row, column = np.unravel_index(int(np.argmax(image)), image.shape)
    return int(row), int(column)


@pytest.mark.parametrize("num_chirps", [128, 250])
@pytest.mark.parametrize(
    ("range_bin", "sine", "expected"),
    [(40.0, 0.25, (20, 40)), (41.0, 0.25, (20, 40)), (8.0, 0.0, (4, 32)), (100.0, -0.5, (50, 16))],
)
def test_a_moving_point_appears_at_its_range_and_angle(
    num_chirps: int, range_bin: float, sine: float, expected: tuple[int, int]
) -> None:
    cube = noise(num_chirps) + 20.0 * tone(range_bin=range_bin, sine=sine, turns=0.1, num_chirps=num_chirps)
    assert peak(range_angle_map(cube)) == expected


def test_what_stands_still_is_not_there() -> None:
    cube = noise()
    with_wall = cube + 100.0 * tone(range_bin=60.0, sine=0.3, turns=STANDING)
    np.testing.assert_allclose(range_angle_map(with_wall).astype(float), range_angle_map(cube).astype(float), atol=0.01)


def test_noise_alone_lies_at_log2_of_one_and_root_pi() -> None:
    image = range_angle_map(noise()).astype(float)
    # The larger of two cells, each a mean over 128 chirps, is a few hundredths above their mean.
    assert np.median(image) == pytest.approx(np.log2(1.0 + np.sqrt(np.pi)), abs=0.06)
    assert image.std() < 0.1


@pytest.mark.parametrize("gain", [1e-6, 37.0, 1e6])
def test_the_gain_of_the_receiver_does_not_matter(gain: float) -> None:
    cube = noise() + 5.0 * tone(range_bin=40.0, sine=0.2, turns=0.2)
    for image_of in (range_angle_map, doppler_angle_map):
        one, other = image_of(cube).astype(float), image_of((gain * cube).astype(np.complex64)).astype(float)
        np.testing.assert_allclose(one, other, atol=0.01)


def test_the_map_is_the_published_processing_with_a_window_and_a_level() -> None:
    cube = noise() + 9.0 * tone(range_bin=33.3, sine=-0.4, turns=0.07)
    ranges = np.fft.fft(cube * np.hanning(256)[:, None], axis=1)[:, :128]
    ranges -= ranges.mean(axis=2, keepdims=True)
    angles = np.fft.fftshift(np.fft.fft(ranges, 64, axis=0), axes=0)
    summed = np.abs(angles).sum(axis=2).T
    expected = np.log2(1.0 + np.sqrt(np.pi) * np.maximum(summed[::2], summed[1::2]) / np.median(summed))
    np.testing.assert_allclose(range_angle_map(cube).astype(float), expected, atol=0.005)


@pytest.mark.parametrize(("turns", "row"), [(0.125, 40), (-0.125, 24), (0.25, 48), (-0.5, 0)])
@pytest.mark.parametrize("num_chirps", [128, 250])
def test_a_moving_point_appears_at_its_speed_and_angle(num_chirps: int, turns: float, row: int) -> None:
    cube = noise(num_chirps) + 9.0 * tone(range_bin=40.0, sine=0.25, turns=turns, num_chirps=num_chirps)
    assert peak(doppler_angle_map(cube)) == (row, 40)


def test_the_row_of_speed_zero_is_the_quietest_of_the_doppler_map() -> None:
    cube = noise() + 50.0 * tone(range_bin=40.0, sine=0.0, turns=STANDING)
    assert int(np.argmin(doppler_angle_map(cube).astype(float).mean(axis=1))) == 32


@pytest.mark.parametrize(
    ("cube", "message"),
    [
        (np.zeros((4, 256, 64), np.complex64), r"shape \(4, 256, 64\), expected \(4, 256, 128\) or \(4, 256, 250\)"),
        (np.zeros((128, 256, 4), np.complex64), r"shape \(128, 256, 4\)"),
        (np.zeros((4, 256, 128), np.float32), "float32, expected complex"),
        (np.zeros((4, 256, 128), np.complex64), "has no noise"),
        (np.full((4, 256, 128), np.nan, np.complex64), "has no noise"),
    ],
)
def test_what_is_no_radar_cube_is_refused(cube: NDArray[np.generic], message: str) -> None:
    for image_of in (range_angle_map, doppler_angle_map):
        with pytest.raises(ValueError, match=message):
            image_of(cube)


# The maps of arXiv 2603.16116


@pytest.mark.parametrize("num_chirps", [128, 250])
@pytest.mark.parametrize(
    ("range_bin", "sine", "turns", "expected"),
    [(40.0, 0.25, 0.125, (40, 80, 40)), (8.0, 0.0, -0.25, (8, 32, 32)), (120.0, -0.5, 0.5, (120, 0, 16))],
)
def test_a_point_appears_at_its_range_its_speed_and_its_angle_in_the_unscaled_maps(
    num_chirps: int, range_bin: float, sine: float, turns: float, expected: tuple[int, int, int]
) -> None:
    cube = 1e-3 * tone(range_bin=range_bin, sine=sine, turns=turns, num_chirps=num_chirps)
    by_range, by_speed = unscaled_maps(cube)
    assert peak(by_range) == (expected[0], expected[2])
    assert peak(by_speed) == (expected[1], expected[2])


def test_a_single_tone_has_the_level_that_three_transforms_give_it() -> None:
    # On its bins a tone of amplitude a is 4 * 256 * 128 a, and a mean over 128 speeds or 256 ranges divides by them.
    amplitude = 1e-4
    by_range, by_speed = unscaled_maps(amplitude * tone(range_bin=40.0, sine=0.25, turns=0.125))
    assert by_range[40, 40] == pytest.approx(np.log2(1.0 + 4 * 256 * amplitude), rel=2e-3)
    assert by_speed[80, 40] == pytest.approx(np.log2(1.0 + 4 * 128 * amplitude), rel=2e-3)


def test_bins_of_scenario_9_are_a_fifth_of_a_metre_and_a_quarter_of_a_metre_per_second() -> None:
    light, carrier, slope, rate, interval = 299_792_458.0, 77e9, 15e12, 5e6, 65e-6
    range_bin_m = light * rate / (2.0 * 256 * slope)
    speed_bin_mps = light / carrier / (2.0 * 128 * interval)
    assert range_bin_m == pytest.approx(0.1953, abs=1e-3)
    assert 256 * range_bin_m == pytest.approx(50.0, abs=0.1)
    assert 3.6 * speed_bin_mps == pytest.approx(0.84, abs=0.01)
    assert 3.6 * 64 * speed_bin_mps == pytest.approx(53.9, abs=0.3)


def test_what_stands_still_is_not_in_the_unscaled_maps_and_what_is_beyond_25_m_only_in_the_second() -> None:
    assert not unscaled_maps(tone(range_bin=40.0, sine=0.25, turns=STANDING)).astype(float).max() > 1e-2
    by_range, by_speed = unscaled_maps(tone(range_bin=200.0, sine=0.25, turns=0.125)).astype(float)
    assert by_range.max() < 0.01 * by_speed.max()


@pytest.mark.parametrize("cube", [np.full((4, 256, 128), np.nan + 0j), np.zeros((4, 256, 64), complex)])
def test_unscaled_maps_refuse_what_is_no_cube(cube: NDArray[np.generic]) -> None:
    with pytest.raises(ValueError, match="a radar cube"):
        unscaled_maps(cube)
