"""The knobs of the synthetic street."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, Strict, model_validator

from configs.presets import PRESETS, PresetName
from configs.section import Section

# How many beams an array may have.
MIN_BEAMS, MAX_BEAMS = 2, 1024


class World(Section):
    """The synthetic street at a base station: geometry, traffic, weather, array and sensors.

    What a YAML leaves out comes from its preset (`configs.presets`); what the preset leaves out has the defaults here.

    Attributes:
        preset: the preset that all other keys start from.
        near_lane_share: share of vehicles under test that drive on the near lane (towards -x).
        oncoming_share: share of the other vehicles that drive on the lane of the other direction.
        speed_mps: mean speed of the vehicle under test.
        speed_spread: the coefficient of variation of that speed.
        acceleration_std: s.d. of the Ornstein-Uhlenbeck acceleration, m/s^2.
        stop_probability: chance that a pass contains a stop.
        density: mean number of other vehicles near the mast during a pass.
        night_probability: share of passes by night (the camera sees little).
        rain_probability: share of passes in rain.
        rush_probability: share of passes in the rush hour: slow, dense traffic.
        rician_k_db: LOS power over the diffuse cluster; smaller means noisier labels.
        spread_deg: azimuth spread of the diffuse cluster.
        snr_db: the signal-to-noise ratio of the mean beam on a clear vehicle at 10 m.
        pass_gain_db: s.d. of a gain that a vehicle keeps for its pass (its antenna and body).
        fading_db: s.d. of such a gain that changes slowly during the pass.
        gps_bias_m: pass-constant GPS error, s.d. across and along the street.
        array_seed: seed of the manufacturing errors that all arrays share. Some draws are odd (a third of the beams
            never win); 1, 3, 5, 6 and 7 are vetted.
        sites: the number of masts in the world, ``site-0`` and so on; server, public set and test belong to site 0,
            clients to all sites in turn, unless the data section names others.
        site_phase_error_deg: s.d. of the phase errors that an array has beyond those that all share.
        site_yaw_deg: the largest error of an array's direction, in degrees.
        site_offset_m: the largest distance of lanes from where they are at site 0.
        site_wall_m: the largest distance of the wall from where it is at site 0.
        num_beams: the number of beams, whose directions are spread evenly over 90 degrees; the task follows it.
        channel: ``embedded``, or ``sionna`` for the ray tracer (an extra, a hundred times slower).
    """

    preset: PresetName = "street"
    near_lane_share: float = Field(default=0.7, ge=0, le=1)
    oncoming_share: float = Field(default=0.4, ge=0, le=1)
    speed_mps: float = Field(default=5.0, gt=0.5, le=40)
    speed_spread: float = Field(default=0.2, ge=0, le=1)
    acceleration_std: float = Field(default=0.5, ge=0, le=5)
    stop_probability: float = Field(default=0.15, ge=0, le=1)
    density: float = Field(default=1.6, ge=0, le=20)
    night_probability: float = Field(default=0.0, ge=0, le=1)
    rain_probability: float = Field(default=0.0, ge=0, le=1)
    rush_probability: float = Field(default=0.0, ge=0, le=1)
    rician_k_db: float = Field(default=8.0, ge=-10, le=99)
    spread_deg: float = Field(default=4.5, ge=0, le=60)
    snr_db: float = Field(default=10.0, ge=-20, le=60)
    pass_gain_db: float = Field(default=1.5, ge=0, le=20)
    fading_db: float = Field(default=4.5, ge=0, le=20)
    # Not strict: the preset below turns JSON into plain values, where a pair is a list.
    gps_bias_m: Annotated[tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]], Strict(False)] = (
        0.39,
        0.56,
    )
    array_seed: int = Field(default=1, ge=0)
    sites: int = Field(default=1, ge=1, le=1000)
    site_phase_error_deg: float = Field(default=0.0, ge=0, le=180)
    site_yaw_deg: float = Field(default=0.0, ge=0, le=45)
    site_offset_m: float = Field(default=0.0, ge=0, le=3)
    site_wall_m: float = Field(default=0.0, ge=0, le=8)
    num_beams: int = Field(default=64, ge=MIN_BEAMS, le=MAX_BEAMS)
    channel: Literal["embedded", "sionna"] = "embedded"

    @model_validator(mode="before")
    @classmethod
    def _start_from_preset(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        preset = values.get("preset", "street")
        # An unknown preset is reported by the field itself.
        return {**PRESETS.get(preset, {}), **values} if isinstance(preset, str) else values
