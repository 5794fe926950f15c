"""What a launch notes in a run folder before the run begins: the experiment, and where its data and plug-ins are.

The digest of the user's own modules is noted, too (``own_code``). A run that went on after they were edited has the
digests of both, such as ``0a1b+2c3d``: some of its rounds are of each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from configs.files import EXPERIMENT
from configs.loading import build_experiment, to_values
from configs.own_code import own_code_digest
from configs.placement import plugin_folders
from configs.schema import Experiment


def first_note(experiment: Experiment, plugins: Sequence[Path], **more: Any) -> dict[str, Any]:
    """What a launch notes before anything else is done.

    Args:
        experiment: the experiment.
        plugins: the folders in which a user's own modules are looked for.
        more: what else the launch knows by then.
    """
    own_code = own_code_digest(to_values(experiment), plugins)
    return {"plugins": [str(one) for one in plugins], "data_seconds": 0.0, "own_code": own_code, **more}


def with_code_of_now(experiment: Experiment, note: Mapping[str, Any]) -> dict[str, Any]:
    """The note of a run that goes on now: if the user's own modules were edited meanwhile, it names both versions."""
    known = str(note.get("own_code", ""))
    now = own_code_digest(to_values(experiment), plugin_folders(note["plugins"]))
    return (
        dict(note) if "own_code" not in note or known.split("+")[-1] == now else {**note, "own_code": f"{known}+{now}"}
    )


def is_of_code_of_now(experiment: Experiment, note: Mapping[str, Any]) -> bool:
    """Whether the user's own modules are those of all rounds of a run; so it is for a run that noted none."""
    now = own_code_digest(to_values(experiment), plugin_folders(note["plugins"]))
    return bool(note.get("own_code", now) == now)


def read_run(folder: Path) -> tuple[Experiment, dict[str, Any]]:
    """The experiment of a run folder and the note (placement.json) that the launch left there.

    Raises:
        ValueError: the folder is not the folder of a run.
    """
    try:
        values = yaml.safe_load((folder / EXPERIMENT).read_text())
        note = json.loads((folder / "placement.json").read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(
            f"{folder}: not the folder of a run, which has experiment.yaml and placement.json; put back what is "
            f"missing, or name another folder ({' '.join(str(error).split())})"
        ) from None
    if not isinstance(note, dict) or not {"plugins", "data_seconds"} <= note.keys():
        raise ValueError(f"{folder / 'placement.json'}: plugins or data_seconds is missing; run the experiment again")
    return build_experiment(values, origin=str(folder / EXPERIMENT)), note
