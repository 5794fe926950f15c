"""What all commands have in common: how help reads, how paths and wrong words are taken, which of them speak JSON."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import typer
from typer.models import ParameterInfo

from configs.paths import expanded
from configs.spelling import did_you_mean
from sim.cli.examples import epilog_of


class PlainFormatter(click.HelpFormatter):
    """Help without the backslashes that typer puts before brackets for a format that we do not use."""

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write a list of terms and what they mean."""
        super().write_dl([(term, text.replace("\\[", "[")) for term, text in rows], col_max, col_spacing)


class PlainContext(click.Context):
    """The context of a command whose help is plain."""

    formatter_class = PlainFormatter


class UserPath(click.Path):
    """A path in which ``~`` and environment variables mean what they mean in a shell."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path that a word of the command line means."""
        if isinstance(value, (str, Path)):
            try:
                value = str(expanded(value))
            except ValueError as error:
                self.fail(str(error), param, ctx)
        return super().convert(value, param, ctx)


def dressed(command: click.Command, words: str = "") -> click.Command:
    """The command with all below it, with plain help, examples and paths as people write them."""
    command.context_class = PlainContext
    command.epilog = epilog_of(words) or command.epilog
    vars(command)["format_arguments"] = _omit  # newer versions of click would list them twice
    _refuse_repetition(command)
    for parameter in command.params:
        if isinstance(parameter.type, click.Path):
            parameter.type = UserPath(path_type=parameter.type.type)
        _explain_argument(command, parameter)
    if isinstance(command, click.Group):
        if hasattr(command, "suggest_commands"):
            command.suggest_commands = False  # typer and click would both ask the same question
        for name, below in command.commands.items():
            dressed(below, f"{words} {name}".strip())
    return command


def _refuse_repetition(command: click.Command) -> None:
    """Let a command refuse an option that takes one value and is given more often; click would take the last one."""
    make_parser = command.make_parser

    def careful(ctx: click.Context) -> Any:
        parser = make_parser(ctx)
        parse = parser.parse_args

        def parse_once(args: list[str]) -> Any:
            found = parse(args)
            # The last part names the parameter of every option and argument that was met, in order.
            options = [one for one in found[-1] if isinstance(one, click.Option) and _takes_one_value(one)]
            for option in options:
                if (times := options.count(option)) > 1:
                    name = max(option.opts, key=len)
                    raise click.UsageError(f"{name} was given {times} times, but takes one value: give it once", ctx)
            return found

        vars(parser)["parse_args"] = parse_once
        return parser

    vars(command)["make_parser"] = careful


def _takes_one_value(option: click.Option) -> bool:
    return not (option.multiple or option.is_flag or option.count)


def _omit(ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """Write nothing."""


def _explain_argument(command: click.Command, parameter: click.Parameter) -> None:
    """Give an argument the text of its annotation, which some versions of click lose."""
    if not isinstance(parameter, click.Argument) or getattr(parameter, "help", None):
        return
    found = inspect.get_annotations(inspect.unwrap(command.callback), eval_str=True) if command.callback else {}
    for one in getattr(found.get(parameter.name or ""), "__metadata__", ()):
        if isinstance(one, ParameterInfo) and one.help:
            parameter.help = one.help


def speaks_json(command: click.Command, words: Sequence[str]) -> bool:
    """Whether these words ask a command for JSON on stdout; with some, ``--json`` names a file instead."""
    left = list(words)
    while isinstance(command, click.Group) and left:
        command = command.commands.get(left.pop(0), command)
    is_flag = any("--json" in one.opts and getattr(one, "is_flag", False) for one in command.params)
    return is_flag and "--json" in left


def meant(error: click.UsageError) -> str:
    """The message of an error of usage, with the command that was meant if click does not say it."""
    message = error.format_message()
    context = error.ctx
    if "ommand" in message and "id you mean" not in message and context and isinstance(context.command, click.Group):
        typed = message.partition("'")[2].rpartition("'")[0]
        message += did_you_mean(typed, context.command.commands)
    return message


def run_command(app: typer.Typer) -> click.Command:
    """The commands of an app, ready to be run."""
    return dressed(typer.main.get_command(app))
