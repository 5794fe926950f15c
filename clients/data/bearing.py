"""Do the beams follow the vehicles? The bearing of each frame beside its best beam, which tells a wrong base station.

Beams of DeepSense 6G count clockwise, from left to right as the mast sees the road, over a field of 90 degrees. So the
best beam grows with the bearing of the vehicle: in the calibrated positions of scenarios 1 to 9 with a correlation of
0.80 (scenario 3) to 0.99, by 0.48 to 0.79 beams a degree. The base station of another scenario gives 0.2 to 0.99, but
then 1.5 beams a degree or more, or less than nothing. F frames.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

# Outside these limits, which the measured scenarios keep, positions and beams do not belong together.
LEAST_CORRELATION = 0.7
BEAMS_PER_DEGREE = (0.3, 1.0)
MIRRORED = -0.5
"""With a smaller correlation, beams surely fall where they should grow."""
FARTHEST_M = 200.0
FIELD_DEG = 90.0
"""The beams of an array are spread over this field, evenly and from left to right."""
MIN_FRAMES = 50
"""In fewer frames, a few outliers decide on the correlation."""


@dataclass(frozen=True)
class BearingFit:
    """How the best beam follows the bearing, and where the vehicles were.

    Attributes:
        correlation: Pearson's, of the best beam with the clockwise bearing, in [-1, 1].
        beams_per_degree: the slope of the best beam over the bearing.
        bearing_deg: 5th, 50th and 95th percentile of the bearing, clockwise from north, in the middle in [0, 360).
        range_m: 5th, 50th and 95th percentile of the distance from the base station.
    """

    correlation: float
    beams_per_degree: float
    bearing_deg: tuple[float, float, float]
    range_m: tuple[float, float, float]

    def to_json(self) -> dict[str, float | tuple[float, ...] | None]:
        """The attributes by name; a number that is not defined is None."""
        values = asdict(self)
        return {name: None if isinstance(one, float) and np.isnan(one) else one for name, one in values.items()}


def fit_bearing(beams: NDArray[np.int64], position_m: NDArray[np.float64]) -> BearingFit | None:
    """Compare best beams with bearings; None if no frame has a position.

    Args:
        beams: (F,) best beams.
        position_m: (F, 2) metres east and north of the base station; frames with NaN do not count.
    """
    known = np.isfinite(position_m).all(axis=1)
    if not known.any():
        return None
    east, north = position_m[known].T
    angle = np.arctan2(east, north)
    # Bearings are taken from their mean direction, so that none of them wraps.
    middle = np.angle(np.exp(1j * angle).mean())
    bearing_deg = np.degrees(np.angle(np.exp(1j * (angle - middle))))
    best = beams[known].astype(np.float64)
    spread, correlation, slope = bearing_deg.std(), np.nan, np.nan
    if spread > 0.01 and best.std() > 0:
        correlation = float(np.corrcoef(bearing_deg, best)[0, 1])
        slope = float(correlation * best.std() / spread)
    low, centre, high = np.percentile(bearing_deg, (5, 50, 95)) + np.degrees(middle)
    turn = 360.0 * np.floor(centre / 360.0)
    nearest, median, farthest = np.percentile(np.hypot(east, north), (5, 50, 95))
    return BearingFit(
        correlation=correlation,
        beams_per_degree=slope,
        bearing_deg=(float(low - turn), float(centre - turn), float(high - turn)),
        range_m=(float(nearest), float(median), float(farthest)),
    )


def find_boresight(beams: NDArray[np.int64], position_m: NDArray[np.float64], num_beams: int) -> float | None:
    """Where an array looks, in degrees clockwise from north in [0, 360): there bearings match the angles of beams.

    It is the median, over frames, of the bearing of the vehicle less the angle of its best beam from the boresight, so
    that single reflections and jumps of the position do not matter.

    Args:
        beams: (F,) best beams, from 0.
        position_m: (F, 2) metres east and north of the base station; frames with NaN do not count.
        num_beams: the number of beams of the array.

    Returns:
        The boresight; None if no frame has a position.
    """
    known = np.isfinite(position_m).all(axis=1)
    if not known.any():
        return None
    east, north = position_m[known].T
    looks = np.arctan2(east, north) - np.radians(beam_angles_deg(num_beams)[beams[known]])
    middle = np.angle(np.exp(1j * looks).mean())
    # Directions are taken from their mean, so that none of them wraps.
    off = np.median(np.angle(np.exp(1j * (looks - middle))))
    return float(np.degrees(middle + off) % 360.0)


def beam_angles_deg(num_beams: int) -> NDArray[np.float64]:
    """(B,) the nominal angle of each beam from the boresight, in degrees, positive to the right."""
    return FIELD_DEG * ((np.arange(num_beams) + 0.5) / num_beams - 0.5)


def check_bearing(beams: NDArray[np.int64], position_m: NDArray[np.float64]) -> tuple[str, ...]:
    """A line if beams and positions hardly belong together.

    Raises:
        ValueError: they surely do not: the beams fall where they should grow.
    """
    fit = fit_bearing(beams, position_m)
    if fit is None or np.isfinite(position_m).all(axis=1).sum() < MIN_FRAMES:
        return ()
    if np.isnan(fit.correlation):
        if np.std(beams) == 0:
            return ()
        return ("the vehicle never moves as the base station sees it, but the best beam does; are positions rounded?",)
    said = (
        f"correlation of the best beam with the clockwise bearing {fit.correlation:.2f}, {fit.beams_per_degree:.2f} "
        f"beams a degree, {fit.range_m[1]:,.0f} m from the base station (median); measured scenarios have 0.80 to "
        "0.99, 0.5 to 0.8 and 7 to 72 m"
    )
    slope = abs(fit.beams_per_degree)
    is_of_this_site = slope <= BEAMS_PER_DEGREE[1] and fit.range_m[1] <= FARTHEST_M
    if fit.correlation < MIRRORED:
        cause = (
            "beams are counted from the other end in power and labels (make beam b beam 65 - b in both), latitude and "
            "longitude are swapped, or a sign of the longitude is lost"
            if is_of_this_site
            else "unit1_loc is the base station of another site"
        )
        raise ValueError(f"the best beam falls where it should grow: {said}; {cause}")
    if not is_of_this_site or fit.correlation < LEAST_CORRELATION or slope < BEAMS_PER_DEGREE[0]:
        cause = "are positions calibrated, and of these rows?" if is_of_this_site else "is it that of another site?"
        return (f"the best beam hardly follows the position of the vehicle from its base station; {cause} ({said})",)
    return ()
