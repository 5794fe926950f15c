"""What soft labels are, and what is refused in their place."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from strategies.labels import SIMPLEX_TOLERANCE, SoftLabels, empty_labels, normalise_rows


def one_hot(beams: list[int], num_beams: int = 4) -> NDArray[np.float32]:
    """(N, 1, B) rows that name one beam each."""
    return np.eye(num_beams, dtype=np.float32)[beams][:, None, :]


def labels(ids: list[int], beams: list[int], temperature: float = 2.0) -> SoftLabels:
    return SoftLabels(np.array(ids, np.int64), one_hot(beams), temperature)


@pytest.mark.parametrize(
    "row",
    [
        [2.0, -1.0, 0.5, -0.5],  # logits that even sum to one
        [3.0, 1.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0],
        [0.5, 0.5, 0.5, -0.5],
        [0.25, 0.25, 0.25, 0.25 + 2 * SIMPLEX_TOLERANCE],
    ],
)
def test_what_is_not_a_distribution_is_refused_and_logits_are_suspected(row: list[float]) -> None:
    with pytest.raises(ValueError, match="did you pass logits"):
        SoftLabels(np.array([0]), np.array([[row]], np.float32), 1.0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="must be finite"):
        SoftLabels(np.array([0]), np.array([[[value, 1.0]]], np.float32), 1.0)


@pytest.mark.parametrize("ids", [[1, 0], [0, 0], [-1, 0]])
def test_ids_that_are_negative_repeated_or_unsorted_are_refused(ids: list[int]) -> None:
    with pytest.raises(ValueError, match="strictly increasing"):
        labels(ids, [0, 1])


@pytest.mark.parametrize(
    ("ids", "probs"),
    [
        (np.array([0]), np.full((2, 1, 4), 0.25, np.float32)),
        (np.array([0]), np.full((1, 4), 0.25, np.float32)),
        (np.array([[0]]), np.full((1, 1, 4), 0.25, np.float32)),
    ],
)
def test_shapes_that_do_not_match_are_refused(ids: NDArray[np.int64], probs: NDArray[np.float32]) -> None:
    with pytest.raises(ValueError, match="expected ids"):
        SoftLabels(ids, probs, 1.0)


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan, np.inf])
def test_a_temperature_that_softens_nothing_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        labels([0], [0], temperature)


def test_a_row_of_float16_is_near_enough_to_the_simplex() -> None:
    row = np.full(64, 1 / 63, np.float16).astype(np.float32)
    row[0] = 1 - row[1:].sum() + np.float32(2**-12)
    SoftLabels(np.array([0]), row[None, None], 1.0)


def test_taken_labels_are_those_of_the_samples_asked_for() -> None:
    taken = labels([2, 5, 9], [0, 1, 2]).take(np.array([2, 9]))
    np.testing.assert_array_equal(taken.sample_ids, [2, 9])
    np.testing.assert_array_equal(taken.probs, one_hot([0, 2]))
    assert taken.temperature == 2.0


def test_no_sample_may_be_taken_from_any_labels() -> None:
    assert len(labels([2], [0]).take(np.empty(0, np.int64))) == 0
    assert len(empty_labels(1, 4, 2.0).take(np.empty(0, np.int64))) == 0


@pytest.mark.parametrize("ids", [[3], [2, 4], [10], [0], [9, 2]])
def test_samples_that_are_not_there_or_not_sorted_cannot_be_taken(ids: list[int]) -> None:
    with pytest.raises(ValueError, match="sample_ids"):
        labels([2, 5, 9], [0, 1, 2]).take(np.array(ids))


def test_no_labels_hold_no_sample_to_take() -> None:
    with pytest.raises(ValueError, match="sample_ids"):
        empty_labels(1, 4, 2.0).take(np.array([0]))


def test_newer_labels_replace_older_ones_and_join_between_them() -> None:
    updated = labels([1, 3, 5], [0, 0, 0]).update(labels([2, 3, 7], [1, 2, 3]))
    np.testing.assert_array_equal(updated.sample_ids, [1, 2, 3, 5, 7])
    np.testing.assert_array_equal(updated.probs, one_hot([0, 1, 2, 0, 3]))


def test_an_update_leaves_both_sides_as_they_were() -> None:
    old, new = labels([1, 3], [0, 0]), labels([3], [2])
    old.update(new)
    np.testing.assert_array_equal(old.probs, one_hot([0, 0]))
    np.testing.assert_array_equal(new.probs, one_hot([2]))


def test_an_update_with_or_of_nothing_changes_nothing() -> None:
    some, none = labels([1], [0]), empty_labels(1, 4, 2.0)
    for updated in (some.update(none), none.update(some)):
        np.testing.assert_array_equal(updated.sample_ids, some.sample_ids)
        np.testing.assert_array_equal(updated.probs, some.probs)


def test_labels_of_another_temperature_or_shape_cannot_be_joined() -> None:
    with pytest.raises(ValueError, match="one temperature"):
        labels([1], [0]).update(labels([2], [0], temperature=1.0))
    with pytest.raises(ValueError, match="one row shape"):
        labels([1], [0]).update(SoftLabels(np.array([2]), one_hot([0], 8), 2.0))


def test_rows_are_scaled_to_one_and_a_row_of_zeros_becomes_uniform() -> None:
    rows = np.array([[3.0, 1.0], [0.0, 0.0], [0.0, 1e-30]])
    np.testing.assert_allclose(normalise_rows(rows), [[0.75, 0.25], [0.5, 0.5], [0.0, 1.0]])
    assert normalise_rows(rows).dtype == np.float32
    np.testing.assert_array_equal(rows[0], [3.0, 1.0])
