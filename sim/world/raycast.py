"""Casts rays against axis-aligned boxes; camera, LiDAR and radar occlusion all use this test.

A ray is ``origin + t * direction``. The slab test treats each axis separately, so if the direction components are on
different array axes (pinhole columns and rows), the full product is computed only where the axes meet.

Source: Kay and Kajiya, "Ray tracing complex scenes", SIGGRAPH 1986.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

# A component smaller than this counts as parallel to the slab.
PARALLEL = 1e-6


@dataclass(frozen=True)
class Slabs:
    """Where rays enter and leave the slab of each axis, in units of the length of the direction.

    Attributes:
        near: the places of entry for x, y and z, as arrays that broadcast to (..., rays).
        far: the places where rays leave, in the same form.
    """

    near: tuple[Floats, Floats, Floats]
    far: tuple[Floats, Floats, Floats]

    def entry(self) -> Floats:
        """Where each ray enters its box; infinity for a miss or a box behind the origin."""
        enter = np.maximum(np.maximum(self.near[1], self.near[2]), self.near[0])
        leave = np.minimum(np.minimum(self.far[1], self.far[2]), self.far[0])
        return np.where((leave >= enter) & (enter > 0), enter, np.inf)

    def face(self) -> NDArray[np.int64]:
        """The axis (0 x, 1 y, 2 z) whose face a hitting ray meets first."""
        faces: NDArray[np.int64] = np.argmax(np.stack(np.broadcast_arrays(*self.near)), axis=0)
        return faces


def cast(origin: Floats, direction: tuple[Floats, Floats, Floats], low: Floats, high: Floats) -> Slabs:
    """Cast rays from one point against boxes.

    Args:
        origin: (3,) metres.
        direction: x, y and z components; they broadcast against each other and against ``low[..., 0]``.
        low: (..., 3) the smallest corner of each box, metres.
        high: (..., 3) the largest corner of each box, metres.
    """
    near, far = [], []
    for axis, component in enumerate(direction):
        inverse = 1.0 / np.where(np.abs(component) < PARALLEL, PARALLEL, component)
        to_low, to_high = (low[..., axis] - origin[axis]) * inverse, (high[..., axis] - origin[axis]) * inverse
        near.append(np.minimum(to_low, to_high))
        far.append(np.maximum(to_low, to_high))
    return Slabs(near=(near[0], near[1], near[2]), far=(far[0], far[1], far[2]))
