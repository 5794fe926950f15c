"""Sends a run to a tracker, from its folder: the rounds that are there, and those that come while it lasts.

What was sent is noted in the folder (``track-NAME.json``), so a run that is resumed goes on in the same run of the
tracker, and no round is sent twice.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from configs.files import EXPERIMENT, read_lines, write_whole
from configs.placement import plugin_folders
from server.recorder import ARMS
from server.status import ENDED, is_alive, read_status
from sim.report.labels import flatten, short_value
from sim.track.trackers import RunTracker, TrackedRun, make_tracker

LOOK_S = 0.5
"""How often the folder is looked at, in seconds."""


def note_of(folder: Path, name: str) -> Path:
    """The file that notes what of a run a tracker has got."""
    return folder / f"track-{re.sub(r'[^A-Za-z0-9]+', '-', name)}.json"


def follow(folder: Path, name: str, tracker: RunTracker, *, until: Callable[[], bool] = lambda: True) -> int:
    """Send a run to a tracker until it has ended.

    Args:
        folder: the folder of the run; what it is may be written into it later.
        name: the name of the tracker.
        tracker: its adapter.
        until: whether nobody starts or resumes the run any more; before that, an ended run is waited for.

    Returns:
        The number of rounds that were sent.

    Raises:
        Exception: whatever the tracker raises.
    """
    sent, has_begun, note = 0, False, _read_json(note_of(folder, name))
    id_, last, was_ended = str(note.get("id", "")), int(note.get("round", 0)), bool(note.get("has_ended"))
    while True:
        # Looked at before the rounds, so that the last of them is not missed.
        is_over = until() and not is_at_work(folder)
        # A run that the tracker has got to its end is begun again only where there is more of it.
        is_new = not was_ended or any(int(line["round"]) > last for line in _rounds(folder))
        if not has_begun and is_new and (folder / EXPERIMENT).is_file():
            id_, has_begun = tracker.begin(_described(folder, id_)), True
            _write_note(folder, name, id_, last)
        for line in _rounds(folder) if has_begun else ():
            if int(line["round"]) > last:
                last = int(line["round"])
                tracker.log(last, values_of_round(line))
                _write_note(folder, name, id_, last)
                sent += 1
        if is_over:
            break
        time.sleep(LOOK_S)
    if has_begun:
        summary = _read_json(folder / "summary.json")
        if summary:
            tracker.log(last, values_at_the_end(summary))
        tracker.end(has_finished=bool(summary))
        _write_note(folder, name, id_, last, has_ended=bool(summary))
    return sent


def is_at_work(folder: Path) -> bool:
    """Whether a process works on a run."""
    status = read_status(folder)
    has_ended = (folder / "summary.json").is_file() or status["state"] in ENDED
    return not has_ended and "pid" in status and is_alive(int(status["pid"]))


def values_of_round(line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a round by name: scores of the teacher, of the clients and their mean, bytes, and seconds.

    Scores are means over the horizons, in the units of ``rounds.jsonl``.

    Example:
        >>> client = {"common": {"top5": [0.5, 0.7]}, "uplink_bytes": 20, "downlink_bytes": 10, "problem": ""}
        >>> line = {"teacher": {"common": {"top5": [0.8]}}, "clients": {"000-gps": client}, "seconds": {"clients": 1.5}}
        >>> found = values_of_round(line)
        >>> found["clients/top5"], found["teacher/top5"], found["bytes/uplink"], found["000-gps/top5"]
        (0.6, 0.8, 20.0, 0.6)
    """
    clients = line["clients"]
    scores = {client: _scores(entry.get("common")) for client, entry in clients.items()}
    found = {f"teacher/{name}": value for name, value in _scores(line["teacher"].get("common")).items()}
    for name in dict.fromkeys(name for one in scores.values() for name in one):
        found[f"clients/{name}"] = fmean(one[name] for one in scores.values() if name in one)
    for way in ("uplink", "downlink"):
        found[f"bytes/{way}"] = float(sum(entry.get(f"{way}_bytes") or 0 for entry in clients.values()))
    found["clients/problems"] = float(sum(bool(entry.get("problem")) for entry in clients.values()))
    found |= {f"seconds/{phase}": float(value) for phase, value in line.get("seconds", {}).items()}
    return found | {f"{client}/{name}": value for client, one in scores.items() for name, value in one.items()}


def values_at_the_end(summary: Mapping[str, Any]) -> dict[str, float]:
    """The results of a run by name: the mean of the clients for every arm, and the teacher before and after."""
    found = {}
    for arm in ARMS:
        scores = [_scores(client[arm]) for client in summary["clients"] if client.get(arm)]
        for name in dict.fromkeys(name for one in scores for name in one):
            found[f"final/{arm}/{name}"] = fmean(one[name] for one in scores if name in one)
    for when in ("before", "after"):
        for name, value in _scores(summary["teacher"].get(when)).items():
            found[f"final/teacher_{when}/{name}"] = value
    return found


def work() -> None:
    """Follow a run as a process of its own: ``FOLDER NAME``; standard input stays open while the run is carried out."""
    folder, name = Path(sys.argv[1]), sys.argv[2]
    closed = threading.Event()

    def wait() -> None:
        # Not through sys.stdin, whose lock a process that ends because of an error would wait for.
        while os.read(0, 1024):
            pass
        closed.set()

    threading.Thread(target=wait, daemon=True).start()
    follow(folder, name, make_tracker(name, plugins_of(folder)), until=closed.is_set)


def plugins_of(folder: Path) -> tuple[Path, ...]:
    """The folders in which a run looked for a user's own modules."""
    return tuple(plugin_folders(_read_json(folder / "placement.json").get("plugins", [])))


def _scores(metrics: Mapping[str, Any] | None) -> dict[str, float]:
    return {name: fmean(values) for name, values in (metrics or {}).items() if values}


def _rounds(folder: Path) -> list[dict[str, Any]]:
    """The rounds that are there, in order; a line that is being written is read the next time."""
    path = folder / "rounds.jsonl"
    lines = read_lines(path) if path.is_file() else []
    return sorted((line for line in lines if "round" in line), key=lambda line: int(line["round"]))


def _described(folder: Path, id_: str) -> TrackedRun:
    values: dict[str, Any] = yaml.safe_load((folder / EXPERIMENT).read_text())
    settings = {
        key: value if isinstance(value, (bool, int, float)) else short_value(value)
        for key, value in flatten(values).items()
    }
    return TrackedRun(folder.resolve(), str(values["name"]), int(values.get("seed", 0)), settings, id_)


def _write_note(folder: Path, name: str, id_: str, last: int, *, has_ended: bool = False) -> None:
    note = {"id": id_, "round": last, "has_ended": has_ended}
    write_whole(note_of(folder, name), json.dumps(note) + "\n")


def _read_json(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text())
        if isinstance(found, dict):
            return found
    return {}
