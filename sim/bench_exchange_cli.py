"""The commands of ``softbeam bench`` that measure what is exchanged: codecs and attacks. Heavy imports stay inside."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sim.bench_cli import SeedsOption, numbers
from sim.terminal import JsonOption, SetOption, wide_console


def add_exchange_commands(bench_cli: typer.Typer) -> None:
    """Add them to ``softbeam bench``."""
    bench_cli.command("codecs")(bench_codecs)
    bench_cli.command("attacks")(bench_attacks)
    bench_cli.command("privacy")(bench_privacy)


def bench_codecs(
    codec: Annotated[list[str] | None, typer.Option(help="May be repeated, without suffix; default: all.")] = None,
    samples: Annotated[int, typer.Option(help="Public samples of a round.", min=1)] = 400,
    seeds: SeedsOption = "0,1,2",
    as_json: JsonOption = False,
) -> None:
    """Measure bytes and loss of codecs on bell-shaped soft labels: as they are, with +zlib and with +delta."""
    from sim.bench.codec_cost import codec_costs
    from sim.bench.exchange_tables import codecs_table
    from strategies.codecs.table import CODECS

    costs = codec_costs(codec or list(CODECS), seeds=numbers(seeds, "--seeds"), num_samples=samples)
    if as_json:
        typer.echo(json.dumps([asdict(cost) for cost in costs], indent=1))
        return
    wide_console().print(codecs_table(costs))


def bench_attacks(
    rule: Annotated[list[str] | None, typer.Option(help="May be repeated; default: all.")] = None,
    attack: Annotated[list[str] | None, typer.Option(help="May be repeated; default: all.")] = None,
    attackers: Annotated[str, typer.Option(help="How many of the clients, with commas between them.")] = "4,6",
    seeds: SeedsOption = "0,1,2",
    override: SetOption = None,
    out: Annotated[Path | None, typer.Option("--json", help="Keep the cells in this file.")] = None,
) -> None:
    """Every aggregation rule under every attack, the clients with the most data attacking; two minutes a seed."""
    from rich.progress import track

    from sim.bench.attack_table import RULES, Cell, attack_cells, make_voters, voters_experiment
    from sim.bench.exchange_tables import attacks_table
    from strategies.attacks import ATTACKS

    console, cells = wide_console(stderr=True), list[Cell]()
    wanted = {"rules": rule or list(RULES), "attacks": attack or list(ATTACKS)}
    for seed in track(numbers(seeds, "--seeds"), "seeds", console=console):
        voters = make_voters(voters_experiment(seed, override or []))
        cells += attack_cells(voters, seed=seed, counts=numbers(attackers, "--attackers"), **wanted)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps([asdict(cell) for cell in cells], indent=1) + "\n")
    for metric in ("top1", "top3", "top5"):
        wide_console().print(attacks_table(cells, metric))


def bench_privacy(
    steps: Annotated[int, typer.Option(help="Optimizer steps of a client.", min=1)] = 750,
    seeds: SeedsOption = "0,1,2",
    as_json: JsonOption = False,
) -> None:
    """Guess from released soft labels which windows a client trained on; a minute and a half a seed."""
    from rich.progress import track

    from sim.bench.exchange_tables import leaks_table
    from sim.bench.membership import Leak, audit

    leaks = list[Leak]()
    for seed in track(numbers(seeds, "--seeds"), "seeds", console=wide_console(stderr=True)):
        leaks += audit(seed, num_steps=steps)
    if as_json:
        rows = [{**asdict(leak), "epsilon": None if math.isinf(leak.epsilon) else leak.epsilon} for leak in leaks]
        typer.echo(json.dumps(rows, indent=1))
        return
    wide_console().print(leaks_table(leaks))
