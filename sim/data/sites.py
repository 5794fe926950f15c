"""Writes a federation that is cut from DeepSense 6G scenarios, whole or not at all: one scenario, or one for each site.

Each site is dealt by itself, as if it were the only one, and then its parts join those of the others. What a site does
not give, because it is held out or the YAML names others, is left out, so that the passes of all other parts, and the
tests above all, are the same with and without it. Pass ids of a later site follow those of the earlier ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.data.bearing import beam_angles_deg, find_boresight
from clients.data.deepsense import Scenario
from clients.data.geodesy import to_array_frame
from clients.data.past_power import NAME as PAST_POWER
from clients.data.past_power import past_power
from clients.data.recording import PUBLIC_POWER, write_recording
from configs.data import held_out_share
from configs.files import fresh_folder
from configs.placement import resolved_folder
from configs.schema import DeepSenseData, MeasuredSite, Task
from sim.data.conversion import LICENCE, load_scenario
from sim.data.dealing import FEW_WINDOWS, cut_into_blocks, windows_of
from sim.data.partition import (
    ClientPasses,
    Partition,
    partition_passes,
    pools_of,
    sectors_of,
)

_TASK = Task()
Splits = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class SiteCut:
    """The scenario of one site, and which of its passes each part of the federation gets.

    Attributes:
        site: the site; None if the federation is cut from ``data.folder``.
        scenario: its frames, with pass ids that no other site has, and positions in the frame of its array.
        parts: the passes that the site gives to each part.
        windows: id of each pass -> the number of its windows.
        left_out: a line for everything of the scenario that is in no part.
        boresight_deg: where its array looks, in degrees clockwise from north; None where positions were not rotated.
    """

    site: MeasuredSite | None
    scenario: Scenario
    parts: Partition
    windows: Mapping[int, int]
    left_out: tuple[str, ...]
    boresight_deg: float | None


def write_deepsense(
    data: DeepSenseData,
    folder: Path,
    *,
    seed: int,
    task: Task = _TASK,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a federation that is cut from the scenario in ``data.folder`` or from those of ``data.sites``.

    A frame without a camera box is kept, as NaN. A scenario with images, radar or LiDAR is converted on first use.
    Passes that are too few for parts without numbers are cut into blocks with gaps between them, as the manifest says.

    Args:
        data: the scenarios (releases, or conversions of them) and the number of passes of each part.
        folder: the folder of the federation; it must not exist.
        seed: the seed of the experiment.
        task: the task, which gives the length of a window.
        progress: is called with the number of converted passes and of all passes, if a conversion is needed.

    Raises:
        ValueError: a scenario cannot be read, lacks a sensor, labels or passes, or ``folder`` exists.
    """
    cuts = list(_cuts_of(data, seed, task, progress))
    parts = _joined([cut.parts for cut in cuts])
    if not parts.test:
        raise ValueError("data.test_from: these sites give no test pass; name others, or none for all sites")
    with fresh_folder(folder) as draft:
        _write_part(cuts, draft / "server", data.modalities, parts.server)
        _write_part(cuts, draft / "public", data.modalities, {"public": parts.public}, is_labelled=False)
        power = [cut.scenario.labelled_power[np.isin(cut.scenario.pass_ids, parts.public)] for cut in cuts]
        np.save(draft / PUBLIC_POWER, np.concatenate(power).astype(np.float32), allow_pickle=False)
        _write_part(cuts, draft / "test", data.modalities, {"test": parts.test})
        for client in parts.clients:
            _write_part(cuts, draft / "clients" / client.id, (client.modality,), client.splits)
        (draft / "federation.json").write_text(json.dumps(_manifest(data, cuts, parts, seed), indent=1) + "\n")


