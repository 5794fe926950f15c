"""The work of a round that every arm of the benchmark of speed does: the same students, data, targets and steps.

A *script* fixes it: an experiment, its data, and what the server of a reference run asked of its clients in each round.
So an arm without a server of ours digests the targets that ours would have sent, and all arms owe the same soft labels.

C clients, N public samples, H horizons, B beams.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.learning.learner import Learner
from clients.learning.lessons import public_lesson
from clients.profile import profiles_of
from clients.training import make_learner
from configs.files import write_whole
from configs.loading import build_experiment, to_values
from configs.schema import Experiment
from strategies.labels import SoftLabels

SCRIPT, TARGETS, LABELS, ROUNDS = "script.json", "targets.npz", "labels.npy", "rounds.json"
Labels = Sequence[NDArray[np.float32]]
"""For each client (N, H, B) soft labels; empty for clients that learn nothing."""
Note = Callable[[int], None]
"""A callable that gets the number of a round that has ended; 0 when the first one begins."""


@dataclass(frozen=True)
class Script:
    """What all arms work on.

    Attributes:
        experiment: the experiment; its rounds are those that an arm takes.
        federation: the folder of the recordings.
    """

    experiment: Experiment
    federation: Path

    @property
    def num_clients(self) -> int:
        """The number of clients."""
        return sum(nodes.count for nodes in self.experiment.data.groups)

    @property
    def num_rounds(self) -> int:
        """The number of rounds, the first one included."""
        return self.experiment.strategy.rounds

    def write(self, folder: Path) -> None:
        """Write the script into a folder, from which :func:`read_script` takes it."""
        values = {"experiment": to_values(self.experiment), "federation": str(self.federation)}
        write_whole(folder / SCRIPT, json.dumps(values))


def read_script(folder: Path) -> Script:
    """The script in a folder."""
    values = json.loads((folder / SCRIPT).read_text())
    return Script(build_experiment(values["experiment"], origin="the script"), Path(values["federation"]))


def write_targets(folder: Path, by_round: Mapping[int, SoftLabels]) -> None:
    """Write the targets that the clients of the reference run got: round -> soft labels."""
    arrays = {
        f"{part}-{number}": getattr(one, part) for number, one in by_round.items() for part in ("sample_ids", "probs")
    }
    np.savez(folder / TARGETS, allow_pickle=False, **arrays)


def read_targets(folder: Path, temperature: float) -> dict[int, SoftLabels]:
    """The targets in a folder: round -> soft labels."""
    with np.load(folder / TARGETS, allow_pickle=False) as file:
        numbers = sorted(int(name.partition("-")[2]) for name in file.files if name.startswith("probs-"))
        return {
            number: SoftLabels(file[f"sample_ids-{number}"], file[f"probs-{number}"], temperature) for number in numbers
        }


def learner_of(script: Script, partition: int, state: Mapping[str, Any] | None = None) -> Learner:
    """The learner of a client as Softbeam makes it: fresh, or as it was when it had this state."""
    (profile,) = profiles_of({"partition-id": partition}, script.federation)
    return make_learner(profile, script.experiment, state=state)


def take_part(script: Script, learner: Learner, targets: SoftLabels | None) -> NDArray[np.float32]:
    """The training step of a client: digest the targets, learn from own labels, answer for all public samples.

    Returns:
        (N, H, B) soft labels.
    """
    training = script.experiment.training
    rounds = script.experiment.expected_rounds(learner.name, learner.model.modalities[0])
    learner.learn(
        public_lesson(targets),
        num_steps=training.steps(learner.progress.round + 1),
        total_steps=training.total_steps(rounds),
    )
    return answers_of(script, learner)


def answers_of(script: Script, learner: Learner) -> NDArray[np.float32]:
    """(N, H, B) soft labels of a learner for all public samples."""
    return learner.answer(np.arange(len(learner.material.public_starts)), script.experiment.strategy.temperature)


@lru_cache(maxsize=1)
def script_of_worker(folder: Path) -> Script:
    """The script in a folder, which a worker process reads once."""
    return read_script(folder)
