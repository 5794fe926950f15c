"""Summaries of runs: averaged by one rule, told apart by their settings, refused in one clear line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from sim.report.summaries import Spread, format_bytes, group_by_settings, load_summary, show, spread
from sim.report.tables import baseline_lines, bytes_lines, compare, measuring_lines, results_table, teacher_lines
from tests.conftest import tiny_values


def metrics(level: float) -> dict[str, list[float]]:
    """Two horizons, ``level`` on average; the power loss falls as the level rises."""
    row = [level + 0.1, level - 0.1]
    return {**dict.fromkeys(("top1", "top3", "top5", "dba", "dba_k3"), row), "power_loss_db": [10 * (1 - level)] * 2}


def client(name: str, *, local: float = 0.5, federated: float | None = 0.6, parameters: int = 1000) -> dict[str, Any]:
    return {
        "id": name,
        "modality": name.partition("-")[2],
        "parameters": parameters,
        "passes": 4,
        "local": metrics(local),
        "offline_kd": metrics(0.55),
        "federated": None if federated is None else metrics(federated),
        "uplink_bytes": 3000,
        "downlink_bytes": 1000,
        "refused": 0,
    }


def summary(*clients: dict[str, Any], seed: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "experiment": "street",
        "seed": seed,
        "engine": "inline",
        "seconds": {"data": 1.0, "start": 1.0, "rounds": 2.0, "total": 4.0},
        "clients": list(clients or (client("000-gps"),)),
        "teacher": {"parameters": 9000, "before": metrics(0.7), "after": metrics(0.8)},
        "break_even_samples": 325,
        "rounds": 2,
        **more,
    }


def printed(*summaries: dict[str, Any], width: int = 100) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(results_table(summaries))
    return capture.get()


def write(run: Path, text: str, **settings: Any) -> Path:
    run.mkdir(parents=True)
    (run / "summary.json").write_text(text)
    (run / "experiment.yaml").write_text(yaml.safe_dump({"name": "street", "seed": 0} | settings))
    return run


def test_the_spread_of_1_2_3_is_2_with_an_sd_of_1_and_absent_values_do_not_count() -> None:
    assert spread([1.0, None, 2.0, 3.0]) == Spread(2.0, 1.0)
    assert spread([2.0, None]) == Spread(2.0, None)
    assert spread([None]) is None


def test_a_modality_is_the_mean_of_its_clients_and_the_sd_is_over_runs() -> None:
    first = summary(client("000-gps", federated=0.4), client("001-gps", federated=0.6))
    second = summary(client("000-gps", federated=0.6), client("001-gps", federated=0.8), seed=1)
    result = compare([first, second])["street"]
    assert result["seeds"] == [0, 1]
    assert result["modalities"]["gps"]["clients"] == 2
    top5 = result["modalities"]["gps"]["federated"]["top5"]
    assert top5["mean"] == pytest.approx(0.6)  # (0.5 + 0.7) / 2
    assert top5["sd"] == pytest.approx(0.02**0.5)  # of 0.5 and 0.7
    assert result["teacher"]["after"]["top1"] == {"mean": pytest.approx(0.8), "sd": pytest.approx(0.0)}


def test_arms_are_compared_over_the_clients_that_have_all_of_them_and_a_dash_says_that_there_is_none() -> None:
    half = summary(client("000-gps", local=0.9, federated=None), client("001-gps", local=0.5, federated=0.6))
    gps = compare([half])["street"]["modalities"]["gps"]
    assert gps["federated"]["top5"]["mean"] == pytest.approx(0.6)
    assert gps["local"]["top5"]["mean"] == pytest.approx(0.5)
    none = summary(client("000-gps", federated=None))
    assert compare([none])["street"]["modalities"]["gps"]["federated"]["top5"] is None
    (line,) = [line for line in printed(none).splitlines() if "federated  " in line]
    assert line.split() == ["federated", "-", "-", "-", "-", "-"]


def test_students_of_one_modality_that_differ_in_size_keep_results_of_their_own() -> None:
    small, large = client("000-gps", federated=0.5), client("001-gps", federated=0.7, parameters=3000)
    found = compare([summary(small, large)])["street"]["modalities"]
    means = {kind: one["federated"]["top5"]["mean"] for kind, one in found.items()}
    assert means == {"gps (1,000 parameters)": pytest.approx(0.5), "gps (3,000 parameters)": pytest.approx(0.7)}


def test_compare_survives_a_trip_through_json() -> None:
    result = compare([summary(), summary(seed=1)])
    assert json.loads(json.dumps(result)) == result


def test_runs_with_other_settings_are_never_averaged_together() -> None:
    runs = [
        summary(settings={"strategy.codec": "float16", "strategy.rounds": 2}),
        summary(settings={"strategy.codec": "uint8", "strategy.rounds": 2}),
        summary(settings={"strategy.codec": "float16", "strategy.rounds": 2}, seed=1),
    ]
    groups = group_by_settings(runs)
    assert {label: len(group) for label, group in groups.items()} == {
        "street codec=float16": 2,
        "street codec=uint8": 1,
    }


def test_seed_and_engine_are_no_settings(tmp_path: Path) -> None:
    text = json.dumps(summary())
    runs = [
        write(tmp_path / "a", text, engine={"name": "ray"}, strategy={"rounds": 2}),
        write(tmp_path / "b", text, engine={"name": "inline"}, strategy={"rounds": 2}),
    ]
    loaded = [load_summary(run) for run in runs]
    assert loaded[0]["settings"] == {"name": "street", "strategy.rounds": 2}
    assert list(group_by_settings(loaded)) == ["street"]


def test_a_run_of_before_a_setting_was_added_did_as_is_done_by_default(tmp_path: Path) -> None:
    values = tiny_values()
    new = write(
        tmp_path / "new", json.dumps(summary()), **{**values, "strategy": {**values["strategy"], "quorum": 0.5}}
    )
    old = write(tmp_path / "old", json.dumps(summary()), **values)
    assert load_summary(old)["settings"] == load_summary(new)["settings"]
    assert load_summary(old)["settings"]["strategy.quorum"] == 0.5


def test_the_table_of_three_seeds_is_whole_at_100_columns() -> None:
    clients = [client(f"00{i}-camera", parameters=77_888) for i in range(3)]
    text = printed(*(summary(*clients, seed=seed) for seed in range(3)))
    assert "…" not in text
    assert "60.0±0.0" in text
    assert text.count("federated ") == 3 + 1  # each client, and the caption


def test_many_clients_are_shown_by_modality() -> None:
    text = printed(summary(*(client(f"{i:03d}-gps") for i in range(40))))
    assert "40 clients" in text
    assert "000-gps" not in text


def test_only_a_federated_result_better_than_local_only_is_highlighted() -> None:
    worse = client("001-gps", local=0.7, federated=0.6)
    console = Console(width=120, color_system="standard", force_terminal=True)
    with console.capture() as capture:
        console.print(results_table([summary(client("000-gps"), worse)]))
    highlighted = [line for line in capture.get().splitlines() if "\x1b[1;32m" in line]
    assert len(highlighted) == 1
    assert highlighted[0].count("\x1b[1;32m") == 5  # a smaller power loss is better, too


def test_bytes_are_per_client_and_round_and_the_break_even_line_names_the_smallest_student() -> None:
    both = summary(client("000-gps", parameters=500), client("001-camera", parameters=9000))
    exchanged, break_even = bytes_lines([both])
    assert exchanged == "bytes per client and round: 1.5 kB up, 500 B down"
    assert "more than 325 public samples" in break_even
    assert "500 parameters in float32, 2.0 kB" in break_even


def test_without_a_round_there_is_a_break_even_line_only() -> None:
    (line,) = bytes_lines([summary(rounds=0)])
    assert line.startswith("break-even")


def test_the_teacher_is_shown_before_and_after() -> None:
    (line,) = teacher_lines([summary()])
    assert line.startswith("teacher (9,000 parameters): Top-1 70.0 -> 80.0 %")
    assert line.endswith("Power loss 3.00 -> 2.00 dB")


def test_what_needs_no_learning_is_said_with_what_it_measures_and_a_run_that_has_none_says_nothing() -> None:
    known = client("000-gps") | {"baselines": {"beam_history": metrics(0.6), "nearest_position": metrics(0.5)}}
    blind = client("001-camera") | {"baselines": {"beam_history": metrics(0.4)}}
    history, nearest = baseline_lines([summary(known, blind)])
    assert history.startswith(
        "without learning, beam history (needs a full sweep in the slot before): Top-1 50.0 %, Top-3 50.0 %"
    )
    assert nearest.startswith("without learning, nearest position (needs no sweep): Top-1 50.0 %")
    assert baseline_lines([summary()]) == []
    assert baseline_lines([summary(known), summary(known, experiment="other")]) == baseline_lines([summary(known)])
    assert [line[:4] for line in baseline_lines([summary(known), summary(blind, experiment="other")])] == [
        *("(1) ", "(1) ", "(2) "),
    ]
    assert measuring_lines([summary(known, blind)]) == []
    swept = [summary(known, client("002-past_power")), summary(client("000-past_power"), seed=1)]
    assert measuring_lines(swept) == ["students of past_power need a full sweep in every slot before"]
    (found,) = compare([summary(known, blind)]).values()
    assert found["modalities"]["gps"]["baselines"]["nearest_position"]["top5"]["mean"] == 0.5


def test_several_experiments_are_numbered_alike_in_table_and_lines() -> None:
    runs = [summary(), summary(experiment="other")]
    text = printed(*runs)
    assert "(1) street" in text
    assert "(2) other" in text
    assert [line[:4] for line in teacher_lines(runs)] == ["(1) ", "(2) "]


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB")]
)
def test_bytes_are_shown_in_decimal_units(count: int, shown: str) -> None:
    assert format_bytes(count) == shown


def test_fractions_are_shown_in_percent_and_power_loss_in_db() -> None:
    assert show(Spread(0.4312, 0.008), "top5") == "43.1±0.8"
    assert show(Spread(1.234), "power_loss_db") == "1.23"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not readable as JSON"),
        ("[]", "experiment is missing"),
        (json.dumps({key: value for key, value in summary().items() if key != "teacher"}), "teacher is missing"),
        (json.dumps(summary({"id": "000-gps"})), r"clients\.0\.modality is missing"),
    ],
)
def test_a_broken_summary_is_one_line_that_names_the_file(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=rf"summary\.json: .*{reason}") as error:
        load_summary(write(tmp_path / "run", text))
    assert "\n" not in str(error.value)
    assert "again" in str(error.value)


def test_an_unfinished_run_is_one_line_that_says_how_to_finish_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"summary\.json: not found; .*softbeam resume"):
        load_summary(tmp_path)