def _manifest(data: DeepSenseData, cuts: Sequence[SiteCut], parts: Partition, seed: int) -> dict[str, Any]:
    site_of = {client.id: cut.site.name for cut in cuts for client in cut.parts.clients if cut.site}
    windows = {number: count for cut in cuts for number, count in cut.windows.items()}
    sites = [
        {"name": cut.site.name, "scenario": cut.scenario.name, "boresight_deg": cut.boresight_deg}
        | ({"held_out": True} if cut.site.held_out else {})
        for cut in cuts
        if cut.site
    ]
    return {
        "source": "deepsense",
        "scenario": ", ".join(cut.scenario.name for cut in cuts),
        "licence": LICENCE,
        "seed": seed,
        **({"sites": sites} if sites else {}),
        "clients": [
            {
                "id": client.id,
                "modality": client.modality,
                "passes": sum(len(ids) for ids in client.splits.values()),
                **({"site": site_of[client.id]} if client.id in site_of else {}),
            }
            for client in parts.clients
        ],
        "left_out": [line for cut in cuts for line in cut.left_out],
        "warnings": warnings_of(parts, windows, data),
    }


def _cuts_of(
    data: DeepSenseData, seed: int, task: Task, progress: Callable[[int, int], None] | None
) -> Iterator[SiteCut]:
    """The cut of each site, in the order of the YAML."""
    first_pass = first_client = 0
    for number, site in enumerate(data.sites or (None,)):
        where, at_site = "data.folder", data
        if site is not None:
            where = f"data.sites.{number}.folder"
            at_site = data.model_copy(update={"folder": site.folder, "nodes": data.nodes_at(site.name)})
        scenario = _load(at_site, where, data.modalities, progress)
        scenario, cut = _with_enough_passes(scenario, at_site, task, where=where)
        scenario = replace(scenario, pass_ids=(scenario.pass_ids + first_pass).astype(np.int32))
        windows = windows_of(scenario.pass_ids, task)
        try:
            dealt = partition_passes(at_site, _pass_sectors(scenario), windows, seed=seed)
        except ValueError as error:
            raise ValueError(str(error) if site is None else f"{error} (at {site.name})") from None
        boresight_deg = _boresight_of(site, scenario, dealt)
        if boresight_deg is not None:
            positions = to_array_frame(np.asarray(scenario.sensors["gps"], np.float64), boresight_deg)
            scenario = replace(scenario, sensors={**scenario.sensors, "gps": positions})
        if PAST_POWER in data.modalities:
            # It is made now that passes are what they will be: the first slot of each knows of no sweep.
            known = past_power(scenario.labelled_power, scenario.pass_ids)
            scenario = replace(scenario, sensors={**scenario.sensors, PAST_POWER: known})
        said = [*scenario.problems, *cut, *_without_windows(windows, task)]
        left_out = tuple(line if site is None else f"{site.name}: {line}" for line in said)
        parts = dealt if site is None else _given(data, site, dealt, first_client)
        yield SiteCut(site, scenario, parts, windows, left_out, boresight_deg)
        first_client += len(parts.clients)
        first_pass = int(scenario.pass_ids.max(initial=first_pass - 1)) + 1


def _load(
    data: DeepSenseData, where: str, modalities: Sequence[str], progress: Callable[[int, int], None] | None
) -> Scenario:
    source = resolved_folder(data.folder)
    if not source.is_dir():
        raise ValueError(
            f"{where}: there is no folder {source}; get the scenario from www.deepsense6g.net and name its folder"
        )
    scenario = load_scenario(source, modalities, progress=progress)
    lacking = [name for name in modalities if name not in scenario.sensors and name != PAST_POWER]
    if lacking:
        raise ValueError(
            f"data.nodes: {data.folder} has no {', '.join(lacking)} that can be read; "
            f"{'use ' + ', '.join(scenario.sensors) if scenario.sensors else 'it has no sensor at all'}"
            + _other_nodes(data, scenario.sensors)
        )
    return scenario


