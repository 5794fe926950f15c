"""Between degrees on the WGS 84 ellipsoid and metres round a base station. F positions.

Source: NIMA TR8350.2 (WGS 84), radii of curvature in the prime vertical and in the meridian.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Semi-major axis in metres and squared eccentricity.
WGS84_AXIS_M = 6_378_137.0
WGS84_ECCENTRICITY2 = 6.694_379_990_14e-3


def to_metres(position_deg: NDArray[np.float64], station_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """Metres east and north of the base station, in the plane that touches the ellipsoid there.

    Within 2 mm of the exact projection in the 100 m around a mast.

    Args:
        position_deg: (F, 2) latitude and longitude in degrees.
        station_deg: (2,) of the base station, or (F, 2) where positions have several.

    Returns:
        (F, 2) east, north.
    """
    north, east = (position_deg - station_deg).T
    north_scale, east_scale = _metres_per_degree(station_deg)
    return np.stack([east_scale * east, north_scale * north], axis=1)


def to_degrees(position_m: NDArray[np.float64], station_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """Latitude and longitude of positions in metres; the inverse of `to_metres`.

    Args:
        position_m: (F, 2) metres east and north.
        station_deg: (2,) latitude and longitude of the base station.

    Returns:
        (F, 2) latitude, longitude in degrees.
    """
    east, north = position_m.T
    north_scale, east_scale = _metres_per_degree(station_deg)
    return np.stack([north / north_scale, east / east_scale], axis=1) + station_deg


def _metres_per_degree(station_deg: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Northwards and eastwards."""
    latitude = np.radians(station_deg[..., 0])
    flattening = 1.0 - WGS84_ECCENTRICITY2 * np.sin(latitude) ** 2
    prime_vertical_m = WGS84_AXIS_M / np.sqrt(flattening)
    meridian_m = prime_vertical_m * (1.0 - WGS84_ECCENTRICITY2) / flattening
    return np.radians(meridian_m), np.radians(prime_vertical_m * np.cos(latitude))
