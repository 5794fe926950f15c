"""Writes a federation recorded on the synthetic street.

Every pass has its own random streams, named by its owner, its index and their purpose. So any pass can be made alone,
in any order and by any process, and leaving a modality out changes nothing else.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clients.data.past_power import NAME as PAST_POWER
from clients.data.past_power import past_power
from clients.data.recording import PUBLIC_POWER, write_recording
from configs.files import fresh_folder
from configs.progress import Progress
from configs.schema import Faults, StreetData, World
from configs.seeding import rng_for
from configs.signals import deaf_to_interrupts, end_children, end_with_parent
from sim.data.plan import PlannedPart, plan_federation
from sim.world.channel import beam_power
from sim.world.faults import spoil
from sim.world.scene import Scene, draw_scene
from sim.world.sensors import SENSORS
from sim.world.site import make_site

Frames = dict[str, NDArray[np.generic]]


def simulate_pass(
    world: World, *, seed: int, stream: str, index: int, modalities: Sequence[str], site: int = 0
) -> Frames:
    """Simulate one pass: ``"power"`` (F, B) and each modality (F, *frame_shape).

    Args:
        world: the settings of the street.
        seed: the seed of the federation.
        stream: the name of the random streams, e.g. ``"public"``.
        index: the number of the pass in its stream.
        modalities: the modalities to record.
        site: the number of the mast that records it.

    Raises:
        ValueError: the street has no such sensor or no such site.
    """
    unknown = [name for name in modalities if name not in (*SENSORS, PAST_POWER)]
    if unknown:
        known = ", ".join((*SENSORS, PAST_POWER))
        raise ValueError(f"data.nodes: the street has no sensor {unknown[0]!r}; use {known}")
    scene = draw_scene(world, rng_for(seed, stream, index, "scene"), site=make_site(world, site))
    frames: Frames = {"power": _power(world, scene, rng_for(seed, stream, index, "power"))}
    for name in modalities:
        if name == PAST_POWER:
            power = frames["power"].astype(np.float32)
            frames[name] = past_power(power, np.zeros(len(power), np.int32))
            continue
        frames[name] = SENSORS[name](world, scene, rng_for(seed, stream, index, name))
    return frames


def _power(world: World, scene: Scene, rng: np.random.Generator) -> NDArray[np.float32]:
    if world.channel == "embedded":
        return beam_power(world, scene, rng)
    # It is imported here, since the ray tracer is an optional extra.
    from sim.world.sionna_channel import sionna_beam_power

    power: NDArray[np.float32] = sionna_beam_power(world, scene, rng)
    return power


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
        data: the street and the parts of the federation.
        folder: the folder of the federation; it must not exist.
        seed: the seed that draws everything.
        workers: the number of processes; 1 works in this process.
        progress: is called with the number of made passes and of all passes.

    Raises:
        ValueError: the folder exists.
    """
    parts = plan_federation(data, seed=seed)
    jobs = [_Job(seed, part, index) for part in parts for index in part.passes]
    learned_from = {part.site_of(index) for part in parts if part.folder != "test" for index in part.passes}
    unseen = [name for number, name in enumerate(data.site_names) if number not in learned_from]
    with fresh_folder(folder) as draft, _results(jobs, workers) as results:
        counted = _counted(results, len(jobs), progress)
        hashes = {}
        for part in parts:
            made = [next(counted) for _ in part.passes]
            sites = _passes_by_site(part, data.site_names) if data.world.sites > 1 else None
            power = _write_part(part, draft / part.folder, made, sites=sites, unseen=unseen)
            hashes[part.folder] = hashlib.sha256(power.tobytes()).hexdigest()
            if part.folder == "public":
                (draft / PUBLIC_POWER).parent.mkdir(parents=True, exist_ok=True)
                np.save(draft / PUBLIC_POWER, power, allow_pickle=False)
        manifest = {
            "source": "street",
            "seed": seed,
            "clients": [_client_entry(part) for part in parts if part.folder.startswith("clients/")],
            "world": data.world.model_dump(),
            # The hash of all power, labelled or not; it does not depend on the order of work or on the workers.
            "power_sha256": hashes,
        }
        (draft / "federation.json").write_text(json.dumps(manifest, indent=1) + "\n")


def write_passes(part: PlannedPart, folder: Path, *, seed: int, workers: int, progress: Progress | None = None) -> None:
    """Write one recording alone; the result does not depend on ``workers``.

    Args:
        part: the recording to make; its own folder is ignored.
        folder: the folder of the recording; it must not exist.
        seed: the seed that draws everything.
        workers: the number of processes; 1 works in this process.
        progress: is called with the number of made passes and of all passes.

    Raises:
        ValueError: the folder exists.
    """
    jobs = [_Job(seed, part, index) for index in part.passes]
    with fresh_folder(folder) as draft, _results(jobs, workers) as results:
        _write_part(part, draft, list(_counted(results, len(jobs), progress)))


def _client_entry(part: PlannedPart) -> dict[str, object]:
    return {
        "id": part.folder.removeprefix("clients/"),
        "modality": part.modalities[0],
        "passes": len(part.passes),
        **part.notes,
    }


@dataclass(frozen=True)
class _Job:
    seed: int
    part: PlannedPart
    index: int


def _run_job(job: _Job) -> Frames:
    part = job.part
    frames = simulate_pass(
        part.world,
        seed=job.seed,
        stream=part.stream,
        index=job.index,
        modalities=part.modalities,
        site=part.site_of(job.index),
    )
    if part.faults != Faults():
        for name in part.modalities:
            frames[name] = spoil(
                frames[name], part.faults, name, rng_for(job.seed, part.stream, job.index, name, "faults")
            )
    return frames


@contextmanager
def _results(jobs: Sequence[_Job], workers: int) -> Iterator[Iterable[Frames]]:
    """The passes of all jobs, in the order of the jobs."""
    if workers <= 1:
        yield map(_run_job, jobs)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=end_with_parent) as pool:
        try:
            with deaf_to_interrupts():
                results = pool.map(_run_job, jobs)
            yield results
        except Exception:
            # Its own threads would print a stack for each job if the processes were ended under them.
            pool.shutdown(cancel_futures=True)
            raise
        except BaseException:
            end_children()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _counted(results: Iterable[Frames], total: int, progress: Progress | None) -> Iterator[Frames]:
    for done, frames in enumerate(results, start=1):
        if progress is not None:
            progress(done, total)
        yield frames


def _passes_by_site(part: PlannedPart, names: Sequence[str]) -> dict[str, list[int]]:
    """Name of each site of a part -> the ids of its passes."""
    found: dict[str, list[int]] = {}
    for number, index in enumerate(part.passes):
        found.setdefault(names[part.site_of(index)], []).append(number)
    return found


def _write_part(
    part: PlannedPart,
    folder: Path,
    made: Sequence[Frames],
    *,
    sites: Mapping[str, Sequence[int]] | None = None,
    unseen: Sequence[str] = (),
) -> NDArray[np.float32]:
    """Write the recording of a part, and return its power, labelled or not."""
    lengths = [len(frames["power"]) for frames in made]
    power = np.concatenate([frames["power"] for frames in made]).astype(np.float32)
    write_recording(
        folder,
        pass_ids=np.repeat(np.arange(len(made), dtype=np.int32), lengths),
        sensors={name: np.concatenate([frames[name] for frames in made]) for name in part.modalities},
        power=power if part.is_labelled else None,
        splits=part.splits,
        sites=sites,
        held_out=[name for name in unseen if name in (sites or {})],
    )
    return power
