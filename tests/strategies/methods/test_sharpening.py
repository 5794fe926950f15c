"""Entropy reduction by hand."""

from __future__ import annotations

from math import exp

import numpy as np
import pytest

from strategies.methods.distillation import sharpen

ROW = np.array([[[0.5, 0.3, 0.2]]], np.float32)


def test_none_leaves_rows_as_they_are() -> None:
    np.testing.assert_array_equal(sharpen(ROW, "none", 0.1), ROW)


def test_the_softmax_divides_probabilities_by_its_temperature() -> None:
    # exp((p - 0.5) / 0.1) = 1, e^-2, e^-3.
    weights = np.array([1.0, exp(-2), exp(-3)])
    np.testing.assert_allclose(sharpen(ROW, "softmax", 0.1)[0, 0], weights / weights.sum(), rtol=1e-5)


def test_the_power_multiplies_logarithms() -> None:
    # 0.25, 0.09, 0.04 over their sum of 0.38.
    np.testing.assert_allclose(sharpen(ROW, "power", 2.0)[0, 0], [0.25 / 0.38, 0.09 / 0.38, 0.04 / 0.38], rtol=1e-5)


def test_a_power_of_one_changes_nothing() -> None:
    np.testing.assert_allclose(sharpen(ROW, "power", 1.0), ROW, rtol=1e-6)


@pytest.mark.parametrize(("kind", "by"), [("softmax", 0.03), ("power", 1.5)])
def test_what_the_recipes_use_sharpens_and_keeps_the_ranking(kind: str, by: float) -> None:
    found = sharpen(ROW, kind, by)  # type: ignore[arg-type]
    assert found[0, 0, 0] > 0.5
    assert found[0, 0, 0] > found[0, 0, 1] > found[0, 0, 2] > 0


def test_certain_rows_stay_certain() -> None:
    certain = np.array([[[0.0, 1.0]]], np.float32)
    np.testing.assert_allclose(sharpen(certain, "power", 1.5), certain)
    np.testing.assert_allclose(sharpen(certain, "softmax", 0.03), certain, atol=1e-12)
