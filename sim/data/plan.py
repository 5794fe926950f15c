"""The plan of a federation on a street: which part records which passes, before anything is simulated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.schema import Faults, Nodes, StreetData, World
from configs.seeding import rng_for
from sim.data.partition import carve_validation, deal_by_sector, sectors_of
from sim.world.faults import faulty_world
from sim.world.scene import draw_scene
from sim.world.site import make_site

# With ``by_time_of_day``, clients record in turn: by day, by night, in rain, in the rush hour.
BLOCKS: dict[str, dict[str, float]] = {
    "day": {},
    "night": {"night_probability": 1.0},
    "rain": {"rain_probability": 1.0},
    "rush": {"rush_probability": 1.0},
}
NO_FAULTS = Faults()
CLEAR = {"night_probability": 0.0, "rain_probability": 0.0, "rush_probability": 0.0}


@dataclass(frozen=True)
class PlannedPart:
    """One recording of the federation, before it is made.

    Attributes:
        folder: its folder below the folder of the federation.
        modalities: the modalities that it records.
        splits: split name -> pass ids; together they are 0 .. len(passes) - 1.
        passes: the index of each pass in its random stream.
        world: the traffic and weather of its passes.
        stream: the name of its random streams.
        sites: the numbers of the masts that record it; its passes are dealt to them in turn.
        faults: the faults of its sensors.
        is_labelled: whether the power is written.
        notes: entries of the manifest that distinguish it from other clients.
    """

    folder: str
    modalities: tuple[str, ...]
    splits: dict[str, list[int]]
    passes: tuple[int, ...]
    world: World
    stream: str
    sites: tuple[int, ...] = (0,)
    faults: Faults = NO_FAULTS
    is_labelled: bool = True
    notes: dict[str, Any] = field(default_factory=dict)

    def site_of(self, index: int) -> int:
        """The number of the mast that records the pass with that index in its stream."""
        return self.sites[index % len(self.sites)]


def plan_federation(data: StreetData, *, seed: int) -> list[PlannedPart]:
    """Plan the parts of a federation, in the order of writing: their passes, traffic, place and time."""
    passes = data.passes
    everything = data.modalities
    train, validation = carve_validation(
        range(passes.server), passes.validation_share, rng_for(seed, "server", "splits")
    )

    counts = {name: tuple(range(getattr(passes, name))) for name in ("server", "public", "test")}
    splits = {"train": train, "validation": validation}
    return [
        PlannedPart(
            "server",
            data.server_modalities,
            splits,
            counts["server"],
            _world_of(data, data.server_drive),
            "server",
            _numbers(data, data.server_from),
        ),
        PlannedPart(
            "public",
            everything,
            {},
            counts["public"],
            _world_of(data, data.public_drive),
            "public",
            _numbers(data, data.public_from),
            is_labelled=False,
        ),
        PlannedPart(
            "test",
            everything,
            {"test": list(counts["test"])},
            counts["test"],
            data.world,
            "test",
            _numbers(data, data.test_from),
        ),
        *_plan_clients(data, seed),
    ]


def _numbers(data: StreetData, named: Sequence[str]) -> tuple[int, ...]:
    """The numbers of sites; site 0 if none is named."""
    return tuple(data.site_names.index(name) for name in dict.fromkeys(named)) or (0,)


def _world_of(data: StreetData, drive: str) -> World:
    if drive == "same":
        return data.world
    return data.world.model_copy(update={**CLEAR, "density": data.world.density / 2.0})


def _plan_clients(data: StreetData, seed: int) -> list[PlannedPart]:
    clients = [nodes for nodes in data.nodes for _ in range(nodes.count)]
    rngs = [rng_for(seed, "client", number, "plan") for number in range(len(clients))]
    worlds = [_client_world(data, nodes, number, rngs[number]) for number, nodes in enumerate(clients)]
    amounts = [_amount(data, rng) for rng in rngs]
    names = [f"{number:03d}-{nodes.modality}" for number, nodes in enumerate(clients)]
    if data.sector_skew is None:
        streams = [f"clients/{name}" for name in names]
        hands = [list(range(amount + data.passes.client_test)) for amount in amounts]
    else:
        streams = ["clients"] * len(clients)
        sectors = _pool_sectors(data, seed, sum(amounts) + data.passes.client_test * len(clients))
        wanted = [amount + data.passes.client_test for amount in amounts]
        hands = deal_by_sector(sectors, wanted, data.sector_skew, rng_for(seed, "sectors"))
    return [
        _client_part(data, number, nodes, names[number], streams[number], hands[number], worlds[number], rngs[number])
        for number, nodes in enumerate(clients)
    ]


def _client_part(
    data: StreetData,
    number: int,
    nodes: Nodes,
    name: str,
    stream: str,
    hand: Sequence[int],
    world: World,
    rng: np.random.Generator,
) -> PlannedPart:
    num_own = len(hand) - data.passes.client_test
    train, validation = carve_validation(range(num_own), data.passes.validation_share, rng)
    site = number % data.world.sites if nodes.site is None else data.site_names.index(nodes.site)
    notes: dict[str, Any] = {"near_lane_share": round(world.near_lane_share, 4)}
    if data.world.sites > 1:
        notes["site"] = data.site_names[site]
    if data.by_time_of_day:
        notes["block"] = list(BLOCKS)[number % len(BLOCKS)]
    if nodes.faults != NO_FAULTS:
        notes["faults"] = nodes.faults.model_dump()
    return PlannedPart(
        folder=f"clients/{name}",
        modalities=(nodes.modality,),
        splits={"train": train, "validation": validation, "test": list(range(num_own, len(hand)))},
        passes=tuple(hand),
        world=faulty_world(world, nodes.faults),
        stream=stream,
        sites=(site,),
        faults=nodes.faults,
        notes=notes,
    )


def _client_world(data: StreetData, nodes: Nodes, number: int, rng: np.random.Generator) -> World:
    update: dict[str, float] = {}
    # Passes from a common pool keep the traffic of the pool.
    if data.sector_skew is None:
        update["near_lane_share"] = _mix(data.world.near_lane_share, data.traffic_skew, rng)
    if data.by_time_of_day:
        update |= CLEAR | list(BLOCKS.values())[number % len(BLOCKS)]
    return data.world.model_copy(update=update)


def _mix(nominal: float, skew: float, rng: np.random.Generator) -> float:
    """The near-lane share of a client ~ Beta(skew p, skew (1 - p)), whose mean is p."""
    if nominal in (0.0, 1.0):
        return nominal
    return float(rng.beta(skew * nominal, skew * (1.0 - nominal)))


def _amount(data: StreetData, rng: np.random.Generator) -> int:
    factor = math.exp(data.amount_spread * rng.standard_normal() - data.amount_spread**2 / 2)
    return max(2, round(data.passes.client * factor))


def _pool_sectors(data: StreetData, seed: int, count: int) -> NDArray[np.int64]:
    """(count,) the beam sector of every pass of the pool, from the motion of its vehicle alone."""
    site = make_site(data.world, 0)
    scenes = (draw_scene(data.world, rng_for(seed, "clients", index, "scene"), site=site) for index in range(count))
    return sectors_of([np.rad2deg(np.arctan2(scene.antenna[:, 0], scene.antenna[:, 1])) for scene in scenes])
