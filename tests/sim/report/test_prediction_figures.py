"""Figures of predictions: what they draw and say of guesses that were computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sim.report.prediction_figures import (
    KindOutcome,
    confusion_caption,
    draw_confusion,
    draw_errors,
    draw_reliability,
    errors_caption,
    expected_calibration_error,
    outcomes_of,
    reliability_caption,
)
from sim.report.predictions import Prediction, Predictions


def outcome(best: list[int], first: list[int], *, confidence: float = 0.5, modality: str = "gps") -> KindOutcome:
    count = len(best)
    return KindOutcome(
        modality=modality,
        best=np.array(best),
        first=np.array(first),
        confidence=np.full(count, confidence, np.float32),
        raw_confidence=np.full(count, 0.9, np.float32),
        loss_db=np.abs(np.subtract(best, first)).astype(np.float32),
        temperatures=(2.0,),
    )


def test_guesses_of_a_kind_are_taken_together_and_the_teacher_comes_last() -> None:
    def says(name: str, kind: str, first: int) -> Prediction:
        rows, none = np.full((3, 2), first), np.full((3, 2), 0.5, np.float32)
        return Prediction(name, "gps", kind, True, (1.0,), rows, none, none, none, np.zeros((0, 8), np.float32))

    learners = (says("teacher", "teacher", 3), says("000-gps", "gps", 1), says("001-gps", "gps", 2))
    empty = np.zeros(0, np.int64)
    run = Predictions(8, np.full((3, 2), 1), np.arange(3), 2, empty, learners, {"gps": (2, 2)})
    found = outcomes_of([run, run])
    assert list(found) == ["gps", "teacher"]
    assert found["gps"].steps.tolist() == 2 * (6 * [0] + 6 * [1])


def test_a_row_of_confusion_adds_up_to_one_and_shows_each_guess_where_it_was_made() -> None:
    figure = draw_confusion({"gps": outcome([2, 2, 2, 2, 5], [2, 2, 2, 3, 0])}, num_beams=6)
    (image,) = figure.axes[0].images
    shares = np.asarray(image.get_array())[..., 3] ** 2
    np.testing.assert_allclose(shares[2], [0, 0, 0.75, 0.25, 0, 0])
    np.testing.assert_allclose(shares[5], [1, 0, 0, 0, 0, 0])
    assert shares[[0, 1, 3, 4]].sum() == 0


def test_errors_are_shares_of_all_guesses() -> None:
    outcomes = {"gps": outcome([0, 0, 0, 0], [0, 1, 2, 9])}
    left, right = draw_errors(outcomes).axes
    assert left.lines[0].get_ydata()[[0, 1, 2, 3, 9]].tolist() == [25, 50, 75, 75, 100]
    assert right.lines[0].get_ydata()[[0, 10, 20, 90]].tolist() == [25, 50, 75, 100]
    assert "gps 50 % and 75 %" in errors_caption(outcomes)


def test_the_caption_of_confusion_says_who_is_nearest() -> None:
    outcomes = {"gps": outcome([0] * 4, [0, 3, 4, 5]), "camera": outcome([0] * 4, [0, 1, 2, 5], modality="camera")}
    text = confusion_caption(outcomes)
    assert "75 % of the guesses of camera to 25 % of gps" in text
    assert "Of wrong guesses, 0 to 67 %" in text


@pytest.mark.parametrize(
    ("confidence", "right", "error"),
    [([0.75] * 4, 3, 0.0), ([0.75] * 4, 4, 0.25), ([0.25] * 2 + [1.0] * 2, 4, 0.375), ([1.0] * 4, 0, 1.0)],
)
def test_the_calibration_error_is_the_mean_distance_of_bins(confidence: list[float], right: int, error: float) -> None:
    is_right = np.arange(4) < right
    assert expected_calibration_error(np.array(confidence), is_right) == pytest.approx(error)


def test_reliability_leaves_bins_with_few_guesses_out_and_says_what_calibration_did() -> None:
    one = outcome([0] * 40, [0] * 20 + [1] * 20)
    few = KindOutcome("camera", *(getattr(one, name)[:10] for name in _ARRAYS), (1.0,))
    outcomes = {"gps": one, "camera": few}
    left, right = draw_reliability(outcomes).axes
    lines = {str(line.get_label()).partition(" ")[0]: line for line in left.lines[1:]}
    assert (lines["gps"].get_xdata().tolist(), lines["gps"].get_ydata().tolist()) == ([50.0], [50.0])
    assert len(lines["camera"].get_xdata()) == 0
    assert right.lines[1].get_xdata() == pytest.approx([90.0])
    text = reliability_caption(outcomes)
    assert "gps 2.00, 40.0 and 0.0 points" in text
    assert "Calibration helps on the test set for 1 of 2." in text


_ARRAYS = ("best", "first", "confidence", "raw_confidence", "loss_db")
