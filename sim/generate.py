"""Writes a federation recorded on the synthetic street.

Every pass has its own random streams, named by site, index and what they are for. So any pass can be made
alone, in any order and by any process, and leaving a modality out changes nothing else.
"""

from __future__ import annotations

import json
import math
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clients.sensing.recording import write_recording
from configs.schema import StreetData, World
from configs.seeding import rng_for
from sim.channel import beam_power
from sim.partition import carve_validation, fresh_folder
from sim.scene import draw_scene
from sim.sensors import SENSORS

Frames = dict[str, NDArray[np.generic]]
Progress = Callable[[int, int], None]


def simulate_pass(
    world: World,
    *,
    seed: int,
    site: str,
    index: int,
    modalities: Sequence[str],
    near_lane_share: float | None = None,
) -> Frames:
    """One pass: ``"power"`` (F, 64) and each modality (F, *frame_shape).

    Args:
        world: knobs of the street.
        seed: the federation's seed.
        site: whose pass it is, e.g. ``"public"``.
        index: which of the site's passes.
        modalities: what was recorded.
        near_lane_share: chance of the near lane; None takes the world's.

    Raises:
        ValueError: the street has no such sensor.
    """
    unknown = [name for name in modalities if name not in SENSORS]
    if unknown:
        raise ValueError(f"data.nodes: the street has no sensor {unknown[0]!r}; use {', '.join(SENSORS)}")
    share = world.near_lane_share if near_lane_share is None else near_lane_share
    scene = draw_scene(world, rng_for(seed, site, index, "scene"), near_lane_share=share)
    frames: Frames = {"power": beam_power(world, scene, rng_for(seed, site, index, "power"))}
    for name in modalities:
        frames[name] = SENSORS[name](world, scene, rng_for(seed, site, index, name))
    return frames


@dataclass(frozen=True)
class Part:
    """One recording of the federation, before it is made.

    Attributes:
        folder: below the federation's folder; also the name of its random streams.
        modalities: what it records.
        splits: split name -> pass ids; together they are 0 .. num_passes - 1.
        num_passes: passes in it.
        near_lane_share: its traffic mix.
        is_labelled: whether the power is written.
    """

    folder: str
    modalities: tuple[str, ...]
    splits: dict[str, list[int]]
    num_passes: int
    near_lane_share: float
    is_labelled: bool = True


def write_street(
    data: StreetData,
    folder: Path,
    *,
    seed: int,
    workers: int,
    progress: Progress | None = None,
) -> None:
    """Write server, public, test and client recordings; the result does not depend on ``workers``.

    Args:
        data: what to make.
        folder: of the federation; must not exist.
        seed: of everything drawn.
        workers: processes; 1 stays in this one.
        progress: called with passes done and passes in all.

    Raises:
        ValueError: the folder exists.
    """
    parts = plan_federation(data, seed=seed)
    jobs = [_Job(data.world, seed, part, index) for part in parts for index in range(part.num_passes)]
    with fresh_folder(folder) as draft, _results(jobs, workers) as results:
        counted = _counted(results, len(jobs), progress)
        for part in parts:
            _write_part(part, draft / part.folder, [next(counted) for _ in range(part.num_passes)])
        manifest = {
            "source": "street",
            "seed": seed,
            "clients": [_client_entry(part) for part in parts if part.folder.startswith("clients/")],
            "world": data.world.model_dump(),
        }
        (draft / "federation.json").write_text(json.dumps(manifest, indent=1) + "\n")


def plan_federation(data: StreetData, *, seed: int) -> list[Part]:
    """Who records how many passes of which traffic mix, in the order of writing."""
    passes, nominal = data.passes, data.world.near_lane_share
    everything = tuple(nodes.modality for nodes in data.nodes)
    train, validation = carve_validation(
        range(passes.server), passes.validation_share, rng_for(seed, "server", "splits")
    )
    parts = [
        Part("server", everything, {"train": train, "validation": validation}, passes.server, nominal),
        Part("public", everything, {}, passes.public, nominal, is_labelled=False),
        Part("test", everything, {"test": list(range(passes.test))}, passes.test, nominal),
    ]
    modalities = [nodes.modality for nodes in data.nodes for _ in range(nodes.count)]
    for number, modality in enumerate(modalities):
        rng = rng_for(seed, "client", number, "plan")
        share = _mix(nominal, data.skew, rng)
        factor = math.exp(data.amount_spread * rng.standard_normal() - data.amount_spread**2 / 2)
        num_own = max(2, round(passes.client * factor))
        train, validation = carve_validation(range(num_own), passes.validation_share, rng)
        num_passes = num_own + passes.client_test
        splits = {"train": train, "validation": validation, "test": list(range(num_own, num_passes))}
        parts.append(Part(f"clients/{number:03d}-{modality}", (modality,), splits, num_passes, share))
    return parts


def _mix(nominal: float, skew: float, rng: np.random.Generator) -> float:
    """A client's near-lane share ~ Beta(skew p, skew (1 - p)), whose mean is p."""
    if nominal in (0.0, 1.0):
        return nominal
    return float(rng.beta(skew * nominal, skew * (1.0 - nominal)))


def _client_entry(part: Part) -> dict[str, object]:
    return {
        "id": part.folder.removeprefix("clients/"),
        "modality": part.modalities[0],
        "passes": part.num_passes,
        "near_lane_share": round(part.near_lane_share, 4),
    }


@dataclass(frozen=True)
class _Job:
    world: World
    seed: int
    part: Part
    index: int


def _run_job(job: _Job) -> Frames:
    return simulate_pass(
        job.world,
        seed=job.seed,
        site=job.part.folder,
        index=job.index,
        modalities=job.part.modalities,
        near_lane_share=job.part.near_lane_share,
    )


@contextmanager
def _results(jobs: Sequence[_Job], workers: int) -> Iterator[Iterable[Frames]]:
    """The passes of all jobs, in the order of the jobs."""
    if workers <= 1:
        yield map(_run_job, jobs)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield pool.map(_run_job, jobs)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _counted(results: Iterable[Frames], total: int, progress: Progress | None) -> Iterator[Frames]:
    for done, frames in enumerate(results, start=1):
        if progress is not None:
            progress(done, total)
        yield frames


def _write_part(part: Part, folder: Path, made: Sequence[Frames]) -> None:
    lengths = [len(frames["power"]) for frames in made]
    write_recording(
        folder,
        pass_ids=np.repeat(np.arange(len(made), dtype=np.int32), lengths),
        sensors={name: np.concatenate([frames[name] for frames in made]) for name in part.modalities},
        power=np.concatenate([frames["power"] for frames in made]).astype(np.float32) if part.is_labelled else None,
        splits=part.splits,
    )
