"""``softbeam predict``: beams, probabilities and latency for every slot of a source. It needs numpy and onnxruntime.

Where typer is installed, `sim.cli.take_home` offers the same command; on a node without it, :func:`main` does.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from clients.models.live import HOLD, LiveAnswer
from clients.serving.beam_model import BeamModel
from clients.serving.following import FollowedLive, FollowedModel
from clients.serving.loading import load_model
from clients.serving.manifest import Manifest
from clients.serving.model_store import is_store
from clients.serving.sources import SlotFrames, slots_of, slots_of_lines, watched
from clients.serving.sweeping import beams_to_sweep, guarantee_of

TOP = 5
WANTED = 90.0
"""The share of windows, in per cent, for which a set holds a beam within the loss, unless another one is given."""


@dataclass
class Tally:
    """What was measured while a source was predicted.

    Attributes:
        num_slots: how many slots came.
        num_late: how many of them were late frames.
        milliseconds: the time of every answer, in its order.
    """

    num_slots: int = 0
    num_late: int = 0
    milliseconds: list[float] = field(default_factory=list)

    def line(self) -> str:
        """The tally as a sentence."""
        if not self.milliseconds:
            return f"{self.num_slots} slots, no answer: no sensor gave a whole window"
        p50, p95, p99 = np.percentile(self.milliseconds, [50, 95, 99])
        return (
            f"{self.num_slots} slots, {len(self.milliseconds)} answers, {self.num_late} late; "
            f"latency p50 {p50:.2f} ms, p95 {p95:.2f} ms, p99 {p99:.2f} ms"
        )


def served(
    folder: Path, *, precision: str = "float32", tell: Callable[[str], object] = lambda line: None
) -> BeamModel | FollowedModel:
    """What predicts: an exported model or, of a store, whichever version is current.

    Args:
        folder: the folder of either.
        precision: ``float32`` or ``int8``.
        tell: takes a sentence when a version of a store takes the place of another.

    Raises:
        ValueError: the folder is neither, or cannot be read.
    """
    if is_store(folder):
        return FollowedModel(folder, precision=precision, tell=tell)
    return load_model(folder, precision=precision)


def source_of(
    place: str, model: BeamModel | FollowedModel, *, watch: bool = False, idle_s: float | None = None
) -> Iterable[SlotFrames]:
    """The slots that a word of the command line means: a path, or ``-`` for lines of JSON on standard input.

    Raises:
        ValueError: the word and the options do not go together.
    """
    if place == "-":
        if watch:
            raise ValueError("--watch: standard input ends by itself; leave it out, or name a folder")
        return slots_of_lines(sys.stdin, "standard input")
    if watch:
        return watched(Path(place), model.manifest.modalities, idle_s=idle_s)
    return slots_of(Path(place), model.manifest.modalities)


def predict(
    model: BeamModel | FollowedModel,
    slots: Iterable[SlotFrames],
    write: Callable[[str], object],
    *,
    top: int = TOP,
    hold: int = HOLD,
    as_json: bool = False,
    sweep: tuple[float, float] | None = None,
) -> Tally:
    """Answer for every slot, and measure how long that takes.

    Args:
        model: the model, or the store whose versions follow one another.
        slots: the slots.
        write: takes a line for every answer.
        top: how many beams of each horizon are told.
        hold: for how many slots in a row an older frame may stand in for missing ones.
        as_json: whether lines are JSON.
        sweep: the loss in dB and the coverage in (0, 1) for which the beams to sweep are told; None tells none.

    Raises:
        ValueError: a frame is not one of its sensor, or the model has no thresholds for such sets.
    """
    if sweep is not None:
        guarantee_of(model.manifest, within_db=sweep[0], wanted=sweep[1])
    live, tally = model.live(hold=hold), Tally()
    stream: tuple[str, int] | None = None
    for slot in slots:
        of = (slot.source.partition(", line")[0], slot.pass_id)
        if stream not in (None, of):
            live.reset()
        stream = of
        newest = live.newest_slot
        if slot.number is not None and newest is not None and slot.number <= newest:
            tally.num_late += 1
        begin = time.perf_counter()
        answer = live.push(slot.frames, slot=slot.number)
        taken = 1e3 * (time.perf_counter() - begin)
        tally.num_slots += 1
        if answer is None:
            continue
        tally.milliseconds.append(taken)
        by = live.version if isinstance(live, FollowedLive) else None
        beams = None if sweep is None else _swept(model.manifest, answer, sweep)
        write(
            _json_line(slot, answer, taken, top, by, beams) if as_json else _plain_line(slot, answer, taken, top, beams)
        )
    return tally


def _swept(manifest: Manifest, answer: LiveAnswer, sweep: tuple[float, float]) -> list[list[int]]:
    """The beams to sweep; all of them for a version without thresholds that took the place of one with some."""
    try:
        guarantee = guarantee_of(manifest, within_db=sweep[0], wanted=sweep[1])
    except ValueError:
        return beams_to_sweep(answer.probs, None)
    return beams_to_sweep(answer.probs, guarantee)


def _json_line(
    slot: SlotFrames,
    answer: LiveAnswer,
    taken: float,
    top: int,
    version: str | None,
    sweep: list[list[int]] | None,
) -> str:
    beams = answer.beams(top)
    values = {
        "source": slot.source,
        "pass": slot.pass_id,
        "slot": answer.slot,
        **({} if version is None else {"version": version}),
        "beams": beams.tolist(),
        "probs": np.take_along_axis(answer.probs, beams, axis=1).astype(float).round(6).tolist(),
        **({} if sweep is None else {"sweep": sweep}),
        "held": list(answer.held),
        "absent": list(answer.absent),
        "ms": round(taken, 3),
    }
    return json.dumps(values, allow_nan=False)


def _plain_line(slot: SlotFrames, answer: LiveAnswer, taken: float, top: int, sweep: list[list[int]] | None) -> str:
    beams, probs = answer.beams(top), answer.probs
    parts = [
        f"+{ahead} " + " ".join(f"{beam}:{probs[ahead, beam]:.2f}" for beam in row)
        for ahead, row in enumerate(beams.tolist())
    ]
    if sweep is not None:
        parts.append("sweep " + "; ".join(f"+{ahead} {' '.join(map(str, row))}" for ahead, row in enumerate(sweep)))
    notes = [
        f"{title} {', '.join(names)}" for title, names in (("held", answer.held), ("absent", answer.absent)) if names
    ]
    return "  ".join([f"pass {slot.pass_id} slot {answer.slot}", *parts, f"{taken:.2f} ms", *notes])


def main(words: Sequence[str] | None = None) -> int:
    """The command on a node without typer; the exit code."""
    parser = argparse.ArgumentParser(
        prog="softbeam predict", description="Beams, probabilities and latency for every slot of a source."
    )
    parser.add_argument("model", type=Path, help="a folder that softbeam export wrote, or a store of versions")
    parser.add_argument("source", help="a recording, a DeepSense 6G folder, a .jsonl file, or - for standard input")
    parser.add_argument("--int8", action="store_true", help="use the graphs in eight bits")
    parser.add_argument("--top", type=int, default=TOP, help="how many beams of each horizon are told")
    parser.add_argument("--hold", type=int, default=HOLD, help="slots in a row in which an old frame may stand in")
    parser.add_argument("--watch", action="store_true", help="go on with what comes into the folder")
    parser.add_argument("--idle", type=float, help="with --watch, end after so many seconds without anything new")
    parser.add_argument("--json", action="store_true", dest="as_json", help="print lines of JSON")
    parser.add_argument("--within", type=float, help="tell the beams to sweep so that one loses at most so many dB")
    parser.add_argument("--wanted", type=float, default=WANTED, help="for which share of windows, in per cent")
    given = parser.parse_args(words)
    try:
        model = served(given.model, precision="int8" if given.int8 else "float32", tell=_tell)
        slots = source_of(given.source, model, watch=given.watch, idle_s=given.idle)
        sweep = None if given.within is None else (given.within, given.wanted / 100.0)
        tally = predict(model, slots, _print, top=given.top, hold=given.hold, as_json=given.as_json, sweep=sweep)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    sys.stderr.write(f"{tally.line()}\n")
    return 0


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
