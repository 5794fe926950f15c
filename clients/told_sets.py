"""What a client tells of its beam sets, once, in the last round: a risk curve of passes that nobody chose anything by.

The passes of its own test calibrate: it has neither learned from them nor kept a state by them, as it has by its
validation passes. What its sets do on the common test set judges. Both are numbers for a fixed grid of thresholds
(`clients.learning.risk_curve`), so the server can choose thresholds without a pass, and a client need not be asked
again. A client withholds them where its privacy account does not cover them, and where the server is to learn no more
than sums.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clients.context import ClientContext
from clients.data.recording import Recording, open_recording
from clients.learning.learner import Learner
from clients.learning.mixture import Mixture
from clients.learning.risk_curve import WITHIN_DB, curves_of, to_numbers
from clients.learning.stand_ins import checksum, measured_stand_ins
from clients.training import own_recording
from configs.schema import Task


def told_sets(kept: Learner | Mixture, context: ClientContext) -> dict[str, float | list[float]]:
    """The metrics of beam sets of what a client decides by; none where it withholds them or has no test of its own."""
    experiment = context.placement.experiment
    strategy, task = experiment.strategy, experiment.task
    if not task.is_beam_tracking or strategy.privacy.has_noise or strategy.privacy.has_account or strategy.secure_sum:
        return {}
    own = own_recording(context.profile, experiment)
    if context.profile.test is None or own is None or own.power is None:
        return {}
    common = open_recording(context.profile.test)
    starts = own.window_starts(task.num_frames, task.num_future, "test")
    judging = common.window_starts(task.num_frames, task.num_future)
    if len(starts) == 0 or len(judging) == 0 or common.power is None:
        return {}
    stand_ins = own_stand_ins(own, task)
    curve, _ = curves_of(kept.probs(own, starts), kept.truth(own, starts), own.pass_ids[starts], stand_ins)
    judged = (kept.probs(common, judging), kept.truth(common, judging), common.pass_ids[judging])
    _, scores = curves_of(*judged, stand_ins)
    return {
        "set_passes": float(curve.num_passes),
        "set_table": float(checksum(stand_ins)),
        "sets.missed": to_numbers(curve.missed),
        "sets.common_missed": to_numbers(scores.missed),
        "sets.common_sizes": to_numbers(scores.sizes),
    }


def own_stand_ins(own: Recording, task: Task) -> NDArray[np.uint8]:
    """(X, B, B) which beams stand in for which, by the windows of a recording that its owner trained on."""
    starts = own.window_starts(task.num_frames, task.num_future, "train")
    power = own.powers(starts, task.num_frames, task.num_future)
    return measured_stand_ins(power.reshape(-1, power.shape[-1]), WITHIN_DB)
