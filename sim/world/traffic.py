"""The motion of vehicles: free driving, car-following and stops. F frames, N vehicles of one lane, front to back.

    v' = a + (v_desired - v) / tau - a_max (s* / s)^2,   s* = s_0 + v T + v (v - v_ahead) / (2 sqrt(a_max b))

with a an Ornstein-Uhlenbeck process and s the gap to the vehicle ahead. A stop is a time with v_desired = 0.

Source: the interaction term and its constants are those of the Intelligent Driver Model, M. Treiber, A. Hennecke and
D. Helbing, Phys. Rev. E 62 (2000) 1805, for city traffic; relaxation and noise of the free road are assumptions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SLOT_S = 0.111
ACCELERATION_TIME_S, FREE_TIME_S, BRAKING_TIME_S = 1.2, 2.0, 0.6
MAX_ACCELERATION, COMFORTABLE_BRAKING = 1.5, 2.0
STANDSTILL_GAP_M, TIME_GAP_S = 2.0, 1.0
# No vehicle comes closer than this to the one ahead, even if the integration step would allow it.
CLOSEST_M = 0.5


@dataclass(frozen=True)
class Stop:
    """A halt of one vehicle.

    Attributes:
        vehicle: the number of the vehicle in its lane.
        position_m: the position where it begins to brake.
        slots: the number of slots that it wants to stand.
    """

    vehicle: int
    position_m: float
    slots: int


def drive(
    start_m: Floats,
    *,
    lengths_m: Floats,
    desired_mps: Floats,
    kicks: Floats,
    stop: Stop | None,
    is_over: Callable[[Floats, int], bool],
) -> tuple[Floats, Floats]:
    """Move the vehicles of a lane until it is over.

    Args:
        start_m: (N,) centres along the direction of travel, in falling order.
        lengths_m: (N,) the lengths of the vehicles.
        desired_mps: (N,) the speeds on the free road.
        kicks: (F_max, N) random steps of the acceleration, m/s^2.
        stop: a halt, or None.
        is_over: says whether the drive ends before a frame, from positions (N,) and the number of frames so far; it
            ends at ``F_max`` in any case.

    Returns:
        Centres and speeds, (F, N) each; the speed of a frame is the advance since the frame before, divided by a slot.
    """
    memory = np.exp(-SLOT_S / ACCELERATION_TIME_S)
    position, speed, noise = start_m.astype(np.float64), desired_mps.astype(np.float64), kicks[0]
    bumper = 0.5 * (lengths_m[:-1] + lengths_m[1:])
    positions: list[Floats] = []
    speeds: list[Floats] = []
    stopped = 0
    while len(positions) < len(kicks) and not is_over(position, len(positions)):
        positions.append(position)
        speeds.append(speed)
        pull = noise + (desired_mps - speed) / FREE_TIME_S
        if len(position) > 1:
            gap = position[:-1] - position[1:] - bumper
            closing = speed[1:] * (speed[1:] - speed[:-1]) / (2.0 * np.sqrt(MAX_ACCELERATION * COMFORTABLE_BRAKING))
            wanted = np.maximum(STANDSTILL_GAP_M + TIME_GAP_S * speed[1:] + closing, 0.0)
            pull[1:] -= MAX_ACCELERATION * (wanted / np.maximum(gap, CLOSEST_M)) ** 2
        if stop is not None and position[stop.vehicle] > stop.position_m and stopped < stop.slots:
            stopped += 1
            pull[stop.vehicle] = min(pull[stop.vehicle], -speed[stop.vehicle] / BRAKING_TIME_S)
        speed = np.maximum(speed + pull * SLOT_S, 0.0)
        for follower in range(1, len(position)):
            room = gap[follower - 1] + speed[follower - 1] * SLOT_S - CLOSEST_M
            speed[follower] = min(speed[follower], max(room, 0.0) / SLOT_S)
        position = position + speed * SLOT_S
        noise = memory * noise + kicks[len(positions) - 1]
    return np.array(positions), np.array(speeds)