def _boresight_of(site: MeasuredSite | None, scenario: Scenario, dealt: Partition) -> float | None:
    """Where the array of a site looks, from the YAML or from its labelled training passes; no test is looked at.

    Those are the passes that the site deals to the server and to clients, whether it gives them or is held out: whoever
    mounts an array measures once where it looks.

    Raises:
        ValueError: no training pass has a position.
    """
    if site is None or "gps" not in scenario.sensors:
        return None
    if site.boresight != "auto":
        return site.boresight
    labelled = [dealt.server["train"], *(client.splits["train"] for client in dealt.clients)]
    known = np.isin(scenario.pass_ids, [number for ids in labelled for number in ids])
    positions, num_beams = np.asarray(scenario.sensors["gps"], np.float64), scenario.labelled_power.shape[1]
    found = find_boresight(scenario.beams[known], positions[known], num_beams)
    if found is None:
        raise ValueError(
            f"data.sites: {site.name} has no position in a labelled training pass, so its boresight cannot be found; "
            "give its degrees"
        )
    return found


def _given(data: DeepSenseData, site: MeasuredSite, dealt: Partition, first_client: int) -> Partition:
    """What a site gives of the passes that were dealt; clients are numbered from ``first_client`` on."""

    def gives(named: Sequence[str]) -> bool:
        return not site.held_out and (not named or site.name in named)

    tests = gives(data.test_from) or site.held_out
    clients = [] if site.held_out else dealt.clients
    return Partition(
        server={name: ids if gives(data.server_from) else [] for name, ids in dealt.server.items()},
        public=dealt.public if gives(data.public_from) else [],
        test=dealt.test if tests else [],
        clients=[
            ClientPasses(f"{first_client + number:03d}-{client.modality}", client.modality, client.splits)
            for number, client in enumerate(clients)
        ],
    )


def _joined(parts: Sequence[Partition]) -> Partition:
    return Partition(
        server={name: [i for part in parts for i in part.server[name]] for name in parts[0].server},
        public=[i for part in parts for i in part.public],
        test=[i for part in parts for i in part.test],
        clients=[client for part in parts for client in part.clients],
    )


def _other_nodes(data: DeepSenseData, sensors: Iterable[str]) -> str:
    """How to name nodes that the scenario has sensors for; empty if it has none."""
    count = max((nodes.count for nodes in data.nodes), default=1)
    nodes = ", ".join(f"{{modality: {name}, count: {count}}}" for name in sensors)
    return f", such as --set 'data.nodes=[{nodes}]'" if nodes else ""


def _with_enough_passes(
    scenario: Scenario, data: DeepSenseData, task: Task, *, where: str
) -> tuple[Scenario, list[str]]:
    """The scenario, cut into blocks if it has too few passes for the parts; and a line that says so.

    Raises:
        ValueError: the rows are no sequence.
    """
    if not scenario.has_passes:
        raise ValueError(
            f"{where}: {scenario.name} in {data.folder} has no seq_index, so its rows are no sequences to track; "
            "name the folder of a whole scenario"
        )
    num_usable = sum(count > 0 for count in windows_of(scenario.pass_ids, task).values())
    needed = _num_needed(data)
    passes = data.passes
    counts = (passes.server, passes.public, passes.test, passes.client)
    # Where the YAML counts passes, too few of them are an error of the YAML.
    if num_usable >= needed or any(count is not None for count in counts):
        return scenario, []
    num_passes = len(np.unique(scenario.pass_ids))
    # Twice as many blocks as parts, so that everybody has some to validate on.
    blocks = cut_into_blocks(scenario.pass_ids, needed=2 * needed, task=task)
    kept, frames, gap = blocks > 0, len(blocks), task.num_frames + task.num_future
    line = (
        f"{scenario.name}: {num_usable} passes with windows are too few for {needed} parts, so {num_passes} passes "
        f"are cut into {blocks.max(initial=0)} blocks, with gaps of {gap} frames between them; "
        f"{frames - int(kept.sum())} of {frames} frames are left out. Blocks of one pass are more alike than passes are"
    )
    return replace(
        scenario,
        pass_ids=blocks[kept],
        sensors={name: values[kept] for name, values in scenario.sensors.items()},
        power=scenario.labelled_power[kept],
        files={},
    ), [line]


