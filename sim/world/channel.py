"""60 GHz receive power of every beam along a pass.

    h = sum_p g_p e(theta_p) exp(-j 2 pi d_p / lambda) a(theta_p),   a_n = exp(j pi n sin theta),   e = cos^0.65
    P_b = (s |h^H w_b|^2 + N0) 10^(n_b / 10)

with paths p: line of sight, ground, wall, a bounce off vehicles behind, fixed scatterers and a diffuse cluster
around the line of sight; and a gain s of the vehicle (antenna and body), of which one part is constant over the pass
and one fades slowly, so that the level has the same memory as the measured one. Azimuth theta is 0 at the boresight
and positive to the right; beam 0 is the leftmost.

F frames, V vehicles, P paths, A antennas, B beams.

Source: array, field of view and default beam count of DeepSense 6G scenario 9; every gain but that of free space is an
assumption, and the noise floor and array errors are set to reach that scenario's published beam statistics.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from configs.schema import World
from configs.seeding import rng_for
from sim.world.scene import MAST, Scene
from sim.world.site import Site

Floats = NDArray[np.float64]

NUM_ANTENNAS, NUM_BEAMS, FIELD_DEG = 16, 64, 90.0
WAVELENGTH_M = 299_792_458.0 / 60e9
REFERENCE_M = 10.0
ELEMENT_EXPONENT = 0.65

PHASE_BITS = 3
PHASE_ERROR_DEG, AMPLITUDE_ERROR_DB, BEAM_RIPPLE_DB, TAPER = 30.0, 1.2, 0.1, 0.9

GROUND_GAIN, WALL_GAIN, BODY_GAIN = 0.1, 0.35, 0.45
NUM_SCATTERERS, SCATTERER_AREA_M2 = 12, 1.0
NUM_DIFFUSE = 8
MAX_BLOCKAGE_DB = 30.0
# Correlation of the slow fading from slot to slot.
FADING_MEMORY = 0.95
MEASUREMENT_DB = 0.2


def beam_power(world: World, scene: Scene, rng: np.random.Generator) -> NDArray[np.float32]:
    """(F, B) linear receive power; 1 is the power of a mean beam in its own direction at 10 m without obstruction.

    Args:
        world: the settings of array and channel.
        scene: the pass.
        rng: the random stream of the pass for the channel.
    """
    return measured(world, received_power(world, scene, rng), rng)


def received_power(world: World, scene: Scene, rng: np.random.Generator) -> Floats:
    """(F, B) linear power of the channel alone, without the gain of the pass, noise and measurement errors."""
    weights = codebook(scene.site, world.num_beams)
    gains, azimuths, lengths = _paths(world, scene, rng)
    element = np.maximum(np.cos(azimuths - scene.site.yaw_rad), 0.0) ** ELEMENT_EXPONENT
    rays = gains * element * np.exp(-2j * np.pi * lengths / WAVELENGTH_M)
    channel = np.einsum("fp,fpa->fa", rays, steering(azimuths - scene.site.yaw_rad))
    received: Floats = np.abs(np.einsum("fa,ab->fb", channel.conj(), weights)) ** 2
    return received


def measured(world: World, received: Floats, rng: np.random.Generator) -> NDArray[np.float32]:
    """(F, B) the readings of a beam sweep: power with the vehicle's gain, the noise floor and an error per reading."""
    gain_db = world.pass_gain_db * rng.standard_normal() + world.fading_db * _slow(rng.standard_normal(len(received)))
    received = received * 10.0 ** (gain_db[:, None] / 10.0)
    noise = 10.0 ** (-world.snr_db / 10.0)
    error_db = MEASUREMENT_DB * rng.standard_normal(received.shape)
    power: NDArray[np.float32] = ((received + noise) * 10.0 ** (error_db / 10.0)).astype(np.float32)
    return power


def _slow(kicks: Floats) -> Floats:
    """(F,) an AR(1) process of unit variance from white noise."""
    values = np.empty_like(kicks)
    last = 0.0
    for frame, kick in enumerate(kicks):
        last = kick if frame == 0 else FADING_MEMORY * last + np.sqrt(1.0 - FADING_MEMORY**2) * kick
        values[frame] = last
    return values


