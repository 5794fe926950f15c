"""The commands of ``softbeam bench``: what the world costs, teaches and gets right. Heavy imports stay inside."""

from __future__ import annotations

import typer

bench_cli = typer.Typer(help="Measure the world: speed, learned accuracy, distillation gain.", no_args_is_help=True)
