"""The geometry of one pass: the vehicle under test and the traffic around it, frame by frame.

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
from sim.world.site import Site
from sim.world.traffic import ACCELERATION_TIME_S, SLOT_S, Stop, drive

SENSOR_HEIGHT = 2.2
MAST = np.array([0.0, 0.0, SENSOR_HEIGHT])
ANTENNA_HEIGHT = 1.75

# A window of 8 frames with 3 future slots needs 12 frames; with one more it can slide.
MIN_FRAMES, MAX_FRAMES = 13, 150
COVERED_DEG, COVERED_SPREAD_DEG = 49.0, 4.0
STOP_S = (1.0, 2.5)
PLATOON_GAP_M = (6.0, 17.0)
RUSH_DENSITY, RUSH_PACE = 4.0, 0.7
MAX_OTHERS = 10
TEST_COLOUR = (0.75, 0.16, 0.14)
SAME_COLOUR_SHARE = 0.12


@dataclass(frozen=True)
class VehicleKind:
    """A vehicle as two boxes, body and cabin.

    Attributes:
        length: the length in metres; ``width`` is in metres too.
        parts: for body and cabin: rear end and front end as shares of the length, bottom and top in metres.
        share: its share of the traffic.
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
    """The positions of everything during one pass.

    Attributes:
        site: the mast.
        antenna: (F, 3) transmit antenna of the vehicle under test.
        low: (F, V, 2, 3) smallest corners of each vehicle's body and cabin.
        high: (F, V, 2, 3) largest corners.
        velocity: (F, V) signed speed along x.
        headings: (V,) -1 for vehicles towards -x, +1 for the others.
        colours: (V, 3) RGB in [0, 1].
        near_lane: whether the vehicle under test drives on the near lane.
        night: whether it is dark.
        rain: whether it rains.
        rush: whether it is the rush hour.
    """

    site: Site
    antenna: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    velocity: NDArray[np.float64]
    headings: NDArray[np.float64]
    colours: NDArray[np.float64]
    near_lane: bool
    night: bool
    rain: bool
    rush: bool

    @property
    def num_frames(self) -> int:
        """F, the number of slots of the pass."""
        return len(self.antenna)


def draw_scene(world: World, rng: np.random.Generator, *, site: Site) -> Scene:
    """Draw one pass: traffic, weather and motion.

    Args:
        world: the settings of traffic and weather.
        rng: the random stream of the pass.
        site: the mast that the vehicle passes.
    """
    near_lane, night, rain, rush = (
        bool(rng.random() < share)
        for share in (world.near_lane_share, world.night_probability, world.rain_probability, world.rush_probability)
    )
    density = max(RUSH_DENSITY, world.density) if rush else world.density
    pace = world.speed_mps * (RUSH_PACE if rush else 1.0)
    lane_y, other_y = (site.near_lane_y, site.far_lane_y) if near_lane else (site.far_lane_y, site.near_lane_y)
    heading = -1.0 if near_lane else 1.0

    num_others = min(int(rng.poisson(density)), MAX_OTHERS)
    num_oncoming = int(rng.binomial(num_others, world.oncoming_share))
    num_ahead = int(rng.binomial(num_others - num_oncoming, 0.5))
    kinds = [KINDS[i] for i in rng.choice(len(KINDS), num_others, p=[kind.share for kind in KINDS])]
    # The order is front to back: vehicles ahead, the vehicle under test, vehicles behind.
    with_flow, against = kinds[num_oncoming:], kinds[:num_oncoming]
    with_flow.insert(num_ahead, KINDS[0])
    order = [num_ahead, *(i for i in range(len(with_flow)) if i != num_ahead)]
    along, speeds = _drive_by(world, rng, with_flow, number=num_ahead, pace=pace, lane_y=lane_y)
    tracks, velocity = heading * along[:, order], heading * speeds[:, order]
    if against:
        met_at = rng.uniform(-15.0, 15.0)
        met_slot = rng.uniform(0, len(tracks))
        coming, coming_speeds = _meet(
            world, rng, against, pace=pace, met_at=met_at, met_slot=met_slot, slots=len(tracks)
        )
        tracks = np.concatenate([tracks, -heading * coming], axis=1)
        velocity = np.concatenate([velocity, -heading * coming_speeds], axis=1)

    ordered = [with_flow[i] for i in order] + against
    headings = np.where(np.arange(len(ordered)) < len(order), heading, -heading)
    centre_y = np.where(headings == heading, lane_y, other_y) + rng.normal(0.0, 0.2, len(ordered))
    low, high = _boxes(tracks, centre_y, headings=headings, kinds=ordered)
    height = np.full(len(tracks), ANTENNA_HEIGHT)
    return Scene(
        site=site,
        antenna=np.stack([tracks[:, 0], np.full(len(tracks), centre_y[0]), height], axis=1),
        low=low,
        high=high,
        velocity=velocity,
        headings=headings,
        colours=_paint(rng, num_others),
        near_lane=near_lane,
        night=night,
        rain=rain,
        rush=rush,
    )


