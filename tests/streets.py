"""Scenes with a known answer: boxes put on the street by hand, and passes on an empty street."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from configs.schema import World
from configs.seeding import rng_for
from sim.world.scene import Scene, draw_scene
from sim.world.site import Site, make_site

# One vehicle that does not stop, a channel that is almost the line of sight alone, one lane.
EMPTY_STREET = World(density=0.0, stop_probability=0.0, rician_k_db=40.0, near_lane_share=1.0)
REFERENCE = make_site(EMPTY_STREET, 0)


@dataclass(frozen=True)
class Box:
    """A vehicle of one box, whose speed along x the sensors believe though the box stays where it is.

    Attributes:
        low: smallest corner, metres; ``high`` the largest.
        speed: signed, along x, m/s.
        heading: -1 drives to the left, +1 to the right.
        colour: RGB in [0, 1].
    """

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    speed: float = 0.0
    heading: float = -1.0
    colour: tuple[float, float, float] = (0.75, 0.16, 0.14)


def car(x: float, y: float = 8.0, **changes: float) -> Box:
    """A box of 4 by 2 by 1.5 m whose middle is at (x, y)."""
    return Box((x - 2.0, y - 1.0, 0.3), (x + 2.0, y + 1.0, 1.5), **changes)  # type: ignore[arg-type]


def point(x: float, y: float, speed: float) -> Box:
    """A vehicle without extent at 1 m height."""
    return Box((x, y, 1.0), (x, y, 1.0), speed)


def scene_of(
    *boxes: Box, num_frames: int = 4, night: bool = False, rain: bool = False, site: Site = REFERENCE
) -> Scene:
    """So many equal frames; the antenna is over the middle of the first box, at 1.75 m."""
    low, high = (
        np.broadcast_to(
            np.array([getattr(box, end) for box in boxes])[None, :, None], (num_frames, len(boxes), 2, 3)
        ).astype(np.float64)
        for end in ("low", "high")
    )
    middle = [(boxes[0].low[axis] + boxes[0].high[axis]) / 2 for axis in (0, 1)]
    return Scene(
        site=site,
        antenna=np.tile([*middle, 1.75], (num_frames, 1)),
        low=low,
        high=high,
        velocity=np.tile([box.speed for box in boxes], (num_frames, 1)),
        headings=np.array([box.heading for box in boxes]),
        colours=np.array([box.colour for box in boxes]),
        near_lane=True,
        night=night,
        rain=rain,
        rush=False,
    )


def empty_pass(index: int = 0, world: World = EMPTY_STREET, site: int = 0) -> Scene:
    """A drawn pass, alone on the street unless the world says otherwise."""
    return draw_scene(world, rng_for(0, "scene", index), site=make_site(world, site))


def halted(scene: Scene) -> Scene:
    """The scene with every vehicle at rest where it is."""
    return replace(scene, velocity=np.zeros_like(scene.velocity))
