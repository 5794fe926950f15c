"""Which public windows a client trusts itself on: thresholds of its own held-out windows, by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from clients.learning.density import trusted

# Of five held-out windows four are let through at a share of 0.8: the threshold lies 0.8 of the way from the lowest
# score to the second lowest.
SHARE = 0.8
# Largest probability of each held-out window: the threshold is 0.5 + 0.8 * 0.1.
CERTAINTIES = [0.9, 0.5, 0.7, 0.6, 0.8]
# Distance of each held-out window to the nearest training window: the threshold is 5 - 0.8.
DISTANCES = [1.0, 5.0, 3.0, 4.0, 2.0]
OWN, PUBLIC = "own", "public"
TRAIN = [100, 101]


class ScriptedLearner:
    """Answers and features are looked up by recording and window."""

    seed, name = 0, "000-gps"
    progress = SimpleNamespace(round=1)

    def __init__(self, public: list[float], *, has_validation: bool = True, is_labelled: bool = True) -> None:
        held_out = np.arange(5)
        self.material = SimpleNamespace(
            is_labelled=is_labelled,
            recording=OWN,
            public=PUBLIC,
            train=np.array(TRAIN) if has_validation else held_out,
            validation=held_out if has_validation else held_out[:0],
        )
        self.public = public

    def _values(self, recording: str, starts: NDArray[np.int64], own: list[float]) -> list[float]:
        return [(own if recording == OWN else self.public)[start] for start in starts]

    def predict(self, recording: str, starts: NDArray[np.int64], *, best: bool) -> torch.Tensor:
        assert not best
        top = torch.tensor(self._values(recording, starts, CERTAINTIES))
        # (N, 2, 3) logits: a window's certainty is the mean over its two horizons.
        horizons = torch.stack([top + 0.05, top - 0.05], dim=1)
        return torch.log(torch.stack([horizons, 0.75 * (1 - horizons), 0.25 * (1 - horizons)], dim=2))

    def predict_features(self, recording: str, starts: NDArray[np.int64]) -> NDArray[np.float32]:
        if starts.tolist() == TRAIN:
            return np.array([[0.0, 0.0], [50.0, 0.0]], np.float32)
        return np.array([[0.0, value] for value in self._values(recording, starts, DISTANCES)], np.float32)


def passes(
    public: list[float], kind: Literal["none", "confidence", "density"], share: float = SHARE, **own: Any
) -> Any:
    learner: Any = ScriptedLearner(public, **own)
    return trusted(learner, np.arange(len(public)), kind=kind, share=share).tolist()


def test_a_client_answers_what_it_is_at_least_as_certain_of_as_of_a_share_of_its_own_windows() -> None:
    assert passes([0.57, 0.59, 0.9, 0.4], "confidence") == [False, True, True, False]


def test_a_client_answers_what_is_at_most_as_far_from_its_data_as_a_share_of_its_own_windows() -> None:
    assert passes([4.1, 4.3, 0.0, 20.0], "density") == [True, False, True, False]


@pytest.mark.parametrize(("kind", "values"), [("confidence", CERTAINTIES), ("density", DISTANCES)])
def test_of_windows_like_its_own_as_many_pass_as_the_share_says(
    kind: Literal["confidence", "density"], values: list[float]
) -> None:
    assert sum(passes(values, kind, share=0.8)) == 4
    assert sum(passes(values, kind, share=0.4)) == 2
    assert sum(passes(values, kind, share=1.0)) == 5


def test_the_nearest_of_all_centres_counts() -> None:
    learner: Any = ScriptedLearner([])
    points = np.array([[50.0, 4.0], [25.0, 0.0]], np.float32)
    learner.predict_features = lambda recording, starts: (
        points if recording == PUBLIC else ScriptedLearner.predict_features(learner, recording, starts)
    )
    assert trusted(learner, np.arange(2), kind="density", share=SHARE).tolist() == [True, False]


def test_without_validation_windows_the_training_windows_set_the_threshold() -> None:
    assert passes([0.57, 0.59], "confidence", has_validation=False) == [False, True]


@pytest.mark.parametrize("kind", ["confidence", "density"])
def test_a_client_without_labels_cannot_tell_and_answers_everything(kind: Literal["confidence", "density"]) -> None:
    assert passes([0.1, 0.2], kind, is_labelled=False) == [True, True]


def test_without_a_filter_everything_passes_and_nothing_asked_is_nothing_answered() -> None:
    assert passes([0.1, 0.9], "none") == [True, True]
    assert passes([], "density") == []
