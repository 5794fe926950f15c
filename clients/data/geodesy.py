"""Conversion between degrees on the WGS 84 ellipsoid and metres around a base station. F positions.

Source: NIMA TR8350.2 (WGS 84), radii of curvature in the prime vertical and in the meridian.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# The semi-major axis in metres and the squared eccentricity.
WGS84_AXIS_M = 6_378_137.0
WGS84_ECCENTRICITY2 = 6.694_379_990_14e-3


def to_metres(position_deg: NDArray[np.float64], station_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """Metres east and north of the base station, in the plane that touches the ellipsoid there.

    The result is within 2 mm of the exact projection for positions up to 100 m away.

    Args:
        position_deg: (F, 2) latitude and longitude in degrees.
        station_deg: (2,) latitude and longitude of the base station in degrees; (F, 2) if there are several stations.

    Returns:
        (F, 2) metres east and north.
    """
    north, east = (position_deg - station_deg).T
    north_scale, east_scale = _metres_per_degree(station_deg)
    return np.stack([east_scale * east, north_scale * north], axis=1)


def to_degrees(position_m: NDArray[np.float64], station_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """Latitude and longitude of positions in metres; this is the inverse of `to_metres`.

    Args:
        position_m: (F, 2) metres east and north.
        station_deg: (2,) latitude and longitude of the base station in degrees.

    Returns:
        (F, 2) latitude and longitude in degrees.
    """
    east, north = position_m.T
    north_scale, east_scale = _metres_per_degree(station_deg)
    return np.stack([north / north_scale, east / east_scale], axis=1) + station_deg


def to_array_frame(position_m: NDArray[np.float64], boresight_deg: float) -> NDArray[np.float64]:
    """Positions as an array sees them: metres to the right of its boresight, and along it.

    Args:
        position_m: (F, 2) metres east and north of the array.
        boresight_deg: where the array looks, in degrees clockwise from north; at 0 nothing changes.

    Returns:
        (F, 2) metres to the right and ahead.
    """
    east, north = position_m.T
    cos, sin = np.cos(np.radians(boresight_deg)), np.sin(np.radians(boresight_deg))
    return np.stack([cos * east - sin * north, sin * east + cos * north], axis=1)


def _metres_per_degree(station_deg: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The metres in one degree, northwards and eastwards."""
    latitude = np.radians(station_deg[..., 0])
    flattening = 1.0 - WGS84_ECCENTRICITY2 * np.sin(latitude) ** 2
    prime_vertical_m = WGS84_AXIS_M / np.sqrt(flattening)
    meridian_m = prime_vertical_m * (1.0 - WGS84_ECCENTRICITY2) / flattening
    return np.radians(meridian_m), np.radians(prime_vertical_m * np.cos(latitude))