def _cruising_speeds(world: World, rng: np.random.Generator, pace: float, count: int) -> NDArray[np.float64]:
    return pace * np.clip(1.0 + world.speed_spread * rng.standard_normal(count), 0.4, 1.8)


def _drive_by(
    world: World, rng: np.random.Generator, kinds: list[VehicleKind], *, number: int, pace: float, lane_y: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions along the lane (0 abreast of the mast) and speeds, (F, N) each, while ``number`` is in view.

    A vehicle too fast for ``MIN_FRAMES`` is followed a little beyond the covered angle.
    """
    covered = lane_y * np.tan(np.deg2rad(COVERED_DEG + COVERED_SPREAD_DEG * rng.standard_normal(2)))
    lengths = np.array([kind.length for kind in kinds])
    centres = _queue(rng, lengths)
    desired = _cruising_speeds(world, rng, pace, len(kinds))
    stop = None
    if rng.random() < world.stop_probability:
        # Sometimes the vehicle ahead stops, and the others queue behind it.
        vehicle = int(rng.integers(max(number - 1, 0), number + 1))
        place = rng.uniform(-0.6, 0.6) * lane_y + (lengths[vehicle] + 3.0) * (vehicle < number)
        stop = Stop(vehicle, place, round(rng.uniform(*STOP_S) / SLOT_S))

    def is_over(position: NDArray[np.float64], frames: int) -> bool:
        return bool(position[number] >= covered[1]) and frames >= MIN_FRAMES

    return drive(
        centres - centres[number] - covered[0],
        lengths_m=lengths,
        desired_mps=desired,
        kicks=_kicks(world, rng, MAX_FRAMES, len(kinds)),
        stop=stop,
        is_over=is_over,
    )


def _meet(
    world: World,
    rng: np.random.Generator,
    kinds: list[VehicleKind],
    *,
    pace: float,
    met_at: float,
    met_slot: float,
    slots: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions and speeds of the other lane, whose first vehicle is at about ``met_at`` in ``met_slot``."""
    lengths = np.array([kind.length for kind in kinds])
    desired = _cruising_speeds(world, rng, pace, len(kinds))
    return drive(
        met_at - desired[0] * SLOT_S * met_slot + _queue(rng, lengths),
        lengths_m=lengths,
        desired_mps=desired,
        kicks=_kicks(world, rng, slots, len(kinds)),
        stop=None,
        is_over=lambda position, frames: False,
    )


def _queue(rng: np.random.Generator, lengths_m: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) centres of vehicles in a row, the first at 0 and the others behind it."""
    gaps = rng.uniform(*PLATOON_GAP_M, len(lengths_m) - 1)
    return -np.concatenate([[0.0], np.cumsum(gaps + 0.5 * (lengths_m[:-1] + lengths_m[1:]))])


def _kicks(world: World, rng: np.random.Generator, slots: int, count: int) -> NDArray[np.float64]:
    """(slots, count) steps of an Ornstein-Uhlenbeck process whose s.d. is the world's."""
    memory = np.exp(-SLOT_S / ACCELERATION_TIME_S)
    kick = world.acceleration_std * float(np.sqrt(1.0 - memory**2))
    return kick * rng.standard_normal((slots, count))


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
