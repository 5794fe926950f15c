"""Strategies side by side: who is best, who loses, who costs what, and which of them nothing beats on both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from configs.strategy import Strategy
from sim.report.strategies import draw_strategies, save_strategies, strategy_rows
from sim.report.summaries import flatten


def metrics(top5: float) -> dict[str, list[float]]:
    names = ("top1", "top3", "top5", "dba", "dba_k3", "power_loss_db")
    return {name: [top5 - 0.1, top5 + 0.1] for name in names}


def summary(
    strategy: str,
    scores: dict[str, float | None],
    *,
    seed: int = 0,
    total_bytes: int = 1000,
    local: dict[str, float] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    values = flatten(Strategy(name=strategy, **settings).model_dump(mode="json"))
    return {
        "experiment": "street",
        "seed": seed,
        "seconds": {"data": 0.0, "start": 0.0, "rounds": 10.0 + seed, "total": 20.0},
        "clients": [
            {
                "id": client,
                "federated": None if score is None else metrics(score),
                "local": None if local is None else metrics(local[client]),
                "offline_kd": None,
                "uplink_bytes": total_bytes // 4,
                "downlink_bytes": 3 * total_bytes // 4,
            }
            for client, score in scores.items()
        ],
        "teacher": {"before": metrics(0.7), "after": metrics(0.8)},
        "settings": {f"strategy.{key}": value for key, value in values.items()},
    }


def two_seeds() -> list[dict[str, Any]]:
    return [
        summary("local", {"a": 0.5, "b": 0.6}, total_bytes=0),
        summary("local", {"a": 0.4, "b": 0.6}, seed=1, total_bytes=0),
        summary("fedmd", {"a": 0.7, "b": 0.55}),
        summary("fedmd", {"a": 0.5, "b": 0.65}, seed=1),
    ]


def test_scores_are_means_over_clients_then_seeds_and_the_worst_is_that_of_each_seed() -> None:
    best, local = strategy_rows(two_seeds())
    assert (best.label, local.label) == ("fedmd", "local")
    assert best.runs == 2
    assert best.mean.mean == pytest.approx((0.625 + 0.575) / 2)
    assert best.mean.sd == pytest.approx(0.05 / 2**0.5)
    assert best.worst.mean == pytest.approx((0.55 + 0.5) / 2)
    assert best.seconds == pytest.approx(10.5)


def test_gains_are_over_the_same_client_of_the_same_seed_alone() -> None:
    best, local = strategy_rows(two_seeds())
    assert best.mean_gain == pytest.approx((0.2 - 0.05 + 0.1 + 0.05) / 4)
    assert best.worst_gain == pytest.approx(-0.05)
    assert local.worst_gain == pytest.approx(0.0)


def test_a_run_s_own_controls_are_a_reference_too_and_without_any_there_is_no_gain() -> None:
    (alone,) = strategy_rows([summary("fedmd", {"a": 0.7})])
    assert alone.mean_gain is None and alone.worst_gain is None
    (controlled,) = strategy_rows([summary("fedmd", {"a": 0.7}, local={"a": 0.6})])
    assert controlled.mean_gain == pytest.approx(0.1)


def test_the_front_is_what_nothing_beats_on_both_sides() -> None:
    rows = strategy_rows(
        [
            summary("fedmd", {"a": 0.9}, total_bytes=4000),
            summary("dsfl", {"a": 0.8}, total_bytes=400),
            summary("scarlet", {"a": 0.7}, total_bytes=800),
            summary("cfd", {"a": 0.8}, total_bytes=800),
        ]
    )
    assert {row.label: row.is_front for row in rows} == {"fedmd": True, "dsfl": True, "scarlet": False, "cfd": False}


def test_a_label_says_what_differs_from_the_recipe_and_nothing_that_it_explains() -> None:
    rows = strategy_rows(
        [
            summary("dsfl", {"a": 0.9}),
            summary("distillation", {"a": 0.8}),
            summary("distillation", {"a": 0.7}, codec="uint4"),
        ]
    )
    assert [row.label for row in rows] == ["dsfl", "distillation", "distillation codec=uint4"]


def test_a_strategy_of_which_nobody_was_scored_is_left_out() -> None:
    assert strategy_rows([summary("fedmd", {"a": None})]) == []


def test_the_figure_shows_every_strategy_and_joins_the_front(tmp_path: Path) -> None:
    rows = strategy_rows([*two_seeds(), summary("cfd", {"a": 0.3, "b": 0.3}, total_bytes=100)])
    (axes,) = draw_strategies(rows).axes
    assert {text.get_text() for text in axes.texts} == {"fedmd", "local", "cfd"}
    save_strategies(rows, tmp_path / "figures" / "pareto.svg")
    assert "fedmd" in (tmp_path / "figures" / "pareto.svg").read_text()
    with pytest.raises(ValueError, match="ends in"):
        save_strategies(rows, tmp_path / "pareto.doc")
    with pytest.raises(ValueError, match="no run has a client"):
        save_strategies([], tmp_path / "pareto.svg")


def test_strategies_at_one_place_share_a_label(tmp_path: Path) -> None:
    near = [summary("dsfl", {"a": 0.7, "b": 0.7}), summary("scarlet", {"a": 0.7, "b": 0.701}, total_bytes=1140)]
    apart = [summary("cfd", {"a": 0.7, "b": 0.7}, total_bytes=1320), summary("fedgems", {"a": 0.8, "b": 0.8})]
    (axes,) = draw_strategies(strategy_rows([*near, *apart])).axes
    assert {text.get_text() for text in axes.texts} == {"scarlet,\ndsfl", "cfd", "fedgems"}
