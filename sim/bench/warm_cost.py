"""Measures the cost of a message on an idle node, with a real SuperNode for each way of starting apps, in turn.

The messages are empty and answered at once, so the measurement covers the work of Flower and the start of the app.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sim.bench.loopback import CLIENT_APPS, Ask, Loopback

PATIENCE_S = 60.0
# This time covers several polls of a node, which come every 3 s.
IDLE_S = 9.0


@dataclass(frozen=True)
class Way:
    """A way of starting apps.

    Attributes:
        name: the name of the way and of its node.
        environment: the variables to add to the environment of the node.
        helper: the id of the process that has the apps as its children; None if the node starts them itself.
    """

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    helper: int | None = None


@dataclass(frozen=True)
class CpuSeconds:
    """CPU-seconds of the processes of a node.

    Attributes:
        node: CPU-seconds of SuperNode and SuperExec, with their polls.
        started: CPU-seconds of the program that the SuperExec starts: the app, or the shim.
        forked: CPU-seconds of the helper and its children.
    """

    node: float
    started: float
    forked: float

    @property
    def total(self) -> float:
        """The sum of all."""
        return self.node + self.started + self.forked

    def since(self, before: CpuSeconds) -> CpuSeconds:
        """The CPU-seconds that were spent since ``before``."""
        return CpuSeconds(self.node - before.node, self.started - before.started, self.forked - before.forked)


@dataclass(frozen=True)
class MessageCost:
    """The cost of a message, as medians over several.

    Attributes:
        app: the app that answers.
        way: the name of the way in which it is started.
        num_messages: the number of messages that were measured.
        cpu: the CPU-seconds from sending until the app has ended.
        cpu_range_s: the smallest and the largest of their totals.
        seconds: the seconds from sending until the server has the answer; up to 3 of them pass until the node asks
            for messages.
        idle_cpu_s: the CPU-seconds that the node spends in a second without messages.
    """

    app: str
    way: str
    num_messages: int
    cpu: CpuSeconds
    cpu_range_s: tuple[float, float]
    seconds: float
    idle_cpu_s: float


def message_costs(
    loopback: Loopback,
    ways: Sequence[Way],
    *,
    apps: Sequence[str],
    num_messages: int,
    progress: Callable[[str], None] = lambda line: None,
) -> list[MessageCost]:
    """The cost of a message for each app and way; the ways take turns. The first message of each is not counted.

    Args:
        loopback: a running SuperLink, to which a node for each way is added.
        ways: the ways to compare.
        apps: keys of `CLIENT_APPS`.
        num_messages: the number of messages that count for each app and way.
        progress: is called with a text that says what is being done.

    Raises:
        ValueError: an app is unknown, or there is no message.
        RuntimeError: something did not start, answer or end.
    """
    if unknown := set(apps) - set(CLIENT_APPS):
        raise ValueError(f"--app: unknown app {', '.join(sorted(unknown))}; known are {', '.join(CLIENT_APPS)}")
    if num_messages < 1:
        raise ValueError("--messages: at least one message is needed")
    progress("starting")
    nodes = {way.name: loopback.start_node(way.name, way.environment) for way in ways}
    samples: dict[tuple[str, str], list[tuple[CpuSeconds, float]]] = {
        (app, way.name): [] for app in apps for way in ways
    }
    for app in apps:
        with loopback.running(app) as ask:
            for number in range(num_messages + 1):
                for way in ways:
                    progress(f"{app}, {way.name}, message {number} of {num_messages}")
                    samples[app, way.name].append(_measure(way, *nodes[way.name], ask))
    progress("idling")
    before = [cpu_seconds(nodes[way.name][1], way.helper) for way in ways]
    time.sleep(IDLE_S)
    after = [cpu_seconds(nodes[way.name][1], way.helper) for way in ways]
    idle = {way.name: b.since(a).total / IDLE_S for way, a, b in zip(ways, before, after, strict=True)}
    return [_cost(app, way, found[1:], idle[way]) for (app, way), found in samples.items()]


def cpu_seconds(node: int, helper: int | None) -> CpuSeconds:
    """The CPU-seconds so far of a node whose apps have ended, with all children that it and its helper waited for."""
    processes = _processes()
    own = started = 0.0
    for process in _tree(node, processes):
        # The last program that the SuperExec has started still exists as a zombie.
        if process.is_running:
            own += process.own_s
            started += process.waited_s
        else:
            started += process.own_s + process.waited_s
    forked = sum(process.own_s + process.waited_s for process in _tree(helper, processes))
    return CpuSeconds(own, started, forked)


@dataclass(frozen=True)
class _Process:
    parent: int
    is_running: bool
    own_s: float
    waited_s: float


def _measure(way: Way, node: int, pid: int, ask: Ask) -> tuple[CpuSeconds, float]:
    before, at_rest = cpu_seconds(pid, way.helper), _running(pid, way.helper)
    seconds = ask(node)
    deadline = time.monotonic() + PATIENCE_S
    while _running(pid, way.helper) != at_rest:
        if time.monotonic() > deadline:
            raise RuntimeError(f"an app of the node {way.name} does not end")
        time.sleep(0.02)
    return cpu_seconds(pid, way.helper).since(before), seconds


def _cost(app: str, way: str, samples: Sequence[tuple[CpuSeconds, float]], idle_cpu_s: float) -> MessageCost:
    spent, seconds = zip(*samples, strict=True)
    totals = [cpu.total for cpu in spent]
    parts = {name: statistics.median(getattr(cpu, name) for cpu in spent) for name in ("node", "started", "forked")}
    return MessageCost(
        app=app,
        way=way,
        num_messages=len(samples),
        cpu=CpuSeconds(**parts),
        cpu_range_s=(min(totals), max(totals)),
        seconds=statistics.median(seconds),
        idle_cpu_s=idle_cpu_s,
    )


def _running(node: int, helper: int | None) -> int:
    """The number of processes of a node that have not ended."""
    processes = _processes()
    return sum(process.is_running for root in (node, helper) for process in _tree(root, processes))


def _processes() -> dict[int, _Process]:
    """Every process of the machine. Source: proc_pid_stat(5), fields 3, 4 and 14 to 17."""
    found, tick = {}, os.sysconf("SC_CLK_TCK")
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent, *rest = path.read_text().rpartition(")")[2].split()
            user, system, waited_user, waited_system = (int(text) / tick for text in rest[9:13])
            found[int(path.parent.name)] = _Process(
                int(parent), state not in "ZX", user + system, waited_user + waited_system
            )
    return found


def _tree(root: int | None, processes: Mapping[int, _Process]) -> list[_Process]:
    if root is None:
        return []
    pids = [root]
    for pid in pids:
        pids += [child for child, process in processes.items() if process.parent == pid]
    return [processes[pid] for pid in pids if pid in processes]
