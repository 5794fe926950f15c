"""One mast of a world: the places of its lanes and its wall, and the errors of its array.

Site 0 is the reference mast: nominal geometry and the array errors that all masts share. It records the server's
passes, the public set and the test set.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from configs.schema import World
from configs.seeding import rng_for

NEAR_LANE_Y, FAR_LANE_Y, WALL_Y = 8.0, 11.4, 24.0


@dataclass(frozen=True)
class Site:
    """A mast at a street; metres and radians, y away from the mast.

    Attributes:
        number: the number of the site in its world.
        array_seed: the seed of the manufacturing errors that all arrays share; with ``number`` it also draws the
            objects along the street.
        phase_error_deg: s.d. of the phase errors that this array has in addition.
        yaw_rad: the azimuth to which the array points; the sensors point to azimuth 0.
        near_lane_y: the middle of the near lane; ``far_lane_y`` is that of the far lane.
        wall_y: the place of the house fronts on the other side.
    """

    number: int
    array_seed: int
    phase_error_deg: float = 0.0
    yaw_rad: float = 0.0
    near_lane_y: float = NEAR_LANE_Y
    far_lane_y: float = FAR_LANE_Y
    wall_y: float = WALL_Y


@lru_cache(maxsize=1024)
def make_site(world: World, number: int) -> Site:
    """The site with that number; it depends on the world alone, so every caller gets the same one.

    Raises:
        ValueError: the world has fewer sites.
    """
    if not 0 <= number < world.sites:
        raise ValueError(f"data.world.sites: there are {world.sites} sites, so site {number} does not exist")
    if number == 0:
        return Site(number, world.array_seed)
    yaw, offset, wall = rng_for(world.array_seed, "site", number).uniform(-1.0, 1.0, 3)
    return Site(
        number,
        world.array_seed,
        phase_error_deg=world.site_phase_error_deg,
        yaw_rad=math.radians(float(yaw) * world.site_yaw_deg),
        near_lane_y=NEAR_LANE_Y + float(offset) * world.site_offset_m,
        far_lane_y=FAR_LANE_Y + float(offset) * world.site_offset_m,
        wall_y=WALL_Y + float(wall) * world.site_wall_m,
    )