def steering(azimuth: Floats) -> NDArray[np.complex128]:
    """(..., A) response of the half-wavelength array to a plane wave from ``azimuth`` radians."""
    response: NDArray[np.complex128] = np.exp(1j * np.pi * np.arange(NUM_ANTENNAS) * np.sin(azimuth)[..., None])
    return response


def beam_angles(num_beams: int = NUM_BEAMS) -> Floats:
    """(B,) nominal pointing azimuths, radians, left to right."""
    return np.deg2rad(np.linspace(-FIELD_DEG / 2, FIELD_DEG / 2, num_beams))


@lru_cache(maxsize=1024)
def codebook(site: Site, num_beams: int = NUM_BEAMS) -> NDArray[np.complex128]:
    """(A, B) beam weights of a site's array, with quantised phases, taper, errors of all arrays and errors of its own.

    They are scaled so that the mean over beams of the power in the beam's own direction is 1.
    """
    rng = rng_for(site.array_seed, "array")
    step = 2.0 * np.pi / 2**PHASE_BITS
    phases = np.round(np.angle(steering(beam_angles(num_beams))) / step) * step
    errors = np.exp(1j * np.deg2rad(PHASE_ERROR_DEG) * rng.standard_normal(NUM_ANTENNAS))
    errors *= 10.0 ** (AMPLITUDE_ERROR_DB * rng.standard_normal(NUM_ANTENNAS) / 20.0)
    own = rng_for(site.array_seed, "array", site.number).standard_normal(NUM_ANTENNAS)
    errors *= np.exp(1j * np.deg2rad(site.phase_error_deg) * own)
    taper = 1.0 - TAPER + TAPER * np.sin(np.pi * (np.arange(NUM_ANTENNAS) + 0.5) / NUM_ANTENNAS)
    ripple = 10.0 ** (BEAM_RIPPLE_DB * rng.standard_normal(num_beams) / 20.0)
    weights: NDArray[np.complex128] = (np.exp(1j * phases) * taper * errors * ripple[:, None]).T
    towards = np.einsum("ba,ab->b", steering(beam_angles(num_beams)).conj(), weights)
    weights /= np.sqrt(np.mean(np.abs(towards) ** 2))
    weights.flags.writeable = False
    return weights


def blockage_db(scene: Scene) -> Floats:
    """(F,) loss of the direct path behind other vehicles in dB; 0 is a clear view.

    A vehicle whose nearest side is between mast and antenna is a knife edge of three sides (roof, left, right); the
    side with the least loss counts, and the losses of vehicles add up.

    Source: ITU-R P.526-15, section 4.1, J(v) = 6.9 + 20 log10(sqrt((v - 0.1)^2 + 1) + v - 0.1) for v > -0.78.
    """
    low, high = scene.low[:, 1:].min(axis=2), scene.high[:, 1:].max(axis=2)
    antenna = scene.antenna[:, None]
    edge_y = low[..., 1]
    share = np.clip(edge_y / antenna[..., 1], 0.0, 1.0)
    crossing = MAST + share[..., None] * (antenna - MAST)
    depth = np.minimum(high[..., 2] - crossing[..., 2], crossing[..., 0] - low[..., 0])
    depth = np.minimum(depth, high[..., 0] - crossing[..., 0])
    distance = np.linalg.norm(antenna - MAST, axis=-1)
    is_between = (share > 0.0) & (share < 0.95)
    before = np.where(is_between, share, 0.5) * distance
    v = depth * np.sqrt(2.0 * distance / (WAVELENGTH_M * before * (distance - before)))
    v = np.where(is_between, v, -1.0)
    loss = np.where(v > -0.78, 6.9 + 20.0 * np.log10(np.sqrt((v - 0.1) ** 2 + 1.0) + v - 0.1), 0.0)
    total: Floats = np.minimum(np.maximum(loss, 0.0).sum(axis=1), MAX_BLOCKAGE_DB)
    return total


