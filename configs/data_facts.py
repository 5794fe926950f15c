"""What an experiment takes from its data where nothing else is said, so that it need not be said twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from configs.files import map_array, read_plain
from configs.paths import expanded


def with_facts(values: Any, origin: str = "experiment") -> Any:
    """Plain values of an experiment with what its data says; what is given stays, and is checked later.

    A street says how many beams its array has. A ready federation says how many beams or classes its rows have, its
    clients and the sensors that its server lacks; where each of its passes is one row, the task has one frame and no
    future slot. A folder that was read once is not read again: what a run keeps of its experiment stays readable when
    the data is gone.

    Args:
        values: nested dictionaries and lists, as YAML gives them; what is no experiment is left alone.
        origin: where the values come from, for the error.

    Raises:
        ValueError: the folder is not that of a federation.

    Example:
        >>> with_facts({"data": {"source": "street", "world": {"num_beams": 16}}, "task": {"num_future": 0}})["task"]
        {'num_beams': 16, 'num_future': 0}
    """
    if not isinstance(values, dict) or not isinstance(values.get("data"), dict):
        return values
    task, data = values.get("task", {}), values["data"]
    world = data.get("world", {})
    if not isinstance(task, dict):
        return values
    if data.get("source") == "folder" and isinstance(data.get("folder"), str):
        folder = Path.cwd() / expanded(data["folder"])
        facts: dict[str, Any] = {}
        said = {key: data[key] for key in ("num_beams", "num_classes") if data.get(key) is not None}
        if "nodes" in data and said:
            says = said
        else:
            try:
                facts, says = _facts_of(folder)
            except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
                raise ValueError(
                    f"{origin}: data.folder: {folder}: not a whole federation ({_reason(error)}); "
                    "`softbeam data validate FOLDER` says all that is wrong, docs/data.md what it should be"
                ) from None
        if task.keys() & {"num_beams", "num_classes"}:
            says = {key: value for key, value in says.items() if key not in ("num_beams", "num_classes")}
        return {**values, "data": {**facts, **data, "folder": str(folder)}, "task": {**says, **task}}
    if isinstance(world, dict) and "num_beams" in world:
        return {**values, "task": {"num_beams": world["num_beams"], **task}}
    return values


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _facts_of(folder: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """What a federation says of its own section and of the task."""
    # It is imported here, since commands that read no data start sooner without it.
    import numpy as np

    sensed = [_manifest(one)["modalities"][0] for one in recordings_of_clients(folder)]
    if not sensed:
        raise ValueError("clients/ has no folder with a recording.json")
    has = _manifest(folder / "server")["modalities"]
    if (num_classes := _manifest(folder / "server").get("num_classes")) is not None:
        says = {"num_classes": int(num_classes)}
    else:
        says = {"num_beams": int(_array(folder / "server" / "power.npy").shape[1])}
    facts = {
        "nodes": [{"modality": name} for name in sensed],
        **says,
        "server_lacks": [name for name in dict.fromkeys(sensed) if name not in has],
    }
    pass_ids = _array(folder / "server" / "pass_ids.npy")
    if _manifest(folder / "server").get("every_window") and len(np.unique(pass_ids)) == len(pass_ids) > 0:
        says |= {"num_frames": 1, "num_future": 0}
    return facts, says


def recordings_of_clients(federation: Path) -> list[Path]:
    """The folders of the clients' recordings in a federation, in order of their numbers; empty if there are none."""
    return sorted(path for path in (federation / "clients").glob("[!.]*") if (path / "recording.json").is_file())


def _array(path: Path) -> Any:
    try:
        return map_array(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _manifest(recording: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(read_plain(recording / "recording.json"))
    return manifest
