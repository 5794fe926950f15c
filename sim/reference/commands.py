"""The page of every command with its arguments, options and examples, from what its help says."""

from __future__ import annotations

from collections.abc import Iterator

import click

from sim.cli.command_tree import run_command
from sim.cli.examples import EVERYWHERE, EXAMPLES
from sim.cli.main import cli
from sim.reference.docstrings import cell

HEAD = """# Every command

Written from the help of the commands by `make reference`; do not edit it. `softbeam COMMAND --help` shows the same,
and [commands](../commands.md) tells what they are for. Every command has `--help`. `softbeam --version` prints the
version, and `softbeam --install-completion` lets the shell complete words.
"""


def page() -> str:
    """The page of all commands."""
    everywhere = "```bash\n" + "\n".join(EVERYWHERE) + "\n```"
    parts = [HEAD, everywhere, *(_section(words, command) for words, command in commands(run_command(cli)))]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def commands(command: click.Command, words: str = "") -> Iterator[tuple[str, click.Command]]:
    """The words of every command and of every group of commands below one, with itself."""
    for name, below in command.commands.items() if isinstance(command, click.Group) else ():
        found = f"{words} {name}".strip()
        yield found, below
        yield from commands(below, found)


def _section(words: str, command: click.Command) -> str:
    level = "#" * (1 + len(words.split()))
    parts = [f"{level} softbeam {words}", (command.help or "").strip()]
    if isinstance(command, click.Group):
        names = ", ".join(f"`{name}`" for name in command.commands)
        return "\n\n".join([*parts, f"Commands: {names}."])
    shown = [one for one in command.params if not getattr(one, "hidden", False) and one.name != "help"]
    arguments = [one.human_readable_name.upper() + ("..." if one.nargs == -1 else "") for one in _arguments(shown)]
    parts.append(f"`{' '.join(['softbeam', words, *arguments, *(['[OPTIONS]'] if _options(shown) else [])])}`")
    rows = [
        f"| `{one.human_readable_name.upper()}` | {cell(_help(one))} | {'required' if one.required else ''} |"
        for one in _arguments(shown)
    ]
    rows += [f"| {_names(one)} | {cell(_help(one))} | {cell(_default(one))} |" for one in _options(shown)]
    if rows:
        parts.append("\n".join(["| argument or option | meaning | default |", "|---|---|---|", *rows]))
    parts.append("```bash\n" + "\n".join(EXAMPLES.get(words, ())) + "\n```")
    return "\n\n".join(parts)


def _arguments(parameters: list[click.Parameter]) -> list[click.Parameter]:
    return [one for one in parameters if one.param_type_name == "argument"]


def _options(parameters: list[click.Parameter]) -> list[click.Parameter]:
    return [one for one in parameters if one.param_type_name == "option"]


def _help(parameter: click.Parameter) -> str:
    text = str(getattr(parameter, "help", None) or "")
    return text.replace("\\[", "[").replace("<", "&lt;")


def _names(option: click.Parameter) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    is_flag = bool(getattr(option, "is_flag", False))
    return names if is_flag else f"{names} {option.type.name.upper().removesuffix(' RANGE')}"


def _default(option: click.Parameter) -> str:
    if option.required:
        return "required"
    value = option.default
    if value in (None, "", False) or callable(value) or (isinstance(value, (list, tuple)) and not value):
        return ""
    return f"`{value}`" if isinstance(value, str | int | float) else f"`{value!s}`"
