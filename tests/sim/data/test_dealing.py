"""Passes are dealt by the windows that they hold, and cut into blocks where there are too few of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from configs.loading import load_experiment
from configs.schema import Task
from sim.data.dealing import Slot, cut_into_blocks, deal_by_windows, windows_of
from tests.federations import place, run_apps

TASK = Task(num_frames=8, num_future=3)


def test_a_pass_of_twelve_frames_has_one_window_and_a_shorter_one_none() -> None:
    passes = np.repeat([4, 7, 9, 2], [11, 12, 40, 1])
    assert windows_of(passes, TASK) == {2: 0, 4: 0, 7: 1, 9: 29}


def test_everybody_gets_a_pass_before_anybody_gets_two_and_windows_follow_the_shares() -> None:
    windows = {number: 5 + number % 30 for number in range(200)}
    slots = [Slot(0.6, (0, 1)), Slot(0.3), Slot(0.1, (2,))]
    hands = deal_by_windows(range(200), windows, slots)
    assert sorted(number for hand in hands for number in hand) == list(range(200))
    shares = np.array([sum(windows[number] for number in hand) for hand in hands]) / sum(windows.values())
    np.testing.assert_allclose(shares, [0.6, 0.3, 0.1], atol=0.02)
    assert [len(hand) for hand in deal_by_windows(range(2), windows, slots)] == [1, 1, 0]
    assert [len(hand) for hand in deal_by_windows(range(3), windows, slots)] == [2, 1, 0]
    assert [len(hand) for hand in deal_by_windows(range(4), windows, slots)] == [2, 1, 1]


@pytest.mark.parametrize("lengths", [[300], [150, 11, 150], [2000], [61], [60, 60]])
def test_blocks_are_runs_of_frames_of_one_pass_with_a_window_each_and_a_gap_between_them(
    lengths: Sequence[int],
) -> None:
    passes = np.repeat(np.arange(len(lengths)), lengths).astype(np.int32)
    blocks = cut_into_blocks(passes, needed=4, task=TASK)
    assert len(blocks) == len(passes)
    assert blocks.max() >= 4 or len(passes) < 4 * 24
    ends: dict[int, int] = {}
    for number in range(1, blocks.max() + 1):
        frames = np.flatnonzero(blocks == number)
        assert np.all(np.diff(frames) == 1)
        assert len(frames) >= 12
        pass_id = int(passes[frames[0]])
        assert set(passes[frames].tolist()) == {pass_id}
        assert frames[0] - ends.get(pass_id, -100) > 11
        ends[pass_id] = int(frames[-1])


def test_a_recording_too_short_for_a_window_gives_no_block() -> None:
    assert not cut_into_blocks(np.ones(11, np.int32), needed=4, task=TASK).any()


TINY = [
    "engine.name=inline",
    "strategy.rounds=2",
    "strategy.public_samples=40",
    "training.first_round_steps=2",
    "training.steps_per_round=2",
    "teaching.pretrain_steps=8",
    "teaching.first_round_steps=2",
    "teaching.steps_per_round=2",
    "teacher={width: 2, features: 8, hidden: 8}",
    "students={gps: {width: 2, features: 8, hidden: 8}}",
]


@pytest.mark.parametrize("number", [1, 3, 5, 8, 9])
def test_every_measured_scenario_runs_without_a_number(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = Path(__file__).resolve().parents[3]
    root = Path(os.environ.get("SOFTBEAM_DEEPSENSE", checkout.parent / "shared" / "real-deepsense"))
    folder = root / f"scenario{number}"
    if not folder.is_dir():
        pytest.skip(f"DeepSense 6G scenario {number} is not in {root}; set SOFTBEAM_DEEPSENSE to its folder")
    monkeypatch.setenv("SOFTBEAM_HOME", str(tmp_path / "home"))
    experiment = load_experiment("deepsense", [f"data.folder={folder}", *TINY])
    run_apps(place(experiment, tmp_path / "run"))
    assert (tmp_path / "run" / "summary.json").is_file()
