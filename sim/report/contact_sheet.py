"""A page that shows a recording: a few passes, all that their sensors saw, and the power of every beam.

There is one block per pass. Its left side goes through time: a column per moment, a row per sensor. Its right side
shows the whole pass: the power of all beams with the best one marked, and the track by GPS with numbered moments.

Matplotlib is imported inside the functions: it is slow to load and most commands draw nothing.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clients.data.recording import Recording
from configs.files import write_durably
from sim.data.inspection import RecordingPart, pass_slices
from sim.report.style import INK, MUTED, PALETTE, drawing
from sim.world.sensors import LIDAR_MAX_M, lidar_azimuths
from sim.world.traffic import SLOT_S

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

NUM_PASSES, NUM_MOMENTS = 3, 5
FORMATS = (".png", ".svg", ".pdf")
# The page is 1,600 pixels wide.
DPI, WIDTH_IN = 125, 12.8
# The rows of the left side; GPS and power are drawn for the whole pass.
SENSOR_ROWS = ("camera", "radar", "doppler", "lidar")
ROW_TITLES = {"camera": "Camera", "radar": "Radar", "doppler": "Radar", "lidar": "LiDAR"}
# Height of a row in inches: a picture is 16:9 and a scan 2:1, and all but the picture have an axis below.
ROW_IN = {"camera": 0.95, "radar": 1.6, "doppler": 1.6, "lidar": 1.15}
TITLE_IN, LEAST_IN = 0.6, 3.0
RADAR_MAX_M = 25.0
FLOOR_DB = -15.0
# The noise floor of both radar maps, see `clients.data.radar_maps`.
NOISE_LOG2 = 1.5
CAPTION = "Numbers mark the same moments on the left and on the right."
# What is said of a sensor, if it is there.
SENSOR_CAPTIONS = {
    "radar": "Radar: log2(1 + magnitude), one scale for the page.",
    "lidar": "LiDAR from above: dots are returns, the cross is the vehicle by GPS, the triangle is the mast.",
}

WHAT_IS_SEEN = {
    "camera": "Camera: the picture of the mast, which a recording stores as a square.",
    "radar": f"Radar: azimuth from left to right (by its sine), range from 0 (below) to {RADAR_MAX_M:.0f} m.",
    "doppler": "Doppler: azimuth from left to right (by its sine), speed from -15 (below) to 15 m/s.",
    "lidar": f"LiDAR from above: returns, {2 * LIDAR_MAX_M:.0f} m wide; the mast is in the middle below, the larger "
    "square is the vehicle by GPS.",
}
"""What a frame shows where it stands without axes, as in a page."""
ASPECTS = {"camera": "16 / 9", "radar": "4 / 3", "doppler": "4 / 3", "lidar": "2 / 1"}
"""Width and height of such a frame."""


def write_contact_sheet(parts: Sequence[RecordingPart], path: Path) -> None:
    """Draw the richest recording of a folder: it has the most modalities, then labels, then the most frames.

    Args:
        parts: the recordings, see `sim.data.inspection.open_parts`.
        path: the file of the picture; its ending says the format.

    Raises:
        ValueError: the ending is not one of ``FORMATS``, or there is nothing to draw.
    """
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"{path}: expected a file that ends in {', '.join(FORMATS)}")
    drawable = [part for part in parts if len(part.recording.pass_ids)]
    if not drawable:
        raise ValueError(f"{path}: no recording has a frame, so there is nothing to draw; name another folder")
    richest = max(drawable, key=_richness)
    drawn = io.BytesIO()
    with drawing():
        draw_contact_sheet(richest).savefig(drawn, format=path.suffix.lower()[1:], dpi=DPI, facecolor="white")
    write_durably(path, drawn.getvalue())


def draw_contact_sheet(part: RecordingPart) -> Figure:
    """Draw one block for each of up to three passes, as the text of the module describes."""
    from matplotlib.figure import Figure

    recording = part.recording
    rows = [name for name in SENSOR_ROWS if name in recording.sensors]
    chosen = choose_passes(recording)
    block_in = TITLE_IN + max(LEAST_IN, sum(ROW_IN[name] for name in rows))
    figure = Figure(figsize=(WIDTH_IN, block_in * len(chosen) + 0.7), layout="constrained")
    figure.suptitle(f"{_title(part)}: {', '.join(sorted(recording.sensors))}", fontsize=13, color=INK)
    if rows:
        figure.supxlabel(caption_of(rows), fontsize=9, color=MUTED)
    blocks = figure.subfigures(len(chosen), 1, squeeze=False).ravel()
    scales = _Scales(loudest(recording, chosen), _reach(recording, chosen))
    for block, frames in zip(blocks, chosen, strict=True):
        _draw_pass(block, recording, frames, rows, scales)
    return figure


def caption_of(rows: Sequence[str]) -> str:
    """The caption of a page with these rows of sensors."""
    told = [text for name, text in SENSOR_CAPTIONS.items() if any(ROW_TITLES[row] == ROW_TITLES[name] for row in rows)]
    return "\n".join([" ".join([CAPTION, *told[:1]]), *told[1:]])


def choose_passes(recording: Recording) -> list[slice]:
    """Choose up to three passes by the brightness of their pictures: the brightest, the middle and the darkest.

    So day and night both appear if both were recorded. Without a camera, the passes are spread over the recording.
    """
    passes = pass_slices(recording.pass_ids)
    if len(passes) <= NUM_PASSES:
        return passes
    if "camera" in recording.sensors:
        camera = recording.sensors["camera"]
        brightness = [float(np.mean(np.asarray(camera[frames][::8], np.float32))) for frames in passes]
        passes = [passes[index] for index in np.argsort(brightness, kind="stable")[::-1]]
    return [passes[index] for index in np.linspace(0, len(passes) - 1, NUM_PASSES).round().astype(int)]


@dataclass(frozen=True)
class _Scales:
    """The scales that all passes of a page share.

    Attributes:
        loudest: name of a radar map -> the value that has the brightest colour.
        reach: the west, east, south and north ends of the tracks and the mast, in metres.
    """

    loudest: dict[str, float]
    reach: tuple[float, float, float, float]


def _richness(part: RecordingPart) -> tuple[int, bool, int]:
    recording = part.recording
    return len(recording.sensors), recording.power is not None, len(recording.pass_ids)


def _title(part: RecordingPart) -> str:
    return part.recording.folder.resolve().name if part.name == "." else part.name


def loudest(recording: Recording, passes: Sequence[slice]) -> dict[str, float]:
    """Name of a radar map -> the value that has the brightest colour in all of some passes."""
    names = [name for name in ("radar", "doppler") if name in recording.sensors]
    return {
        name: max(
            float(np.percentile(np.asarray(recording.sensors[name][frames], np.float32), 99.9)) for frames in passes
        )
        for name in names
    }


def _reach(recording: Recording, passes: Sequence[slice]) -> tuple[float, float, float, float]:
    tracks = [np.zeros((1, 2))]
    if "gps" in recording.sensors:
        tracks += [np.asarray(recording.sensors["gps"][frames], np.float64) for frames in passes]
    metres = np.concatenate(tracks)
    (west, south), (east, north) = np.nanmin(metres, axis=0), np.nanmax(metres, axis=0)
    margin = 0.08 * max(east - west, north - south, 1.0)
    # Numbers stand above the track, so it needs more room there.
    return float(west - margin), float(east + margin), float(south - margin), float(north + 2.5 * margin)


def _draw_pass(block: SubFigure, recording: Recording, frames: slice, rows: Sequence[str], scales: _Scales) -> None:
    count = frames.stop - frames.start
    moments = np.unique(np.linspace(0.08 * (count - 1), 0.92 * (count - 1), NUM_MOMENTS).round().astype(int))
    number = int(recording.pass_ids[frames.start])
    title = f"Pass {number}: {count} frames, {count * SLOT_S:.1f} s"
    block.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold", color=INK)
    if not rows:
        _draw_whole(block, recording, frames, moments, reach=scales.reach, is_wide=True)
        return
    left, right = block.subfigures(1, 2, squeeze=False, width_ratios=(1.8, 1.0)).ravel()
    _draw_whole(right, recording, frames, moments, reach=scales.reach, is_wide=False)
    grid = left.subplots(len(rows), len(moments), squeeze=False, height_ratios=[ROW_IN[name] for name in rows])
    for axes, name in zip(grid, rows, strict=True):
        for column, (axis, moment) in enumerate(zip(axes, moments, strict=True)):
            _draw_frame(axis, recording, name, frames.start + int(moment), scales.loudest)
            axis.set_ylabel(f"{ROW_TITLES[name]}\n{axis.get_ylabel()}".rstrip() if column == 0 else "")
            axis.tick_params(labelleft=column == 0)
            if column != len(moments) // 2:
                axis.set_xlabel("")
    for place, (axis, moment) in enumerate(zip(grid[0], moments, strict=True), start=1):
        axis.set_title(f"{place}:  {moment * SLOT_S:.1f} s")


def _draw_frame(axis: Axes, recording: Recording, name: str, frame: int, loudest: dict[str, float]) -> None:
    values = np.asarray(recording.sensors[name][frame])
    axis.grid(visible=False)
    if name == "camera":
        # A recording stores 16:9 pictures as squares.
        axis.imshow(values, extent=(0, 16, 0, 9), interpolation="nearest")
        axis.set(xticks=[], yticks=[])
        if "box" in recording.sensors:
            _draw_box(axis, np.asarray(recording.sensors["box"][frame], np.float64))
    elif name == "lidar":
        _draw_scan(axis, values.astype(np.float64), recording, frame)
    else:
        half = 1.0 / values.shape[1]
        extent = (-1.0 - half, 1.0 - half, 0.0, RADAR_MAX_M) if name == "radar" else (-1.0 - half, 1.0 - half, -15, 15)
        shown = values.astype(np.float32)
        axis.imshow(
            shown, origin="lower", extent=extent, aspect="auto", cmap="magma", vmin=NOISE_LOG2, vmax=loudest[name]
        )
        axis.set(
            xticks=[-1, 0, 1],
            yticks=[0, 10, 20] if name == "radar" else [-10, 0, 10],
            xlabel="sine of azimuth",
            ylabel="range (m)" if name == "radar" else "speed (m/s)",
        )


def _draw_box(axis: Axes, box: NDArray[np.float64]) -> None:
    from matplotlib.patches import Rectangle

    if not np.isnan(box).any():
        x, y, width, height = box
        corner = (16 * (x - width / 2), 9 * (1 - y - height / 2))
        axis.add_patch(Rectangle(corner, 16 * width, 9 * height, fill=False, edgecolor=PALETTE["box"], linewidth=1.5))


def _draw_scan(axis: Axes, distance: NDArray[np.float64], recording: Recording, frame: int) -> None:
    """Draw a scan from above, with the mast at the origin and a cross where GPS puts the vehicle."""
    azimuth = lidar_azimuths()
    seen = distance > 0
    x, y = distance[seen] * np.sin(azimuth[seen]), distance[seen] * np.cos(azimuth[seen])
    axis.scatter(x, y, s=2.5, color=PALETTE["lidar"], linewidths=0)
    axis.plot(0, 0, marker="^", color=INK, markersize=5, clip_on=False)
    if "gps" in recording.sensors:
        east, north = np.asarray(recording.sensors["gps"][frame], np.float64)
        if abs(east) <= LIDAR_MAX_M and 0 <= north <= LIDAR_MAX_M:
            axis.plot(east, north, marker="+", color=PALETTE["gps"], markersize=8, markeredgewidth=1.6)
    axis.set(xlim=(-LIDAR_MAX_M, LIDAR_MAX_M), ylim=(0, LIDAR_MAX_M), aspect="equal", xlabel="x (m)", ylabel="y (m)")
    axis.set(xticks=[-10, 0, 10], yticks=[0, 10])


def _draw_whole(
    side: SubFigure,
    recording: Recording,
    frames: slice,
    moments: NDArray[np.int64],
    *,
    reach: tuple[float, float, float, float],
    is_wide: bool,
) -> None:
    has = {"power": recording.power is not None, "gps": "gps" in recording.sensors}
    panels = [name for name in has if has[name]]
    if not panels:
        return
    ratios = (1.7, 1.0)[: len(panels)]
    if is_wide:
        grid = side.subplots(1, len(panels), squeeze=False, width_ratios=ratios)
    else:
        grid = side.subplots(len(panels), 1, squeeze=False, height_ratios=ratios)
    for axis, name in zip(grid.ravel(), panels, strict=True):
        if name == "power":
            _draw_power(side, axis, np.asarray(recording.power)[frames], moments)
        else:
            _draw_track(axis, np.asarray(recording.sensors["gps"][frames], np.float64), moments, reach)


def _draw_power(side: SubFigure, axis: Axes, power: NDArray[np.float32], moments: NDArray[np.int64]) -> None:
    """Draw the power of every beam in dB below the best beam of the same frame."""
    level_db = 10.0 * np.log10(np.maximum(power / np.maximum(power.max(axis=1, keepdims=True), 1e-30), 1e-12))
    num_frames, num_beams = level_db.shape
    extent = (-0.5 * SLOT_S, (num_frames - 0.5) * SLOT_S, -0.5, num_beams - 0.5)
    image = axis.imshow(
        level_db.T, origin="lower", extent=extent, aspect="auto", cmap="viridis", vmin=FLOOR_DB, vmax=0.0
    )
    times = np.arange(num_frames) * SLOT_S
    axis.plot(times, level_db.argmax(axis=1), ".", color="white", markersize=6)
    axis.plot(times, level_db.argmax(axis=1), ".", color=PALETTE["radar"], markersize=4, label="best beam")
    for place, moment in enumerate(moments, start=1):
        axis.axvline(moment * SLOT_S, color="white", linewidth=0.8, linestyle=":")
        axis.annotate(str(place), (moment * SLOT_S, num_beams), ha="center", va="bottom", annotation_clip=False)
    axis.grid(visible=False)
    axis.set(xlabel="time (s)", ylabel="beam (best: dots)", yticks=[*(num_beams * np.arange(4) // 4), num_beams - 1])
    bar = side.colorbar(image, ax=axis, pad=0.02, extend="min")
    bar.set_label("power, dB below the best")
    bar.outline.set_visible(False)


def _draw_track(
    axis: Axes, metres: NDArray[np.float64], moments: NDArray[np.int64], reach: tuple[float, float, float, float]
) -> None:
    axis.plot(*metres.T, color=PALETTE["gps"], linewidth=1.2)
    axis.plot(0, 0, marker="^", color=INK, markersize=6, clip_on=False)
    axis.annotate("mast", (0, 0), xytext=(7, -2), textcoords="offset points", color=MUTED)
    for place, moment in enumerate(moments, start=1):
        if np.isfinite(metres[moment]).all():
            axis.plot(*metres[moment], marker="o", markersize=4, color=PALETTE["gps"])
            axis.annotate(str(place), metres[moment], xytext=(0, 5), textcoords="offset points", ha="center")
    west, east, south, north = reach
    axis.set(xlim=(west, east), ylim=(south, north), aspect="equal", xlabel="east (m)", ylabel="north (m)")
