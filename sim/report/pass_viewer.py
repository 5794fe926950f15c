"""Passes of the common test set in a page: what each sensor saw, the power of every beam, and what was predicted.

The page shows five moments of each pass and, over its whole time, power and predictions. Where scripts run, one steps
through the pass moment by moment (`sim.report.pass_viewer_script`); without them nothing is missing but that.

F frames of a pass, B beams.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from clients.data.recording import Recording
from clients.learning.metrics import POWER_FLOOR
from sim.report.contact_sheet import (
    ASPECTS,
    FLOOR_DB,
    NOISE_LOG2,
    NUM_MOMENTS,
    ROW_TITLES,
    SENSOR_ROWS,
    WHAT_IS_SEEN,
    choose_passes,
    loudest,
)
from sim.report.pass_viewer_script import SCRIPT
from sim.report.predictions import Prediction, Predictions
from sim.report.sprites import camera_sprite, lidar_sprite, radar_sprite, strength_picture
from sim.report.style import LOSS, MUTED, PALETTE
from sim.world.traffic import SLOT_S

LEAST_FRAMES, MAX_FRAMES = 3, 160
"""A shorter pass is nothing to step through; of a longer one, the middle is shown."""


@dataclass(frozen=True)
class ShownPass:
    """One pass as the page shows it.

    Attributes:
        number: its id.
        frames: its frames in the recording.
        sprites: sensor -> the address of the picture of its frames.
        level_db: (F, B) power of each beam, in dB below the best of the frame, at least `FLOOR_DB`.
        position_m: (F, 2) metres east and north of the mast; None without GPS.
        probs: learner -> (F, B) probabilities of the current beam, NaN in frames at the ends that no window predicts.
    """

    number: int
    frames: slice
    sprites: dict[str, str]
    level_db: NDArray[np.float32]
    position_m: NDArray[np.float64] | None
    probs: dict[str, NDArray[np.float32]]

    @property
    def num_frames(self) -> int:
        """F."""
        return len(self.level_db)


def shown_passes(recording: Recording, predictions: Predictions | None) -> list[ShownPass]:
    """Up to three passes of a labelled recording: the brightest, the middle and the darkest, as in a contact sheet."""
    chosen = [_middle(frames) for frames in choose_passes(recording) if frames.stop - frames.start >= LEAST_FRAMES]
    # One scale for all, so that bright is bright in every pass.
    brightest = loudest(recording, chosen) if chosen else {}
    return [_shown(recording, frames, predictions, brightest) for frames in chosen]


def viewer_section(passes: Sequence[ShownPass], learners: Sequence[Prediction]) -> str:
    """The passes as a part of a page, with the script that steps through them.

    Args:
        passes: the passes, at least one.
        learners: whose predictions they have.
    """
    sensors = list(passes[0].sprites)
    told = [WHAT_IS_SEEN[name] for name in sensors]
    if not told:
        told = ["No sensor of this test set is one that can be drawn, so there is only the power of its beams."]
    data = {
        "slot": SLOT_S,
        "floor": FLOOR_DB,
        "learners": [
            {"name": one.name, "colour": PALETTE[one.modality] if one.modality else MUTED} for one in learners
        ],
        "passes": [_data(one, learners) for one in passes],
    }
    # A script ends at its first closing tag, whatever stands in it.
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    blocks = "".join(_block(one, learners, number) for number, one in enumerate(passes))
    return (
        f'<p class="note">{escape(" ".join(told))}</p>'
        f'<div class="viewer" id="viewer" hidden></div>{blocks}'
        f'<script type="application/json" id="viewer-data">{text}</script><script>{SCRIPT}</script>'
    )


def viewer_caption(passes: Sequence[ShownPass], learners: Sequence[Prediction]) -> str:
    """What is to be seen in the passes: how often each learner found the best beam of their frames, and how near."""
    told = []
    for learner in learners:
        steps = [
            np.abs(np.nanargmax(one.probs[learner.name][known], axis=1) - one.level_db.argmax(axis=1)[known])
            for one in passes
            if (known := ~np.isnan(one.probs[learner.name]).any(axis=1)).any()
        ]
        if steps:
            found = np.concatenate(steps)
            told.append(f"{learner.name} {100 * float(np.mean(found <= 2)):.0f} %")
    if not told:
        return "There are no predictions of these passes."
    return f"First guesses within two beams of the best one, in these passes: {', '.join(told)}."


def _middle(frames: slice) -> slice:
    over = frames.stop - frames.start - MAX_FRAMES
    return frames if over <= 0 else slice(frames.start + over // 2, frames.start + over // 2 + MAX_FRAMES)


def _shown(
    recording: Recording, frames: slice, predictions: Predictions | None, brightest: dict[str, float]
) -> ShownPass:
    power = np.maximum(recording.power_at(np.arange(frames.start, frames.stop)).astype(np.float64), POWER_FLOOR)
    level = 10.0 * np.log10(power / power.max(axis=1, keepdims=True))
    gps = recording.sensors.get("gps")
    position = None if gps is None else np.asarray(gps[frames], np.float64)
    sprites = {}
    for name in SENSOR_ROWS:
        if name in recording.sensors:
            values = np.asarray(recording.sensors[name][frames])
            if name == "camera":
                sprites[name] = camera_sprite(values)
            elif name == "lidar":
                colours = {"lidar": PALETTE["lidar"], "gps": PALETTE["gps"], "mast": MUTED}
                sprites[name] = lidar_sprite(values, position, colours)
            else:
                sprites[name] = radar_sprite(values, low=NOISE_LOG2, high=brightest[name])
    return ShownPass(
        number=int(recording.pass_ids[frames.start]),
        frames=frames,
        sprites=sprites,
        level_db=np.maximum(level, FLOOR_DB).astype(np.float32),
        position_m=position,
        probs={} if predictions is None else _probabilities(predictions, frames, power.shape[1]),
    )


def _probabilities(predictions: Predictions, frames: slice, num_beams: int) -> dict[str, NDArray[np.float32]]:
    """Learner -> (F, B) what it says in each frame about the beam of that frame."""
    last = predictions.starts[predictions.shown] + predictions.num_frames - 1
    rows = np.flatnonzero((last >= frames.start) & (last < frames.stop))
    found = {}
    for learner in predictions.learners:
        if learner.is_typical:
            probs = np.full((frames.stop - frames.start, num_beams), np.nan, np.float32)
            probs[last[rows] - frames.start] = learner.probs[rows]
            found[learner.name] = probs
    return found


def _block(one: ShownPass, learners: Sequence[Prediction], number: int) -> str:
    """One pass without a script: five moments of every sensor, then the whole pass."""
    last = one.num_frames - 1
    moments = np.unique(np.linspace(0.08 * last, 0.92 * last, NUM_MOMENTS).round().astype(int)).tolist()
    pictures = "".join(f"--frames-{name}:url({address});" for name, address in one.sprites.items())
    head = "".join(f'<th scope="col">{moment * SLOT_S:.1f} s</th>' for moment in moments)
    rows = "".join(
        f'<tr><th scope="row">{ROW_TITLES[name]}</th>'
        + "".join(f"<td>{_frame(name, moment, one.num_frames)}</td>" for moment in moments)
        + "</tr>"
        for name in one.sprites
    )
    sheet = (
        f'<div class="wide" tabindex="0" role="group" aria-label="Moments of pass {one.number}">'
        f'<table class="sheet"><thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        if rows
        else ""
    )
    state = " open" if number == 0 else ""
    seconds = one.num_frames * SLOT_S
    return (
        f'<details class="pass" id="pass-{number}" style="{pictures}"{state}>'
        f"<summary>Pass {one.number}: {one.num_frames} frames, {seconds:.1f} s</summary>{sheet}{_strips(one, learners)}"
        "</details>"
    )


def _frame(name: str, frame: int, num_frames: int) -> str:
    place = 100.0 * frame / max(num_frames - 1, 1)
    return (
        f'<div class="frame" role="img" aria-label="{ROW_TITLES[name]}, {frame * SLOT_S:.1f} s" '
        f'style="aspect-ratio:{ASPECTS[name]};background-image:var(--frames-{name});'
        f'background-size:{100 * num_frames}% 100%;background-position:{place:.3f}% 0"></div>'
    )


def _strips(one: ShownPass, learners: Sequence[Prediction]) -> str:
    """Power and predictions over the whole pass, one picture each."""
    best = one.level_db.argmax(axis=1)
    rows = [("Measured power", strength_picture(1.0 - one.level_db / FLOOR_DB, colour=MUTED, marked=best, mark=LOSS))]
    rows += [
        (
            learner.name,
            strength_picture(
                np.sqrt(one.probs[learner.name]),
                colour=PALETTE[learner.modality] if learner.modality else MUTED,
                marked=best,
                mark=LOSS,
            ),
        )
        for learner in learners
    ]
    shown = "".join(
        f'<div class="strip"><span>{escape(title)}</span><img alt="{escape(title)} of every beam over the pass" '
        f'src="{address}"></div>'
        for title, address in rows
    )
    seconds = (one.num_frames - 1) * SLOT_S
    return (
        f'<div class="strips">{shown}<div class="strip axis"><span></span><span>0 s</span><span>{seconds:.1f} s</span>'
        f'</div></div><p class="note">Time goes to the right, beams from 0 (below) to {one.level_db.shape[1] - 1}. '
        f"Strength: power above {-FLOOR_DB:.0f} dB below the best beam, and the square root of a probability. Dark "
        "red: the best beam. A window needs frames before and labels after its slot, so both ends have no "
        "prediction.</p>"
    )


def _data(one: ShownPass, learners: Sequence[Prediction]) -> dict[str, object]:
    """What the script needs of a pass: power and probabilities as bytes, row by row."""
    level = np.round(255.0 * (1.0 - one.level_db / FLOOR_DB)).astype(np.uint8)
    probs = {learner.name: one.probs[learner.name] for learner in learners}
    # All learners are asked about the same windows.
    known = next((~np.isnan(values).any(axis=1) for values in probs.values()), np.zeros(one.num_frames, bool))
    return {
        "number": one.number,
        "frames": one.num_frames,
        "beams": level.shape[1],
        "sensors": [[name, ROW_TITLES[name], ASPECTS[name]] for name in one.sprites],
        "level": _bytes(level),
        "best": one.level_db.argmax(axis=1).tolist(),
        "probs": [
            _bytes(np.round(255.0 * np.sqrt(np.nan_to_num(values))).astype(np.uint8)) for values in probs.values()
        ],
        "known": np.flatnonzero(known).tolist(),
        "track": None
        if one.position_m is None
        else [[round(float(value), 2) if np.isfinite(value) else None for value in row] for row in one.position_m],
    }


def _bytes(values: NDArray[np.uint8]) -> str:
    return base64.b64encode(values.tobytes()).decode()


def learners_of(predictions: Predictions | None) -> list[Prediction]:
    """Those whose probabilities are shown: the typical client of each kind, and the teacher."""
    return [] if predictions is None else [one for one in predictions.learners if one.is_typical]
