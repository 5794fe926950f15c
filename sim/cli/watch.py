"""The command ``softbeam watch``: a run while it lasts, in the terminal or on a page of this machine."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sim.cli.terminal import HEARTBEAT_S, JsonOption, say

if TYPE_CHECKING:
    from sim.watch.view import RunView, RunWatcher

# How often the folder is looked at, in seconds.
LOOK_S = 0.5
# More clients than these are too many rows for a terminal; the ones with the lowest scores are shown.
MAX_ROWS = 20
DEFAULT_PORT = 8700


def watch(
    place: Annotated[Path, typer.Argument(help="The folder of a run, of runs (the newest) or of a deployment.")],
    serve: Annotated[
        bool, typer.Option("--serve", help="Show it on a page of this machine instead, until Ctrl-C.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port of that page; 0 takes a free one.")] = (
        DEFAULT_PORT
    ),
    as_json: JsonOption = False,
) -> None:
    """Follow a run until it ends: phase, round, time left, scores of the clients, health of the machines.

    The exit code is 0 when the run has finished, and 1 when it failed, was stopped or was killed. With --json it
    prints what can be seen now, and ends at once.
    """
    from sim.watch.view import RunWatcher

    watcher = RunWatcher(place)
    if as_json:
        typer.echo(json.dumps(watcher.look().to_dict(), indent=1))
    elif serve:
        _serve(watcher, port)
    else:
        _end(_follow(watcher))


def _serve(watcher: RunWatcher, port: int) -> None:
    """Serve the page until a signal ends this command.

    Raises:
        ValueError: the port is taken.
    """
    from sim.watch.server import WatchServer

    try:
        server = WatchServer(watcher, port=port)
    except OSError as error:
        raise ValueError(f"--port {port}: {error.strerror or error}; name another, or 0 for a free one") from None
    with server:
        say(f"{server.url} shows the run to browsers on this machine; Ctrl-C ends it")
        server.serve_forever()


def _follow(watcher: RunWatcher) -> RunView:
    """Show a run until it ends: in place in a terminal, line by line in a file or a pipe."""
    if not sys.stdout.isatty():
        return _follow_by_lines(watcher)
    with Live(console=Console(emoji=False), auto_refresh=False) as live:
        while True:
            view = watcher.look()
            live.update(picture_of(view), refresh=True)
            if view.has_ended:
                return view
            time.sleep(LOOK_S)


def _follow_by_lines(watcher: RunWatcher) -> RunView:
    """A line for each phase and round, and now and then in a phase that takes long."""
    seen: tuple[object, ...] = ()
    said, done = 0.0, -1
    while True:
        view = watcher.look()
        now = (view.run, view.state, view.phase, view.round)
        if now != seen or (view.done != done and time.monotonic() - said >= HEARTBEAT_S):
            seen, said, done = now, time.monotonic(), view.done
            typer.echo(line_of(view))
        if view.has_ended:
            return view
        time.sleep(LOOK_S)


def _end(view: RunView) -> None:
    """Let the command fail unless the run has finished.

    Raises:
        RuntimeError: the run failed, was stopped or was killed; the message says how to go on.
    """
    if view.state != "finished":
        why = f" ({view.error})" if view.error else ""
        raise RuntimeError(f"{view.run}: the run is {view.state}{why}; softbeam resume {view.run} goes on with it")


def line_of(view: RunView) -> str:
    """A run in one line."""
    if view.state == "waiting":
        return "there is no run yet"
    parts = [view.state]
    if view.phase:
        left = "" if view.seconds_left is None else f", {view.seconds_left:.0f} s left"
        parts.append(f"{view.phase} {view.done} of {view.total}{left}")
    if view.rounds:
        parts.append(f"round {view.round} of {view.rounds}")
    teacher = next((value for value in reversed(view.teacher) if value is not None), None)
    if teacher is not None:
        parts.append(f"teacher {view.metric} {teacher:.1f} %")
    scores = [client.score for client in view.clients if client.score is not None]
    if scores:
        parts.append(f"clients {view.metric} {sum(scores) / len(scores):.1f} %, lowest {min(scores):.1f} %")
    failing = sum(bool(client.problem) for client in view.clients)
    if failing:
        parts.append(f"{failing} did not count in their last round")
    return f"{view.title}: {'; '.join(parts)}"


def picture_of(view: RunView) -> Group:
    """A run as a terminal shows it: its line, a row for each client, and a row for each machine of a deployment."""
    parts: list[Text | Table] = [Text(line_of(view))]
    if view.run:
        parts.append(Text(view.run, style="dim"))
    if view.error:
        parts.append(Text(view.error, style="red"))
    if view.clients:
        parts.append(_client_table(view))
    if view.nodes:
        table = Table("machine", "senses", "status", "last message", "trouble")
        for node in view.nodes:
            table.add_row(
                *(Text(cell) for cell in (node.name, node.modality, node.status, node.last_message, node.trouble))
            )
        parts.append(table)
    return Group(*parts)


def _client_table(view: RunView) -> Table:
    shown = view.clients
    table = Table("client", f"{view.metric} %", "last answer", "up", "down", "problem")
    if len(shown) > MAX_ROWS:
        by_score = sorted(shown, key=lambda client: (not client.problem, client.score or 0.0))
        table.caption = f"the {MAX_ROWS} of {len(shown)} clients that do worst"
        shown = tuple(by_score[:MAX_ROWS])
    for client in shown:
        score = "-" if client.score is None else f"{client.score:.1f}"
        answer = "-" if client.last_round is None else f"round {client.last_round}"
        sizes = [f"{count / 1e3:.1f} kB" for count in (client.uplink_bytes, client.downlink_bytes)]
        table.add_row(*(Text(cell) for cell in (client.id, score, answer, *sizes, client.problem)))
    return table
