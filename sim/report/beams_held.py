"""Who holds what: the best beams of every client's frames as a heat map, with the skew that was measured.

C clients, B beams.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sim.data.inspection import RecordingPart
from sim.data.statistics import jensen_shannon_bits
from sim.report.style import INK, MUTED, PALETTE, panels, tinted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_NAMED = 24
"""With more clients, only their groups have names."""
_REFERENCES = {"server": "server", "test": "common test set"}


@dataclass(frozen=True)
class BeamsHeld:
    """The best beams of one recording.

    Attributes:
        name: the id of the client, or what else the recording is.
        group: the modality of the client; empty for what is not a client.
        counts: (B,) the number of frames in which each beam is the best.
        skew_bits: the Jensen-Shannon divergence from all clients together, in [0, 1]; None if it is not a client.
    """

    name: str
    group: str
    counts: NDArray[np.int64]
    skew_bits: float | None

    @property
    def middle(self) -> float:
        """The mean best beam."""
        return float(np.average(np.arange(len(self.counts)), weights=self.counts))


def beams_held(parts: Sequence[RecordingPart], modality_of: Mapping[str, str]) -> list[BeamsHeld]:
    """The best beams of server, test set and clients; clients come by modality, then from low beams to high ones.

    Args:
        parts: the recordings of a federation; those without labels hold none.
        modality_of: client -> its modality.
    """
    counts: dict[str, NDArray[np.int64]] = {}
    for part in parts:
        power = part.recording.power
        if power is not None and len(power):
            counts[part.name] = np.bincount(np.argmax(power, axis=1), minlength=power.shape[1])
    clients = {name: found for name, found in counts.items() if name.startswith("clients/")}
    others = [BeamsHeld(title, "", counts[name], None) for name, title in _REFERENCES.items() if name in counts]
    if not clients:
        return []
    together: NDArray[np.int64] = np.sum(list(clients.values()), axis=0)
    held = []
    for name, found in clients.items():
        client = name.removeprefix("clients/")
        held.append(BeamsHeld(client, modality_of.get(client, ""), found, jensen_shannon_bits(found, together)))
    order = list(dict.fromkeys(one.group for one in held))
    is_named = len(held) <= MAX_NAMED
    held.sort(key=lambda one: (order.index(one.group), 0.0 if is_named else one.middle))
    return [*others, BeamsHeld("all clients", "", together, None), *held]


def draw_beams_held(held: Sequence[BeamsHeld]) -> Figure:
    """Draw the share of each beam in the frames of each client (left), and the skew of the client (right)."""
    num_clients = sum(one.skew_bits is not None for one in held)
    is_named = num_clients <= MAX_NAMED
    # Where clients are thin rows, what is not a client still has room for its name.
    heights = [1.0 if is_named or one.skew_bits is not None else num_clients / 25.0 for one in held]
    edges = np.concatenate([[0.0], np.cumsum(heights)])
    height = 0.2 * len(held) if is_named else max(2.5, min(6.0, 0.05 * len(held)))
    figure, (left, right) = panels(1, 2, height=height, left=1.25, between=0.25, ratios=(3.2, 1.0), below=0.55)
    num_beams = len(held[0].counts)
    shares = np.stack([one.counts / one.counts.sum() for one in held])
    strength = np.sqrt(shares / shares.max())
    for place, one in enumerate(held):
        tint = PALETTE[one.group] if one.group else MUTED
        extent = (-0.5, num_beams - 0.5, edges[place + 1], edges[place])
        left.imshow(tinted(strength[place : place + 1], tint), aspect="auto", interpolation="nearest", extent=extent)
        if one.skew_bits is not None:
            right.barh(edges[place] + 0.5, one.skew_bits, 0.8, color=tint)
    ticks, names = _ticks(held, (edges[:-1] + edges[1:]) / 2, is_named)
    left.set_yticks(ticks, names)
    left.set(xlabel="Best beam", title="Share of frames by best beam", xlim=(-0.5, num_beams - 0.5))
    right.set(xlabel="Skew (bits)", title="Skew", yticks=[], xlim=(0, None))
    for axis in (left, right):
        axis.set_ylim(edges[-1], 0.0)
        axis.grid(visible=False, axis="y")
        axis.axhline(edges[len(held) - num_clients], color=INK, linewidth=0.8)
    return figure


def beams_held_caption(held: Sequence[BeamsHeld]) -> str:
    """What is to be seen in :func:`draw_beams_held`."""
    clients = [one for one in held if one.skew_bits is not None]
    most = max(clients, key=lambda one: one.skew_bits or 0.0)
    least = min(clients, key=lambda one: one.skew_bits or 0.0)
    unseen = [int((one.counts == 0).sum()) for one in clients]
    grouped = (
        f" Of {len(clients)} clients only the groups have names; in a group, they go from low beams to high ones."
        if len(clients) > MAX_NAMED
        else ""
    )
    seen = (
        "Every client has seen every beam."
        if not any(unseen)
        else f"Clients have never seen {min(unseen)} to {max(unseen)} of {len(most.counts)} beams."
    )
    return (
        "Strength: share of a row's frames in which the beam is the best (square root). Skew: Jensen-Shannon "
        f"divergence from all clients together, in bits; {least.name} is the most like them ({least.skew_bits:.3f}), "
        f"{most.name} the least ({most.skew_bits:.3f}). {seen}{grouped}"
    )


def _ticks(held: Sequence[BeamsHeld], middles: NDArray[np.float64], is_named: bool) -> tuple[list[float], list[str]]:
    """Where names stand, and the names: one for each row, or one for each group of clients."""
    if is_named:
        return middles.tolist(), [one.name for one in held]
    ticks = [float(middles[place]) for place, one in enumerate(held) if one.skew_bits is None]
    names = [one.name for one in held if one.skew_bits is None]
    for group in dict.fromkeys(one.group for one in held if one.skew_bits is not None):
        places = [middles[place] for place, one in enumerate(held) if one.skew_bits is not None and one.group == group]
        ticks.append(float(np.mean(places)))
        names.append(f"{group or 'clients'} ({len(places)})")
    return ticks, names
