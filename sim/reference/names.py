"""The page of what Python code of a user may call: the module ``softbeam``, and what rules and strategies import."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import softbeam
from sim.reference.docstrings import parse

# What classes of a user's own import from the rooms: names that the guides have taught, and that stay.
PLUGIN_NAMES = {
    "strategies.aggregation": ("align", "weighted_mean", "weighted_product", "confidence", "Votes"),
    "strategies.labels": ("Contribution", "SoftLabels"),
    "strategies.distillation": ("DistillationStrategy",),
    "clients.sensing.streaming": ("LiveTracker",),
}

HEAD = """# Every name in Python

Written from the docstrings by `make reference`; do not edit it. [From Python](../tutorials/python.md) shows the
names at work.
"""


def page() -> str:
    """The page of all public names."""
    parts = [HEAD, "## softbeam", parse(softbeam.__doc__).to_markdown()]
    parts += [_section("softbeam", name) for name in softbeam.__all__]
    for module, names in PLUGIN_NAMES.items():
        parts += [f"## {module}", *(_section(module, name) for name in names)]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _section(module: str, name: str) -> str:
    thing = getattr(import_module(module), name)
    parts = [f"### {module}.{name}", _signature(name, thing), parse(thing.__doc__).to_markdown()]
    if isinstance(thing, type):
        parts += [_member(thing, member, value) for member, value in members(thing)]
    return "\n\n".join(part for part in parts if part)


def members(kind: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties of a class that are ours and have a docstring, in the order of the source."""
    seen: set[str] = set()
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] not in softbeam.ROOMS:
            continue
        for name, value in vars(base).items():
            function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
            if name.startswith("_") or name in seen or not inspect.isfunction(function) or not function.__doc__:
                continue
            seen.add(name)
            yield name, value


def _member(kind: type, name: str, value: Any) -> str:
    if isinstance(value, property):
        return f"#### {kind.__name__}.{name}\n\n{parse(value.__doc__).to_markdown()}"
    function = getattr(value, "__func__", value)
    is_bound = isinstance(value, classmethod) or not isinstance(value, staticmethod)
    title = f"#### {kind.__name__}.{name}()"
    return "\n\n".join([title, _signature(name, function, skips_first=is_bound), parse(function.__doc__).to_markdown()])


def _signature(name: str, thing: Any, *, skips_first: bool = False) -> str:
    """How a thing is called, as code; empty if that is not known."""
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):
        return ""
    parameters = list(signature.parameters.values())[1 if skips_first else 0 :]
    returns = signature.return_annotation if not isinstance(thing, type) else inspect.Signature.empty
    text = f"{name}{signature.replace(parameters=parameters, return_annotation=returns)}"
    return f"```python\n{text.replace(chr(39), '')}\n```"
