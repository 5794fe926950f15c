"""Hand-computed answers of the aggregation rules."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from strategies.aggregation import align, confidence, weighted_mean, weighted_product
from strategies.labels import Contribution, SoftLabels
from strategies.rules.weighted import EntropyMean, EntropyProduct, ExampleWeighted, Mean


def contribution(
    ids: Sequence[int], rows: Sequence[Sequence[float]], *, client: str = "a", num_examples: int = 1
) -> Contribution:
    labels = SoftLabels(np.array(ids, np.int64), np.array(rows, np.float32)[:, None, :], 1.0)
    return Contribution(client, "gps", labels, num_examples)


def test_a_sample_is_averaged_only_over_the_clients_that_answered_for_it() -> None:
    camera = contribution([0, 1], [[1.0, 0.0], [1.0, 0.0]], client="camera")
    radar = contribution([1], [[0.0, 1.0]], client="radar")
    np.testing.assert_allclose(Mean().aggregate([camera, radar]).probs[:, 0], [[1.0, 0.0], [0.5, 0.5]])


def test_a_client_with_three_times_the_examples_counts_three_times() -> None:
    rich = contribution([0], [[1.0, 0.0]], client="rich", num_examples=30)
    poor = contribution([0], [[0.0, 1.0]], client="poor", num_examples=10)
    np.testing.assert_allclose(ExampleWeighted().aggregate([rich, poor]).probs[0, 0], [0.75, 0.25])


def test_clients_without_examples_count_alike_when_nobody_has_any() -> None:
    one = contribution([0], [[1.0, 0.0]], client="one", num_examples=0)
    other = contribution([0], [[0.0, 1.0]], client="other", num_examples=0)
    np.testing.assert_allclose(ExampleWeighted().aggregate([one, other]).probs[0, 0], [0.5, 0.5])


def test_a_client_that_knows_nothing_does_not_dilute_the_entropy_rules() -> None:
    sure = contribution([0], [[0.97, 0.01, 0.01, 0.01]], client="sure")
    blind = contribution([0], [[0.25, 0.25, 0.25, 0.25]], client="blind")
    for rule in (EntropyMean(), EntropyProduct()):
        np.testing.assert_allclose(rule.aggregate([sure, blind]).probs, sure.labels.probs, atol=1e-6)
    np.testing.assert_allclose(Mean().aggregate([sure, blind]).probs[0, 0], [0.61, 0.13, 0.13, 0.13], atol=1e-6)


def test_the_product_of_two_experts_of_equal_weight_is_the_scaled_geometric_mean() -> None:
    votes = align([contribution([0], [[0.8, 0.2]], client="a"), contribution([0], [[0.5, 0.5]], client="b")])
    # sqrt(0.8 * 0.5) : sqrt(0.2 * 0.5) = 2 : 1
    product = weighted_product(votes, np.ones((1, 1, 1)))
    np.testing.assert_allclose(product.probs[0, 0], [2 / 3, 1 / 3], atol=1e-6)


def test_weights_of_one_and_three_give_a_quarter_and_three_quarters() -> None:
    votes = align([contribution([0], [[1.0, 0.0]], client="a"), contribution([0], [[0.0, 1.0]], client="b")])
    weights = np.array([1.0, 3.0])[:, None, None]
    np.testing.assert_allclose(weighted_mean(votes, weights).probs[0, 0], [0.25, 0.75])


def test_two_certain_experts_that_contradict_each_other_split_evenly() -> None:
    one, other = contribution([0], [[1.0, 0.0, 0.0]], client="a"), contribution([0], [[0.0, 1.0, 0.0]], client="b")
    np.testing.assert_allclose(EntropyProduct().aggregate([one, other]).probs[0, 0], [0.5, 0.5, 0.0], atol=1e-5)


def test_confidence_is_one_for_a_certain_row_and_zero_for_a_uniform_one() -> None:
    rows = np.array([[1.0, 0.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0.0, 0.0]])
    np.testing.assert_allclose(confidence(rows, 1.0), [1.0, 0.0, 0.5], atol=1e-9)  # ln 2 / ln 4 = 1/2
    np.testing.assert_allclose(confidence(rows, 2.0), [1.0, 0.0, 0.25], atol=1e-9)


def test_a_larger_exponent_lets_the_certain_dominate() -> None:
    sure = contribution([0], [[0.9, 0.1]], client="sure")
    unsure = contribution([0], [[0.3, 0.7]], client="unsure")
    for rule in (EntropyMean, EntropyProduct):
        shares = [rule(exponent=exponent).aggregate([sure, unsure]).probs[0, 0, 0] for exponent in (0.5, 1.0, 4.0)]
        assert shares == sorted(shares)
        assert shares[0] < shares[-1]


@pytest.mark.parametrize("exponent", [0, -1, float("nan"), "two"])
def test_an_exponent_that_is_not_positive_is_refused_by_its_name(exponent: float) -> None:
    for rule in (EntropyMean, EntropyProduct):
        with pytest.raises(ValueError, match=r"^exponent: must be > 0"):
            rule(exponent=exponent)


def test_aligned_votes_are_sorted_by_client_and_zero_where_nobody_answered() -> None:
    votes = align(
        [
            contribution([2], [[0.0, 1.0]], client="b", num_examples=5),
            contribution([0], [[1.0, 0.0]], client="a", num_examples=3),
        ]
    )
    np.testing.assert_array_equal(votes.sample_ids, [0, 2])
    np.testing.assert_array_equal(votes.answered, [[True, False], [False, True]])
    np.testing.assert_array_equal(votes.probs[:, :, 0], [[[1, 0], [0, 0]], [[0, 0], [0, 1]]])
    np.testing.assert_array_equal(votes.num_examples, [3, 5])
