"""Compares the best beams of the embedded channel with those of a ray tracer, on the same passes.

Both see the same boxes, ground, house front and array. Both leave out the diffuse cluster, the gain of a pass and the
noise floor; the embedded channel keeps its scatterers. F frames, B beams.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from configs.progress import Progress
from configs.schema import World
from configs.seeding import rng_for
from sim.world.channel import blockage_db, received_power
from sim.world.scene import draw_scene
from sim.world.sionna_channel import require_sionna
from sim.world.site import make_site

Floats = NDArray[np.float64]

# The power of a frame without any path, so that it has a logarithm.
FAINTEST = 1e-12


@dataclass(frozen=True)
class Agreement:
    """How often the two channels agree over some frames.

    Attributes:
        name: the name of the group of frames.
        num_frames: the number of frames.
        within: the shares of frames whose best beams differ by at most 0, 1 and 2; None without frames.
        power_correlation: Pearson's correlation of the best beam's power in dB; None with fewer than three frames or
            without spread.
    """

    name: str
    num_frames: int
    within: tuple[float, float, float] | None
    power_correlation: float | None


def judge(world: World, *, seed: int, passes: int, frames: int, progress: Progress | None = None) -> list[Agreement]:
    """Agreement over all frames, those with a clear view, those behind a vehicle, and those loud enough to label.

    *Clear* and *blocked* say how the embedded channel sees the direct path. *Audible* means that the traced best beam
    is above the noise floor of the world: below it the label is noise in either engine.

    Args:
        world: the street; its diffuse cluster is left out here.
        seed: the seed that draws the passes.
        passes: the number of passes to draw.
        frames: about how many of their frames are traced, evenly spread.
        progress: is called with the number of traced passes and of all passes.

    Raises:
        ValueError: the ray tracer cannot run here.
    """
    require_sionna()
    from sim.world.sionna_street import traced_power

    plain = world.model_copy(update={"rician_k_db": 99.0})
    embedded, traced, loss = [], [], []
    for index in range(passes):
        scene = draw_scene(world, rng_for(seed, "referee", index, "scene"), site=make_site(world, 0))
        chosen = spread(scene.num_frames, max(1, round(frames / passes)))
        embedded.append(received_power(plain, scene, rng_for(seed, "referee", index, "power"))[chosen])
        traced.append(traced_power(scene, chosen.tolist(), num_beams=world.num_beams))
        loss.append(blockage_db(scene)[chosen])
        if progress is not None:
            progress(index + 1, passes)
    return agreements(
        np.concatenate(embedded), np.concatenate(traced), np.concatenate(loss), noise=10.0 ** (-world.snr_db / 10.0)
    )


def spread(num_frames: int, wanted: int) -> NDArray[np.int64]:
    """At most ``wanted`` frames of a pass, evenly spread, in order."""
    step = max(num_frames / wanted, 1.0)
    chosen: NDArray[np.int64] = np.floor(np.arange(min(wanted, num_frames)) * step).astype(np.int64)
    return chosen


def agreements(embedded: Floats, traced: Floats, loss_db: Floats, *, noise: float) -> list[Agreement]:
    """Agreement of two sets of powers (F, B) on all, clear, blocked and audible frames.

    Args:
        embedded: the linear power of the embedded channel.
        traced: the linear power of the ray tracer; 0 if no path arrives.
        loss_db: (F,) the blockage of the direct path in dB; 0 is clear.
        noise: the linear power of the noise floor.
    """
    kinds = {
        "all": np.ones(len(loss_db), dtype=bool),
        "clear": loss_db <= 0.0,
        "blocked": loss_db > 0.0,
        "audible": traced.max(axis=1) > noise,
    }
    return [_agreement(name, embedded[chosen], traced[chosen]) for name, chosen in kinds.items()]


def _agreement(name: str, embedded: Floats, traced: Floats) -> Agreement:
    if not len(embedded):
        return Agreement(name, 0, None, None)
    apart = np.abs(embedded.argmax(axis=1) - traced.argmax(axis=1))
    within = (float((apart == 0).mean()), float((apart <= 1).mean()), float((apart <= 2).mean()))
    ours, theirs = (np.log10(np.maximum(power.max(axis=1), FAINTEST)) for power in (embedded, traced))
    is_defined = len(apart) > 2 and ours.std() > 0 and theirs.std() > 0
    return Agreement(name, len(apart), within, float(np.corrcoef(ours, theirs)[0, 1]) if is_defined else None)
