"""Takes a client out of a run: the rounds are run again from where it first had an effect, as if it had never joined.

*Never joined* means: the same experiment, seed and source, the same data of everybody else under the same ids, and a
federation in which the folder of this client is not there. Its passes are dealt to nobody else.

A client has an effect on a run from the round in which it is a member on, for who is invited is drawn from all members.
Before the first round it has none: the teacher is pretrained on the labels of the server, scales come from the public
set, and the controls of a client are its own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from clients.learning.state import SUFFIX
from clients.profile import client_folders
from configs.files import EXPERIMENT, held_alone, write_whole
from configs.loading import to_values
from configs.progress import PhaseProgress
from configs.schema import Experiment
from configs.spelling import did_you_mean
from server.checkpoint import Checkpoint, readable_checkpoints, save_checkpoint
from server.recorder import Recorder
from sim.experiments import check_source, make_data, new_run_folder, resume_experiment
from sim.launch import check_engine
from sim.report.html import write_run_report
from sim.run_note import is_of_code_of_now, read_run
from strategies.messages.records import Event


@dataclass(frozen=True)
class Forgotten:
    """A run from which a client was taken.

    Attributes:
        client: the id of the client.
        folder: the folder of the run without it.
        before: the folder that the run with it had.
        kept_rounds: the number of rounds that were taken over; all later ones were run again. None: nothing but the
            controls of the others was taken over, and the teacher was pretrained again.
        is_in_place: whether the run without it took the place of the run with it.
    """

    client: str
    folder: Path
    before: Path
    kept_rounds: int | None
    is_in_place: bool

    def to_dict(self) -> dict[str, Any]:
        """The values by name."""
        return {**asdict(self), "folder": str(self.folder), "before": str(self.before)}


def forget_client(
    run: Path,
    client: str,
    *,
    in_place: bool = False,
    progress: PhaseProgress = lambda phase, done, total: None,
    began: Callable[[Path], None] = lambda folder: None,
) -> Forgotten:
    """Run a simulated run again without one of its clients, bit-equal to one that the client never joined.

    Args:
        run: the folder of a run that has finished or was stopped; it is left as it is.
        client: the id of the client.
        in_place: whether the new run takes the place of the old one, with which all states of the client are deleted.
        progress: is called with the phase, the work that is done and the whole work.
        began: is called with the new run folder before anything is run in it.

    Raises:
        ValueError: it is no run, it ran on real machines, another source made it, it still runs, or there is no such
            client or no other one.
    """
    run = run.resolve()
    experiment, note = read_run(run)
    _check_kind(run, client, experiment, note)
    check_source(run)
    if not is_of_code_of_now(experiment, note):
        raise ValueError(f"{run}: own modules were changed since it ran; put back what was there, or run it again")
    check_engine(experiment.engine)
    with held_alone(run):
        gone = _gone(run, client, experiment, note, progress)
        kept = readable_checkpoints(run)
        start = next((one for one in kept if _is_untouched(one, client)), None)
        folder = new_run_folder(run.parent, experiment.name)
        rounds = None if start is None else start.federation.round
        about = {"client": client, "run": str(run), "kept_rounds": rounds}
        write_whole(folder / EXPERIMENT, yaml.safe_dump(to_values(experiment), sort_keys=False))
        write_whole(folder / "placement.json", json.dumps({**note, "without": gone, "forgot": about}) + "\n")
        since = "from its beginning" if rounds is None else f"after round {rounds}"
        text = f"forgotten: {run.name} was run again without it {since}"
        Recorder(folder, experiment).write_event(rounds or 0, Event("forgotten", client, text))
        if start is not None:
            _take_over(run, folder, _without(start, client), gone)
        began(folder)
        resume_experiment(folder, progress, controls=_controls(kept, experiment, gone))
        if in_place:
            _take_the_place(folder, run)
    return Forgotten(client, run if in_place else folder, run, rounds, in_place)


def _check_kind(run: Path, client: str, experiment: Experiment, note: Mapping[str, Any]) -> None:
    if "deployment" in note or experiment.engine.name == "deployment":
        raise ValueError(
            f"{run}: ran on real machines, whose students are on their nodes; end the node of {client} with "
            "softbeam deploy revoke DIR NODE, and run the experiment again with softbeam run CONFIG --on DIR"
        )


def _gone(
    run: Path, client: str, experiment: Experiment, note: Mapping[str, Any], progress: PhaseProgress
) -> list[str]:
    """The clients that are not in the new run: those that were forgotten before, and this one."""
    federation = Path(note.get("federation", ""))
    if not (federation / "clients").is_dir():
        federation, _ = make_data(experiment, progress)
    before = [str(one) for one in note.get("without", [])]
    there = [one.name for one in client_folders(federation) if one.name not in before]
    if client not in there:
        raise ValueError(
            f"--client {client}: there is no such client in {run}; there are {', '.join(there)}"
            f"{did_you_mean(client, there)}"
        )
    if len(there) == 1:
        raise ValueError(f"--client {client}: it is the only client of {run}, so nothing is left without it; delete it")
    return [*before, client]


def _is_untouched(checkpoint: Checkpoint, client: str) -> bool:
    """Whether a client had no effect on a checkpoint but for its own controls and its place among the members."""
    return checkpoint.federation.round == 0 or client not in checkpoint.federation.members


def _without(checkpoint: Checkpoint, client: str) -> Checkpoint:
    members = {name: member for name, member in checkpoint.federation.members.items() if name != client}
    findings = dict(checkpoint.findings)
    if "controls" in findings:
        findings["controls"] = {name: found for name, found in findings["controls"].items() if name != client}
    return replace(checkpoint, federation=replace(checkpoint.federation, members=members), findings=findings)


def _controls(
    kept: Sequence[Checkpoint], experiment: Experiment, gone: Sequence[str]
) -> dict[str, Mapping[str, Any]] | None:
    """The controls of the others, which are what they would be without the client; None if one of them has none."""
    found = kept[0].findings.get("controls") if kept and experiment.controls else None
    if not found or not all(found.values()):
        return None
    return {client: metrics for client, metrics in found.items() if client not in gone}


def _take_over(run: Path, folder: Path, checkpoint: Checkpoint, gone: Sequence[str]) -> None:
    """Begin a run folder with a checkpoint of another run, and with what the clients remembered then."""
    done = checkpoint.federation.round
    later = f"[0-9]*{SUFFIX}"

    def after_it(place: str, names: list[str]) -> set[str]:
        return {name for name in names if Path(name).match(later) and int(Path(name).stem) > done}

    for client in checkpoint.federation.members:
        if client not in gone and (memory := run / "clients" / client).is_dir():
            shutil.copytree(memory, folder / "clients" / client, ignore=after_it)
    if (run / "rounds.jsonl").is_file():
        shutil.copyfile(run / "rounds.jsonl", folder / "rounds.jsonl")
    save_checkpoint(folder, checkpoint)


def _take_the_place(folder: Path, run: Path) -> None:
    """Give the folder of a finished run the name of another run, which is deleted with all states in it."""
    aside = run.with_name(f".{run.name}.forgotten")
    run.rename(aside)
    folder.rename(run)
    shutil.rmtree(aside)
    write_run_report(run)