def _num_needed(data: DeepSenseData) -> int:
    """The number of passes that the parts need: what the YAML asks for, and one for each part without a number."""
    passes = data.passes
    pools = pools_of(data)
    clients = sum((count if passes.client is None else passes.client) for count in pools)
    tests = sum(pools) * (passes.client_test or 0)
    return sum(count or 1 for count in (passes.server, passes.public, passes.test)) + clients + tests


def _without_windows(windows: Mapping[int, int], task: Task) -> list[str]:
    """A line that names the passes that are too short for a window; none if there are none."""
    short = [str(i) for i, count in windows.items() if count == 0]
    least = task.num_frames + task.num_future + 1
    return [f"passes with fewer than {least} frames have no window: {', '.join(short)}"] if short else []


def warnings_of(parts: Partition, windows: Mapping[int, int], data: DeepSenseData) -> list[str]:
    """A line for every part with few windows to learn from, or none to validate on, with the numbers to change.

    Args:
        parts: the passes of each part.
        windows: id of each pass -> the number of its windows.
        data: the section that says how many passes each part holds.
    """
    lines = []
    owners = [("server", "server", parts.server), *((client.id, "client", client.splits) for client in parts.clients)]
    for name, key, splits in owners:
        train, validation = (sum(windows[i] for i in splits[split]) for split in ("train", "validation"))
        number = getattr(data.passes, key)
        remedy = f"raise data.passes.{key} ({'a share' if number is None else number} now)" + (
            " or lower the count of data.nodes" if key == "client" else ""
        )
        if train < FEW_WINDOWS:
            lines.append(f"{name}: has {train} windows to train on, fewer than {FEW_WINDOWS}; {remedy}")
        if validation == 0 and held_out_share(data.passes.validation_share, len(splits["train"])) > 0:
            lines.append(f"{name}: has no pass to validate on, so its last state is kept; {remedy}")
    return lines


def _pass_sectors(scenario: Scenario) -> dict[int, int]:
    """The beam sector of every pass, if the beams are spread evenly over the field in the order of the codebook."""
    azimuths = beam_angles_deg(scenario.labelled_power.shape[1])[scenario.beams]
    ids = [int(i) for i in np.unique(scenario.pass_ids)]
    sectors = sectors_of([azimuths[scenario.pass_ids == i] for i in ids])
    return dict(zip(ids, sectors.tolist(), strict=True))


def _write_part(
    cuts: Sequence[SiteCut], folder: Path, modalities: Sequence[str], splits: Splits, *, is_labelled: bool = True
) -> None:
    """Write the recording of one part, from the passes of every site that are in its splits."""
    wanted = [i for ids in splits.values() for i in ids]
    mine = [(cut, np.isin(cut.scenario.pass_ids, wanted)) for cut in cuts]
    mine = [(cut, rows) for cut, rows in mine if rows.any()] or mine[:1]
    sites = {cut.site.name: np.unique(cut.scenario.pass_ids[rows]).tolist() for cut, rows in mine if cut.site}

    def joined(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
        found = [array[rows] for array, (_, rows) in zip(arrays, mine, strict=True)]
        return found[0] if len(found) == 1 else np.concatenate(found)

    scenarios = [cut.scenario for cut, _ in mine]
    write_recording(
        folder,
        pass_ids=joined([one.pass_ids for one in scenarios]),
        sensors={name: joined([one.sensors[name] for one in scenarios]) for name in modalities},
        power=joined([one.labelled_power for one in scenarios]) if is_labelled else None,
        splits=splits if is_labelled else {},
        sites=sites or None,
        held_out=[cut.site.name for cut, _ in mine if cut.site and cut.site.held_out],
    )
