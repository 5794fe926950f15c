"""Paired differences between rows: the same seed and client, one interval, and ties that are called ties."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sim.report.pairs import (
    Contender,
    contenders_of,
    counts_in_words,
    gains_to,
    kinds_of,
    paired_gain,
    paired_gain_of_kind,
    verdict_of_pairs,
)
from sim.report.strategies import comparisons_of
from tests.sim.report.test_strategies import summary


def rows(*runs: dict[str, Any]) -> list[Contender]:
    (comparison,) = comparisons_of(runs)
    return contenders_of(comparison)


def run(strategy: str, *scores: float | None, seed: int = 0, folder: Path | None = None) -> dict[str, Any]:
    made = summary(strategy, {f"{i:03d}-gps": score for i, score in enumerate(scores)}, seed=seed)
    for client in made["clients"]:
        client |= {"modality": "gps", "parameters": 10}
    return {**made, **({} if folder is None else {"folder": str(folder)})}


def by_label(found: list[Contender]) -> dict[str, Contender]:
    return {one.label: one for one in found}


def test_a_difference_is_that_of_the_same_client_with_the_same_seed() -> None:
    found = by_label(
        rows(
            run("fedmd", 0.5, 0.7, None),
            run("fedmd", 0.6, 0.6, 0.9, seed=1),
            run("fedmd", 0.9, 0.9, 0.9, seed=2),
            run("scarlet", 0.4, 0.6, 0.9),
            run("scarlet", 0.4, 0.4, 0.7, seed=1),
        )
    )
    gain = paired_gain(found["fedmd"], found["scarlet"])
    assert gain is not None
    assert gain.mean == pytest.approx((0.1 + 0.2) / 2)  # seed 2 and the client without a score have no partner
    assert (gain.num, gain.num_better) == (5, 5)
    assert 0.1 - 1e-9 <= gain.low < gain.mean < gain.high <= 0.2 + 1e-9


def test_a_difference_turned_round_is_its_negative() -> None:
    first, second = rows(run("fedmd", 0.5, 0.7, 0.65), run("scarlet", 0.45, 0.3, 0.66))
    one, other = paired_gain(first, second), paired_gain(second, first)
    assert one is not None and other is not None
    assert (one.mean, one.low, one.high) == pytest.approx((-other.mean, -other.high, -other.low))
    assert one.sign == -other.sign


def test_rows_without_a_common_seed_have_no_difference() -> None:
    first, second = rows(run("fedmd", 0.5, 0.7), run("scarlet", 0.4, 0.6, seed=1))
    assert paired_gain(first, second) is None
    assert gains_to(first, [second]) == {}
    verdict, is_won = verdict_of_pairs([first, second])
    assert not is_won and f"No seed and client in common with it: {second.label}" in verdict


def test_a_kind_is_paired_by_test_pass(tmp_path: Path) -> None:
    for name, level in (("a", 0.6), ("b", 0.5)):
        (tmp_path / name).mkdir()
        values = {"000-gps": {"federated": [level, level + 0.02]}, "001-gps": {"federated": [level, level]}}
        (tmp_path / name / "passes.json").write_text(json.dumps({"passes": [1, 2], "top5": values}))
    first, second = rows(run("fedmd", 0.6, 0.6, folder=tmp_path / "a"), run("scarlet", 0.5, 0.5, folder=tmp_path / "b"))
    (kind,) = kinds_of([first, second])
    gain = paired_gain_of_kind(second, first, kind.clients)
    assert gain is not None
    assert (gain.mean, gain.num) == (pytest.approx(-0.1), 2)
    assert paired_gain_of_kind(second, first, ["another"]) is None


@pytest.mark.parametrize(
    ("scores", "words", "is_won"),
    [
        (
            {"fedmd": (0.7, 0.72, 0.71), "scarlet": (0.6, 0.62, 0.61), "dsfl": (0.5, 0.52, 0.51)},
            "fedmd wins: it is clearly ahead of each of the 2 other rows, by 10.0 points of Top-5 (95 % interval "
            "10.0 to 10.0) before scarlet.",
            True,
        ),
        (
            {"fedmd": (0.7, 0.72), "scarlet": (0.6, 0.62)},
            "fedmd wins: it is clearly ahead of the other row, by 10.0 points of Top-5 (95 % interval 10.0 to 10.0).",
            True,
        ),
        (
            {"fedmd": (0.7, 0.5, 0.6), "scarlet": (0.5, 0.7, 0.59), "dsfl": (0.1, 0.1, 0.1)},
            "There is no clear winner: fedmd has the highest mean Top-5, and ties with scarlet. Clearly behind: dsfl.",
            False,
        ),
        (
            {"fedmd": (0.603, 0.603), "scarlet": (0.6, 0.6)},
            "There is no clear winner: fedmd has the highest mean Top-5, and ties with scarlet.",
            False,
        ),
        ({"fedmd": (0.7, 0.72)}, "There is one row only, street, so there is nothing to compare it with.", False),
    ],
)
def test_a_winner_is_clearly_ahead_of_all_others(
    scores: dict[str, tuple[float, ...]], words: str, is_won: bool
) -> None:
    assert verdict_of_pairs(rows(*(run(name, *values) for name, values in scores.items()))) == (words, is_won)


def test_a_row_with_the_highest_mean_may_be_behind_where_seeds_are_the_same() -> None:
    found = rows(run("fedmd", 0.5, 0.52, 0.51), run("fedmd", 0.9, 0.9, 0.9, seed=1), run("scarlet", 0.6, 0.62, 0.61))
    assert [one.label for one in found] == ["fedmd", "scarlet"]
    verdict, is_won = verdict_of_pairs(found)
    assert not is_won and "Clearly ahead of it where seeds and clients are the same: scarlet" in verdict


def test_many_names_are_told_by_their_number() -> None:
    names = ("fedmd", "scarlet", "dsfl", "cfd", "personal", "distillation", "selective")
    verdict, _ = verdict_of_pairs(rows(*(run(name, 0.6, 0.6) for name in names)))
    assert verdict.endswith(" and 2 more.")


def test_signs_are_counted_in_words() -> None:
    first, *others = rows(run("fedmd", 0.7, 0.72), run("scarlet", 0.6, 0.62), run("dsfl", 0.699, 0.719))
    assert counts_in_words(gains_to(first, others)) == "1 tie, 1 worse"
    assert counts_in_words({}) == "none"
