"""The command ``softbeam sweep``: the settings of an experiment that validate best."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from sim.cli.interruption import WAY_ON
from sim.cli.terminal import ConfigArgument, JsonOption, SetOption, parse_seeds, wide_console

if TYPE_CHECKING:
    from sim.sweep.search import TrialRow


def sweep(
    config: ConfigArgument,
    over: Annotated[
        list[str],
        typer.Option(
            help="KEY=SPACE; repeatable. A space is 1..8, log(1e-3,1e-2), or choices such as mean|median.",
            show_default=False,
        ),
    ],
    trials: Annotated[int, typer.Option(min=1, help="Trials in all, those of an earlier leg among them.")] = 20,
    override: SetOption = None,
    seeds: Annotated[str, typer.Option(help="Seeds of each trial, such as 0,1,2; default: the config's.")] = "",
    out: Annotated[Path | None, typer.Option(help="Folder of the sweep; default: sweeps/NAME.")] = None,
    prune: Annotated[
        bool, typer.Option("--prune/--no-prune", help="Give a trial up whose rounds validate below the median.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Search for the settings that validate best; no trial is judged by its tests.

    The same command goes on with a sweep that was stopped, and one with more trials adds to it.
    """
    from configs.loading import load_experiment, to_values
    from sim.sweep.search import WITHOUT_CONTROLS, Sweep, best_of, search
    from sim.sweep.space import parse_space

    overrides = [WITHOUT_CONTROLS, *(override or [])]
    experiment = load_experiment(config, overrides)
    plan = Sweep(
        config=config,
        overrides=overrides,
        space=parse_space(over, to_values(experiment)),
        seeds=parse_seeds(seeds) or [experiment.seed],
        out=out or Path("sweeps") / experiment.name,
        may_prune=prune,
    )
    WAY_ON.place = plan.out

    def told(row: TrialRow, rows: list[TrialRow]) -> None:
        best = best_of(rows)
        typer.echo(
            f"trial {row.number} ({len(rows)} of {trials}), {_values(row)}: {_outcome(row)}"
            + (f"; best {best.score:.4f} (trial {best.number})" if best is not None else ""),
            err=True,
        )

    rows = search(plan, trials, told)
    best = best_of(rows)
    command = None if best is None else plan.command(best.values)
    if as_json:
        found = {"folder": str(plan.out), "best": None if best is None else best.number, "command": command}
        typer.echo(json.dumps({**found, "trials": [asdict(row) for row in rows]}, indent=1))
        return
    wide_console().print(_table(rows, [one.key for one in plan.space]))
    if best is None:
        typer.echo("no trial is complete; give more --trials, or --no-prune")
    else:
        typer.echo(f"trial {best.number} validates best; its tests, with the controls, are looked at by\n{command}")
    typer.echo(plan.out)


def _values(row: TrialRow) -> str:
    return " ".join(f"{key}={text}" for key, text in row.values.items())


def _outcome(row: TrialRow) -> str:
    if row.state == "failed":
        return f"failed: {row.reason}"
    return f"{'given up at ' if row.state == 'pruned' else 'validation '}{row.score:.4f}"


def _table(rows: Sequence[TrialRow], keys: list[str]) -> Table:
    table = Table("trial", "state", "validation", *keys)
    for row in sorted(rows, key=lambda one: (one.state != "complete", -(one.score or 0.0))):
        score = "" if row.score is None else f"{row.score:.4f}"
        table.add_row(str(row.number), row.state, score, *(row.values.get(key, "") for key in keys))
    return table
