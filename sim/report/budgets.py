"""What some clients have or do unlike the others, as sentences: budgets, rounds, their part of the public set."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from sim.report.summaries import Summary

MAX_NAMED = 6
_STEPS = {
    "first_round_steps": "{:,} steps in its first round",
    "steps_per_round": "{:,} steps in a later round",
    "batch_size": "batches of {:,}",
}


def budget_lines(summary: Summary) -> list[str]:
    """A line for each way in which clients differ, with the clients that do; none where all are alike.

    Args:
        summary: the summary of a run, as `sim.report.summaries.load_summary` reads it.
    """
    clients: dict[str, list[str]] = {}
    for client in summary["clients"]:
        if differs := client.get("differs"):
            clients.setdefault(json.dumps(differs, sort_keys=True), []).append(client["id"])
    return [f"{_named(names)}: {_in_words(json.loads(differs))}" for differs, names in clients.items()]


def budgets_section(summary: Summary) -> str:
    """HTML that says so; empty where all clients are alike."""
    lines = budget_lines(summary)
    if not lines:
        return ""
    intro = "Some clients differ from what the settings say of all; the controls of a client take as many steps as it:"
    return f"<p>{intro}</p><ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _named(names: Sequence[str]) -> str:
    hidden = len(names) - MAX_NAMED
    return ", ".join(names) if hidden <= 0 else f"{', '.join(names[:MAX_NAMED])} and {hidden} more"


def _in_words(differs: Mapping[str, Any]) -> str:
    parts = []
    if "rounds" in differs:
        first, last = differs["rounds"]
        parts.append(f"round {first} only" if first == last else f"rounds {first} to {last}")
    parts += [
        text.format(differs["training"][key]) for key, text in _STEPS.items() if key in differs.get("training", {})
    ]
    if "public_share" in differs:
        parts.append(f"{differs['public_share']:.0%} of the passes of the public set")
    return "; ".join(parts)
