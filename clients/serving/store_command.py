"""``softbeam store``: bring versions of a model into a store, look at them, choose one, and go back.

Where typer is installed, `sim.cli.store` offers the same commands; on a node without it, :func:`main` does.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clients.serving.canary import Decision, admit, recording_for
from clients.serving.manifest import read_manifest
from clients.serving.margins import Margins
from clients.serving.model_store import ModelStore, digest_of, is_store


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The versions of a store, oldest first: name, state, model, where it is from and what the canary said.

    Raises:
        ValueError: the folder is not a store.
    """
    store = opened(folder)
    state, rows = store.state(), []
    for name in store.versions():
        manifest, canary = read_manifest(store.version(name)), store.canary(name) or {}
        is_banned = digest_of(store.version(name)) in state.banned
        kind = "current" if name == state.current else "before" if name in state.before else "kept"
        rows.append(
            {
                "version": name,
                "state": "refused" if is_banned else kind,
                "model": manifest.name,
                "run": manifest.provenance.get("run"),
                "round": manifest.provenance.get("round"),
                "time": canary.get("time"),
                "canary": canary.get("reason", "not compared"),
            }
        )
    return rows


def added(
    folder: Path, model: Path, passes: Path | None, *, margins: Margins | None = None, unchecked: bool = False
) -> Decision:
    """Bring an exported model into a store, through the canary unless ``unchecked``.

    Raises:
        ValueError: the reasons are those of `clients.serving.canary.admit`.
    """
    store = ModelStore(folder)
    if not unchecked:
        return admit(store, model, None if passes is None else recording_for(passes, model), margins=margins)
    with store.writing():
        name = store.put(model)
        store.switch_to(name)
    return Decision(name, True, "was chosen without a comparison")


def used(folder: Path, version: str) -> str:
    """Make a version of a store current by name, also one that was refused; a sentence that says so.

    Raises:
        ValueError: there is no such version, or it has another form.
    """
    store = opened(folder)
    with store.writing():
        before = store.state().current
        store.switch_to(version)
    return f"{version} is current" + ("" if before in (None, version) else f", after {before}")


def rolled_back(folder: Path, why: str = "rolled back") -> tuple[str, str]:
    """Go back to the version before the current one; both names, the one that was current first.

    Raises:
        ValueError: there is no version before it.
    """
    store = opened(folder)
    with store.writing():
        return store.roll_back(why)


def opened(folder: Path) -> ModelStore:
    """The store in a folder.

    Raises:
        ValueError: there is none.
    """
    if not is_store(folder):
        raise ValueError(f"{folder}: not a store of models; softbeam store add makes one")
    return ModelStore(folder)


def decision_line(decision: Decision) -> str:
    """What became of a new version, as a line for a reader."""
    return f"{decision.version or 'it'} {'is current' if decision.is_current else 'is not served'}: {decision.reason}"


def main(words: Sequence[str] | None = None) -> int:
    """The commands on a node without typer; the exit code."""
    parser = argparse.ArgumentParser(prog="softbeam store", description="Versions of a model, of which one is served.")
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="show the versions of a store")
    adding = commands.add_parser("add", help="bring a version in, and serve it unless it is worse")
    choosing = commands.add_parser("use", help="serve a version by name")
    going_back = commands.add_parser("rollback", help="serve the version before the current one again")
    for one in (listing, adding, choosing, going_back):
        one.add_argument("store", type=Path, help="the folder of the store")
    adding.add_argument("model", type=Path, help="a folder that softbeam export wrote")
    adding.add_argument("--passes", type=Path, help="a recording with power, on whose last passes both are compared")
    adding.add_argument("--unchecked", action="store_true", help="serve it without a comparison")
    adding.add_argument("--top5-margin", type=float, default=Margins.top5_points, help="points of Top-5 it may lose")
    adding.add_argument("--power-margin", type=float, default=Margins.power_loss_db, help="dB of power it may lose")
    adding.add_argument("--last", type=int, default=Margins.passes, help="how many of the last passes are looked at")
    choosing.add_argument("version", help="the name of the version")
    going_back.add_argument("--why", default="rolled back", help="what is noted as the reason")
    listing.add_argument("--json", action="store_true", dest="as_json", help="print JSON")
    given = parser.parse_args(words)
    try:
        line, code = _done(given)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 1
    sys.stdout.write(f"{line}\n")
    return code


def _done(given: argparse.Namespace) -> tuple[str, int]:
    """What a command says, and its exit code."""
    if given.command == "add":
        margins = Margins(given.top5_margin, given.power_margin, given.last)
        decision = added(given.store, given.model, given.passes, margins=margins, unchecked=given.unchecked)
        return decision_line(decision), 0 if decision.is_current else 1
    if given.command == "use":
        return used(given.store, given.version), 0
    if given.command == "rollback":
        was, now = rolled_back(given.store, given.why)
        return f"{now} is current again; {was} never comes back", 0
    rows = rows_of(given.store)
    if given.as_json:
        return json.dumps(rows, indent=1), 0
    return "\n".join(f"{row['version']}  {row['state']:8} {row['model']}  {row['canary']}" for row in rows), 0
