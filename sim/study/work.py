"""Trains one tracker of a study, scores it once on the test passes, and keeps it."""

from __future__ import annotations

import io
import re
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError

import torch

from clients.models.complexity import BYTES_PER_WEIGHT, count_macs, count_window_macs
from clients.models.quantised import decode_int8, encode_int8
from clients.models.registry import make_tracker
from clients.models.step_tracker import StepTracker
from clients.models.tracker import count_parameters
from configs.files import write_whole
from configs.schema import Task
from configs.seeding import seed_for
from configs.study import StudyPasses
from sim.study.fitting import Observation, fit, knowledge_of, logits_of
from sim.study.grid import Job, describe
from sim.study.passes import SENSORS, open_passes, split_passes
from sim.study.scores import summarise, window_scores
from sim.worksheet import SheetRow

# The keys that a row must have; a row of an older version is made again.
ROW_KEYS = {"key", "average", "by_pass", "latency_ms", "int8_top5", "metrics", "validation"}


@dataclass(frozen=True)
class Trainer:
    """Makes the row of a job, and writes its tracker into a folder."""

    folder: Path

    def __call__(self, job: Job) -> SheetRow:
        """Train, score and keep one tracker.

        Raises:
            ValueError: the tracker of its teacher is missing, or the loss is not finite.
        """
        torch.set_num_threads(1)
        begin = time.monotonic()
        study, longest = job.study, job.study.lengths[0]
        observation = _observe(study.data, device())
        split = split_passes(
            observation.recording,
            job.part,
            num_frames=longest,
            validation_share=study.fitting.validation_share,
            seed=job.seed,
        )
        knowledge = None
        if job.teacher is not None:
            knowledge = knowledge_of(
                load_tracker(self.folder, job.teacher).to(observation.device), observation, split.train
            )
        tracker = fresh_tracker(job).to(observation.device)
        later = longest - job.length
        try:
            found = fit(
                tracker,
                observation,
                train=split.train + later,
                validation=split.validation + later,
                kd=job.kd,
                knowledge=knowledge,
                recipe=study.recipe(job.model, job.kd),
                fitting=study.fitting_of(job.model, job.kd),
                seed=job.seed,
            )
        except ValueError as error:
            raise ValueError(f"{job.title}: {error} (recipes.{job.model}.{job.kd}.learning_rate)") from None
        tracker.load_state_dict(dict(found.state))
        logits = logits_of(tracker, observation, split.test + later).cpu().numpy()
        power = observation.recording.powers(split.test, longest, job.future)
        save_tracker(tracker, self.folder, job)
        row = {
            **describe(job),
            **summarise(window_scores(logits, power), split.test_passes),
            "int8_bytes": None,
            "int8_top5": None,
        }
        if job.card.role == "student":
            small = encode_int8(tracker, job.model)
            found_small = (
                logits_of(decode_int8(small).to(observation.device), observation, split.test + later).cpu().numpy()
            )
            row["int8_bytes"] = len(small)
            row["int8_top5"] = float(window_scores(found_small, power)["top5"].mean())
        tracker.cpu()
        return {
            **row,
            "parameters": count_parameters(tracker),
            "macs": count_macs(tracker),
            "window_macs": count_window_macs(tracker),
            "bytes": BYTES_PER_WEIGHT * count_parameters(tracker),
            "latency_ms": None,
            "num_windows": {name: len(getattr(split, name)) for name in ("train", "validation", "test")},
            "epochs": found.epochs,
            "best_epoch": found.best_epoch,
            "validation": found.validation,
            "seconds": round(time.monotonic() - begin, 1),
            "device": str(observation.device),
        }


def device() -> torch.device:
    """The device that computes: a GPU if torch sees one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fresh_tracker(job: Job) -> StepTracker:
    """The tracker of a job before it learns; it is the same for every kind of knowledge."""
    seed = seed_for(job.seed, "study", job.model, job.length, job.future)
    task = Task(num_frames=job.length, num_future=job.future)
    return make_tracker(job.model, task, seed=seed, pixels=job.study.pixels, alignment=job.alignment)


def tracker_path(folder: Path, job: Job) -> Path:
    """The path of the file that keeps a tracker."""
    return folder / "models" / f"{re.sub(r'[^a-z0-9.=-]+', '_', job.key, flags=re.IGNORECASE)}.pt"


def save_tracker(tracker: StepTracker, folder: Path, job: Job) -> None:
    """Write the weights of a tracker; an incomplete file never has the final name."""
    path, file = tracker_path(folder, job), io.BytesIO()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(tracker.state_dict(), file)
    write_whole(path, file.getvalue())


def load_tracker(folder: Path, job: Job) -> StepTracker:
    """Load a tracker that was kept.

    Raises:
        ValueError: the file is missing or broken; the message names it.
    """
    path, tracker = tracker_path(folder, job), fresh_tracker(job)
    try:
        tracker.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, EOFError, RuntimeError, KeyError, TypeError, AttributeError, ValueError, UnpicklingError) as error:
        problem = f"no weights of {job.title} ({type(error).__name__})"
        raise ValueError(f"{path}: {problem}; delete this file, and it is trained again") from None
    return tracker.eval()


@lru_cache(maxsize=1)
def _observe(data: StudyPasses, where: torch.device) -> Observation:
    """The frames of the passes; one recording per process is kept, since reading all frames takes a second."""
    return Observation(open_passes(data), SENSORS, where)
