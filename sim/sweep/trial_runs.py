"""A trial of a sweep: the runs of one experiment, each a process of its own, and how well they validate.

A run is started as a user would start it, with ``--continue``: what a sweep that was stopped has finished is not run
again, and what it began goes on from its last checkpoint. Scores are of validation passes; tests are not looked at.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.files import read_lines
from server.recorder import VALIDATION_FILE
from sim.run_note import read_run

LOOK_S = 0.5
"""How often the record of a run is looked at."""
STOP_S = 60.0
"""How long a run may take to stop once it is asked to."""


class PrunedError(Exception):
    """A trial was given up, because its rounds validate worse than those of others did."""


@dataclass(frozen=True)
class TrialRuns:
    """The runs of a trial.

    Attributes:
        config: the YAML file, or the name of one in ``configs/``.
        overrides: ``dotted.path=value`` entries, those of the trial among them.
        seeds: the seeds, one run each.
        folder: the folder for the run folders of this trial.
    """

    config: str
    overrides: Sequence[str]
    seeds: Sequence[int]
    folder: Path

    def words(self, seed: int) -> list[str]:
        """The words of the command line for the run of a seed, after ``softbeam``."""
        words = ["run", self.config, *(word for one in self.overrides for word in ("--set", one))]
        return [*words, "--seeds", str(seed), "--out", str(self.folder), "--continue", "--json"]

    def score(self, watch: Callable[[int, float], None]) -> float:
        """Run what has not run yet, and return the validation score.

        Args:
            watch: is called for every round, in order, with its number, counted over all seeds from 1, and the score of
                the seeds until then; it raises `PrunedError` to end the trial.

        Returns:
            The mean over the seeds of :func:`run_score`.

        Raises:
            PrunedError: ``watch`` gave the trial up.
            ValueError: a run failed, or nothing was validated in it.
        """
        scores: list[float] = []
        done = 0
        for seed in self.seeds:
            with closing(self._rounds(seed)) as rounds:  # a run that is given up ends here
                for value in rounds:
                    done += 1
                    watch(done, mean_score([*scores, value]))
            found = run_score(self._run_of(seed))
            if found is None:
                raise ValueError(
                    f"{self._run_of(seed)}: no client has validation passes, by which a sweep chooses; "
                    "set data.passes.validation_share"
                )
            scores.append(found)
        return mean_score(scores)

    def _rounds(self, seed: int) -> Generator[float]:
        """The score after each round of a run that is started here, as soon as the round is over."""
        self.folder.mkdir(parents=True, exist_ok=True)
        seen = 0
        with (
            (self.folder / f"seed-{seed}.txt").open("w") as log,
            subprocess.Popen(
                [sys.executable, "-m", "softbeam", *self.words(seed)],
                stdout=subprocess.DEVNULL,
                stderr=log,
                stdin=subprocess.DEVNULL,
            ) as process,
        ):
            try:
                while True:
                    has_ended = process.poll() is not None
                    rounds = self._record_of(seed)
                    for line in rounds[seen:]:
                        yield round_score(line)
                    seen = len(rounds)
                    if has_ended:
                        break
                    time.sleep(LOOK_S)
            finally:
                _stop(process)
        if process.returncode:
            words = Path(log.name).read_text().strip().splitlines()
            raise ValueError(words[-1].removeprefix("error: ") if words else f"a run ended with {process.returncode}")

    def _record_of(self, seed: int) -> list[dict[str, Any]]:
        run = self._find(seed)
        return [] if run is None else read_lines(run / "rounds.jsonl")

    def _run_of(self, seed: int) -> Path:
        run = self._find(seed)
        if run is None:
            raise ValueError(f"{self.folder}: the run of seed {seed} is not there")
        return run

    def _find(self, seed: int) -> Path | None:
        """The newest run folder of a seed."""
        for folder in sorted(self.folder.iterdir(), reverse=True):
            with suppress(ValueError):  # it is no run, or one that has only just begun
                if read_run(folder)[0].seed == seed:
                    return folder
        return None


def run_score(run: Path) -> float | None:
    """The validation score of a finished run: the geometric mean over its clients; None where none was validated.

    The score of a client is a geometric mean of probabilities of best beams, so this is one over all clients.
    """
    validation = json.loads((run / VALIDATION_FILE).read_text())
    return _geometric(client["federated"] for client in validation["clients"].values())


def round_score(line: dict[str, Any]) -> float:
    """The same after a round, from its line in ``rounds.jsonl``; 0 where nobody was validated."""
    return _geometric(client.get("validation") for client in line["clients"].values()) or 0.0


def mean_score(scores: Sequence[float]) -> float:
    """The mean over seeds."""
    return sum(scores) / len(scores)


def _geometric(scores: Iterable[float | None]) -> float | None:
    given = [score for score in scores if score is not None and score > 0]
    return math.exp(sum(map(math.log, given)) / len(given)) if given else None


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a run that may still work; its checkpoints stay."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
