"""The section of a report that says how its runs are made again: the command, the snapshot, versions and digests."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from configs.files import EXPERIMENT
from sim.report.page import table
from sim.report.summaries import Summary

# A class of a user's own, as a YAML names it: ``module:Class``.
_PLUGIN = re.compile(r"[A-Za-z_]\w*:[A-Za-z_]\w*")


def reproduction_command(runs: Sequence[Path], summaries: Sequence[Summary]) -> str:
    """The command that makes the runs again, for a POSIX shell in any folder of the machine that they were made on.

    The snapshot of the experiment lies in the folder of the first run. Where it names modules of a user's own, these
    are looked for in the current folder, so the command goes to the folder that they lie in.

    Args:
        runs: the folders of the runs.
        summaries: their summaries, as `sim.report.summaries.load_summary` reads them.
    """
    note = _read_json(runs[0] / "placement.json")
    words = ["softbeam", "run", str(runs[0].resolve() / EXPERIMENT)]
    if len(summaries) > 1:
        words += ["--seeds", ",".join(str(seed) for seed in dict.fromkeys(one["seed"] for one in summaries))]
    if "deployment" in note:
        words += ["--on", str(note["deployment"])]
    folders = [str(folder) for folder in _plugin_folders(note, summaries[0])]
    move = f"cd {shlex.quote(folders[0])} && " if folders else ""
    path = f"PYTHONPATH={shlex.quote(':'.join(folders[1:]))} " if len(folders) > 1 else ""
    return f"{move}{path}{shlex.join(words)}"


def reproduction_section(runs: Sequence[Path], summaries: Sequence[Summary]) -> str:
    """The command, and what else must be the same: the experiment, the source, the versions.

    Raises:
        ValueError: what a run noted about its machine is not readable.
    """
    lines = []
    for run, summary in zip(runs, summaries, strict=True):
        environment = _read_json(run / "environment.json")
        versions = ", ".join(f"{name} {version}" for name, version in environment.get("versions", {}).items())
        machine = f"Python {environment.get('python', '?')}, {versions or 'versions not recorded'}"
        digests = [str(environment.get(f"{kind}_digest", "-")) for kind in ("experiment", "source")]
        commit = str(environment.get("commit") or "not recorded")[:12]
        who = [run.resolve().name, str(summary["seed"]), summary["engine"], f"{summary['seconds']['total']:.0f}"]
        lines.append((False, [escape(cell) for cell in (*who, *digests, commit, machine)]))
    header = [("Run", ""), ("Seed", ""), ("Engine", ""), ("Time", "s"), ("Experiment", "digest"), ("Source", "digest")]
    header += [("Source", "commit"), ("Versions", "")]
    snapshot = runs[0] / EXPERIMENT
    text = snapshot.read_text() if snapshot.exists() else "not recorded"
    plugins = _plugin_names(summaries[0])
    beside = f" beside {', '.join(f'{name}.py' for name in plugins)}" if plugins else ""
    engines = {summary["engine"] for summary in summaries}
    same = (
        "<p>The same experiment, seed and source give the same soft labels on CPU, on the engines ray and inline.</p>"
        if "deployment" not in engines
        else ""
    )
    return (
        "<p>In the environment of the checkout, on the machine of the run, from any folder:</p>"
        f'<pre tabindex="0">{escape(reproduction_command(runs, summaries))}</pre>'
        f"<p>Elsewhere, save the snapshot below as experiment.yaml{escape(beside)}, and give that file instead.</p>"
        + same
        + table(header, lines, numeric={3})
        + "<details><summary>experiment.yaml</summary>"
        + f'<pre tabindex="0">{escape(text)}</pre></details>'
    )


def _plugin_names(summary: Summary) -> list[str]:
    """The modules of a user's own that an experiment names."""
    values = summary.get("settings", {}).values()
    names = [value.partition(":")[0] for value in values if isinstance(value, str) and _PLUGIN.fullmatch(value)]
    return list(dict.fromkeys(names))


def _plugin_folders(note: Mapping[str, Any], summary: Summary) -> list[Path]:
    """The folders in which the run found these modules."""
    noted = note.get("plugins", [])
    # A run of an older version noted one folder.
    folders = [Path(folder) for folder in ([noted] if isinstance(noted, str) else noted)]
    places = (
        next((folder for folder in folders if (folder / f"{name}.py").is_file()), None)
        for name in _plugin_names(summary)
    )
    return list(dict.fromkeys(folder.resolve() for folder in places if folder is not None))


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text()) if path.exists() else {}
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error}); delete it to write the report without it") from None
    return found if isinstance(found, dict) else {}
