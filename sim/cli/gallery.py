"""The command ``softbeam gallery``: ready experiments, each with a sentence that says what it is about."""

from __future__ import annotations

import json

import typer

from sim.cli.terminal import JsonOption, wide_console


def gallery(as_json: JsonOption = False) -> None:
    """List the ready experiments in configs/gallery/; softbeam run NAME runs one."""
    from rich.table import Table

    from configs.yaml_files import first_comment, gallery_files

    rows = [{"name": path.stem, "description": first_comment(path), "file": str(path)} for path in gallery_files()]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    table = Table("name", "what it is about")
    for row in rows:
        table.add_row(row["name"], row["description"])
    wide_console().print(table)
