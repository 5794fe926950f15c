"""Maps from the raw samples of an FMCW radar: where something moves, and how fast in which direction.

K = 4 receivers, S = 256 samples, C chirps (128 in scenario 9, 250 in scenarios 31-34).

Source: processing of the DeepSense 6G scenario 9 tutorial and of arXiv:2111.09676 (FFT over samples, chirp mean
removed, 64-point FFT over receivers, magnitudes summed over chirps). Our own maps differ in four ways: a Hann window
over samples, whose side lobes do not bury a weak vehicle under a strong one; the nearer half of the range bins only,
pooled by two; a logarithm; and a level that does not depend on the receiver's gain, see `NOISE_MAGNITUDE`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

NUM_RECEIVERS, NUM_SAMPLES = 4, 256
CHIRP_COUNTS = (128, 250)
NEAR_BINS, NUM_ROWS, NUM_ANGLES, NUM_SPEEDS = 128, 64, 64, 128
# Mean magnitude of the sum of four receivers with complex Gaussian noise of unit variance: sqrt(4) sqrt(pi) / 2. Raw
# cubes come in units of their converter. So a map is divided by its own noise level, the median over its cells (a
# vehicle covers a few rows), and gets this one: a recording, a live stream and the synthetic street have one unit.
NOISE_MAGNITUDE = np.sqrt(np.pi)

_WINDOW = (np.hanning(NUM_SAMPLES) / np.hanning(NUM_SAMPLES).sum()).astype(np.float32)
_STEERING = fft.fftshift(
    np.exp(-2j * np.pi * np.outer(np.arange(NUM_ANGLES), np.arange(NUM_RECEIVERS)) / NUM_ANGLES), axes=0
).astype(np.complex64)


def range_angle_map(cube: NDArray[np.generic]) -> NDArray[np.float16]:
    """(64, 64) log2(1 + magnitude over noise) of what moves: rows by range, nearest first, columns by angle.

    A row is two range bins (0.39 m in scenario 9, whose nearer 25 m are covered), of which the larger counts. Columns
    are uniform in the sine of the azimuth, column 32 is straight ahead. The noise floor is at log2(1 + 1.8) = 1.5.

    Args:
        cube: (4, 256, C) raw complex samples of any scale.

    Raises:
        ValueError: it is no such cube, or holds values that are not finite.
    """
    ranges = _moving_ranges(cube)
    magnitude = np.sqrt(_angle_power(ranges)).mean(axis=-1).T
    pooled = magnitude.reshape(NUM_ROWS, NEAR_BINS // NUM_ROWS, NUM_ANGLES).max(axis=1)
    return _over_noise(pooled, magnitude)


def doppler_angle_map(cube: NDArray[np.generic]) -> NDArray[np.float16]:
    """(64, 64) log2(1 + magnitude over noise): rows by radial speed, columns by angle as in `range_angle_map`.

    The loudest range bin counts for each speed. Row 32 stands still and is empty, because the mean chirp is removed; a
    row is 0.47 m/s in scenario 9, and what turns the phase forward from chirp to chirp has rows above 32.

    Args:
        cube: (4, 256, C) raw complex samples of any scale.

    Raises:
        ValueError: it is no such cube, or holds values that are not finite.
    """
    ranges = _moving_ranges(cube)
    num_speeds = 2 * NUM_ROWS if ranges.shape[-1] <= 2 * NUM_ROWS else 4 * NUM_ROWS
    window = np.hanning(ranges.shape[-1]).astype(np.float32)
    speeds = fft.fftshift(fft.fft(ranges * window, num_speeds, axis=-1), axes=-1)
    power = _angle_power(speeds)
    pooled = np.sqrt(power.max(axis=1)).T.reshape(NUM_ROWS, -1, NUM_ANGLES).max(axis=1)
    # Of a million cells every sixteenth tells the median as well, eight times as fast.
    return _over_noise(pooled, np.sqrt(power[:, ::16]))


def unscaled_maps(cube: NDArray[np.generic]) -> NDArray[np.float16]:
    """(2, 128, 64) range-angle and Doppler-angle map, log2(1 + magnitude), as the input of arXiv 2603.16116.

    FFT over samples, mean over chirps removed, FFT over the first 128 chirps, 64-point FFT over receivers; no window
    and no normalisation, so the level is that of the receiver. The first map is the mean over Doppler of the nearer
    half of the range bins (0.195 m each in scenario 9, 25 m in all), nearest first; the second the mean over all range
    bins, with rows of 0.234 m/s of which row 64 stands still. Columns are uniform in the sine of the azimuth, column 32
    is straight ahead.

    Args:
        cube: (4, 256, C) raw complex samples.

    Raises:
        ValueError: it is no such cube, or holds values that are not finite.
    """
    samples = _checked(cube)[..., :NUM_SPEEDS]
    spectrum = fft.fft(samples - samples.mean(axis=2, keepdims=True), axis=1, overwrite_x=True)
    spectrum = fft.fftshift(fft.fft(spectrum, axis=2, overwrite_x=True), axes=2)
    magnitude = np.abs(_STEERING @ spectrum.reshape(NUM_RECEIVERS, -1)).reshape(NUM_ANGLES, NUM_SAMPLES, NUM_SPEEDS)
    maps = np.stack([magnitude[:, :NEAR_BINS].mean(axis=2).T, magnitude.mean(axis=1).T])
    if not np.isfinite(maps).all():
        raise ValueError("a radar cube with values that are not finite")
    image: NDArray[np.float16] = np.log2(1.0 + maps).astype(np.float16)
    return image


def _moving_ranges(cube: NDArray[np.generic]) -> NDArray[np.complex64]:
    """(4, 128, C) near range bins without their mean over chirps."""
    samples = _checked(cube)
    # Removed before the transform: it is linear, and a mean of zeros tells a dead receiver.
    samples -= samples.mean(axis=2, keepdims=True)
    samples *= _WINDOW[:, None]
    ranges: NDArray[np.complex64] = fft.fft(samples, axis=1, overwrite_x=True)[:, :NEAR_BINS]
    return ranges


def _checked(cube: NDArray[np.generic]) -> NDArray[np.complex64]:
    """A copy of a cube that has the right shape."""
    if cube.ndim != 3 or cube.shape[:2] != (NUM_RECEIVERS, NUM_SAMPLES) or cube.shape[2] not in CHIRP_COUNTS:
        raise ValueError(f"a radar cube of shape {cube.shape}, expected (4, 256, 128) or (4, 256, 250)")
    if not np.iscomplexobj(cube):
        raise ValueError(f"a radar cube of {cube.dtype}, expected complex samples")
    return cube.astype(np.complex64)


def _angle_power(signal: NDArray[np.complex64]) -> NDArray[np.float32]:
    """(4, R, X) to (64, R, X): squared magnitude in every direction."""
    directed = _STEERING @ signal.reshape(NUM_RECEIVERS, -1)
    power: NDArray[np.float32] = directed.real**2 + directed.imag**2
    return power.reshape(NUM_ANGLES, *signal.shape[1:])


def _over_noise(pooled: NDArray[np.float32], magnitude: NDArray[np.float32]) -> NDArray[np.float16]:
    noise = float(np.median(magnitude))
    if not np.isfinite(noise) or noise <= 0.0:
        raise ValueError("a radar cube without noise: all zeros, constant over its chirps, or not finite")
    image: NDArray[np.float16] = np.log2(1.0 + pooled * (NOISE_MAGNITUDE / noise)).astype(np.float16)
    return image
