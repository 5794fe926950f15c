"""What each member gives to the ensemble: by hand for a mean, with ties that are called ties."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sim.report.leave_one_out import (
    MAX_ROWS,
    LeaveOneOut,
    draw_leave_one_out,
    leave_one_out,
    leave_one_out_caption,
)
from sim.report.style import GAIN, LOSS
from strategies.labels import Contribution, SoftLabels
from strategies.rules.weighted import Mean

NUM_BEAMS, NUM_WINDOWS = 16, 12
BEST = np.arange(NUM_WINDOWS) % NUM_BEAMS
PASSES = np.repeat([4, 7, 9], NUM_WINDOWS // 3)


def power() -> NDArray[np.float32]:
    return np.eye(NUM_BEAMS, dtype=np.float32)[BEST][:, None]


def vote(client: str, modality: str, *, is_right: bool) -> Contribution:
    """All probability on the best beam, or on ten beams beside it."""
    probs = np.zeros((NUM_WINDOWS, 1, NUM_BEAMS), np.float32)
    for window, best in enumerate(BEST):
        others = [beam for beam in range(NUM_BEAMS) if beam != best][:10]
        probs[window, 0, [best] if is_right else others] = 1.0 if is_right else 0.1
    return Contribution(client, modality, SoftLabels(np.arange(NUM_WINDOWS), probs, 1.0), 5)


@pytest.fixture
def found() -> LeaveOneOut:
    """A mean of one that is right and two that are never among five guesses."""
    votes = [
        vote("000-gps", "gps", is_right=True),
        vote("001-radar", "radar", is_right=False),
        vote("002-radar", "radar", is_right=False),
    ]
    kinds = {one.client: one.modality for one in votes}
    return leave_one_out(Mean(), votes, kinds, rule="mean", power=power(), pass_of_window=PASSES)


def test_whoever_alone_knows_the_beam_gives_everything(found: LeaveOneOut) -> None:
    np.testing.assert_array_equal(found.everyone, [1.0, 1.0, 1.0])
    np.testing.assert_array_equal(found.without_kind["gps"], [0.0, 0.0, 0.0])
    np.testing.assert_array_equal(found.without_kind["radar"], [1.0, 1.0, 1.0])
    np.testing.assert_array_equal(found.without_member["000-gps"], [0.0, 0.0, 0.0])
    np.testing.assert_array_equal(found.without_member["002-radar"], [1.0, 1.0, 1.0])


def test_the_only_kind_and_the_only_member_cannot_be_left_out() -> None:
    only = vote("000-gps", "gps", is_right=True)
    found = leave_one_out(Mean(), [only], {"000-gps": "gps"}, rule="mean", power=power(), pass_of_window=PASSES)
    assert (found.without_kind, found.without_member) == ({}, {})
    assert draw_leave_one_out([found]) is None


def test_it_is_stored_as_names_and_a_table(found: LeaveOneOut) -> None:
    again = LeaveOneOut.of(found.names, found.table)
    assert again.names == found.names and found.table.shape == (6, 3)
    np.testing.assert_array_equal(again.without_member["001-radar"], found.without_member["001-radar"])


def test_the_figure_and_the_caption_say_who_helps(found: LeaveOneOut) -> None:
    figure = draw_leave_one_out([found])
    assert figure is not None
    kinds, members = figure.axes
    assert [text.get_text() for text in kinds.texts] == ["+100.0", "+0.0"]
    assert [label.get_text() for label in members.get_yticklabels()] == ["000-gps", "001-radar", "002-radar"]
    assert GAIN in {line.get_color() for line in kinds.lines}
    caption = leave_one_out_caption([found])
    assert "by the rule mean, have a Top-5 of 100.0 %" in caption
    assert "Of 2 kinds 1 help it, 1 tie; without gps it loses most, 100.0 points." in caption
    assert "teacher" not in caption


def test_who_hurts_is_red_and_many_members_are_shown_by_kind_alone() -> None:
    everyone, better = np.full(4, 0.5, np.float32), np.array([0.6, 0.58, 0.62, 0.6], np.float32)
    members = {f"{i:03d}-gps": everyone for i in range(MAX_ROWS + 1)}
    found = LeaveOneOut("mean", everyone, {"gps": better, "radar": better}, members)
    figure = draw_leave_one_out([found, found])
    assert figure is not None
    (axis,) = figure.axes
    assert {line.get_color() for line in axis.lines if line.get_marker() == "v"} == {LOSS}
    assert "Of 2 kinds 2 hurt it; it loses nothing without any one of them." in leave_one_out_caption([found, found])
