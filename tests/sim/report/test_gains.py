"""Gains by kind of client: paired by pass, with ties that are called ties, on axes that show a few points."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.report.gains import (
    LEAST_REACH,
    draw_gain_by_horizon,
    draw_gains,
    gain_by_horizon_caption,
    gains_by_kind,
    gains_caption,
    pass_gain,
    read_passes,
)
from sim.report.style import GAIN, LOSS, MUTED


def summary(gain: float, *, clients: int = 3, modality: str = "gps", slots: int = 2) -> dict[str, Any]:
    return {
        "clients": [
            {
                "id": f"{i:03d}-{modality}",
                "modality": modality,
                "parameters": 10,
                "local": {"top5": [0.5] * slots},
                "offline_kd": None,
                "federated": {"top5": [0.5 + gain + 0.01 * i] * slots},
            }
            for i in range(clients)
        ]
    }


def passes(differences: list[float], *, clients: int = 3, modality: str = "gps") -> dict[str, dict[str, Any]]:
    local = [0.5] * len(differences)
    mine = [0.5 + value for value in differences]
    return {f"{i:03d}-{modality}": {"local": local, "offline_kd": None, "federated": mine} for i in range(clients)}


@pytest.mark.parametrize(
    ("differences", "sign"),
    [
        ([0.03, 0.04, 0.05, 0.04], 1),
        ([-0.03, -0.04, -0.05, -0.04], -1),
        ([0.20, -0.20, 0.15, -0.12], 0),  # the interval holds 0
        ([0.003, 0.004, 0.003, 0.004], 0),  # less than half a point
    ],
)
def test_only_a_difference_that_leaves_out_zero_and_is_large_enough_is_one(differences: list[float], sign: int) -> None:
    gain = pass_gain([passes(differences)], "local", ["000-gps", "001-gps"])
    assert gain is not None
    assert gain.mean == pytest.approx(np.mean(differences))
    assert gain.low <= gain.mean <= gain.high
    assert (gain.sign, gain.num) == (sign, 4)


def test_a_pass_is_averaged_over_the_clients_before_passes_are_drawn() -> None:
    both = {"a": {"local": [0.0, 0.0], "federated": [0.2, 0.4]}, "b": {"local": [0.0, 0.0], "federated": [0.4, 0.2]}}
    gain = pass_gain([both], "local", ["a", "b", "absent"])
    assert gain is not None
    assert (gain.low, gain.mean, gain.high) == pytest.approx((0.3, 0.3, 0.3))
    assert pass_gain([both], "offline_kd", ["a"]) is None
    assert pass_gain([{}], "local", ["a"]) is None


def test_ties_are_grey_and_a_loss_is_not_green() -> None:
    summaries = [summary(0.04)]
    for differences, colour, word in (
        ([0.03, 0.04, 0.05], GAIN, "1 better"),
        ([0.3, -0.3, 0.01], MUTED, "1 tie"),
        ([-0.03, -0.04, -0.05], LOSS, "1 worse"),
    ):
        figure = draw_gains(summaries, [passes(differences)])
        assert figure is not None
        assert figure.axes[0].lines[-1].get_color() == colour
        assert word in gains_caption(summaries, [passes(differences)])
    assert draw_gains(summaries, [{}]) is None


def test_a_control_with_small_gains_has_an_axis_of_its_own() -> None:
    found = passes([0.30, 0.31, 0.32])
    for arms in found.values():
        arms["offline_kd"] = [value - 0.01 for value in arms["federated"]]
    both = summary(0.31)
    for client in both["clients"]:
        client["offline_kd"] = client["local"]
    figure = draw_gains([both], [found])
    assert figure is not None and set(gains_by_kind([both], [found])) == {"local", "offline_kd"}
    wide, narrow = (np.ptp(axis.get_xlim()) for axis in figure.axes)
    assert wide > 30
    assert LEAST_REACH < narrow < 2 * LEAST_REACH


def test_bars_by_slot_begin_at_zero_and_show_three_points() -> None:
    figure = draw_gain_by_horizon([summary(0.01)])
    assert figure is not None
    (axis,) = figure.axes
    heights = [patch.get_height() for patch in axis.patches]
    assert heights == pytest.approx([2.0, 2.0])  # mean of 1, 2 and 3 points, in two slots
    low, high = axis.get_ylim()
    assert low < 0 and 3.0 <= high < 6.0
    assert "local only +2.0 points now and +2.0 in the last slot" in gain_by_horizon_caption([summary(0.01)])


def test_a_kind_of_two_clients_has_no_interval_over_clients() -> None:
    assert "no interval over clients" in gain_by_horizon_caption([summary(0.02, clients=2)])
    figure = draw_gain_by_horizon([summary(0.02, clients=2)])
    assert figure is not None and len(figure.axes[0].lines) == 1  # the line at zero
    figure = draw_gain_by_horizon([summary(0.02, clients=3)])
    assert figure is not None and len(figure.axes[0].lines) == 3


def test_without_a_control_there_is_no_figure() -> None:
    alone = summary(0.1)
    for client in alone["clients"]:
        client["local"] = None
    assert draw_gain_by_horizon([alone]) is None


@pytest.mark.parametrize("text", [None, "{", "[]", json.dumps({"top5": {"a": {"local": [1.0]}}})])
def test_scores_by_pass_of_an_older_run_are_nothing(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "passes.json").write_text(text)
    assert read_passes(tmp_path) == ({"a": {"local": [1.0]}} if text and "top5" in text else {})
