"""The passes of a study: one recording in the order of time; the first part is for training, the rest for testing.

Source: split of arXiv 2603.16116, by order of the passes, not shuffled. We differ by taking validation passes out of
the training passes, because the published code chooses epochs and settings on the test passes.

N windows, L frames of the longest window, J slots ahead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from clients.data.recording import Recording, open_recording
from configs.files import make_once
from configs.home import hold, softbeam_home
from configs.placement import resolved_folder
from configs.seeding import rng_for
from configs.study import StudyPart, StudyPasses
from configs.study_loading import passes_digest
from sim.data.conversion import load_scenario
from sim.data.generate import write_passes
from sim.data.partition import carve_validation
from sim.data.plan import PlannedPart

SENSORS = ("motion", "maps")
# If more than this share of the files of a release is missing, the download counts as broken; below it, missing files
# count as empty frames.
MAX_LOST = 0.05


@dataclass(frozen=True)
class Split:
    """The windows of the longest length; trackers that see fewer frames answer for the same slots.

    Attributes:
        train: (N,) the first frames of the training windows; ``validation`` and ``test`` in the same way.
        test_passes: (N,) the pass of each test window.
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]
    test_passes: NDArray[np.int64]


def open_passes(
    data: StudyPasses, *, workers: int = 1, progress: Callable[[int, int], None] | None = None
) -> Recording:
    """Open the passes of a study; they are made or converted first if they do not exist yet.

    Args:
        data: the source of the passes.
        workers: the number of processes that make passes of the street.
        progress: is called with the number of made or converted passes and of all passes.

    Raises:
        ValueError: the source is missing or broken, or lacks camera, radar, power or the order of passes.
    """
    if data.source == "street":
        folder = softbeam_home() / "data" / f"study-{passes_digest(data)}"
        everything = PlannedPart("", SENSORS, {}, tuple(range(data.passes)), data.world, "study")
        seed = data.seed
        hold(folder)
        make_once(folder, lambda: write_passes(everything, folder, seed=seed, workers=workers, progress=progress))
        return open_recording(folder)
    source = resolved_folder(data.folder)
    if not source.is_dir():
        raise ValueError(
            f"data.folder: there is no folder {source}; get scenario 9 from www.deepsense6g.net and name its folder"
        )
    scenario = load_scenario(source, SENSORS, progress=progress)
    if missing := [name for name in SENSORS if name not in scenario.sensors]:
        raise ValueError(
            f"data.folder: {data.folder} has no {', '.join(missing)}; name the folder of a release with pictures "
            "(unit1_rgb) and raw radar cubes (unit1_radar); a conversion without them cannot be used"
        )
    if scenario.problems and (lost := len(scenario.problems) / len(scenario.pass_ids)) > MAX_LOST:
        raise ValueError(
            f"data.folder: {100 * lost:.0f} % of the frames of {data.folder} lack a file that can be read, the first: "
            f"{scenario.problems[0]}; download them again"
        )
    if not scenario.has_passes:
        raise ValueError(
            f"data.folder: {data.folder} has no seq_index, so its rows are no sequences to track; name another folder"
        )
    return Recording(source, scenario.pass_ids, scenario.sensors, scenario.labelled_power, {})


def split_passes(
    recording: Recording, part: StudyPart, *, num_frames: int, validation_share: float, seed: int
) -> Split:
    """The windows of a part of a study.

    Args:
        recording: the recording of all passes, in the order of time.
        part: the part of the study, with the slots ahead and the share of training passes.
        num_frames: L.
        validation_share: the share of the training passes that is used for validation.
        seed: the seed that draws the validation passes; the test passes are the same for every seed.

    Raises:
        ValueError: there is no window for training, validation or test.
    """
    ids = np.unique(recording.pass_ids)
    num_train = int(part.train_share * len(ids))
    train, validation = carve_validation(ids[:num_train].tolist(), validation_share, rng_for(seed, "study", "split"))
    splits = {"train": tuple(train), "validation": tuple(validation), "test": tuple(ids[num_train:].tolist())}
    split = replace(recording, splits=splits)
    starts = {name: split.window_starts(num_frames, part.future, name) for name in splits}
    if empty := [name for name, found in starts.items() if not len(found)]:
        raise ValueError(f"data.passes: no window for {', '.join(empty)} among {len(ids)} passes; give more passes")
    return Split(**starts, test_passes=recording.pass_ids[starts["test"]].astype(np.int64))
