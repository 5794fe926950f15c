"""The map from above: the mast, the street where it is known, and the passes by GPS in the colours of their best beams.

Positions are metres east and north of the mast, as in recordings. F frames.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clients.data.bearing import fit_bearing
from sim.data.inspection import RecordingPart
from sim.report.style import INK, MUTED, panels
from sim.world.site import FAR_LANE_Y, NEAR_LANE_Y, WALL_Y

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_POINTS = 600
"""So many positions are drawn of a panel at most."""
MAX_CLIENTS = 4
"""More clients with positions share one panel."""
LANE_WIDTH_M = 3.2
# The width of the figure, and the room at its left, and for the bar of colours at its right.
WIDTH_IN, LEFT_IN, BAR_IN = 8.2, 0.7, 0.85
_TITLES = {"server": "server's passes", "test": "common test set", "public": "public set, unlabelled"}


@dataclass(frozen=True)
class Tracks:
    """The positions of some passes.

    Attributes:
        title: whose passes they are.
        metres: (F, 2) position of each frame; finite.
        best: (F,) best beam of each frame; None without labels.
        num_passes: the number of passes.
    """

    title: str
    metres: NDArray[np.float64]
    best: NDArray[np.int64] | None
    num_passes: int


def tracks_of(parts: Sequence[RecordingPart]) -> list[Tracks]:
    """The tracks of every recording that has positions: server, public and test set, and the clients."""
    named = {part.name: part for part in parts if "gps" in part.recording.sensors and len(part.recording.pass_ids)}
    found = [_tracks(title, [named[name]]) for name, title in _TITLES.items() if name in named]
    clients = [part for name, part in named.items() if name.startswith("clients/")]
    if len(clients) <= MAX_CLIENTS:
        found += [_tracks(part.name.removeprefix("clients/"), [part]) for part in clients]
    else:
        found.append(_tracks(f"{len(clients)} clients with positions", clients))
    return [one for one in found if len(one.metres)]


def is_nominal_street(federation: Path) -> bool:
    """Whether the lanes of the synthetic street are where all passes of a federation are: it has one site."""
    with suppress(OSError, ValueError, AttributeError):
        facts = json.loads((federation / "federation.json").read_text())
        return facts.get("source") == "street" and (facts.get("world") or {}).get("sites") == 1
    return False


def draw_map(tracks: Sequence[Tracks], *, num_beams: int, has_street: bool) -> Figure:
    """Draw one panel for each, all on one scale, the best beam as colour."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize
    from matplotlib.ticker import MaxNLocator

    # Without its dark and light ends, which neither a dark page nor a light one would show.
    colours = ListedColormap(colormaps["viridis"](np.linspace(0.12, 0.93, 256)))
    norm = Normalize(0, num_beams - 1)
    everything = np.concatenate([one.metres for one in tracks])
    west, south = np.minimum(np.quantile(everything, 0.002, axis=0), 0.0) - 1.5
    east, north = np.maximum(np.quantile(everything, 0.998, axis=0), 0.0) + 1.5
    north = max(north, WALL_Y + 1.0) if has_street else north
    columns = min(len(tracks), 3)
    inside = (WIDTH_IN - LEFT_IN - BAR_IN - 0.4 * (columns - 1)) / columns
    height = float(np.clip(inside * (north - south) / (east - west), 0.8, 4.5))
    rows = -(-len(tracks) // columns)
    figure, axes = panels(rows, columns, height=height, above=0.3, width=WIDTH_IN, left=LEFT_IN, right=BAR_IN)
    for axis, one in zip(axes, tracks, strict=False):
        if has_street:
            _draw_street(axis, west, east)
        step = -(-len(one.metres) // MAX_POINTS)
        shown = one.metres[::step]
        tint: dict[str, Any] = (
            {"color": MUTED} if one.best is None else {"c": one.best[::step], "cmap": colours, "norm": norm}
        )
        axis.scatter(shown[:, 0], shown[:, 1], s=5, linewidths=0, **tint)
        axis.plot(0, 0, marker="^", color=INK, markersize=7, clip_on=False, zorder=3)
        axis.set(xlim=(west, east), ylim=(south, north), aspect="equal", anchor="W")
        axis.set_xlabel("East (m)")
        for scale in (axis.xaxis, axis.yaxis):
            scale.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axis.set_title(f"{one.title} ({one.num_passes} pass{'es' if one.num_passes > 1 else ''})", fontsize=9)
    for axis in axes[::columns]:
        axis.set_ylabel("North (m)")
    for axis in axes[len(tracks) :]:
        axis.remove()
    place = figure.add_axes((1.0 - 0.7 / WIDTH_IN, 0.25, 0.014, 0.5))
    figure.colorbar(ScalarMappable(norm, colours), cax=place, label="Best beam").outline.set_visible(False)
    return figure


def map_caption(tracks: Sequence[Tracks], *, has_street: bool, without: Sequence[str]) -> str:
    """What is to be seen in :func:`draw_map`.

    Args:
        tracks: what is drawn.
        has_street: whether lanes and house fronts are drawn.
        without: the modalities of clients whose recordings hold no positions.
    """
    labelled = [one for one in tracks if one.best is not None]
    fit = fit_bearing(labelled[0].best, labelled[0].metres) if labelled and labelled[0].best is not None else None
    follows = ""
    if fit is not None and fit.correlation is not None and np.isfinite(fit.correlation):
        low, middle, high = fit.bearing_deg
        turn = 360.0 if middle > 180.0 else 0.0
        follows = (
            f" The best beam follows the bearing of the vehicle ({labelled[0].title}: correlation "
            f"{fit.correlation:.2f} from {low - turn:.0f} to {high - turn:.0f} degrees clockwise from north)."
        )
    street = " Grey bands: lanes; line: house fronts, as the street was made." if has_street else ""
    missing = f" Clients of {', '.join(without)} recorded no positions, so they are not here." if without else ""
    return f"Positions by GPS, seen from above; the triangle is the mast.{street}{follows}{missing}"


def _tracks(title: str, parts: Sequence[RecordingPart]) -> Tracks:
    metres = np.concatenate([np.asarray(part.recording.sensors["gps"], np.float64) for part in parts])
    known = np.isfinite(metres).all(axis=1)
    powers = [part.recording.power for part in parts]
    best = None
    if all(power is not None for power in powers):
        best = np.concatenate([np.argmax(power, axis=1) for power in powers if power is not None])[known]
    num_passes = sum(len(np.unique(part.recording.pass_ids)) for part in parts)
    return Tracks(title, metres[known], best, num_passes)


def _draw_street(axis: Axes, west: float, east: float) -> None:
    for lane_y in (NEAR_LANE_Y, FAR_LANE_Y):
        axis.axhspan(lane_y - LANE_WIDTH_M / 2, lane_y + LANE_WIDTH_M / 2, color=MUTED, alpha=0.13, linewidth=0)
    axis.plot([west, east], [WALL_Y, WALL_Y], color=MUTED, linewidth=2)
