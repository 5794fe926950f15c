"""The commands of ``softbeam store``: versions of a model, of which one is served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from clients.serving.margins import Margins
from sim.cli.terminal import JsonOption, PowerMarginOption, Top5MarginOption, wide_console

store_cli = typer.Typer(no_args_is_help=True)

StoreArgument = Annotated[Path, typer.Argument(help="The folder of the store.")]


@store_cli.callback()
def begin() -> None:
    """Keep versions of a model, serve one of them, and go back."""


@store_cli.command("list")
def show(store: StoreArgument, as_json: JsonOption = False) -> None:
    """Show the versions of a store, which of them is current, and what the canary said."""
    from rich.table import Table

    from clients.serving.store_command import rows_of

    rows = rows_of(store)
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    table = Table("version", "state", "model", "run", "round", "canary")
    for row in rows:
        cells = (row[key] for key in ("version", "state", "model", "run", "round", "canary"))
        table.add_row(*("-" if cell is None else str(cell) for cell in cells))
    wide_console().print(table)


@store_cli.command()
def add(
    store: StoreArgument,
    model: Annotated[Path, typer.Argument(help="A folder that softbeam export wrote.")],
    passes: Annotated[
        Path | None, typer.Option(help="A recording with power, on whose last passes both versions are compared.")
    ] = None,
    unchecked: Annotated[bool, typer.Option("--unchecked", help="Serve it without a comparison.")] = False,
    top5_margin: Top5MarginOption = Margins.top5_points,
    power_margin: PowerMarginOption = Margins.power_loss_db,
    last: Annotated[int, typer.Option(min=1, help="How many of the last passes are looked at.")] = Margins.passes,
    as_json: JsonOption = False,
) -> None:
    """Bring an exported model into a store, and serve it unless it is worse than the current version.

    Passes that nobody trained on count; the exit code is 1 if the version is refused.
    """
    from clients.serving.store_command import added, decision_line

    margins = Margins(top5_margin, power_margin, last)
    decision = added(store, model, passes, margins=margins, unchecked=unchecked)
    typer.echo(json.dumps(decision.to_dict(), indent=1) if as_json else decision_line(decision))
    if not decision.is_current:
        raise typer.Exit(1)


@store_cli.command()
def use(store: StoreArgument, version: Annotated[str, typer.Argument(help="The name of the version.")]) -> None:
    """Serve a version by name, also one that was refused."""
    from clients.serving.store_command import used

    typer.echo(used(store, version))


@store_cli.command()
def rollback(
    store: StoreArgument, why: Annotated[str, typer.Option(help="What is noted as the reason.")] = "rolled back"
) -> None:
    """Serve the version before the current one again; the current one never comes back by itself."""
    from clients.serving.store_command import rolled_back

    was, now = rolled_back(store, why)
    typer.echo(f"{now} is current again; {was} never comes back")
