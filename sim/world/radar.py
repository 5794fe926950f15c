"""The FMCW radar of the mast, from point scatterers: the map that a learner sees, and the cube of raw samples.

    X_k[n, m] = sum_p A_p e^(j pi k sin theta_p) e^(j 4 pi S r_p n / (c f_s)) e^(j 4 pi v_p m T_c / lambda) + noise

F frames, V vehicles, P points; k receivers, n samples, m chirps.

Source: waveform of the DeepSense 6G scenario 9 loader (77 GHz, 15.015 MHz/us, 256 samples at 5 MHz, 128 chirps every
65 us, 4 receivers): range bin 0.195 m. Strengths are assumptions: a broadside vehicle has about 16 dBsm.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.schema import World
from sim.world.raycast import cast
from sim.world.scene import Scene

RANGE_BIN_M, NUM_SAMPLES, NUM_CHIRPS, CHIRP_S = 0.195, 256, 128, 65e-6
WAVELENGTH_M = 299_792_458.0 / 77e9
NUM_ANTENNAS, NUM_ANGLES = 4, 64
SNR_DB, AREA_M2, HIDDEN_DB = 22.0, 40.0, -15.0
# The map uses the nearer half of the range bins and one chirp of every eight, drawn once: evenly spaced chirps would
# not see vehicles whose phase turns by a whole cycle from one chirp to the next (3.74 m/s).
NEAR_BINS = 128
CHIRPS = np.array([6, 13, 20, 26, 34, 40, 48, 56, 65, 78, 85, 95, 100, 108, 119, 125])
NUM_CLUTTER = 30
# Raw cubes are in units of a converter. With this unit the unscaled range-angle maps of preset s9 have the mean level
# that the batch norms of published students (arXiv:2603.16116) have stored, 0.141.
CONVERTER_GAIN = np.float32(2.27e-5)
# The noise per raw sample that gives unit noise after a Hann-windowed range FFT scaled to the amplitude of a tone.
SAMPLE_NOISE = float(np.hanning(NUM_SAMPLES).sum() / np.sqrt((np.hanning(NUM_SAMPLES) ** 2).sum()))


def radar(world: World, scene: Scene, rng: np.random.Generator) -> NDArray[np.float16]:
    """(F, 64, 64) range-angle map, log2(1 + magnitude): range rows of 0.39 m, columns uniform in sin(azimuth).

    Every vehicle is nine Swerling-I points. A point at range r is a Hann-windowed tone, whose range FFT is known in
    closed form and cut off three bins away; 16 chirps are spread over the frame of 128, so that the notch of the
    chirp-mean removal is that of the whole frame. Static clutter cancels there exactly and is not generated, and a
    vehicle that stops fades away. Then follow an angle FFT, the sum of magnitudes over chirps, and the larger of two
    range bins.
    """
    position, carrier, radial, antennas = _tones(scene, rng)
    chirps = _doppler(radial, CHIRPS)
    signal = (carrier[..., None, None] * chirps[..., None] * antennas[..., None, :]).astype(np.complex64)

    shape = (scene.num_frames, NEAR_BINS, len(CHIRPS), NUM_ANTENNAS)
    noise = rng.standard_normal((*shape, 2), dtype=np.float32).view(np.complex64)[..., 0] / np.float32(np.sqrt(2.0))
    cube = noise
    frames = np.arange(scene.num_frames)
    for point in range(position.shape[1]):
        first = np.floor(position[:, point]).astype(np.int64) - 2
        for bins in (first + k for k in range(6)):
            inside = (bins >= 0) & (bins < NEAR_BINS)
            weight = _hann_response(position[:, point] - bins) * inside
            cube[frames, np.clip(bins, 0, NEAR_BINS - 1)] += weight[:, None, None] * signal[:, point]
    cube -= cube.mean(axis=2, keepdims=True)
    maps = np.empty((scene.num_frames, NEAR_BINS, NUM_ANGLES), np.float32)
    for frame in frames:
        spectrum = np.fft.fft(cube[frame], n=NUM_ANGLES, axis=-1)
        maps[frame] = np.fft.fftshift(np.abs(spectrum).sum(axis=1), axes=-1)
    pooled = maps.reshape(scene.num_frames, NEAR_BINS // 2, 2, NUM_ANGLES).max(axis=2)
    image: NDArray[np.float16] = np.log2(1.0 + pooled / len(CHIRPS)).astype(np.float16)
    return image


def radar_cube(world: World, scene: Scene, rng: np.random.Generator) -> NDArray[np.complex64]:
    """(F, 4, 256, 128) raw samples (receiver, sample, chirp) of the same waveform, a megabyte per frame.

    The strengths of points are those of :func:`radar` with the same stream, but the noise differs. The cube contains
    static clutter along the house fronts. The noise is scaled so that a Hann-windowed range FFT, divided by the sum of
    the window, leaves unit noise; a map made in this way has the level of :func:`radar`.
    """
    position, carrier, radial, antennas = _tones(scene, rng)
    sample, chirp = np.arange(NUM_SAMPLES), np.arange(NUM_CHIRPS)
    ranges = np.exp(2j * np.pi * position[..., None] * sample / NUM_SAMPLES).astype(np.complex64)
    doppler = (carrier[..., None] * _doppler(radial, chirp)).astype(np.complex64)
    static = _static_clutter(scene, rng)
    cube = np.empty((scene.num_frames, NUM_ANTENNAS, NUM_SAMPLES, NUM_CHIRPS), np.complex64)
    for frame in range(scene.num_frames):
        noise = rng.standard_normal((*cube.shape[1:], 2), dtype=np.float32).view(np.complex64)[..., 0]
        spatial = antennas[frame].T.astype(np.complex64)[:, None, :] * ranges[frame].T[None]
        cube[frame] = spatial @ doppler[frame] + static[..., None] + np.float32(SAMPLE_NOISE / np.sqrt(2.0)) * noise
    return cube


def maps(world: World, scene: Scene, rng: np.random.Generator) -> NDArray[np.float16]:
    """(F, 2, 128, 64) unscaled maps of :func:`radar_cube`, at the same level as the maps of scenario 9."""
    from clients.data.radar_maps import unscaled_maps

    return np.stack([unscaled_maps(CONVERTER_GAIN * cube) for cube in radar_cube(world, scene, rng)])


def doppler(world: World, scene: Scene, rng: np.random.Generator) -> NDArray[np.float16]:
    """(F, 64, 64) Doppler-angle map of :func:`radar_cube`; it takes ten times as long as :func:`radar`."""
    from clients.data.radar_maps import doppler_angle_map

    return np.stack([doppler_angle_map(cube) for cube in radar_cube(world, scene, rng)])


def _static_clutter(scene: Scene, rng: np.random.Generator) -> NDArray[np.complex64]:
    """(4, 256) samples of the static objects along the street, the same in every chirp and frame of a pass."""
    x = rng.uniform(-20.0, 20.0, NUM_CLUTTER)
    y = rng.uniform(min(scene.site.far_lane_y + 3.0, scene.site.wall_y), scene.site.wall_y, NUM_CLUTTER)
    distance = np.hypot(x, y)
    strength = 10.0 ** (SNR_DB / 20.0) * (10.0 / distance) ** 2 * rng.rayleigh(size=NUM_CLUTTER)
    gain = strength * np.exp(2j * np.pi * rng.random(NUM_CLUTTER))
    antennas = np.exp(1j * np.pi * (x / distance) * np.arange(NUM_ANTENNAS)[:, None])
    tones = np.exp(2j * np.pi * np.arange(NUM_SAMPLES)[:, None] * distance / (RANGE_BIN_M * NUM_SAMPLES))
    clutter: NDArray[np.complex64] = np.einsum("kp,np,p->kn", antennas, tones, gain).astype(np.complex64)
    return clutter


def _tones(scene: Scene, rng: np.random.Generator) -> tuple[NDArray[Any], ...]:
    """Range bins (F, P), complex amplitudes (F, P), radial speeds (F, P) and antenna responses (F, P, 4)."""
    x, y, amplitude, radial = _radar_points(scene, rng)
    distance = np.hypot(x, y)
    carrier = amplitude * np.exp(-4j * np.pi * distance / WAVELENGTH_M)
    antennas = np.exp(1j * np.pi * (x / distance)[..., None] * np.arange(NUM_ANTENNAS))
    return distance / RANGE_BIN_M, carrier, radial, antennas


def _doppler(radial: NDArray[np.float64], chirp: NDArray[np.int64]) -> NDArray[np.complex128]:
    """(F, P, chirps) turn of the phase from chirp to chirp."""
    turn: NDArray[np.complex128] = np.exp(4j * np.pi * radial[..., None] * CHIRP_S * chirp / WAVELENGTH_M)
    return turn


def _radar_points(scene: Scene, rng: np.random.Generator) -> tuple[NDArray[np.float64], ...]:
    """The position (x, y) in the plane of the mast, amplitude over noise and radial speed of points, (F, P) each."""
    along = np.array([0.0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1.0, 0.0, 1.0])
    across = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.5])
    low, high = scene.low.min(axis=2), scene.high.max(axis=2)
    x = low[..., 0, None] + along * (high - low)[..., 0, None]
    y = low[..., 1, None] + across * (high - low)[..., 1, None]
    distance = np.hypot(x, y)
    swerling = rng.standard_normal((*x.shape, 2)).view(np.complex128)[..., 0] / np.sqrt(2.0)
    strength = 10.0 ** (SNR_DB / 20.0) * np.sqrt(AREA_M2 / (len(along) * 40.0))
    amplitude = strength * swerling * (y / distance) * (10.0 / distance) ** 2
    amplitude = np.where(_is_hidden(scene, x, y), 10.0 ** (HIDDEN_DB / 20.0), 1.0) * amplitude
    radial = scene.velocity[..., None] * x / distance
    flat = (scene.num_frames, -1)
    return x.reshape(flat), y.reshape(flat), amplitude.reshape(flat), radial.reshape(flat)


def _is_hidden(scene: Scene, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(F, V, 9) whether another vehicle stands between the radar and a point at 1 m height."""
    origin = np.array([0.0, 0.0, 1.0])
    low, high = scene.low.min(axis=2)[:, None, None], scene.high.max(axis=2)[:, None, None]
    entry = cast(origin, (x[..., None], y[..., None], np.zeros((1, 1, 1, 1))), low, high).entry()
    is_own = np.eye(x.shape[1], dtype=bool)[:, None, :]
    hidden: NDArray[np.bool_] = np.any((entry < 1.0) & ~is_own, axis=-1)
    return hidden


def _hann_response(offset: NDArray[np.float64]) -> NDArray[np.complex64]:
    """Range FFT of a Hann-windowed tone, ``offset`` bins from the tone, 1 at its own bin."""
    near_one = np.abs(np.abs(offset) - 1.0) < 1e-6
    safe = np.where(near_one, 0.5, offset)
    magnitude = np.where(near_one, 0.5, np.sinc(safe) / (1.0 - safe**2))
    response: NDArray[np.complex64] = (magnitude * np.exp(1j * np.pi * offset)).astype(np.complex64)
    return response
