"""When the student of a node is published, and what became of it. It imports nothing heavy: it waits for hours.

A student lives in the memory of its node and never leaves it, so the node publishes it itself: `sim.deploy.publisher`
writes it as graphs, and the canary of its store decides. That takes seconds and torch, so it is a process of its own
each time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from configs.files import swap_in
from sim.deploy.machine import NodeMachine

NOTE = "published.json"
# The ending of the name of a state: `clients.learning.state.SUFFIX`, whose module needs torch.
SUFFIX = ".state"
LOOK_S = 2.0
QUIET_S = 60.0
"""When no round has come for so long, what was learned since is published, also before its time."""


@dataclass(frozen=True)
class Learned:
    """How far the student of a node is.

    Attributes:
        run: the name of the run.
        round: the last round in which it learned.
        time: when its state was written, in seconds since 1970.
    """

    run: str
    round: int
    time: float = 0.0


def newest_learned(machine: NodeMachine, run: str | None = None) -> Learned | None:
    """How far the student of a node is in a run, or in the run in which it learned last; None if in none.

    Args:
        machine: the machine of the node.
        run: the name of a run; None takes the newest.
    """
    found = []
    for path in machine.state.glob(f"runs/{run or '*'}/{machine.settings.client}/[0-9]*{SUFFIX}"):
        with suppress(OSError):  # it may have made room for a newer one meanwhile
            found.append(Learned(path.parent.parent.name, int(path.stem), path.stat().st_mtime))
    return max(found, key=lambda one: (one.time, one.round), default=None)


def noted(machine: NodeMachine) -> dict[str, Any]:
    """What became of the student that was published last: run, round, time, and a decision or an error."""
    try:
        found: dict[str, Any] = json.loads((machine.state / NOTE).read_text())
    except (OSError, ValueError):
        return {}
    return found


def note(machine: NodeMachine, learned: Learned, **outcome: Any) -> None:
    """Keep what became of a student."""
    values = {"run": learned.run, "round": learned.round, "time": time.time(), **outcome}
    swap_in(machine.state / NOTE, json.dumps(values, indent=1) + "\n")


def is_due(learned: Learned | None, tried: Learned | None, *, every: int, now: float) -> bool:
    """Whether a student is to be published now.

    Args:
        learned: how far it is.
        tried: how far it was when it was published last, or could not be.
        every: the number of rounds that lie between two versions, at least.
        now: the time in seconds since 1970.
    """
    if learned is None or (tried is not None and (tried.run, tried.round) == (learned.run, learned.round)):
        return False
    since = learned.round if tried is None or tried.run != learned.run else learned.round - tried.round
    return since >= every or now - learned.time >= QUIET_S


def watch(machine: NodeMachine, publish: Callable[[], object], *, goes_on: Callable[[], bool] = lambda: True) -> None:
    """Publish the student of a node whenever it is due.

    Args:
        machine: the machine of the node.
        publish: publishes its student now; whatever comes of it, the same student is not tried again.
        goes_on: is asked after each look.
    """
    before = noted(machine)
    tried = Learned(str(before["run"]), int(before["round"])) if {"run", "round"} <= before.keys() else None
    while goes_on():
        learned = newest_learned(machine)
        if is_due(learned, tried, every=machine.settings.publish_every or 1, now=time.time()):
            publish()
            tried = learned
        time.sleep(LOOK_S)


def published_health(machine: NodeMachine) -> dict[str, Any]:
    """The entry ``published`` of a node's health file: what became of its student; there is none if none was tried.

    Its ``trouble`` says why the newest student is not served; it is empty if it is.
    """
    found = noted(machine)
    if not found:
        return {}
    decision = found.get("decision") or {}
    trouble = found.get("error", "")
    if decision and not decision["is_current"]:
        trouble = f"the student of round {found['round']} is not served: {decision['reason']}"
    return {"published": {**found, "trouble": trouble}}
