"""One pass as geometry: the vehicle under test and the traffic around it, frame by frame.

The mast stands at the origin; x runs along the street to the right, y is the boresight, z is up;
metres, metres per second and seconds. The near lane drives towards -x, the far lane towards +x.
Vehicle 0 is the one under test. F frames, V vehicles.

Source: lanes, slot and the order of the speeds follow DeepSense 6G scenario 9; the far lane, the wall and the vehicle
sizes are assumptions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from configs.schema import World

SLOT_S = 0.111
NEAR_LANE_Y, FAR_LANE_Y, WALL_Y = 8.0, 11.4, 24.0
SENSOR_HEIGHT = 2.2
MAST = np.array([0.0, 0.0, SENSOR_HEIGHT])
ANTENNA_HEIGHT = 1.75

# A window of 8 frames with 3 future slots needs 12; one more leaves it something to slide.
MIN_FRAMES, MAX_FRAMES = 13, 150
COVERED_DEG, COVERED_SPREAD_DEG = 49.0, 4.0
ACCELERATION_TIME_S, FOLLOWING_TIME_S, BRAKING_TIME_S = 1.2, 2.0, 0.6
STOP_S = (1.0, 2.5)
PLATOON_GAP_M = (9.0, 22.0)
ONCOMING_SHARE = 0.4
MAX_OTHERS = 10
TEST_COLOUR = (0.75, 0.16, 0.14)
SAME_COLOUR_SHARE = 0.12


@dataclass(frozen=True)
class VehicleKind:
    """A vehicle as two boxes, body and cabin.

    Attributes:
        length: metres; ``width`` likewise.
        parts: for body and cabin: rear end and front end as shares of the length, bottom and top in metres.
        share: of the traffic.
    """

    length: float
    width: float
    parts: tuple[tuple[float, float, float, float], tuple[float, float, float, float]]
    share: float


KINDS = (
    VehicleKind(4.5, 1.80, ((0.0, 1.0, 0.30, 0.95), (0.15, 0.75, 0.95, 1.50)), 0.45),
    VehicleKind(4.9, 1.95, ((0.0, 1.0, 0.30, 1.05), (0.02, 0.80, 1.05, 1.80)), 0.30),
    VehicleKind(6.5, 2.20, ((0.0, 0.7, 0.50, 2.90), (0.72, 1.0, 0.40, 2.20)), 0.17),
    VehicleKind(11.0, 2.50, ((0.0, 1.0, 0.30, 1.20), (0.0, 1.0, 1.20, 3.10)), 0.08),
)


@dataclass(frozen=True)
class Scene:
    """Where everything is during one pass.

    Attributes:
        antenna: (F, 3) transmit antenna of the vehicle under test.
        low: (F, V, 2, 3) smallest corners of each vehicle's body and cabin.
        high: (F, V, 2, 3) largest corners.
        velocity: (F, V) signed speed along x.
        colours: (V, 3) RGB in [0, 1].
        near_lane: whether the vehicle under test drives on the near lane.
        night: whether it is dark.
        rain: whether it rains.
    """

    antenna: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    velocity: NDArray[np.float64]
    colours: NDArray[np.float64]
    near_lane: bool
    night: bool
    rain: bool

    @property
    def num_frames(self) -> int:
        """F, the slots that the pass lasts."""
        return len(self.antenna)


def draw_scene(world: World, rng: np.random.Generator, *, near_lane_share: float) -> Scene:
    """Draw one pass: traffic, weather and motion.

    Args:
        world: knobs of traffic and weather.
        rng: the pass's own stream.
        near_lane_share: chance that the vehicle under test drives on the near lane.
    """
    near_lane = bool(rng.random() < near_lane_share)
    night = bool(rng.random() < world.night_probability)
    rain = bool(rng.random() < world.rain_probability)
    lane_y, other_y = (NEAR_LANE_Y, FAR_LANE_Y) if near_lane else (FAR_LANE_Y, NEAR_LANE_Y)
    heading = -1.0 if near_lane else 1.0
    travelled, speed = _drive(world, rng, lane_y)
    slots = np.arange(len(speed))

    num_others = min(int(rng.poisson(world.density)), MAX_OTHERS)
    num_oncoming = int(rng.binomial(num_others, ONCOMING_SHARE))
    num_ahead = int(rng.binomial(num_others - num_oncoming, 0.5))
    gaps_ahead = _platoon(rng, num_ahead)
    gaps_behind = _platoon(rng, num_others - num_oncoming - num_ahead)
    offsets = np.concatenate([[0.0], gaps_ahead, -gaps_behind])
    tracks = heading * (travelled[:, None] + offsets)
    velocity = np.repeat(heading * speed[:, None], len(offsets), axis=1)

    oncoming_speed = -heading * _cruising_speed(world, rng)
    met_at, met_slot = rng.uniform(-15.0, 15.0), rng.uniform(0, len(slots))
    oncoming_offsets = met_at - np.sign(oncoming_speed) * (_platoon(rng, num_oncoming) - PLATOON_GAP_M[0])
    oncoming = oncoming_speed * SLOT_S * (slots - met_slot)[:, None] + oncoming_offsets
    centre_x = np.concatenate([tracks, oncoming], axis=1)
    velocity = np.concatenate([velocity, np.full(oncoming.shape, oncoming_speed)], axis=1)

    centre_y = np.array([lane_y] * len(offsets) + [other_y] * num_oncoming) + rng.normal(0.0, 0.2, centre_x.shape[1])
    kinds = [KINDS[0]] + [KINDS[i] for i in rng.choice(len(KINDS), num_others, p=[kind.share for kind in KINDS])]
    low, high = _boxes(centre_x, centre_y, headings=np.where(centre_y > (lane_y + other_y) / 2, 1.0, -1.0), kinds=kinds)
    antenna = np.stack([centre_x[:, 0], np.full(len(slots), centre_y[0]), np.full(len(slots), ANTENNA_HEIGHT)], axis=1)
    return Scene(
        antenna=antenna,
        low=low,
        high=high,
        velocity=velocity,
        colours=_paint(rng, num_others),
        near_lane=near_lane,
        night=night,
        rain=rain,
    )


def _cruising_speed(world: World, rng: np.random.Generator) -> float:
    factor = 1.0 + world.speed_spread * rng.standard_normal()
    return world.speed_mps * float(np.clip(factor, 0.5, 1.8))


def _drive(world: World, rng: np.random.Generator, lane_y: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Position along the lane (0 abreast of the mast) and speed, (F,) each.

    v' = a + (v_desired - v) / tau with a an Ornstein-Uhlenbeck process; a stop is a spell with v_desired = 0.
    A vehicle too fast for ``MIN_FRAMES`` is followed a little beyond the covered angle.
    """
    covered = lane_y * np.tan(np.deg2rad(COVERED_DEG + COVERED_SPREAD_DEG * rng.standard_normal(2)))
    desired = _cruising_speed(world, rng)
    stops = rng.random() < world.stop_probability
    stop_at = rng.uniform(-0.6, 0.6) * lane_y
    stop_slots = round(rng.uniform(*STOP_S) / SLOT_S)
    memory = np.exp(-SLOT_S / ACCELERATION_TIME_S)
    kick = world.acceleration_std * np.sqrt(1.0 - memory**2)
    kicks = kick * rng.standard_normal(MAX_FRAMES)

    position, speed, acceleration, braked = -covered[0], desired, kicks[0], 0
    positions: list[float] = []
    speeds: list[float] = []
    while len(positions) < MAX_FRAMES and (position < covered[1] or len(positions) < MIN_FRAMES):
        positions.append(position)
        speeds.append(speed)
        is_braking = stops and position > stop_at and braked < stop_slots
        braked += is_braking
        pull = -speed / BRAKING_TIME_S if is_braking else acceleration + (desired - speed) / FOLLOWING_TIME_S
        speed = max(0.0, speed + pull * SLOT_S)
        position += speed * SLOT_S
        acceleration = memory * acceleration + kicks[len(positions) - 1]
    return np.array(positions), np.array(speeds)


