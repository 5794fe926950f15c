"""Strategies side by side: who is best, who loses, who costs what, and which of them nothing beats on both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from rich.console import Console

from configs.strategy import Strategy
from sim.report.labels import flatten
from sim.report.strategies import (
    comparisons_of,
    draw_comparisons,
    save_comparisons,
    seeds_in_words,
    strategy_rows,
    strategy_table,
)


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
    assert best.seeds == (0, 1)
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


def test_a_run_s_own_control_is_its_reference_before_that_of_another_run() -> None:
    rows = strategy_rows(
        [summary("fedmd", {"a": 0.7}, local={"a": 0.6}), summary("dsfl", {"a": 0.7}, local={"a": 0.5})]
    )
    assert {row.label: row.mean_gain for row in rows} == {"fedmd": pytest.approx(0.1), "dsfl": pytest.approx(0.2)}


def elsewhere(one: dict[str, Any], **data: Any) -> dict[str, Any]:
    """The same run on other data."""
    return {**one, "settings": {**one["settings"], **{f"data.{key}": value for key, value in data.items()}}}


def test_runs_on_unlike_data_or_nodes_are_never_on_one_front_nor_references_for_each_other() -> None:
    here, there = {"source": "street", "nodes": [{"modality": "gps", "count": 1}]}, {"source": "deepsense"}
    runs = [
        elsewhere(summary("local", {"a": 0.5}, total_bytes=0), **here),
        elsewhere(summary("fedmd", {"a": 0.9}, total_bytes=400), **here),
        elsewhere(summary("dsfl", {"a": 0.6}, total_bytes=800), **there),
    ]
    street, measured = comparisons_of(runs)
    assert [row.label for row in street.rows] == ["fedmd", "local"]
    (alone,) = measured.rows
    assert alone.is_front and alone.mean_gain is None
    assert street.title.startswith("Data 1 (source=street") and measured.title.startswith("Data 2 (source=deepsense)")


@pytest.mark.parametrize("other", [{"task.num_future": 6}, {"data.passes.client": 20}, {"data.nodes": [{"count": 9}]}])
def test_horizons_passes_and_nodes_are_what_runs_are_compared_within(other: dict[str, Any]) -> None:
    base = {"task.num_future": 3, "data.passes.client": 10, "data.nodes": [{"count": 1}]}
    first, second = summary("fedmd", {"a": 0.7}), summary("dsfl", {"a": 0.7})
    runs = [{**one, "settings": {**one["settings"], **base, **more}} for one, more in ((first, {}), (second, other))]
    assert len(comparisons_of(runs)) == 2
    assert len(comparisons_of([runs[0], {**runs[1], "settings": {**second["settings"], **base}}])) == 1


def test_the_same_settings_and_seed_on_other_files_are_other_data() -> None:
    runs = [
        {**summary(name, {"a": 0.7}, seed=seed), "data_digest": digest}
        for name, seed, digest in (("fedmd", 0, "a0"), ("fedmd", 1, "a1"), ("dsfl", 0, "a0"), ("dsfl", 1, "b1"))
    ]
    first, second = comparisons_of(runs)
    assert [(row.label, row.seeds) for row in first.rows] == [("fedmd", (0, 1)), ("dsfl", (0,))]
    assert [row.seeds for row in second.rows] == [(1,)]
    assert "other files or other code" in second.title


def printed(runs: list[dict[str, Any]]) -> str:
    console = Console(width=140, color_system=None)
    with console.capture() as capture:
        for comparison in comparisons_of(runs):
            console.print(strategy_table(comparison))
    return capture.get()


def test_without_controls_the_table_has_no_column_of_gains_and_no_dash() -> None:
    text = printed([summary("fedmd", {"a": 0.7}), summary("dsfl", {"a": 0.7})])
    assert "gain" not in text and " - " not in text
    assert "gain" in printed(two_seeds())


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        ([(0,), (0,)], "seed 0"),
        ([(0,), (1,)], "one seed each"),
        ([(0, 1), (0, 1)], "2 seeds"),
        ([(0,), (0, 1)], "1 to 2"),
    ],
)
def test_the_title_says_how_many_seeds_there_are(seeds: list[tuple[int, ...]], words: str) -> None:
    names = ("fedmd", "dsfl")
    runs = [summary(name, {"a": 0.5}, seed=seed) for name, own in zip(names, seeds, strict=True) for seed in own]
    assert words in seeds_in_words(strategy_rows(runs))


def texts_inside(figure: Figure) -> list[str]:
    """The texts of a figure, each of which must lie within it."""
    figure.draw_without_rendering()
    whole = figure.bbox
    found = [text for part in figure.subfigs for axes in part.axes for text in (*axes.texts, axes.title)]
    for text in found:
        box = text.get_window_extent()
        if text.get_text():
            assert whole.x0 <= box.x0 and box.x1 <= whole.x1 + 1, text.get_text()
            assert whole.y0 <= box.y0 and box.y1 <= whole.y1 + 1, text.get_text()
    return [text.get_text() for text in found]


def test_thirty_runs_with_long_names_fit_into_the_figure_and_leave_its_axes_their_room() -> None:
    runs = [
        {
            **summary("fedmd", {"a": 0.5 + i / 100}, total_bytes=1000 + 300 * i),
            "experiment": f"a-very-long-name-{i}-" * 6,
        }
        for i in range(30)
    ]
    figure = draw_comparisons(comparisons_of(runs))
    assert "a-very-long-name-29-" in "".join(texts_inside(figure))
    plot, legend = figure.subfigs[0].axes
    (names,) = legend.texts
    assert plot.get_window_extent().width > 300 and plot.get_window_extent().height > 250
    assert names.get_window_extent().x0 > plot.get_window_extent().x1


def test_every_point_has_a_number_of_the_legend_and_those_at_one_place_share_it() -> None:
    near = [summary("dsfl", {"a": 0.7, "b": 0.7}), summary("scarlet", {"a": 0.7, "b": 0.701}, total_bytes=1140)]
    apart = [
        summary("cfd", {"a": 0.7, "b": 0.7}, total_bytes=1320),
        summary("local", {"a": 0.5, "b": 0.5}, total_bytes=0),
    ]
    (part,) = draw_comparisons(comparisons_of([*near, *apart])).subfigs
    plot, legend = part.axes
    assert {text.get_text() for text in plot.texts} == {"1, 2", "3", "4"}
    assert legend.texts[0].get_text().split() == ["1", "scarlet", "2", "dsfl", "3", "cfd", "4", "local"]


def test_a_label_with_signs_of_mathematics_is_shown_as_it_is(tmp_path: Path) -> None:
    runs = [{**summary("fedmd", {"a": 0.7}), "label": r"$\frac{_%&#"}, {**summary("dsfl", {"a": 0.6}), "label": "_b$"}]
    save_comparisons(comparisons_of(runs), tmp_path / "front.svg")
    assert r"$\frac{_%&amp;#" in (tmp_path / "front.svg").read_text()


def test_data_has_axes_of_its_own_in_the_figure() -> None:
    runs = [
        elsewhere(summary("fedmd", {"a": 0.7}), source="street"),
        elsewhere(summary("dsfl", {"a": 0.7}), source="x"),
    ]
    figure = draw_comparisons(comparisons_of(runs))
    texts_inside(figure)
    assert [part.axes[0].get_title(loc="left")[:6] for part in figure.subfigs] == ["Data 1", "Data 2"]


@pytest.mark.parametrize("name", ["front.doc", "front", "folder.png", "nowhere/front.png"])
def test_a_figure_that_could_not_be_written_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ValueError, match=f"--figure .*{name}"):
        save_comparisons([], tmp_path / name)
    for written in ("front.svg", "front.PNG"):
        with pytest.raises(ValueError, match="no run has a client"):
            save_comparisons([], tmp_path / written)
