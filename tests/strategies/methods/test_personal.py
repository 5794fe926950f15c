"""A mixture for each client: how near others are, what each of them weighs, and what a client gets, by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from strategies.aggregation import Votes, align
from strategies.labels import Contribution, SoftLabels
from strategies.methods.personal import PersonalStrategy, distances, mixture_weights, same_cluster
from strategies.rules.weighted import Mean
from tests.made_up import BEAMS, HORIZONS, NUM_PUBLIC, MadeUpTeacher, World, answers_beam, certain, encoding, experiment

TEACHER_BEAM = 9


def one_hot(client: str, beams: dict[int, int]) -> Contribution:
    """A client that is certain of a beam for each of some samples; the squared norm of each row is 1."""
    probs = np.eye(6, dtype=np.float32)[list(beams.values())][:, None].repeat(2, axis=1)
    return Contribution(client, "gps", SoftLabels(np.array(list(beams)), probs, 2.0), 1)


def votes(*beams: dict[int, int]) -> Votes:
    return align([one_hot("abcd"[number], named) for number, named in enumerate(beams)])


def over(samples: Sequence[int], beam: int) -> dict[int, int]:
    return dict.fromkeys(samples, beam)


# b differs from a in one of four samples, c from both in three: distances 2/4 and 6/4.
A, B, C = {0: 0, 1: 0, 2: 0, 3: 0}, {0: 0, 1: 0, 2: 0, 3: 1}, {0: 0, 1: 1, 2: 1, 3: 2}


def test_distances_are_mean_squares_over_what_both_answered() -> None:
    np.testing.assert_allclose(distances(votes(A, B, C)), [[0, 0.5, 1.5], [0.5, 0, 1.5], [1.5, 1.5, 0]], atol=1e-9)
    # a and b have samples 2 and 3 in common, and differ in one of the two.
    np.testing.assert_allclose(distances(votes(A, {2: 0, 3: 1, 4: 5})), [[0, 1], [1, 0]], atol=1e-9)


def test_distances_are_relative_to_how_certain_answers_are() -> None:
    def doubt(contribution: Contribution) -> Contribution:
        labels = contribution.labels
        # (p - 1/6) / 2 has a quarter of the squares of differences; rows become 7/12 and five times 1/12.
        probs = (labels.probs / 2 + 1 / 12).astype(np.float32)
        return Contribution(contribution.client, "gps", SoftLabels(labels.sample_ids, probs, 2.0), 1)

    found = distances(align([doubt(one_hot("a", A)), doubt(one_hot("b", B))]))
    assert found[0, 1] == pytest.approx(0.5 / 4 / ((49 + 5) / 144))


def test_the_nearer_weighs_more_and_the_client_itself_nothing() -> None:
    # Of two others: 1/2 + (1.5 - 0.5) / (4 pull) for the nearer one.
    expected = [[0, 0.75, 0.25], [0.75, 0, 0.25], [0.5, 0.5, 0]]
    np.testing.assert_allclose(mixture_weights(votes(A, B, C), 1.0), expected, atol=1e-9)
    expected = [[0, 0.625, 0.375], [0.625, 0, 0.375], [0.5, 0.5, 0]]
    np.testing.assert_allclose(mixture_weights(votes(A, B, C), 2.0), expected, atol=1e-9)


def test_with_little_pull_the_nearest_counts_alone() -> None:
    np.testing.assert_allclose(mixture_weights(votes(A, B, C), 0.1)[:2], [[0, 1, 0], [1, 0, 0]], atol=1e-9)


def test_weights_minimise_what_they_say() -> None:
    distance, pull = distances(votes(A, B, C)), 1.3
    grid = np.linspace(0, 1, 1001)

    def cost(nearer: NDArray[np.float64]) -> NDArray[np.float64]:
        spread = (nearer - 0.5) ** 2 + (1 - nearer - 0.5) ** 2
        found: NDArray[np.float64] = nearer * distance[0, 1] + (1 - nearer) * distance[0, 2] + pull * spread
        return found

    best = grid[cost(grid).argmin()]
    assert mixture_weights(votes(A, B, C), pull)[0, 1] == pytest.approx(best, abs=1e-3)


def test_one_alone_has_nobody_to_learn_from() -> None:
    np.testing.assert_array_equal(mixture_weights(votes(A), 1.0), [[0.0]])
    np.testing.assert_array_equal(same_cluster(votes(A), 2), [[1.0]])


# Two that name beam 0 and two that name beam 5; within a pair they share samples 4 and 5 alone.
HALVES = [over(range(6), 0), over(range(4, 10), 0), over(range(6), 5), over(range(4, 10), 5)]
PAIRS = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]


def test_clients_of_one_opinion_belong_together_whatever_samples_they_answered() -> None:
    np.testing.assert_array_equal(same_cluster(votes(*HALVES), 2), PAIRS)
    np.testing.assert_allclose(mixture_weights(votes(*HALVES), 0.5), np.array(PAIRS) - np.eye(4), atol=1e-9)


def test_of_clients_without_a_common_sample_nothing_is_known() -> None:
    halves = [over(range(3), 0), over(range(3, 6), 0)]
    np.testing.assert_array_equal(distances(votes(*halves)), [[0, 0], [0, 0]])
    # a and c, and b and d, are known to differ; for all other pairs that distance stands.
    apart = [*halves, over(range(3), 5), over(range(3, 6), 5)]
    np.testing.assert_allclose(distances(votes(*apart)), 2 * (1 - np.eye(4)), atol=1e-9)
    np.testing.assert_allclose(mixture_weights(votes(*apart), 0.5), (1 - np.eye(4)) / 3, atol=1e-9)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_there_are_at_most_as_many_clusters_as_asked_for(count: int) -> None:
    found = same_cluster(votes(A, B, C), count)
    assert len(np.unique(found, axis=0)) == count
    if count == 2:
        np.testing.assert_array_equal(found, [[1, 1, 0], [1, 1, 0], [0, 0, 1]])


def test_clients_of_the_same_answers_are_one_cluster() -> None:
    np.testing.assert_array_equal(same_cluster(votes(A, A, A), 2), np.ones((3, 3)))


# What a client gets.


def strategy(*, options: dict[str, Any] | None = None, **settings: Any) -> PersonalStrategy:
    return PersonalStrategy(
        experiment=experiment(**settings),
        aggregator=Mean(),
        teacher=MadeUpTeacher(),
        num_public=NUM_PUBLIC,
        run="r",
        digests=("e", "s"),
        **(options or {}),
    )


def answer(client: str, samples: Sequence[int], beam: int) -> Contribution:
    return Contribution(client, "gps", certain(np.array(samples), beam), 1)


def own_targets(personal: PersonalStrategy, contributions: list[Contribution]) -> dict[str, SoftLabels]:
    ensemble = personal.aggregate(contributions, np.arange(NUM_PUBLIC))
    return personal.targets_for(contributions, ensemble)


def shares(labels: SoftLabels, sample: int, *beams: int) -> list[float]:
    found: list[float] = labels.probs[labels.sample_ids.tolist().index(sample), 0, list(beams)].tolist()
    return found


def test_a_client_gets_the_mixture_of_the_others_and_nothing_of_itself() -> None:
    everything = range(NUM_PUBLIC)
    found = own_targets(
        strategy(), [answer("a", everything, 1), answer("b", everything, 2), answer("c", everything, 3)]
    )
    assert shares(found["a"], 0, 1, 2, 3) == pytest.approx([0, 0.5, 0.5])
    assert shares(found["c"], 0, 1, 2, 3) == pytest.approx([0.5, 0.5, 0])


def test_a_client_alone_gets_the_ensemble() -> None:
    for mixture in ("weights", "clusters"):
        found = own_targets(strategy(options={"mixture": mixture}), [answer("a", range(NUM_PUBLIC), 1)])
        np.testing.assert_array_equal(found["a"].probs, certain(np.arange(NUM_PUBLIC), 1).probs)


def test_of_a_sample_that_no_other_answered_a_client_gets_the_ensemble() -> None:
    found = own_targets(strategy(), [answer("a", [0, 1], 1), answer("b", [1, 2], 2)])
    assert [shares(found["a"], sample, 1, 2) for sample in (0, 1, 2)] == [[1, 0], [0, 1], [0, 1]]
    assert found["a"].sample_ids.tolist() == found["b"].sample_ids.tolist() == [0, 1, 2]


def test_a_cluster_learns_from_its_mean_and_one_alone_in_it_from_the_ensemble() -> None:
    everything = range(NUM_PUBLIC)
    near = certain(np.arange(NUM_PUBLIC), 1).probs.copy()
    near[..., [1, 2]] = 0.8, 0.2
    contributions = [
        answer("a", everything, 1),
        Contribution("b", "gps", SoftLabels(np.arange(NUM_PUBLIC), near, 2.0), 1),
        answer("c", everything, 3),
    ]
    found = own_targets(strategy(options={"mixture": "clusters"}), contributions)
    assert shares(found["a"], 0, 1, 2, 3) == pytest.approx([0.9, 0.1, 0])
    assert shares(found["c"], 0, 1, 2, 3) == pytest.approx([1.8 / 3, 0.2 / 3, 1 / 3])


def test_the_teacher_is_one_of_the_others_if_it_votes() -> None:
    found = own_targets(strategy(teacher_votes=True), [answer("a", range(NUM_PUBLIC), 1)])
    assert set(found) == {"a"}
    assert shares(found["a"], 0, 1, TEACHER_BEAM) == [0, 1]


@pytest.mark.parametrize(("publish", "share"), [("ensemble", 0.0), ("mix", 0.25), ("teacher", 1.0)])
def test_own_targets_are_fused_with_the_teacher_as_those_for_all_are(publish: str, share: float) -> None:
    works = {"000-gps": answers_beam(1), "001-gps": answers_beam(2)}
    world = World(works, experiment(publish=publish, mix=0.25), strategy_class=PersonalStrategy)
    world.round(1)
    for client, other in (("000-gps", 2), ("001-gps", 1)):
        labels = encoding().decode(world.strategy.state.own_caches[client].newest, 2.0)
        expected = np.zeros(BEAMS)
        expected[[other, TEACHER_BEAM]] = 1 - share, share
        np.testing.assert_allclose(labels.probs, np.broadcast_to(expected, (NUM_PUBLIC, HORIZONS, BEAMS)), atol=1e-6)


def test_own_targets_are_sharpened_like_the_ensemble() -> None:
    everything = range(NUM_PUBLIC)
    contributions = [answer("a", everything, 1), answer("b", everything, 2)]
    unsure = certain(np.arange(NUM_PUBLIC), 3).probs.copy()
    unsure[..., [3, 4]] = 0.75, 0.25
    contributions.append(Contribution("c", "gps", SoftLabels(np.arange(NUM_PUBLIC), unsure, 2.0), 1))
    found = own_targets(strategy(sharpen="power", sharpness=2.0, options={"pull": 1e6}), contributions)
    # Half of b's beam 2 and half of c's 3 and 4: 0.5, 0.375 and 0.125, squared and scaled.
    squares = np.array([0.25, 0.140625, 0.015625])
    np.testing.assert_allclose(shares(found["a"], 0, 2, 3, 4), squares / squares.sum(), rtol=1e-3)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"mixture": "median"}, "mixture: must be weights or clusters, got 'median'"),
        ({"pull": 0}, "pull: must be > 0, got 0"),
        ({"pull": float("inf")}, "pull: must be > 0, got inf"),
        ({"num_clusters": 0}, "num_clusters: must be >= 1, got 0"),
    ],
)
def test_options_out_of_range_are_refused_by_name(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError) as caught:
        PersonalStrategy.check_options(**options)
    assert str(caught.value) == text
