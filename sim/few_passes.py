"""Measures federations of few passes on measured scenarios: is any client worse off than alone, does any arm collapse?

Each case is one scenario, one number of passes for every client and the server, and one seed: two GPS clients, the
settings of ``deepsense`` with fewer steps. Scores are Top-5 on a client's own test passes, mean of the horizons, in
percent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from rich.table import Table

from clients.data.recording import Recording, open_recording
from clients.learning.baselines import nearest_position
from clients.learning.metrics import BeamMetrics
from clients.profile import client_folders
from configs.loading import data_digest, load_experiment, to_values
from configs.schema import Experiment, Task
from server.checkpoint import load_checkpoint
from server.recorder import ARMS, CONTROL_ARMS, read_rounds
from sim.temporary_run import temporary_run
from sim.worksheet import SheetRow, row_key

NUM_CLIENTS = 2
OWN_TESTS = 2
QUICK = (
    "strategy.rounds=4",
    "strategy.public_samples=400",
    "training.first_round_steps=200",
    "training.steps_per_round=50",
    "teaching.pretrain_steps=400",
    "engine.name=inline",
)
LOOK_UP = "nearest_position"
COLLAPSE_POINTS = 5.0
"""An arm has collapsed if it is more than so many points of Top-5 below the nearest known position."""


@dataclass(frozen=True)
class FewCase:
    """One case of the benchmark.

    Attributes:
        scenario: the folder of a scenario with positions.
        passes: the labelled passes of each client, and of the server.
        seed: the seed of passes and networks.
        overrides: entries ``dotted.path=value`` that come last.
    """

    scenario: Path
    passes: int
    seed: int
    overrides: tuple[str, ...] = ()

    @property
    def experiment(self) -> Experiment:
        """The experiment of the case.

        Raises:
            ValueError: an override is wrong.
        """
        dealt = [
            f"seed={self.seed}",
            f"data.folder={self.scenario}",
            f"data.nodes=[{{modality: gps, count: {NUM_CLIENTS}}}]",
            f"data.passes.server={self.passes}",
            f"data.passes.client={NUM_CLIENTS * self.passes}",
            f"data.passes.client_test={OWN_TESTS}",
        ]
        return load_experiment("deepsense", [*QUICK, *dealt, *self.overrides])

    @property
    def key(self) -> str:
        """The key of its row in a sheet."""
        title = f"few {self.scenario.name} passes {self.passes} seed {self.seed}"
        experiment = self.experiment
        return row_key(title, to_values(experiment), data_digest(experiment))


def run_case(case: FewCase) -> SheetRow:
    """Run the federation of a case with its controls, and score the nearest position as a baseline.

    Returns:
        For every client and for the teacher the Top-5 of each arm and of the baseline, in percent; null for a client
        that failed.

    Raises:
        ValueError: the scenario cannot be read, or has too few passes.
    """
    experiment = case.experiment
    with temporary_run(experiment) as placement:
        federation = placement.federation
        checkpoint, last = load_checkpoint(placement.run), read_rounds(placement.run)[-1]
    controls: Mapping[str, Mapping[str, Any]] = {} if checkpoint is None else checkpoint.findings["controls"]
    test = open_recording(federation / "test")
    clients = {}
    for folder in client_folders(federation):
        own = open_recording(folder)
        metrics = {arm: controls.get(folder.name, {}).get(f"{arm}.own.top5") for arm in CONTROL_ARMS}
        metrics["federated"] = (last["clients"][folder.name]["own"] or {}).get("top5")
        scores = {arm: None if values is None else 100.0 * fmean(values) for arm, values in metrics.items()}
        clients[folder.name] = scores | {LOOK_UP: _look_up(own, own, experiment.task, "test")}
    server = open_recording(federation / "server")
    return {
        "scenario": case.scenario.name,
        "passes": case.passes,
        "seed": case.seed,
        "clients": clients,
        "teacher": {
            "after": 100.0 * fmean(last["teacher"]["common"]["top5"]),
            LOOK_UP: _look_up(server, test, experiment.task, None),
        },
    }


def _look_up(own: Recording, recording: Recording, task: Task, split: str | None) -> float:
    """The Top-5 of the nearest position of all labelled windows, held-out ones included."""
    lengths = (task.num_frames, task.num_future)
    known = np.concatenate([own.window_starts(*lengths, name) for name in ("train", "validation")])
    starts = recording.window_starts(*lengths, split)
    scores = nearest_position(own, known, recording, starts, task)
    return 100.0 * BeamMetrics.of(scores, recording.powers(starts, *lengths)).mean("top5")


@dataclass(frozen=True)
class FewSummary:
    """What the cases of one number of passes show, in points of Top-5 on own test passes.

    Attributes:
        passes: the number of passes; None for all cases.
        num: the number of clients times seeds and scenarios.
        num_failed: how many more have no result in some arm, and are left out.
        means: arm or baseline -> its mean.
        worst: the smallest difference federated minus local only of any client in any seed.
        num_lost: how many of them are below -3.
        worst_mean: the smallest mean over seeds of this difference, of any scenario and client.
        num_mean_lost: how many of these means are below -1.
        collapsed: arm -> in how many scenarios its mean over clients and seeds is `COLLAPSE_POINTS` below the baseline.
    """

    passes: int | None
    num: int
    num_failed: int
    means: Mapping[str, float]
    worst: float
    num_lost: int
    worst_mean: float
    num_mean_lost: int
    collapsed: Mapping[str, int]


def summaries(rows: Sequence[SheetRow]) -> list[FewSummary]:
    """A summary for every number of passes, and the last for all.

    Raises:
        ValueError: no client of some number of passes has a result in every arm.
    """
    passes = sorted({row["passes"] for row in rows})
    return [_summary(number, [row for row in rows if number in (None, row["passes"])]) for number in (*passes, None)]


def _summary(passes: int | None, rows: Iterable[SheetRow]) -> FewSummary:
    every = [
        ((row["scenario"], row["passes"]), client, scores) for row in rows for client, scores in row["clients"].items()
    ]
    cases = [(cell, client, scores) for cell, client, scores in every if None not in scores.values()]
    if not cases:
        raise ValueError(f"{passes} passes: no client has a result in every arm; delete these rows, and run them again")
    means = {arm: fmean(scores[arm] for *_, scores in cases) for arm in (*ARMS, LOOK_UP)}
    lost: dict[tuple[Any, str], list[float]] = {}
    cells: dict[Any, list[Mapping[str, float]]] = {}
    for cell, client, scores in cases:
        lost.setdefault((cell, client), []).append(scores["federated"] - scores["local"])
        cells.setdefault(cell, []).append(scores)
    differences = [value for values in lost.values() for value in values]
    of_clients = [fmean(values) for values in lost.values()]
    collapsed = {
        arm: sum(
            fmean(scores[arm] - scores[LOOK_UP] for scores in members) < -COLLAPSE_POINTS for members in cells.values()
        )
        for arm in ARMS
    }
    return FewSummary(
        passes=passes,
        num=len(cases),
        num_failed=len(every) - len(cases),
        means=means,
        worst=min(differences),
        num_lost=sum(value < -3.0 for value in differences),
        worst_mean=min(of_clients),
        num_mean_lost=sum(value < -1.0 for value in of_clients),
        collapsed=collapsed,
    )


def few_table(found: Sequence[FewSummary]) -> Table:
    """The mean of each arm by number of passes, and what the federation costs clients; the last row is for all."""
    table = Table(
        *("passes", "cases", "nearest position", "local only", "offline KD", "federated"),
        *("worst case", "below -3", "worst mean of seeds", "below -1", "collapsed"),
    )
    for one in found:
        means = [f"{one.means[arm]:.1f}" for arm in (LOOK_UP, "local", "offline_kd", "federated")]
        lost = [f"{one.worst:+.1f}", str(one.num_lost), f"{one.worst_mean:+.1f}", str(one.num_mean_lost)]
        table.add_row(
            "all" if one.passes is None else str(one.passes),
            f"{one.num}, {one.num_failed} failed" if one.num_failed else str(one.num),
            *means,
            *lost,
            ", ".join(f"{arm} {count}" for arm, count in one.collapsed.items() if count) or "none",
        )
    return table
