"""What can be seen of a run from its folder, at any time and by anybody who may read it.

The server of a run writes ``status.json`` while it works and a line of ``rounds.jsonl`` after each round; a deployment
adds the health of its machines. A `RunWatcher` reads these files again and again, and puts them together.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from clients.learning.task import BEAM_WORDING
from configs.files import EXPERIMENT, read_lines
from configs.schema import BEAMS
from server.status import ENDED, is_alive, read_status
from sim.report.run_folders import is_run
from sim.report.summaries import wording_of

# How often the machines of a deployment are asked; its SuperLink may take seconds to answer.
NODES_S = 5.0
# The last rounds whose mean duration says how long the others will take.
RECENT_ROUNDS = 3

Values = Mapping[str, Any]


@dataclass(frozen=True)
class ClientView:
    """A client after the last round that is recorded.

    Attributes:
        id: the client.
        scores: the main metric on the common test set in percent, such as Top-5 of beams, mean of the horizons, after
            each round; None where it has none.
        last_round: the last round in which its answer counted; None if none did.
        uplink_bytes: the bytes that it sent in all rounds; ``downlink_bytes`` are those that it was sent.
        problem: why its answer did not count in the last round that asked it; empty if it did.
    """

    id: str
    scores: tuple[float | None, ...]
    last_round: int | None
    uplink_bytes: int
    downlink_bytes: int
    problem: str

    @property
    def score(self) -> float | None:
        """The last score that is known, in percent."""
        return next((value for value in reversed(self.scores) if value is not None), None)


@dataclass(frozen=True)
class NodeView:
    """A machine of a deployment.

    Attributes:
        name: the name of the machine.
        modality: what it senses; empty for the server.
        status: what the SuperLink says of it, such as ``online``; empty if the SuperLink is not asked from here.
        last_message: the round and the time of the message that it handled last; empty if it is not known here.
        trouble: what is wrong with it; empty if nothing is.
    """

    name: str
    modality: str
    status: str
    last_message: str
    trouble: str


@dataclass(frozen=True)
class RunView:
    """A run at a moment.

    Attributes:
        run: the folder of the run; empty while a deployment has none.
        title: its name and seed.
        state: ``waiting`` (for a run), ``starting``, ``running``, ``finished``, ``stopped``, ``failed`` or ``killed``.
        error: why it failed; empty if it did not.
        phase: the phase under way, with ``done`` of ``total``.
        round: the last round that is complete, of ``rounds``.
        seconds_left: of the phase under way; None if it is not known.
        metric: the title of the main metric of its task, which all scores are of.
        teacher: the score of the teacher in percent after each round.
        clients: the clients, by id.
        nodes: the machines of the deployment; none for a simulation.
    """

    run: str = ""
    title: str = ""
    state: str = "waiting"
    error: str = ""
    phase: str = ""
    done: int = 0
    total: int = 0
    round: int = 0
    rounds: int = 0
    seconds_left: float | None = None
    metric: str = BEAM_WORDING.main_metric.title
    teacher: tuple[float | None, ...] = ()
    clients: tuple[ClientView, ...] = ()
    nodes: tuple[NodeView, ...] = ()

    @property
    def has_ended(self) -> bool:
        """Whether no process works on the run any more."""
        return self.state in (*ENDED, "killed")

    def to_dict(self) -> dict[str, Any]:
        """The view as plain values."""
        return asdict(self)


class RunWatcher:
    """Looks at one run as often as it is asked to.

    Args:
        place: the folder of a run, of several runs (the newest is meant) or of a deployment (its newest run).

    Raises:
        ValueError: the folder is none of these.
    """

    def __init__(self, place: Path) -> None:
        self._runs: Path | None = None  # where a run is to appear
        self._run: Path | None = None
        self._deployment: Path | None = None
        self._find(place)
        self._nodes: tuple[float, tuple[NodeView, ...]] = (0.0, ())
        self._lines: tuple[int, list[dict[str, Any]]] = (-1, [])
        self._marks: dict[str, tuple[float, int]] = {}

    def look(self) -> RunView:
        """What can be seen now."""
        if self._run is None and self._runs is not None:
            self._run = newest_run(self._runs)
        nodes = self._machines()
        if self._run is None:
            return RunView(nodes=nodes)
        status, lines = read_status(self._run), self._rounds(self._run)
        last = max((int(line["round"]) for line in lines), default=0)
        name, title = _metric(self._run, lines)
        return RunView(
            run=str(self._run),
            title=_title(self._run),
            state=_state(self._run, status),
            error=str(status.get("error", "")),
            phase=str(status["phase"]),
            done=int(status["done"]),
            total=int(status["total"]),
            round=max(last, int(status.get("round", 0))),
            rounds=int(status.get("rounds", last)),
            seconds_left=self._seconds_left(status, lines),
            metric=title,
            teacher=tuple(_score(line["teacher"], name) for line in lines),
            clients=_clients(lines, name),
            nodes=nodes,
        )

    def _find(self, place: Path) -> None:
        from sim.deploy.settings import DEPLOYMENT_FILE, SERVER_FILE, load_server, server_folder

        if not place.is_dir():
            what = "it is a file" if place.exists() else "there is no such folder"
            raise ValueError(f"{place}: {what}; give the folder of a run, of runs or of a deployment")
        if any((place / name).is_file() for name in (DEPLOYMENT_FILE, SERVER_FILE)):
            from sim.deploy.machine import ServerMachine

            where = server_folder(place)
            self._deployment = place
            self._runs = ServerMachine(where, load_server(where)).state / "runs"
        elif is_run(place):
            self._run = place
            self._deployment = _deployment_of(place)
        else:
            self._run = newest_run(place)
            if self._run is None:
                raise ValueError(f"{place}: there is no run in this folder; give that of a run or of a deployment")
            self._deployment = _deployment_of(self._run)

    def _rounds(self, run: Path) -> list[dict[str, Any]]:
        """The lines of all rounds; the file is read again only when it has another size."""
        path = run / "rounds.jsonl"
        size = path.stat().st_size if path.is_file() else 0
        if size != self._lines[0]:
            self._lines = (size, [line for line in read_lines(path) if "round" in line])
        return self._lines[1]

    def _machines(self) -> tuple[NodeView, ...]:
        asked, nodes = self._nodes
        if self._deployment is not None and (not asked or time.monotonic() - asked >= NODES_S):
            nodes = _nodes(self._deployment)
            self._nodes = (time.monotonic(), nodes)
        return nodes

    def _seconds_left(self, status: Values, lines: Sequence[Values]) -> float | None:
        """By the pace of the phase since it was first seen; before that, by that of the last rounds."""
        phase, done, total = str(status["phase"]), int(status["done"]), int(status["total"])
        left, rounds = total - done, int(status.get("rounds", 0))
        if status["state"] != "running" or left <= 0:
            return None
        now = time.monotonic()
        first_seen, first_done = self._marks.setdefault(phase, (now, done))
        if done > first_done:
            return (now - first_seen) / (done - first_done) * left
        spent = [float(sum(line["seconds"].values())) for line in lines[-RECENT_ROUNDS:]]
        if phase != "federation" or not spent or not rounds:
            return None
        return sum(spent) / len(spent) * rounds * left / total


def newest_run(folder: Path) -> Path | None:
    """The run in a folder of runs that began last; None if there is none."""
    runs = [path for path in folder.iterdir() if is_run(path)] if folder.is_dir() else []
    return max(runs, key=_begin, default=None)


def _begin(run: Path) -> tuple[float, str]:
    first = run / EXPERIMENT
    return (first if first.is_file() else run).stat().st_mtime, run.name


def _deployment_of(run: Path) -> Path | None:
    """The deployment that a run notes, if it lies on this machine."""
    try:
        folder = Path(json.loads((run / "placement.json").read_text())["deployment"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a simulation, or a note that cannot be read
    return folder if folder.is_dir() else None


def _title(run: Path) -> str:
    values = _experiment(run)
    return f"{values['name']}, seed {values['seed']}" if {"name", "seed"} <= values.keys() else run.name


def _experiment(run: Path) -> Values:
    """The experiment of a run as plain values; nothing where it cannot be read."""
    try:
        values = yaml.safe_load((run / EXPERIMENT).read_text())
    except (OSError, yaml.YAMLError):
        return {}
    return values if isinstance(values, dict) else {}


def _metric(run: Path, lines: Sequence[Values]) -> tuple[str, str]:
    """The name and the title of the main metric of a run's task.

    A task of a user's own names it first; only the summary of a finished run says what it is called in tables.
    """
    if (_experiment(run).get("task") or {}).get("name", BEAMS) == BEAMS:
        return BEAM_WORDING.main, BEAM_WORDING.main_metric.title
    with suppress(OSError, ValueError, KeyError, TypeError):
        wording = wording_of([json.loads((run / "summary.json").read_text())])
        return wording.main, wording.main_metric.title
    name = next((name for line in lines for name in line["teacher"].get("common") or {}), "score")
    return name, name.replace("_", " ").capitalize()


def _state(run: Path, status: Values) -> str:
    state = str(status["state"])
    if (run / "summary.json").is_file() and state not in ("failed", "stopped"):
        return "finished"
    if state not in ENDED and "pid" in status and not is_alive(int(status["pid"])):
        return "killed"
    return state


def _score(entry: Values, name: str) -> float | None:
    """A share, such as Top-5, of a learner on the common test set in percent, the mean of its horizons."""
    values = (entry.get("common") or {}).get(name) or []
    return round(100 * sum(values) / len(values), 2) if values else None


def _clients(lines: Sequence[Values], name: str) -> tuple[ClientView, ...]:
    entries: dict[str, list[tuple[int, Values]]] = {}
    for line in lines:
        for client, entry in line["clients"].items():
            entries.setdefault(client, []).append((int(line["round"]), entry))
    return tuple(_client(client, found, name) for client, found in sorted(entries.items()))


def _client(client: str, entries: Sequence[tuple[int, Values]], name: str) -> ClientView:
    counted = [number for number, entry in entries if not entry.get("problem")]
    return ClientView(
        id=client,
        scores=tuple(_score(entry, name) for _, entry in entries),
        last_round=max(counted, default=None),
        uplink_bytes=_sum(entry.get("uplink_bytes") for _, entry in entries),
        downlink_bytes=_sum(entry.get("downlink_bytes") for _, entry in entries),
        problem=str(entries[-1][1].get("problem") or ""),
    )


def _sum(values: Iterable[int | None]) -> int:
    return sum(value or 0 for value in values)


def _nodes(deployment: Path) -> tuple[NodeView, ...]:
    """The machines of a deployment as the server and their health files tell of them."""
    from sim.deploy.status import deployment_status

    try:
        found = deployment_status(deployment)
    except ValueError as error:
        return (NodeView("deployment", "", "", "", str(error)),)
    machines, known = found["machines"], {row["name"]: row for row in found["nodes"] or []}
    views = []
    for name in dict.fromkeys([*machines, *known]):
        row, health = known.get(name, {}), machines.get(name, {})
        client = health.get("client") or {}
        last = f"round {client['round']} at {client['time']}" if "round" in client else ""
        here = "" if not health else "runs here" if health["running"] else "does not run here"
        trouble = str(health.get("trouble", ""))
        views.append(NodeView(name, row.get("modality", ""), row.get("status", here), last, trouble))
    if found["trouble"]:
        views.append(NodeView("SuperLink", "", "", "", found["trouble"]))
    return tuple(views)