def _paths(world: World, scene: Scene, rng: np.random.Generator) -> tuple[NDArray[np.complex128], Floats, Floats]:
    """(F, P) complex gains without the propagation phase, azimuths in radians and lengths in metres."""
    antenna = scene.antenna
    direct = antenna - MAST
    clear = 10.0 ** (-blockage_db(scene) / 20.0)
    direct_gain = clear * REFERENCE_M / np.linalg.norm(direct, axis=1)
    ground = antenna * [1, 1, -1] - MAST
    wall = np.array([0, 2 * scene.site.wall_y, 0]) + antenna * [1, -1, 1] - MAST
    paths = [
        (direct_gain, direct),
        (-GROUND_GAIN * clear * REFERENCE_M / np.linalg.norm(ground, axis=1), ground),
        (-WALL_GAIN * REFERENCE_M / np.linalg.norm(wall, axis=1), wall),
    ]
    for vehicle in range(1, scene.low.shape[1]):
        paths.append(_bounce(scene, vehicle))
    gains = np.stack([gain for gain, _ in paths], axis=1).astype(np.complex128)
    azimuths = np.stack([np.arctan2(way[:, 0], way[:, 1]) for _, way in paths], axis=1)
    lengths = np.stack([np.linalg.norm(way, axis=1) for _, way in paths], axis=1)

    scattered = _scattered(scene.site, antenna)
    diffuse_gains, offsets = _diffuse(world, direct_gain, rng)
    return (
        np.concatenate([gains, scattered[0], diffuse_gains], axis=1),
        np.concatenate([azimuths, scattered[1], azimuths[:, :1] + offsets], axis=1),
        np.concatenate([lengths, scattered[2], np.repeat(lengths[:, :1], NUM_DIFFUSE, axis=1)], axis=1),
    )


def _bounce(scene: Scene, vehicle: int) -> tuple[Floats, Floats]:
    """Gain (F,) and path (F, 3) of the reflection in the side of a vehicle behind the antenna, by its mirror image."""
    side_y = scene.low[:, vehicle, 0, 1]
    image = scene.antenna.copy()
    image[:, 1] = 2.0 * side_y - image[:, 1]
    way = image - MAST
    specular_x = image[:, 0] * side_y / np.maximum(image[:, 1], 1e-3)
    is_on_body = (scene.low[:, vehicle, 0, 0] < specular_x) & (specular_x < scene.high[:, vehicle, 0, 0])
    is_behind = side_y > scene.antenna[:, 1] + 0.5
    return np.where(is_on_body & is_behind, -BODY_GAIN * REFERENCE_M / np.linalg.norm(way, axis=1), 0.0), way


def _scattered(site: Site, antenna: Floats) -> tuple[NDArray[np.complex128], Floats, Floats]:
    """Gains, azimuths and lengths (F, 12) by the street's fixed scatterers: g = 10 / (d1 d2) sqrt(sigma / 4 pi)."""
    rng = rng_for(site.array_seed, "scatterers", site.number)
    corner, size = np.array([-22.0, 13.0, 0.5]), np.array([44.0, 11.0, 5.0])
    places = corner + size * rng.random((NUM_SCATTERERS, 3))
    area = SCATTERER_AREA_M2 * rng.exponential(size=NUM_SCATTERERS)
    to_mast = np.linalg.norm(places - MAST, axis=1)
    to_antenna = np.linalg.norm(antenna[:, None] - places, axis=2)
    gains = REFERENCE_M / (to_mast * to_antenna) * np.sqrt(area / (4.0 * np.pi))
    azimuths = np.broadcast_to(np.arctan2(places[:, 0], places[:, 1]), gains.shape)
    return gains.astype(np.complex128), azimuths, to_mast + to_antenna


def _diffuse(world: World, direct_gain: Floats, rng: np.random.Generator) -> tuple[NDArray[np.complex128], Floats]:
    """Gains (F, 8) and azimuth offsets (8,) of the cluster; its total power is ``rician_k_db`` below the line of sight.

    Phases are drawn again in each frame, because a vehicle moves by many wavelengths in a slot.
    """
    offsets = np.deg2rad(rng.laplace(scale=world.spread_deg / np.sqrt(2.0), size=NUM_DIFFUSE))
    phases = rng.uniform(0.0, 2.0 * np.pi, (len(direct_gain), NUM_DIFFUSE))
    share = np.sqrt(10.0 ** (-world.rician_k_db / 10.0) / NUM_DIFFUSE)
    return share * direct_gain[:, None] * np.exp(1j * phases), offsets