def _platoon(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """(count,) growing distances of vehicles in a row."""
    return np.cumsum(rng.uniform(*PLATOON_GAP_M, count))


def _boxes(
    centre_x: NDArray[np.float64],
    centre_y: NDArray[np.float64],
    *,
    headings: NDArray[np.float64],
    kinds: list[VehicleKind],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    parts = np.array([kind.parts for kind in kinds])
    length, width = np.array([[kind.length, kind.width] for kind in kinds]).T
    ends = headings[:, None, None] * (parts[:, :, :2] - 0.5) * length[:, None, None]
    low = np.empty((*centre_x.shape, 2, 3))
    high = np.empty_like(low)
    low[..., 0], high[..., 0] = centre_x[:, :, None] + ends.min(axis=2), centre_x[:, :, None] + ends.max(axis=2)
    low[..., 1], high[..., 1] = (centre_y - width / 2)[:, None], (centre_y + width / 2)[:, None]
    low[..., 2], high[..., 2] = parts[:, :, 2], parts[:, :, 3]
    return low, high


def _paint(rng: np.random.Generator, num_others: int) -> NDArray[np.float64]:
    drawn = rng.uniform(0.08, 0.92, (num_others, 1)) + rng.uniform(-0.12, 0.12, (num_others, 3))
    is_alike = rng.random((num_others, 1)) < SAME_COLOUR_SHARE
    others = np.where(is_alike, TEST_COLOUR, np.clip(drawn, 0.02, 1.0))
    return np.concatenate([np.array([TEST_COLOUR]), others])
