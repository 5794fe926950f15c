"""Tables of beams that stand in for others, and sets that take up next what adds most."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from clients.learning import beam_sets
from clients.learning.beam_sets import RankedBeams
from clients.learning.stand_ins import LEVELS, alone, from_text, measured_stand_ins, to_text

BEAMS = 8


def overlapping(num_slots: int, seed: int = 0) -> NDArray[np.float64]:
    """(M, B) powers of a codebook whose neighbours overlap."""
    angles = np.random.default_rng(seed).uniform(0, BEAMS - 1, num_slots)
    powers: NDArray[np.float64] = np.exp(-(((np.arange(BEAMS) - angles[:, None]) / 1.2) ** 2))
    return powers


def drawn_probs(num_windows: int, seed: int = 1) -> NDArray[np.float64]:
    return np.random.default_rng(seed).dirichlet(np.full(BEAMS, 0.6), num_windows)


def test_a_table_has_the_share_of_slots_in_which_a_beam_is_good_enough() -> None:
    power = overlapping(4000)
    best, good = power.argmax(axis=1), power >= power.max(axis=1, keepdims=True) * 10**-0.3
    (table,) = measured_stand_ins(power, [3.0])
    for beam in range(BEAMS):
        assert table[beam] / LEVELS == pytest.approx(good[best == beam].mean(axis=0), abs=0.03)


def test_more_beams_stand_in_where_more_loss_is_tolerated() -> None:
    one, three = measured_stand_ins(overlapping(200), [1.0, 3.0])
    assert np.all(one <= three) and np.any(one < three)
    assert np.all(one.diagonal() == LEVELS)


def test_a_beam_that_was_never_the_best_is_like_the_others() -> None:
    power = overlapping(4000)
    (table,) = measured_stand_ins(power[power.argmax(axis=1) != 4], [3.0])
    assert table[4, 3] > 0 and table[4, 5] > 0 and table[4, 0] == table[4, 7] == 0


def test_where_nothing_was_measured_each_beam_stands_for_itself() -> None:
    (table,) = measured_stand_ins(np.empty((0, BEAMS)), [1.0])
    assert np.array_equal(table, alone(BEAMS))


def test_sets_of_beams_that_stand_for_themselves_hold_the_most_probable() -> None:
    probs = drawn_probs(50)
    by_cover, plain = RankedBeams.by_cover(probs, alone(BEAMS)), RankedBeams.by_probability(probs)
    assert np.array_equal(by_cover.order, plain.order)
    np.testing.assert_allclose(by_cover.levels, plain.levels, atol=1e-12)


def test_levels_are_the_probability_of_a_good_beam_and_each_next_beam_adds_most() -> None:
    (table,) = measured_stand_ins(overlapping(300), [3.0])
    shares, probs = table / LEVELS, drawn_probs(20)
    ranked = RankedBeams.by_cover(probs, table)

    def held(window: int, beams: list[int]) -> float:
        return float(probs[window] @ (1.0 - np.prod(1.0 - shares[:, beams], axis=1)))

    for window, size in itertools.product(range(20), range(1, BEAMS + 1)):
        taken = ranked.order[window, :size].tolist()
        assert ranked.levels[window, size - 1] == pytest.approx(held(window, taken), abs=1e-9)
        others = [held(window, [*taken[:-1], beam]) for beam in range(BEAMS) if beam not in taken[:-1]]
        assert held(window, taken) == pytest.approx(max(others), abs=1e-9)
    assert np.array_equal(np.sort(ranked.order, axis=1), np.broadcast_to(np.arange(BEAMS), ranked.order.shape))
    assert np.all(ranked.levels[:, -1] == 1.0)


def test_sets_are_smaller_at_the_same_coverage_where_neighbours_overlap() -> None:
    # The tracker knows the angle within two beams.
    power = overlapping(3000, seed=2)
    said = np.clip(power.argmax(axis=1) + np.random.default_rng(3).integers(-2, 3, len(power)), 0, BEAMS - 1)
    spread = np.exp(-np.abs(np.arange(BEAMS) - said[:, None]) / 1.5)
    probs = spread / spread.sum(axis=1, keepdims=True)
    (table,) = measured_stand_ins(overlapping(300), [3.0])
    sizes = []
    for ranked in (RankedBeams.by_cover(probs, table), RankedBeams.by_probability(probs)):
        threshold = float(np.quantile(ranked.needed(power, 3.0), 0.95))
        assert np.mean(ranked.needed(power, 3.0) <= threshold) >= 0.95
        sizes.append(ranked.sizes(threshold).mean())
    assert sizes[0] < 0.8 * sizes[1]


@pytest.mark.parametrize("num_chosen", [1, 3, BEAMS])
def test_of_a_large_codebook_the_first_beams_alone_are_chosen_and_every_beam_has_its_place(
    num_chosen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (table,) = measured_stand_ins(overlapping(300), [3.0])
    probs = drawn_probs(30)
    whole = RankedBeams.by_cover(probs, table)
    monkeypatch.setattr(beam_sets, "num_greedy", lambda num_beams: num_chosen)
    ranked = RankedBeams.by_cover(probs, table)
    assert np.array_equal(ranked.order[:, :num_chosen], whole.order[:, :num_chosen])
    np.testing.assert_allclose(ranked.levels[:, :num_chosen], whole.levels[:, :num_chosen], atol=1e-12)
    assert np.array_equal(np.sort(ranked.order, axis=1), np.broadcast_to(np.arange(BEAMS), ranked.order.shape))
    assert np.all(np.diff(ranked.levels, axis=1) >= 0) and np.all(ranked.levels[:, -1] == 1.0)


def test_a_table_is_the_same_after_a_file_of_text() -> None:
    (table,) = measured_stand_ins(overlapping(100), [1.0])
    assert np.array_equal(from_text(to_text(table), BEAMS), table)


@pytest.mark.parametrize(
    ("text", "message"),
    [("no base64!", "not a table"), (to_text(alone(BEAMS - 1)), "49 numbers are no table of 8 beams")],
)
def test_what_is_no_table_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^stand_ins: .*{message}"):
        from_text(text, BEAMS)


def test_a_table_of_another_codebook_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^stand_ins: must have the shape \(8, 8\), got \(7, 7\)"):
        RankedBeams.by_cover(drawn_probs(3), alone(BEAMS - 1))
