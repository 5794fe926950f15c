"""The laws that every aggregator keeps, held over each entry of the registry and over one of a user's own.

To check a rule of yours, add it to ``RULES``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray

from configs.seeding import rng_for
from strategies import aggregation
from strategies.aggregation import Aggregator, align
from strategies.labels import Contribution, SoftLabels
from strategies.registry import AGGREGATORS, build_plugin, find_class

HORIZONS, BEAMS = 2, 8


@dataclass(frozen=True)
class MostCertain:
    """A user's own rule: each row is that of the client with the largest probability in it."""

    def aggregate(self, contributions: Sequence[Contribution]) -> SoftLabels:
        votes = align(contributions)
        winner = votes.probs.max(axis=-1).argmax(axis=0)
        probs = np.take_along_axis(votes.probs, winner[None, ..., None], axis=0)[0]
        return SoftLabels(votes.sample_ids, probs.astype(np.float32), votes.temperature)


def _build(name: str, options: dict[str, object]) -> Aggregator:
    rule: Aggregator = build_plugin(find_class(name, AGGREGATORS, key="name"), options, key="options")
    return rule


# Options beside the defaults under which the laws hold as well.
VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    "product by agreement and modality": (
        "weighted",
        {"weights": ["agreement", "modality", "examples"], "pool": "product", "exponent": 2.0},
    ),
    "covered median": ("median", {"coverage": True}),
    "covered trimmed mean": ("trimmed_mean", {"coverage": True, "trim": 0.4}),
    "covered geometric median": ("geometric_median", {"coverage": True}),
    "consensus of all beams": ("consensus", {"coverage": False, "floor": 0.8, "exponent": 0.0}),
}
RULES: dict[str, Aggregator] = {
    **{name: _build(name, {}) for name in AGGREGATORS},
    **{title: _build(name, options) for title, (name, options) in VARIANTS.items()},
    "a user's own": MostCertain(),
}


@pytest.fixture(params=sorted(RULES))
def rule(request: pytest.FixtureRequest) -> Aggregator:
    return RULES[str(request.param)]


def contribution(client: str, ids: Sequence[int], *, alpha: float = 0.3, num_examples: int = 100) -> Contribution:
    drawn = rng_for(0, "contribution", client).dirichlet(np.full(BEAMS, alpha), size=(len(ids), HORIZONS))
    labels = SoftLabels(np.array(ids, np.int64), drawn.astype(np.float32), 2.0)
    return Contribution(client, "gps", labels, num_examples)


def flat(client: str, ids: Sequence[int]) -> Contribution:
    """A client that knows nothing."""
    probs = np.full((len(ids), HORIZONS, BEAMS), 1 / BEAMS, np.float32)
    return Contribution(client, "gps", SoftLabels(np.array(ids, np.int64), probs, 2.0), 10)


def ragged() -> list[Contribution]:
    """Four clients, some of whose samples nobody else answered."""
    return [
        contribution("000-camera", [0, 1, 2, 3, 4], num_examples=7),
        contribution("001-gps", [2, 3, 9], alpha=0.01, num_examples=300),
        contribution("002-radar", [0, 4, 7, 8], alpha=5.0, num_examples=20),
        flat("003-lidar", [1, 2, 10]),
    ]


def certain(client: str, beam: int) -> Contribution:
    """A client that is sure of one beam."""
    row: NDArray[np.float32] = np.zeros((1, HORIZONS, BEAMS), np.float32)
    row[..., beam] = 1.0
    return Contribution(client, "gps", SoftLabels(np.array([0]), row, 2.0), 5)


def tied() -> list[Contribution]:
    """Four clients that contradict each other with equal certainty."""
    return [certain(f"{beam:03d}-gps", beam) for beam in range(4)]


def test_rows_stay_on_the_simplex(rule: Aggregator) -> None:
    probs = rule.aggregate(ragged()).probs
    assert probs.dtype == np.float32
    assert probs.min() >= 0
    np.testing.assert_allclose(probs.sum(axis=-1, dtype=np.float64), 1.0, atol=1e-5)


