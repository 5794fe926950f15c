"""The search: which settings to try next, what becomes of them, and what is known so far.

Optuna proposes (its tree-structured Parzen estimator, Bergstra et al., NeurIPS 2011) and gives up trials whose rounds
validate below the median of the others at the same round. Its journal lies in the sweep's folder, so a sweep that was
stopped goes on where it was. Every trial draws from a generator of its own, which depends on the experiment's seed and
the number of the trial: a sweep proposes the same whether or not it was stopped in between.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import shlex
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.files import LOCK, as_bytes, locked, write_durably
from configs.loading import experiment_digest, load_experiment, to_values
from configs.own_code import own_code_digest
from configs.placement import Placement
from configs.schema import Experiment
from configs.seeding import seed_for
from configs.yaml_files import find_config, read_config
from sim.sweep.space import Dimension
from sim.sweep.trial_runs import PrunedError, TrialRuns
from strategies.registry import find_plugins

if TYPE_CHECKING:
    import optuna

WITHOUT_CONTROLS = "controls=false"
"""The entry by which trials have no controls, which say nothing of their settings."""
JOURNAL = "sweep.journal"
TABLE = "sweep.csv"
# Trials before one may be given up, and rounds of a trial before it may: what Optuna's documentation starts with.
TRIALS_BEFORE_PRUNING, ROUNDS_BEFORE_PRUNING = 5, 1

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sweep:
    """What is searched.

    Attributes:
        config: the YAML file, or the name of one in ``configs/``.
        overrides: ``dotted.path=value`` entries of all trials.
        space: the dimensions.
        seeds: the seeds of every trial.
        out: the folder of the sweep.
        may_prune: whether a trial may be given up before its last round.
    """

    config: str
    overrides: Sequence[str]
    space: Sequence[Dimension]
    seeds: Sequence[int]
    out: Path
    may_prune: bool = True

    def experiment(self, values: Mapping[str, str]) -> Experiment:
        """The experiment with the values of a trial: key -> YAML text.

        Raises:
            ValueError: the schema refuses one.
        """
        return load_experiment(self.config, self.entries(values))

    def entries(self, values: Mapping[str, str]) -> list[str]:
        """The ``dotted.path=value`` entries of a trial, its own values last."""
        return [*self.overrides, *(f"{key}={text}" for key, text in values.items())]

    def runs(self, number: int, values: Mapping[str, str]) -> TrialRuns:
        """The runs of a trial."""
        return TrialRuns(self.config, self.entries(values), self.seeds, self.out / f"trial-{number:03d}")

    def command(self, values: Mapping[str, str]) -> str:
        """The command that runs the values of a trial with their controls, for a look at the tests."""
        entries = [one for one in self.entries(values) if one != WITHOUT_CONTROLS]
        words = ["softbeam", "run", self.config, *(word for entry in entries for word in ("--set", entry))]
        return shlex.join([*words, "--seeds", ",".join(map(str, self.seeds))])

    def identity(self) -> dict[str, Any]:
        """What makes a sweep another one than that of a journal."""
        first = self.experiment({one.key: one.corners[0] for one in self.space})
        plugins = read_config(find_config(self.config)).plugin_folders
        return {
            "experiment": experiment_digest(first),
            "own_code": own_code_digest(to_values(first), plugins),
            "space": [[one.key, list(one.corners), one.is_log] for one in self.space],
            "seeds": list(self.seeds),
            "may_prune": self.may_prune,
        }


@dataclass(frozen=True)
class TrialRow:
    """What is known of a trial.

    Attributes:
        number: its number, from 0.
        state: ``complete``, ``pruned``, ``failed`` or ``running``.
        score: its validation score in (0, 1], the last one known if it was pruned; None where there is none.
        values: key -> value, as YAML texts.
        reason: why it failed.
    """

    number: int
    state: str
    score: float | None
    values: Mapping[str, str]
    reason: str = ""


def check_corners(sweep: Sweep) -> None:
    """Try every value of a choice and both ends of every range, each with the first values of the others.

    Raises:
        ValueError: the experiment cannot be with one of them.
    """
    first = {one.key: one.corners[0] for one in sweep.space}
    plugins = read_config(find_config(sweep.config)).plugin_folders
    for dimension in sweep.space:
        for text in dimension.corners:
            try:
                find_plugins(Placement(sweep.experiment({**first, dimension.key: text}), Path(), Path(), plugins))
            except ValueError as error:
                raise ValueError(f"--over {dimension.key}: {text} cannot be: {error}") from None


def search(sweep: Sweep, num_trials: int, told: Callable[[TrialRow, list[TrialRow]], None]) -> list[TrialRow]:
    """Try until so many trials have ended, those of an earlier leg of this sweep among them.

    Args:
        sweep: what to search.
        num_trials: the number of trials in all.
        told: is called after each trial with its row and all rows so far.

    Returns:
        The rows of all trials, in order.

    Raises:
        ValueError: Optuna is not installed, the folder has another sweep, or every trial failed.
    """
    optuna = _optuna()
    check_corners(sweep)
    sweep.out.mkdir(parents=True, exist_ok=True)
    busy = f"{sweep.out}: another sweep works in this folder; wait for its end, or give another --out"
    with locked(sweep.out / LOCK, busy):
        study = _open_study(optuna, sweep)
        for trial in _begun(optuna, study):
            _try(optuna, study, sweep, trial)
            _note(sweep, study, trial.number, told)
        while len(study.get_trials(deepcopy=False)) < num_trials:
            trial = study.ask()
            _try(optuna, study, sweep, trial)
            _note(sweep, study, trial.number, told)
    rows = rows_of(study, sweep.space)
    if all(row.state == "failed" for row in rows):
        raise ValueError(f"{sweep.out}: every trial failed; the last one: {rows[-1].reason}")
    return rows


def best_of(rows: Sequence[TrialRow]) -> TrialRow | None:
    """The complete trial with the best score, the earlier of equal ones; None where none is complete."""
    complete = [row for row in rows if row.state == "complete" and row.score is not None]
    return max(complete, key=lambda row: (row.score, -row.number), default=None)


def rows_of(study: optuna.Study, space: Sequence[Dimension]) -> list[TrialRow]:
    """The rows of all trials of a study."""
    states = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    rows = []
    for trial in study.get_trials(deepcopy=False):
        last = trial.intermediate_values.get(max(trial.intermediate_values, default=0))
        score = trial.value if trial.value is not None else last
        values = {one.key: one.text_of(trial.params[one.key]) for one in space if one.key in trial.params}
        state = states.get(trial.state.name, "running")
        rows.append(TrialRow(trial.number, state, score, values, trial.user_attrs.get("reason", "")))
    return rows


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise ValueError("softbeam sweep: Optuna is not installed; pip install 'softbeam[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _open_study(optuna: Any, sweep: Sweep) -> optuna.Study:
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(sweep.out / JOURNAL)))
    pruner = (
        optuna.pruners.MedianPruner(n_startup_trials=TRIALS_BEFORE_PRUNING, n_warmup_steps=ROUNDS_BEFORE_PRUNING)
        if sweep.may_prune
        else optuna.pruners.NopPruner()
    )
    study: optuna.Study = optuna.create_study(
        study_name="sweep", storage=storage, pruner=pruner, direction="maximize", load_if_exists=True
    )
    identity = json.dumps(sweep.identity(), sort_keys=True)
    if study.user_attrs.setdefault("identity", identity) != identity:
        raise ValueError(
            f"{sweep.out}: has another sweep, of other settings or of own modules that were edited since; give another "
            "folder with --out"
        )
    study.set_user_attr("identity", identity)
    return study  # type: ignore[no-any-return]


def _begun(optuna: Any, study: optuna.Study) -> list[optuna.Trial]:
    """The trials in which an earlier leg was stopped; there is one at most."""
    running = optuna.trial.TrialState.RUNNING
    found = [one for one in study.get_trials(deepcopy=False) if one.state == running]
    # The id that a trial is made from has no public name.
    return [optuna.trial.Trial(study, one._trial_id) for one in found]


def _sampler(optuna: Any, sweep: Sweep, number: int) -> Any:
    """What draws the values of a trial; it is the same for the same sweep, number and trials before."""
    return optuna.samplers.TPESampler(seed=seed_for(sweep.seeds[0], "sweep", number) % 2**32)


def _try(optuna: Any, study: optuna.Study, sweep: Sweep, trial: optuna.Trial) -> None:
    """Run a trial to its end, and tell the study what became of it."""
    study.sampler = _sampler(optuna, sweep, trial.number)
    values = {one.key: one.draw(trial) for one in sweep.space}

    def watch(done: int, score: float) -> None:
        trial.report(score, done)
        if trial.should_prune():
            raise PrunedError

    state = optuna.trial.TrialState
    try:
        with warnings.catch_warnings():
            # A trial that goes on reports the rounds of its earlier leg again.
            warnings.filterwarnings("ignore", message=".*already reported.*")
            score = sweep.runs(trial.number, values).score(watch)
    except PrunedError:
        study.tell(trial, state=state.PRUNED)
    except ValueError as error:
        log.warning("trial %d: %s", trial.number, error)
        trial.set_user_attr("reason", str(error))
        study.tell(trial, state=state.FAIL)
    else:
        study.tell(trial, score)


def _note(sweep: Sweep, study: optuna.Study, number: int, told: Callable[[TrialRow, list[TrialRow]], None]) -> None:
    rows = rows_of(study, sweep.space)
    write_durably(sweep.out / TABLE, as_bytes(_as_csv(rows, sweep.space)))
    told(rows[number], rows)


def _as_csv(rows: Sequence[TrialRow], space: Sequence[Dimension]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["trial", "state", "validation", *(one.key for one in space), "reason"])
    for row in rows:
        score = "" if row.score is None else f"{row.score:.6g}"
        writer.writerow([row.number, row.state, score, *(row.values.get(one.key, "") for one in space), row.reason])
    return stream.getvalue()
