"""Named streets: what `World` starts from. A table of values, so that a preset is data and never a code path.

Source: knobs calibrated against the published beam statistics of DeepSense 6G scenario 9 (docs/world.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

PresetName = Literal["s9", "street", "night-shift", "multi-site-mild", "multi-site-hard"]

# Two-way traffic of uneven speed, with stops: a single frame does not say where the vehicle will be.
_STREET: Mapping[str, Any] = {
    "near_lane_share": 0.65,
    "oncoming_share": 0.4,
    "speed_mps": 6.5,
    "speed_spread": 0.45,
    "acceleration_std": 0.6,
    "stop_probability": 0.3,
    "density": 1.6,
    "rician_k_db": 8.0,
    # Ordinary receivers, which a satellite-based augmentation makes better than bare ones; the positions of the
    # measurement were calibrated afterwards.
    "gps_bias_m": (0.6, 0.9),
}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # Like the measurement: one lane, one direction, steady speed.
    "s9": {
        "near_lane_share": 1.0,
        "speed_mps": 4.0,
        "speed_spread": 0.12,
        "acceleration_std": 0.1,
        "stop_probability": 0.0,
        "density": 0.8,
        "rician_k_db": 7.0,
        # The bias of the measurement also contains how vehicles wander in their lane.
        "gps_bias_m": (0.3, 0.4),
    },
    "street": _STREET,
    "night-shift": {**_STREET, "night_probability": 0.5, "rain_probability": 0.2},
    # Masts of one type of array, mounted with ordinary tolerances.
    "multi-site-mild": {
        **_STREET,
        "sites": 4,
        "site_phase_error_deg": 8.0,
        "site_yaw_deg": 1.5,
        "site_offset_m": 0.7,
        "site_wall_m": 3.0,
    },
    # Every mast has another array and another orientation, so every beam means something else there.
    "multi-site-hard": {
        **_STREET,
        "sites": 4,
        "site_phase_error_deg": 30.0,
        "site_yaw_deg": 12.0,
        "site_offset_m": 2.0,
        "site_wall_m": 8.0,
    },
}
