"""The command of ``softbeam bench`` that measures a deployment: what a message costs. Heavy imports stay inside."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sim.terminal import JsonOption, wide_console


def add_warm_command(bench_cli: typer.Typer) -> None:
    """Add it to ``softbeam bench``."""
    bench_cli.command("warm")(bench_warm)


def bench_warm(
    app: Annotated[list[str] | None, typer.Option(help="torch, optimizer or softbeam; may be repeated.")] = None,
    messages: Annotated[int, typer.Option(help="Messages to measure for each app and way.", min=1)] = 5,
    as_json: JsonOption = False,
) -> None:
    """CPU of a message on an idle node, apps started Flower's way and from the fork server; about 4 minutes."""
    from rich.console import Console
    from rich.table import Table

    from sim.bench.loopback import CLIENT_APPS, Loopback
    from sim.bench.warm_cost import Way, message_costs
    from sim.deploy.forkserver import shim_environment, start_forkserver, stop_forkserver

    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as name, console.status("starting") as status:
        folder = Path(name)
        with Loopback(folder) as loopback:
            server = start_forkserver(folder / "fork", environment=loopback.environment("warm"))
            try:
                ways = [Way("stock"), Way("warm", shim_environment(folder / "fork"), server.pid)]
                apps = app or list(CLIENT_APPS)
                costs = message_costs(loopback, ways, apps=apps, num_messages=messages, progress=status.update)
            finally:
                stop_forkserver(server)
    if as_json:
        typer.echo(json.dumps([asdict(cost) for cost in costs], indent=1))
        return
    title = f"CPU-seconds of a message, medians of {messages}"
    table = Table("app", "way", "all", "from", "to", "node", "started", "forked", "seconds", "idle per s", title=title)
    for cost in costs:
        seconds = (cost.cpu.total, *cost.cpu_range_s, cost.cpu.node, cost.cpu.started, cost.cpu.forked, cost.seconds)
        table.add_row(cost.app, cost.way, *(f"{value:.2f}" for value in seconds), f"{cost.idle_cpu_s:.3f}")
    wide_console().print(table)
