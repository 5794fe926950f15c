from __future__ import annotations

import numpy as np
import pytest
import torch

from clients.data.recording import Recording
from clients.models.decider import Decider
from clients.models.tracker import BeamTracker, read_windows
from configs.models import Model
from configs.schema import Task

TASK = Task(num_frames=2, num_future=1, num_beams=4)


def tracker(seed: int) -> BeamTracker:
    torch.manual_seed(seed)
    return BeamTracker(("gps",), Model(width=1, features=3, hidden=3), TASK)


def test_one_tracker_decides_by_its_calibrated_logits_and_two_by_the_mean_of_their_probabilities() -> None:
    positions = {"gps": np.array([[1.0, 9.0], [2.0, 9.0], [3.0, 8.0], [4.0, 8.0]])}
    recording = Recording(__file__, np.zeros(4, np.int32), positions, None, {})  # type: ignore[arg-type]
    windows = read_windows(recording, np.arange(2), modalities=("gps",), num_frames=2)
    one, other = tracker(1).eval(), tracker(2).eval()
    with torch.no_grad():
        torch.testing.assert_close(Decider([one], temperatures=[2.0], shares=[1.0])(windows), one(windows) / 2.0)
        both = Decider([one, other], temperatures=[2.0, 0.5], shares=[0.25, 0.75])(windows)
        expected = 0.25 * torch.softmax(one(windows) / 2.0, -1) + 0.75 * torch.softmax(other(windows) / 0.5, -1)
        torch.testing.assert_close(torch.softmax(both, -1), expected)


@pytest.mark.parametrize(("temperatures", "shares"), [([1.0], [0.9]), ([0.0], [1.0]), ([1.0, 1.0], [0.5, 0.5])])
def test_shares_that_do_not_add_up_and_temperatures_out_of_range_are_refused(
    temperatures: list[float], shares: list[float]
) -> None:
    with pytest.raises(ValueError, match="temperature"):
        Decider([tracker(1)], temperatures=temperatures, shares=shares)
