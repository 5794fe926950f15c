"""Maps from the raw samples of an FMCW radar: they show where something moves, and how fast in which direction.

K = 4 receivers, S = 256 samples, C chirps (128 in scenario 9, 250 in scenarios 31-34).

Source: processing of the DeepSense 6G scenario 9 tutorial and of arXiv:2111.09676 (FFT over samples, chirp mean
removed, 64-point FFT over receivers, magnitudes summed over chirps). Our own maps differ in four ways. They use a Hann
window over samples, whose low side lobes of a strong vehicle do not hide a weak one. They use only the nearer half of
the range bins, pooled by two. They take a logarithm. Their level does not depend on the gain of the receiver, see
`NOISE_MAGNITUDE`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

NUM_RECEIVERS, NUM_SAMPLES = 4, 256
CHIRP_COUNTS = (128, 250)
NEAR_BINS, NUM_ROWS, NUM_ANGLES, NUM_SPEEDS = 128, 64, 64, 128
# The mean magnitude of the sum of four receivers with complex Gaussian noise of unit variance: sqrt(4) sqrt(pi) / 2.
# Raw cubes have the units of their converter. So a map is divided by its own noise level, which is the median over its
# cells (a vehicle covers only a few rows), and multiplied by this one. A recording, a live stream and the synthetic
# street then have one unit.
NOISE_MAGNITUDE = np.sqrt(np.pi)

_WINDOW = (np.hanning(NUM_SAMPLES) / np.hanning(NUM_SAMPLES).sum()).astype(np.float32)
_STEERING = fft.fftshift(
    np.exp(-2j * np.pi * np.outer(np.arange(NUM_ANGLES), np.arange(NUM_RECEIVERS)) / NUM_ANGLES), axes=0
).astype(np.complex64)


def range_angle_map(cube: NDArray[np.generic]) -> NDArray[np.float16]:
    """(64, 64) range-angle map of what moves, log2(1 + magnitude over noise): rows by range, columns by angle.

    The nearest row comes first. A row is the larger of two range bins (0.39 m in scenario 9, so the map covers the
    nearest 25 m). Columns are uniform in the sine of the azimuth; column 32 is straight ahead. The noise floor is at
    log2(1 + 1.8) = 1.5.

    Args:
        cube: (4, 256, C) raw complex samples of any scale.

    Raises:
        ValueError: the cube has another shape or type, or holds values that are not finite.
    """
    ranges = _moving_ranges(cube)
    magnitude = np.sqrt(_angle_power(ranges)).mean(axis=-1).T
    pooled = magnitude.reshape(NUM_ROWS, NEAR_BINS // NUM_ROWS, NUM_ANGLES).max(axis=1)
    return _over_noise(pooled, magnitude)


def doppler_angle_map(cube: NDArray[np.generic]) -> NDArray[np.float16]:
    """(64, 64) Doppler-angle map, log2(1 + magnitude over noise): rows by radial speed, columns by angle.

    The columns are those of `range_angle_map`. For each speed the strongest range bin counts. Row 32 is the speed zero
    and empty, because the mean chirp is removed. A row is 0.47 m/s in scenario 9; a target whose phase increases from
    chirp to chirp has a row above 32.

    Args:
        cube: (4, 256, C) raw complex samples of any scale.

    Raises:
        ValueError: the cube has another shape or type, or holds values that are not finite.
    """
    ranges = _moving_ranges(cube)
    num_speeds = 2 * NUM_ROWS if ranges.shape[-1] <= 2 * NUM_ROWS else 4 * NUM_ROWS
    window = np.hanning(ranges.shape[-1]).astype(np.float32)
    speeds = fft.fftshift(fft.fft(ranges * window, num_speeds, axis=-1), axes=-1)
    power = _angle_power(speeds)
    pooled = np.sqrt(power.max(axis=1)).T.reshape(NUM_ROWS, -1, NUM_ANGLES).max(axis=1)
    # Every sixteenth of a million cells gives the same median, eight times as fast.
    return _over_noise(pooled, np.sqrt(power[:, ::16]))


def unscaled_maps(cube: NDArray[np.generic]) -> NDArray[np.float16]:
    """(2, 128, 64) range-angle and Doppler-angle map, log2(1 + magnitude), as the input of arXiv 2603.16116.

    The steps are an FFT over samples, the removal of the mean over chirps, an FFT over the first 128 chirps and a
    64-point FFT over receivers. There is no window and no normalisation, so the level depends on the receiver. The
    first map is the mean over Doppler of the nearer half of the range bins (0.195 m each in scenario 9, 25 m in all),
    nearest first. The second map is the mean over all range bins; its rows are 0.234 m/s each, and row 64 is the speed
    zero. Columns are uniform in the sine of the azimuth; column 32 is straight ahead.

    Args:
        cube: (4, 256, C) raw complex samples.

    Raises:
        ValueError: the cube has another shape or type, or holds values that are not finite.
    """
    samples = _checked(cube)[..., :NUM_SPEEDS]
    spectrum = fft.fft(samples - samples.mean(axis=2, keepdims=True), axis=1, overwrite_x=True)
    spectrum = fft.fftshift(fft.fft(spectrum, axis=2, overwrite_x=True), axes=2)
    magnitude = np.abs(_STEERING @ spectrum.reshape(NUM_RECEIVERS, -1)).reshape(NUM_ANGLES, NUM_SAMPLES, NUM_SPEEDS)
    maps = np.stack([magnitude[:, :NEAR_BINS].mean(axis=2).T, magnitude.mean(axis=1).T])
    if not np.isfinite(maps).all():
        raise ValueError("a radar cube holds values that are not finite")
    image: NDArray[np.float16] = np.log2(1.0 + maps).astype(np.float16)
    return image


def _moving_ranges(cube: NDArray[np.generic]) -> NDArray[np.complex64]:
    """(4, 128, C) near range bins, from which the mean over chirps is removed."""
    samples = _checked(cube)
    # The transform is linear, so the mean may be removed before it; a dead receiver then gives exact zeros.
    samples -= samples.mean(axis=2, keepdims=True)
    samples *= _WINDOW[:, None]
    ranges: NDArray[np.complex64] = fft.fft(samples, axis=1, overwrite_x=True)[:, :NEAR_BINS]
    return ranges


def _checked(cube: NDArray[np.generic]) -> NDArray[np.complex64]:
    """A copy of a cube, if it has the right shape and type."""
    if cube.ndim != 3 or cube.shape[:2] != (NUM_RECEIVERS, NUM_SAMPLES) or cube.shape[2] not in CHIRP_COUNTS:
        raise ValueError(f"a radar cube has the shape {cube.shape}, expected (4, 256, 128) or (4, 256, 250)")
    if not np.iscomplexobj(cube):
        raise ValueError(f"a radar cube has the type {cube.dtype}, expected complex samples")
    return cube.astype(np.complex64)


def _angle_power(signal: NDArray[np.complex64]) -> NDArray[np.float32]:
    """Signals (4, R, X) of the receivers to the squared magnitude (64, R, X) in every direction."""
    directed = _STEERING @ signal.reshape(NUM_RECEIVERS, -1)
    power: NDArray[np.float32] = directed.real**2 + directed.imag**2
    return power.reshape(NUM_ANGLES, *signal.shape[1:])


def _over_noise(pooled: NDArray[np.float32], magnitude: NDArray[np.float32]) -> NDArray[np.float16]:
    noise = float(np.median(magnitude))
    if not np.isfinite(noise) or noise <= 0.0:
        raise ValueError("a radar cube has no noise: it is all zeros, constant over its chirps, or not finite")
    image: NDArray[np.float16] = np.log2(1.0 + pooled * (NOISE_MAGNITUDE / noise)).astype(np.float16)
    return image
