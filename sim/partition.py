"""Cuts one DeepSense 6G scenario into a federation of recordings, by whole passes.

A random split by frame leaks: neighbouring frames of one pass would fall on both sides.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clients.sensing.deepsense import Scenario, read_scenario
from clients.sensing.recording import write_recording
from configs.schema import DeepSenseData
from configs.seeding import rng_for

CHECKOUT = Path(__file__).resolve().parents[1]
LICENCE = "CC BY-NC-SA 4.0"


@dataclass(frozen=True)
class ClientPasses:
    """The passes of one client; no pass is in two splits.

    Attributes:
        id: ``NNN-modality``, counted over all clients in the order of the YAML.
        modality: what it senses.
        splits: split name -> pass ids.
    """

    id: str
    modality: str
    splits: Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Partition:
    """Who holds which passes of a scenario; no pass is in two of server, public, test and clients."""

    server: Mapping[str, Sequence[int]]
    public: Sequence[int]
    test: Sequence[int]
    clients: Sequence[ClientPasses]


def carve_validation(pass_ids: Sequence[int], share: float, rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """Set some passes of one owner aside for model selection.

    Args:
        pass_ids: the labelled passes of one client or of the server.
        share: wanted share of validation passes, in [0, 1). At zero, or with a single pass, none is set aside;
            otherwise at least one is, and at least one is left to train on.
        rng: draws which.

    Returns:
        Training passes and validation passes, each ascending.
    """
    drawn = [int(i) for i in rng.permutation(np.asarray(pass_ids, dtype=np.int64))]
    num_validation = 0
    if share > 0 and len(drawn) >= 2:
        num_validation = min(max(round(share * len(drawn)), 1), len(drawn) - 1)
    return sorted(drawn[num_validation:]), sorted(drawn[:num_validation])


def partition_passes(data: DeepSenseData, pass_ids: Sequence[int], *, seed: int) -> Partition:
    """Deal the passes of a scenario to the parts of a federation.

    Server, public set and test set draw first, so that they stay the same whatever the clients are.

    Args:
        data: how many passes each part holds.
        pass_ids: the passes that there are, each once.
        seed: of the experiment.

    Raises:
        ValueError: there are too few passes; the message starts with the dotted path.
    """
    deck = [int(i) for i in rng_for(seed, "partition").permutation(np.asarray(sorted(pass_ids), np.int64))]

    def draw(part: str, count: int) -> list[int]:
        if count > len(deck):
            raise ValueError(
                f"data.passes.{part}: asks for {count} passes, but {len(deck)} of {len(pass_ids)} are left; "
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
        for number, hand in enumerate(np.array_split(own, nodes.count)):
            # One hand in two modalities is carved alike, so that nobody trains on a twin's validation passes.
            owner = ("client", number) if data.share_passes else (nodes.modality, number)
            splits = {**labelled(hand.tolist(), *owner), "test": own_tests[number]}
            clients.append(ClientPasses(f"{len(clients):03d}-{nodes.modality}", nodes.modality, splits))
    return Partition(server, public, test, tuple(clients))


@contextmanager
def fresh_folder(folder: Path) -> Iterator[Path]:
    """A draft beside ``folder`` that takes its name once it is whole, and vanishes on an error.

    Raises:
        ValueError: the folder exists.
    """
    if folder.exists():
        raise ValueError(f"{folder}: exists already; remove it or name another folder")
    draft = folder.with_name(f".{folder.name}.{os.getpid()}")
    draft.mkdir(parents=True)
    try:
        yield draft
        draft.rename(folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def write_deepsense(data: DeepSenseData, folder: Path, *, seed: int) -> None:
    """Write a federation cut from the scenario in ``data.folder``; whole or not at all.

    A frame without a camera box stays in, as NaN.

    Args:
        data: the scenario and how many passes each part holds.
        folder: of the federation; it must not exist.
        seed: of the experiment.

    Raises:
        ValueError: the scenario cannot be read, lacks a sensor or has too few passes, or ``folder`` exists.
    """
    source = CHECKOUT / data.folder
    if not source.is_dir():
        raise ValueError(
            f"data.folder: no folder {source}; get the scenario from www.deepsense6g.net and name its folder"
        )
    scenario = read_scenario(source)
    everything = tuple(nodes.modality for nodes in data.nodes)
    lacking = [modality for modality in everything if modality not in scenario.sensors]
    if lacking:
        raise ValueError(
            f"data.nodes: {data.folder} has no {', '.join(lacking)} that can be read; use {', '.join(scenario.sensors)}"
        )
    parts = partition_passes(data, sorted({int(i) for i in scenario.pass_ids}), seed=seed)
    with fresh_folder(folder) as draft:
        _write_part(scenario, draft / "server", everything, parts.server)
        _write_part(scenario, draft / "public", everything, {"public": parts.public}, is_labelled=False)
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
        power=scenario.power[mine] if is_labelled else None,
        splits=splits if is_labelled else {},
    )
