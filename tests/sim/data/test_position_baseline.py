"""The position baseline: learnable where the beam follows the position, and the published numbers."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from clients.data.deepsense import Scenario, read_scenario
from sim.data.conversion import convert_scenario
from sim.data.inspection import check_scenario
from sim.data.position_baseline import batch_size_for, position_baseline
from tests.releases import Release


def street(num_passes: int = 10, frames: int = 40, *, is_informative: bool = True) -> Scenario:
    """A street 10 m ahead; the beam follows the bearing in 16 steps and loses 1 dB per beam away from the best."""
    rng = np.random.default_rng(0)
    east = rng.uniform(-10, 10, num_passes * frames)
    best = np.clip((np.degrees(np.arctan2(east, 10.0)) + 45) / 90 * 16, 0, 15).astype(np.int64)
    shown = east if is_informative else rng.permutation(east)
    loss_db = np.abs(np.arange(16) - best[:, None])
    return Scenario(
        name="street",
        pass_ids=np.repeat(np.arange(num_passes, dtype=np.int32), frames),
        sensors={"gps": np.stack([shown, np.full_like(shown, 10.0)], axis=1)},
        power=(10 ** (-loss_db / 10)).astype(np.float32),
        problems=(),
    )


@pytest.mark.parametrize("split", ["random", "pass"])
def test_a_beam_that_follows_the_position_is_learned(split: Literal["random", "pass"]) -> None:
    (score,) = position_baseline(street(), split=split, seeds=[0], epochs=60)
    assert score.top1 > 0.8
    assert score.top1 <= score.top2 <= score.top3
    assert score.top3 > 0.95
    assert score.dba > 0.9
    assert score.power_loss_db < 0.25  # at most 1 dB in one row of five


def test_a_beam_that_ignores_the_position_is_not() -> None:
    (score,) = position_baseline(street(is_informative=False), split="random", seeds=[0], epochs=20)
    assert score.top1 < 0.25


def test_a_seed_alone_scores_as_it_does_among_others_and_torchs_own_stream_is_untouched() -> None:
    before = torch.random.get_rng_state()
    alone = position_baseline(street(), split="random", seeds=[7], epochs=2)
    among = position_baseline(street(), split="random", seeds=[5, 7], epochs=2)
    assert alone[0] == among[1]
    assert among[0] != among[1]
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("num_rows", [513, 549, 892, 1380, 1453, 2426])
def test_an_epoch_of_a_measured_scenario_has_sixteen_steps_or_more(num_rows: int) -> None:
    assert math.ceil(num_rows / batch_size_for(num_rows)) >= 16


def test_a_release_without_passes_is_checked_by_random_rows_and_a_conversion_as_well(tmp_path: Path) -> None:
    release = Release(num_passes=2, length=30)
    release.header[0], release.header[5], release.header[6] = "number", "other", "stamp"
    release.write(tmp_path / "scenario7")
    found = check_scenario(tmp_path / "scenario7", split="random", num_seeds=1)
    assert found["bearing"]["correlation"] > 0.9
    assert set(found["metrics"]) == {"top1", "top2", "top3", "dba", "power_loss_db"}
    converted = convert_scenario(tmp_path / "scenario7", tmp_path / "converted")
    assert check_scenario(converted, split="random", num_seeds=1) == found


def test_too_few_passes_to_hold_some_out_are_one_clear_error() -> None:
    with pytest.raises(ValueError, match="street: 2 rows or passes cannot be split"):
        position_baseline(street(num_passes=2), split="pass", seeds=[0], epochs=1)


def _measured(number: int) -> Scenario:
    checkout = Path(__file__).resolve().parents[3]
    root = Path(os.environ.get("SOFTBEAM_DEEPSENSE", checkout.parent / "shared" / "real-deepsense"))
    if not (root / f"scenario{number}").is_dir():
        pytest.skip(
            f"DeepSense 6G scenario {number} is not in {root}; set SOFTBEAM_DEEPSENSE to the folder that holds it"
        )
    return read_scenario(root / f"scenario{number}")


def test_ten_epochs_come_within_six_points_of_the_published_top_1_of_scenario_9() -> None:
    (score,) = position_baseline(_measured(9), split="random", seeds=[0], epochs=10)
    assert score.top1 == pytest.approx(0.388, abs=0.06)  # one test set has a standard error of 1.4 points


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "published"), [(1, (0.556, 0.810, 0.907)), (3, (0.325, 0.475, 0.591)), (9, (0.388, 0.578, 0.691))]
)
def test_five_seeds_reach_the_leaderboard(number: int, published: tuple[float, float, float]) -> None:
    # Top-2 and Top-3 of scenario 9 are an independent reproduction: the leaderboard's own are 3 to 4 points lower.
    scores = position_baseline(_measured(number), split="random", seeds=range(5))
    reached = np.mean([(score.top1, score.top2, score.top3) for score in scores], axis=0)
    np.testing.assert_allclose(reached, published, atol=0.03)
