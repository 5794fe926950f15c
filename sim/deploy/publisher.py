"""Publishes the student of a node: its state becomes graphs, which the canary of the node's store takes or refuses.

What is published is what the client decides by: the state that validated best so far, calibrated, and where
``strategy.keeps`` is ``mixture`` together with its local self, weighed as the client weighs them.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from clients.context import NOTE
from clients.data.recording import Recording, open_recording
from clients.learning.mixture import weigh
from clients.memory import ClientMemory
from clients.models.decider import Decider
from clients.models.own_sensors import add_sensors
from clients.profile import ClientProfile, profiles_of
from clients.serving.canary import Decision, admit
from clients.serving.margins import Margins
from clients.serving.model_store import ModelStore
from clients.training import make_learner, make_student, own_recording
from configs.loading import build_experiment, experiment_digest, source_digest
from configs.placement import plugin_folders
from configs.schema import Experiment
from sim.deploy.machine import NodeMachine
from sim.deploy.publishing import newest_learned, note
from sim.take_home.writer import describe, export_decider


def publish(machine: NodeMachine, *, run: str | None = None, margins: Margins | None = None) -> Decision:
    """Bring the student of a node into its store, through the canary; what came of it is noted in its state folder.

    Args:
        machine: the machine of the node, on which its student is.
        run: the name of a run; None takes the one in which it learned last.
        margins: by how much it may be worse than the current version; None takes the defaults.

    Raises:
        ValueError: it has learned nothing yet, or cannot be published; the message says why.
    """
    learned = newest_learned(machine, run)
    if learned is None:
        where = machine.state / "runs" if run is None else machine.state / "runs" / run
        raise ValueError(f"{where}: {machine.settings.client} has not learned in any round here yet")
    try:
        decision = _published(machine, machine.state / "runs" / learned.run / machine.settings.client, margins)
    except (ValueError, OSError) as error:
        note(machine, learned, error=" ".join(str(error).split()))
        raise
    note(machine, learned, decision=decision.to_dict())
    return decision


def _published(machine: NodeMachine, memory: Path, margins: Margins | None) -> Decision:
    experiment, plugins = _experiment(memory)
    (profile,) = profiles_of(machine.facts(), None)
    state = ClientMemory(memory).load(before_round=10**6)
    if state is None:
        raise ValueError(f"{memory}: no state there can be read")
    decider = decider_of(profile, experiment, state, plugins)
    task = experiment.task
    common = open_recording(profile.test or profile.public)
    starts = common.window_starts(task.num_frames, task.num_future)
    manifest = describe(
        decider,
        experiment,
        name=profile.id,
        kind="student" if len(decider.members) == 1 else "mixture",
        metrics={},
        provenance={
            "run": memory.parent.name,
            "experiment": experiment.name,
            "experiment_digest": experiment_digest(experiment),
            "seed": experiment.seed,
            "state": "kept",
            # Not the round that it is in: the version of a student that did not become better is the same one.
            "round": state["learner"]["progress"]["best_round"],
            "source_digest": source_digest(),
            "node": machine.settings.name,
            "torch": version("torch"),
        },
    )
    with tempfile.TemporaryDirectory() as place:
        written = export_decider(Path(place) / profile.id, decider, manifest, (common, starts))
        return admit(ModelStore(machine.models), written.folder, _judged_on(profile, experiment), margins=margins)


def decider_of(
    profile: ClientProfile, experiment: Experiment, state: Mapping[str, Any], plugins: Sequence[Path]
) -> Decider:
    """What a client decides by, from what it remembers.

    Args:
        profile: the profile of the client.
        experiment: the experiment that it learned in.
        state: its memory.
        plugins: the folders in which the module of a student of one's own may lie.
    """
    learners, shares = [state["learner"]], [1.0]
    if "local" in state:
        student, local = (
            make_learner(profile, experiment, plugins=plugins, state=state[one]) for one in ("learner", "local")
        )
        share = weigh(student, local, experiment.strategy.mixture_windows).share
        learners, shares = [state["learner"], state["local"]], [share, 1.0 - share]
    members = []
    for learner in learners:
        tracker = make_student(experiment, client=profile.id, modality=profile.modality, plugins=plugins)
        tracker.load_state_dict(learner["best_model"])
        members.append(tracker.eval())
    return Decider(members, temperatures=[one["progress"]["best_temperature"] for one in learners], shares=shares)


def _experiment(memory: Path) -> tuple[Experiment, tuple[Path, ...]]:
    """The experiment that a client learned in, and where modules of a user's own may lie."""
    try:
        values = json.loads((memory / NOTE).read_text())
        experiment = build_experiment(values["experiment"], origin=str(memory / NOTE))
        plugins = plugin_folders(values["plugins"])
    except (OSError, KeyError, TypeError) as error:
        raise ValueError(
            f"{memory / NOTE}: cannot be read ({error}); it is written with the first round that this version runs"
        ) from None
    add_sensors(experiment.data.sensors, plugins)
    if not experiment.task.is_beam_tracking:
        raise ValueError(f"{memory}: a store is about beams, and this is a run of {experiment.task.name}")
    return experiment, plugins


def _judged_on(profile: ClientProfile, experiment: Experiment) -> Recording | None:
    """What the canary looks at: the node's own recording or, where that has no labels, the common test set."""
    own = own_recording(profile, experiment)
    if own is not None and own.power is not None:
        return own
    return None if profile.test is None else open_recording(profile.test)
