"""Cuts one DeepSense 6G scenario into a federation of recordings, by whole passes.

A random split by frame would leak: neighbouring frames of one pass would be on both sides.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clients.data.deepsense import Scenario
from clients.data.recording import PUBLIC_POWER, write_recording
from configs.files import fresh_folder
from configs.placement import resolved_folder
from configs.schema import DeepSenseData
from configs.seeding import rng_for
from sim.data.conversion import LICENCE, load_scenario

NUM_SECTORS, SECTOR_FIELD_DEG = 4, 90.0


@dataclass(frozen=True)
class ClientPasses:
    """The passes of one client; no pass is in two splits.

    Attributes:
        id: ``NNN-modality``, where NNN counts all clients in the order of the YAML.
        modality: the modality of its sensor.
        splits: split name -> pass ids.
    """

    id: str
    modality: str
    splits: Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Partition:
    """The passes of each part of a federation; no pass is in two of server, public, test and clients."""

    server: Mapping[str, Sequence[int]]
    public: Sequence[int]
    test: Sequence[int]
    clients: Sequence[ClientPasses]


def carve_validation(pass_ids: Sequence[int], share: float, rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """Set some passes of one owner aside for model selection.

    Args:
        pass_ids: the labelled passes of one client or of the server.
        share: the wanted share of validation passes, in [0, 1). At zero, or with a single pass, none is set aside;
            otherwise at least one is, and at least one is left for training.
        rng: draws the passes that are set aside.

    Returns:
        Training passes and validation passes, both ascending.
    """
    drawn = [int(i) for i in rng.permutation(np.asarray(pass_ids, dtype=np.int64))]
    num_validation = 0
    if share > 0 and len(drawn) >= 2:
        num_validation = min(max(round(share * len(drawn)), 1), len(drawn) - 1)
    return sorted(drawn[num_validation:]), sorted(drawn[:num_validation])


def sectors_of(azimuths_deg: Sequence[NDArray[np.float64]]) -> NDArray[np.int64]:
    """(N,) the beam sector, from 0 (left) to 3 (right), in which each pass stays longest.

    A vehicle that drives steadily stays longest at the edges, where the bearing changes slowly; a vehicle that stops
    stays longest where it stops.

    Args:
        azimuths_deg: the bearings in the frames of each of N passes, degrees from the boresight, positive to the right.
    """
    bounds = np.linspace(-SECTOR_FIELD_DEG / 2, SECTOR_FIELD_DEG / 2, NUM_SECTORS + 1)[1:-1]
    counts = [np.bincount(np.digitize(azimuth, bounds), minlength=NUM_SECTORS) for azimuth in azimuths_deg]
    return np.array([int(np.argmax(count)) for count in counts], np.int64)


def deal_by_sector(
    sectors: NDArray[np.int64], amounts: Sequence[int], concentration: float, rng: np.random.Generator
) -> list[list[int]]:
    """Deal passes to clients so that each has its own mix of beam sectors; every pass goes to one client.

    Each client draws its mix from a Dirichlet distribution around the mix of the pool. Then the clients take turns:
    each takes a pass from a sector drawn from its mix while there are any, and otherwise from the passes left.

    Source: T. Hsu, H. Qi and M. Brown, arXiv:1909.06335 (Dirichlet label skew), with passes in place of examples.

    Args:
        sectors: (N,) the sector of each pass; N is the sum of ``amounts``.
        amounts: the number of passes that each client gets.
        concentration: the concentration of the Dirichlet distribution; a small value gives very different mixes.
        rng: the only source of randomness.
    """
    decks = [list(rng.permutation(np.flatnonzero(sectors == sector))) for sector in range(NUM_SECTORS)]
    nominal = np.array([max(len(deck), 1e-3) for deck in decks]) / len(sectors)
    mixes = rng.dirichlet(concentration * NUM_SECTORS * nominal, len(amounts))
    hands: list[list[int]] = [[] for _ in amounts]
    turns = rng.permutation([client for client, amount in enumerate(amounts) for _ in range(amount)])
    for client in turns:
        left = np.array([len(deck) > 0 for deck in decks])
        wanted = np.where(left, mixes[client], 0.0)
        # A client whose sectors have no pass left takes any other pass.
        weights = wanted if wanted.sum() > 1e-9 else left.astype(np.float64)
        sector = int(rng.choice(NUM_SECTORS, p=weights / weights.sum()))
        hands[client].append(int(decks[sector].pop()))
    return hands


def partition_passes(data: DeepSenseData, sectors: Mapping[int, int], *, seed: int) -> Partition:
    """Deal the passes of a scenario to the parts of a federation.

    Server, public set and test set draw first, so that they do not depend on the clients.

    Args:
        data: the section that says how many passes each part holds.
        sectors: id of each pass -> its beam sector; it is used only with ``data.sector_skew``.
        seed: the seed of the experiment.

    Raises:
        ValueError: there are too few passes; the message starts with the dotted path.
    """
    deck = [int(i) for i in rng_for(seed, "partition").permutation(np.asarray(sorted(sectors), np.int64))]

    def draw(part: str, count: int) -> list[int]:
        if count > len(deck):
            raise ValueError(
                f"data.passes.{part}: asks for {count} passes, but {len(deck)} of {len(sectors)} are left; "
                "lower it or another of data.passes"
            )
        drawn = deck[:count]
        del deck[:count]
        return drawn

    def labelled(owned: Sequence[int], *owner: str | int) -> dict[str, list[int]]:
        rng = rng_for(seed, "partition", "validation", *owner)
        train, validation = carve_validation(owned, data.passes.validation_share, rng)
        return {"train": train, "validation": validation}

    def draw_for_clients(count: int) -> tuple[list[int], list[list[int]]]:
        own = draw("client", data.passes.client)
        return own, [sorted(draw("client_test", data.passes.client_test)) for _ in range(count)]

    def hands_of(own: Sequence[int], count: int) -> list[list[int]]:
        even = [hand.tolist() for hand in np.array_split(own, count)]
        if data.sector_skew is None:
            return even
        mine = np.array([sectors[i] for i in own])
        dealt = deal_by_sector(mine, [len(hand) for hand in even], data.sector_skew, rng_for(seed, "sectors"))
        return [[own[i] for i in hand] for hand in dealt]

    server = labelled(draw("server", data.passes.server), "server")
    public = sorted(draw("public", data.passes.public))
    test = sorted(draw("test", data.passes.test))
    shared = draw_for_clients(max(nodes.count for nodes in data.nodes)) if data.share_passes else None
    clients: list[ClientPasses] = []
    for nodes in data.nodes:
        if data.passes.client < nodes.count:
            raise ValueError(
                f"data.passes.client: {data.passes.client} passes cannot be dealt to {nodes.count} {nodes.modality} "
                "clients; raise it or lower data.nodes"
            )
        own, own_tests = shared or draw_for_clients(nodes.count)
        for number, hand in enumerate(hands_of(own, nodes.count)):
            # The same passes in two modalities are split alike, so that no client trains on validation passes that
            # another client has of the same vehicles.
            owner = ("client", number) if data.share_passes else (nodes.modality, number)
            splits = {**labelled(hand, *owner), "test": own_tests[number]}
            clients.append(ClientPasses(f"{len(clients):03d}-{nodes.modality}", nodes.modality, splits))
    return Partition(server, public, test, tuple(clients))


def write_deepsense(
    data: DeepSenseData, folder: Path, *, seed: int, progress: Callable[[int, int], None] | None = None
) -> None:
    """Write a federation that is cut from the scenario in ``data.folder``, whole or not at all.

    A frame without a camera box is kept, as NaN. A scenario with images, radar or LiDAR is converted on first use.

    Args:
        data: the scenario (a release, or a conversion of one) and the number of passes of each part.
        folder: the folder of the federation; it must not exist.
        seed: the seed of the experiment.
        progress: is called with the number of converted passes and of all passes, if a conversion is needed.

    Raises:
        ValueError: the scenario cannot be read, lacks a sensor, labels or passes, or ``folder`` exists.
    """
    source = resolved_folder(data.folder)
    if not source.is_dir():
        raise ValueError(
            f"data.folder: there is no folder {source}; get the scenario from www.deepsense6g.net and name its folder"
        )
    everything = tuple(nodes.modality for nodes in data.nodes)
    scenario = load_scenario(source, everything, progress=progress)
    if not scenario.has_passes:
        raise ValueError(
            f"data.folder: {scenario.name} in {data.folder} has no seq_index, so its rows are no sequences to track; "
            "name the folder of a whole scenario"
        )
    lacking = [modality for modality in everything if modality not in scenario.sensors]
    if lacking:
        raise ValueError(
            f"data.nodes: {data.folder} has no {', '.join(lacking)} that can be read; use {', '.join(scenario.sensors)}"
        )
    parts = partition_passes(data, _pass_sectors(scenario), seed=seed)
    with fresh_folder(folder) as draft:
        _write_part(scenario, draft / "server", everything, parts.server)
        _write_part(scenario, draft / "public", everything, {"public": parts.public}, is_labelled=False)
        of_public = np.isin(scenario.pass_ids, parts.public)
        np.save(draft / PUBLIC_POWER, scenario.labelled_power[of_public].astype(np.float32), allow_pickle=False)
        _write_part(scenario, draft / "test", everything, {"test": parts.test})
        for client in parts.clients:
            _write_part(scenario, draft / "clients" / client.id, (client.modality,), client.splits)
        manifest = {
            "source": "deepsense",
            "scenario": scenario.name,
            "licence": LICENCE,
            "seed": seed,
            "clients": [
                {
                    "id": client.id,
                    "modality": client.modality,
                    "passes": sum(len(ids) for ids in client.splits.values()),
                }
                for client in parts.clients
            ],
            "left_out": list(scenario.problems),
        }
        (draft / "federation.json").write_text(json.dumps(manifest, indent=1) + "\n")


def _pass_sectors(scenario: Scenario) -> dict[int, int]:
    """The beam sector of every pass, if the beams are spread evenly over the field in the order of the codebook."""
    num_beams = scenario.labelled_power.shape[1]
    azimuths = SECTOR_FIELD_DEG * ((scenario.beams + 0.5) / num_beams - 0.5)
    ids = [int(i) for i in np.unique(scenario.pass_ids)]
    sectors = sectors_of([azimuths[scenario.pass_ids == i] for i in ids])
    return dict(zip(ids, sectors.tolist(), strict=True))


def _write_part(
    scenario: Scenario,
    folder: Path,
    modalities: Sequence[str],
    splits: Mapping[str, Sequence[int]],
    *,
    is_labelled: bool = True,
) -> None:
    mine = np.isin(scenario.pass_ids, [i for ids in splits.values() for i in ids])
    write_recording(
        folder,
        pass_ids=scenario.pass_ids[mine],
        sensors={modality: scenario.sensors[modality][mine] for modality in modalities},
        power=scenario.labelled_power[mine] if is_labelled else None,
        splits=splits if is_labelled else {},
    )