def test_every_sample_that_anyone_answered_is_there_once(rule: Aggregator) -> None:
    ensemble = rule.aggregate(ragged())
    np.testing.assert_array_equal(ensemble.sample_ids, [0, 1, 2, 3, 4, 7, 8, 9, 10])
    assert ensemble.probs.shape == (9, HORIZONS, BEAMS)
    assert ensemble.temperature == 2.0


@pytest.mark.parametrize("given", [ragged(), tied()], ids=["ragged", "tied"])
def test_the_order_of_clients_is_irrelevant_to_the_bit(rule: Aggregator, given: list[Contribution]) -> None:
    expected = rule.aggregate(given)
    for order in permutations(given):
        ensemble = rule.aggregate(order)
        np.testing.assert_array_equal(ensemble.sample_ids, expected.sample_ids)
        np.testing.assert_array_equal(ensemble.probs, expected.probs)


@pytest.mark.parametrize("num_bytes", [1, 8 * 4 * HORIZONS * BEAMS * 2])
def test_a_rule_finds_the_same_in_blocks_of_samples_to_the_bit(
    rule: Aggregator, num_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    alike = [contribution(f"{number:03d}-gps", range(7), alpha=number + 0.1) for number in range(4)]
    for given in (ragged(), alike):
        monkeypatch.setattr(aggregation, "BLOCK_BYTES", 1 << 30)
        expected = rule.aggregate(given)
        monkeypatch.setattr(aggregation, "BLOCK_BYTES", num_bytes)
        ensemble = rule.aggregate(given)
        np.testing.assert_array_equal(ensemble.sample_ids, expected.sample_ids)
        np.testing.assert_array_equal(ensemble.probs, expected.probs)


def test_inputs_are_not_modified(rule: Aggregator) -> None:
    given = ragged()
    rule.aggregate(given)
    for one, fresh in zip(given, ragged(), strict=True):
        assert one.client == fresh.client
        np.testing.assert_array_equal(one.labels.sample_ids, fresh.labels.sample_ids)
        np.testing.assert_array_equal(one.labels.probs, fresh.labels.probs)


def test_inputs_may_be_read_only(rule: Aggregator) -> None:
    given = ragged()
    for one in given:
        one.labels.probs.setflags(write=False)
        one.labels.sample_ids.setflags(write=False)
    rule.aggregate(given)


@pytest.mark.parametrize("alpha", [0.01, 0.3, 100.0])
def test_one_client_alone_gives_its_own_answer(rule: Aggregator, alpha: float) -> None:
    alone = contribution("000-camera", [3, 5], alpha=alpha)
    ensemble = rule.aggregate([alone])
    np.testing.assert_array_equal(ensemble.sample_ids, [3, 5])
    np.testing.assert_allclose(ensemble.probs, alone.labels.probs, atol=1e-6)


def test_a_client_without_knowledge_and_without_labels_alone_gives_its_own_answer(rule: Aggregator) -> None:
    alone = flat("000-camera", [3, 5])
    unlabelled = Contribution(alone.client, alone.modality, alone.labels, num_examples=0)
    np.testing.assert_allclose(rule.aggregate([unlabelled]).probs, alone.labels.probs, atol=1e-6)


def test_a_sample_that_one_client_answered_is_that_client_s_answer(rule: Aggregator) -> None:
    ensemble = rule.aggregate(ragged())
    np.testing.assert_allclose(ensemble.take(np.array([9])).probs, ragged()[1].labels.probs[2:], atol=1e-6)
    np.testing.assert_allclose(ensemble.take(np.array([7, 8])).probs, ragged()[2].labels.probs[2:], atol=1e-6)
    np.testing.assert_allclose(ensemble.take(np.array([10])).probs, 1 / BEAMS, atol=1e-6)


def test_who_answered_other_samples_does_not_matter_for_a_sample(rule: Aggregator) -> None:
    both = [contribution("000-camera", [0, 1]), contribution("001-gps", [0, 1], alpha=0.05)]
    more = [*both, contribution("002-radar", [5, 6])]
    np.testing.assert_allclose(rule.aggregate(more).take(np.array([0, 1])).probs, rule.aggregate(both).probs, atol=1e-6)


def test_clients_that_agree_are_not_contradicted(rule: Aggregator) -> None:
    labels = contribution("000-camera", [0, 1, 2]).labels
    agreeing = [Contribution(f"{number:03d}-gps", "gps", labels, 10 * number) for number in range(5)]
    np.testing.assert_allclose(rule.aggregate(agreeing).probs, labels.probs, atol=1e-6)


def test_the_names_of_beams_do_not_matter(rule: Aggregator) -> None:
    order = rng_for(0, "beam order").permutation(BEAMS)
    renamed = [
        Contribution(
            one.client,
            one.modality,
            SoftLabels(one.labels.sample_ids, one.labels.probs[..., order], 2.0),
            one.num_examples,
        )
        for one in ragged()
    ]
    np.testing.assert_allclose(rule.aggregate(renamed).probs, rule.aggregate(ragged()).probs[..., order], atol=1e-6)


def test_certain_clients_that_contradict_each_other_leave_a_distribution(rule: Aggregator) -> None:
    probs = rule.aggregate(tied()).probs
    np.testing.assert_allclose(probs.sum(axis=-1), 1.0, atol=1e-5)
    assert probs[..., 4:].max() < 1e-3  # nobody named these beams


def test_a_client_that_answered_nothing_changes_nothing(rule: Aggregator) -> None:
    with_silent = [*ragged(), contribution("004-gps", [])]
    np.testing.assert_allclose(rule.aggregate(with_silent).probs, rule.aggregate(ragged()).probs, atol=1e-6)


def test_no_contributions_is_an_error(rule: Aggregator) -> None:
    with pytest.raises(ValueError, match="nothing to aggregate"):
        rule.aggregate([])


def test_contributions_of_other_temperatures_or_shapes_are_an_error(rule: Aggregator) -> None:
    one = contribution("000-camera", [0])
    hotter = SoftLabels(one.labels.sample_ids, one.labels.probs, 3.0)
    narrower = SoftLabels(one.labels.sample_ids, one.labels.probs[:, :1], 2.0)
    for labels in (hotter, narrower):
        with pytest.raises(ValueError, match="differ"):
            rule.aggregate([one, Contribution("001-gps", "gps", labels, 1)])


def seeing(one: Contribution, beams: Sequence[int]) -> Contribution:
    seen = np.zeros(BEAMS, np.int64)
    seen[list(beams)] = 3
    return Contribution(one.client, one.modality, one.labels, one.num_examples, age=one.age, seen=seen)


def test_the_laws_hold_for_whatever_clients_have_seen(rule: Aggregator) -> None:
    given = [seeing(one, beams) for one, beams in zip(ragged(), ([0, 1, 2], [2, 3], [], [4, 5, 6]), strict=True)]
    ensemble = rule.aggregate(given)
    np.testing.assert_allclose(ensemble.probs.sum(axis=-1), 1.0, atol=1e-5)
    for order in permutations(given):
        np.testing.assert_array_equal(rule.aggregate(order).probs, ensemble.probs)
    alone = seeing(contribution("000-camera", [3, 5]), [0])
    np.testing.assert_allclose(rule.aggregate([alone]).probs, alone.labels.probs, atol=1e-6)


def test_clients_that_have_seen_everything_are_as_those_that_do_not_say(rule: Aggregator) -> None:
    given = [seeing(one, range(BEAMS)) for one in ragged()]
    np.testing.assert_array_equal(rule.aggregate(given).probs, rule.aggregate(ragged()).probs)
