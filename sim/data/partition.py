"""Deals the passes of one DeepSense 6G scenario to the parts of a federation, by whole passes that have windows.

A random split by frame would leak: neighbouring frames of one pass would be on both sides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clients.data.bearing import FIELD_DEG
from configs.data import held_out_share
from configs.schema import DeepSenseData, Nodes
from configs.seeding import rng_for
from sim.data.dealing import Slot, deal_by_windows

NUM_SECTORS = 4


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


def carve_validation(
    pass_ids: Sequence[int], share: float | None, rng: np.random.Generator, *, windows: Mapping[int, int] | None = None
) -> tuple[list[int], list[int]]:
    """Set some passes of one owner aside for model selection.

    Args:
        pass_ids: the labelled passes of one client or of the server.
        share: the wanted share of validation passes, in [0, 1). At zero, or with a single pass, none is set aside;
            otherwise at least one is, and at least one is left for training. None is `configs.data.held_out_share`.
        rng: draws the passes that are set aside.
        windows: id of each pass -> the number of its windows, so that the share is one of windows; None counts passes.

    Returns:
        Training passes and validation passes, both ascending.
    """
    share = held_out_share(share, len(pass_ids))
    drawn = [int(i) for i in rng.permutation(np.asarray(pass_ids, dtype=np.int64))]
    num_validation = 0
    if share > 0 and len(drawn) >= 2:
        held = np.arange(1, len(drawn) + 1) if windows is None else np.cumsum([windows[i] for i in drawn])
        nearest = round(share * len(drawn)) if windows is None else int(np.argmin(np.abs(held - share * held[-1]))) + 1
        num_validation = min(max(nearest, 1), len(drawn) - 1)
    return sorted(drawn[num_validation:]), sorted(drawn[:num_validation])


def sectors_of(azimuths_deg: Sequence[NDArray[np.float64]]) -> NDArray[np.int64]:
    """(N,) the beam sector, from 0 (left) to 3 (right), in which each pass stays longest.

    A vehicle that drives steadily stays longest at the edges, where the bearing changes slowly; a vehicle that stops
    stays longest where it stops.

    Args:
        azimuths_deg: the bearings in the frames of each of N passes, degrees from the boresight, positive to the right.
    """
    bounds = np.linspace(-FIELD_DEG / 2, FIELD_DEG / 2, NUM_SECTORS + 1)[1:-1]
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


def pools_of(data: DeepSenseData) -> list[int]:
    """The number of clients that each deal of labelled passes is for: one deal for all modalities, or one for each."""
    counts = [nodes.count for nodes in data.nodes]
    return [max(counts)] if data.share_passes and counts else counts


def partition_passes(
    data: DeepSenseData, sectors: Mapping[int, int], windows: Mapping[int, int], *, seed: int
) -> Partition:
    """Deal the passes of a scenario to the parts of a federation; a part without a number gets its share.

    Parts with a number draw first: server, public set and test set, so that they do not depend on the clients. What is
    left is dealt by windows to the parts without one (`sim.data.dealing`). Passes without a window are not dealt.

    Args:
        data: the section that says how many passes each part holds.
        sectors: id of each pass -> its beam sector; it is used only with ``data.sector_skew``.
        windows: id of each pass -> the number of its windows.
        seed: the seed of the experiment.

    Raises:
        ValueError: there are too few passes; the message starts with the dotted path.
    """
    return _Dealer(data, sectors, {i: n for i, n in windows.items() if n > 0}, seed).deal()


class _Dealer:
    """Deals the passes of one scenario; each pass is dealt once.

    Args:
        data: the section that says how many passes each part holds.
        sectors: id of each pass -> its beam sector.
        windows: id of each pass that has windows -> their number, > 0.
        seed: the seed of the experiment.
    """

    def __init__(self, data: DeepSenseData, sectors: Mapping[int, int], windows: Mapping[int, int], seed: int) -> None:
        self.data, self.sectors, self.windows, self.seed = data, sectors, windows, seed
        ids = np.asarray(sorted(windows), np.int64)
        self.deck = [int(i) for i in rng_for(seed, "partition").permutation(ids)]

    def deal(self) -> Partition:
        """Deal all parts."""
        passes = self.data.passes
        counts = {"server": passes.server, "public": passes.public, "test": passes.test}
        parts = {name: self._draw(name, count) for name, count in counts.items() if count is not None}
        pools = pools_of(self.data)
        dealt = [] if passes.client is None else [self._draw_for_clients(passes.client, count) for count in pools]
        if len(parts) < len(counts) or passes.client is None:
            dealt += self._share([name for name in counts if name not in parts], parts, [] if dealt else pools)
        server = self._labelled(parts["server"], "server", by_windows=passes.server is None)
        clients: list[ClientPasses] = []
        for number, nodes in enumerate(self.data.nodes):
            clients += self._clients_of(nodes, dealt[0 if self.data.share_passes else number], first=len(clients))
        return Partition(server, sorted(parts["public"]), sorted(parts["test"]), tuple(clients))

    def _draw(self, part: str, count: int) -> list[int]:
        deck = self.deck
        if count > len(deck):
            raise ValueError(
                f"data.passes.{part}: asks for {count} passes, but {len(deck)} of {len(self.windows)} are left; "
                "lower it or another of data.passes, or leave the numbers out"
            )
        drawn = deck[:count]
        del deck[:count]
        return drawn

    def _draw_for_clients(self, count: int, num_clients: int) -> _Pool:
        if count < num_clients:
            raise ValueError(
                f"data.passes.client: {count} passes cannot be dealt to {num_clients} clients of one modality; "
                "raise it or lower data.nodes"
            )
        own = self._draw("client", count)
        num_tests = self.data.passes.client_test or 0
        return _Pool(own, None, [sorted(self._draw("client_test", num_tests)) for _ in range(num_clients)])

    def _hands(self, own: Sequence[int], count: int) -> list[list[int]]:
        even = [hand.tolist() for hand in np.array_split(own, count)]
        if self.data.sector_skew is None:
            return even
        mine = np.array([self.sectors[i] for i in own])
        amounts = [len(hand) for hand in even]
        dealt = deal_by_sector(mine, amounts, self.data.sector_skew, rng_for(self.seed, "sectors"))
        return [[own[i] for i in hand] for hand in dealt]

    def _share(self, names: Sequence[str], parts: dict[str, list[int]], pools: Sequence[int]) -> list[_Pool]:
        """Deal what is left to the parts in ``names``, which are added to ``parts``, and to pools of clients."""
        own_tests = self.data.passes.client_test
        fixed = [
            [sorted(self._draw("client_test", own_tests)) for _ in range(n)] for n in pools if own_tests is not None
        ]
        slots = shared_slots(names, pools, own_tests=own_tests is None)
        needed = sum(slot.is_needed for slot in slots)
        if len(self.deck) < needed:
            raise ValueError(
                f"data.passes: {len(self.deck)} passes with a window are left for {needed} parts that need one "
                f"({', '.join([*names, f'{sum(pools)} clients'])}); lower the count of data.nodes, or a number of "
                "data.passes"
            )
        hands = iter(deal_by_windows(self.deck, self.windows, slots))
        self.deck = []
        parts |= {name: next(hands) for name in names}
        dealt = []
        for number, count in enumerate(pools):
            own = [next(hands) for _ in range(count)]
            tests = [next(hands) for _ in range(count)] if own_tests is None else fixed[number]
            dealt.append(_Pool([i for hand in own for i in hand], own, tests))
        return dealt

    def _labelled(self, owned: Sequence[int], *owner: str | int, by_windows: bool) -> dict[str, list[int]]:
        rng = rng_for(self.seed, "partition", "validation", *owner)
        windows = self.windows if by_windows else None
        train, validation = carve_validation(owned, self.data.passes.validation_share, rng, windows=windows)
        return {"train": train, "validation": validation}

    def _clients_of(self, nodes: Nodes, pool: _Pool, *, first: int) -> list[ClientPasses]:
        if pool.hands is None or self.data.sector_skew is not None:
            hands = self._hands(pool.own, nodes.count)
        else:
            hands = [[i for hand in pool.hands[number :: nodes.count] for i in hand] for number in range(nodes.count)]
        clients = []
        for number, hand in enumerate(hands):
            # The same passes in two modalities are split alike, so that no client trains on validation passes that
            # another client has of the same vehicles.
            owner = ("client", number) if self.data.share_passes else (nodes.modality, number)
            splits = {**self._labelled(hand, *owner, by_windows=pool.hands is not None), "test": pool.tests[number]}
            clients.append(ClientPasses(f"{first + number:03d}-{nodes.modality}", nodes.modality, splits))
        return clients


@dataclass(frozen=True)
class _Pool:
    """The passes of the clients of a modality, or of all modalities if these share passes.

    Attributes:
        own: their labelled passes in the order of dealing.
        hands: the labelled passes of each client if they were dealt by windows; None if they are to be dealt evenly.
        tests: the own test passes of each client.
    """

    own: list[int]
    hands: list[list[int]] | None
    tests: list[list[int]]


# The shares of the windows of a scenario; those of the clients are shared by all clients of a modality.
SHARES = {"server": 0.2, "public": 0.25, "test": 0.15, "client": 0.3, "client_test": 0.1}


def shared_slots(names: Sequence[str], pools: Sequence[int], *, own_tests: bool) -> list[Slot]:
    """The slots of parts that get a share: those in ``names``, then of each pool its clients and their own tests.

    Args:
        names: the parts without a number, of server, public and test.
        pools: the number of clients in each pool that gets a share.
        own_tests: whether clients get test passes of their own.
    """
    slots = [Slot(SHARES[name], turns=(0, 1) if name == "server" else (0,)) for name in names]
    for count in pools:
        slots += [Slot(SHARES["client"] / len(pools) / count, turns=(0, 1))] * count
        if own_tests:
            slots += [Slot(SHARES["client_test"] / len(pools) / count, turns=(2,))] * count
    return slots
