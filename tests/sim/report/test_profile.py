"""Where the time of a run went: the phases add up, whatever was not measured."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sim.report.figures import Run
from sim.report.profile import PHASES, profile_section, seconds_by_phase


def run_of(*laps: dict[str, float], work: float = 0.5, **seconds: float) -> Run:
    """A run of two GPS clients; ``laps`` are the phases of its rounds."""
    clients: list[dict[str, Any]] = [{"id": f"00{i}-gps", "modality": "gps", "parameters": 10} for i in range(2)]
    rounds = [
        {"seconds": lap, "clients": {client["id"]: {"seconds": work, "problem": ""} for client in clients}}
        for lap in laps
    ]
    return Run({"seconds": seconds, "clients": clients, "seed": 0}, rounds)


def cells_of(page: str) -> list[list[str]]:
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", page, flags=re.DOTALL)
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows]


def test_the_phases_are_those_that_were_measured_and_the_rest_makes_up_the_total() -> None:
    run = run_of(
        {"clients": 3.0, "conclude": 1.0}, {"clients": 2.0, "conclude": 0.5}, data=4.0, start=2.0, controls=1.0,
        rounds=8.0, total=15.0,
    )  # fmt: skip
    found = seconds_by_phase(run)
    assert found == {"data": 4.0, "start": 2.0, "controls": 1.0, "clients": 5.0, "conclude": 1.5, "rest": 1.5}
    assert list(found) == list(PHASES)
    assert sum(found.values()) == 15.0


def test_the_section_shows_each_phase_with_its_share_and_the_total() -> None:
    page = profile_section([run_of({"clients": 4.0, "conclude": 1.0}, data=0.0, start=4.0, total=10.0)])
    rows = [row[-2:] for row in cells_of(page) if len(row) == 3 and row[1] != "gps"]
    assert rows == [["4.0", "40"], ["4.0", "40"], ["1.0", "10"], ["1.0", "10"], ["10.0", "100"]]
    assert PHASES["data"] not in page  # it took no time


def test_the_work_of_clients_is_told_per_client_and_how_many_worked_at_a_time() -> None:
    page = profile_section([run_of({"clients": 0.8}, {"clients": 0.8}, work=0.6, total=4.0)])
    assert ["2 clients", "gps", "0.60"] in cells_of(page)
    assert "1.5 clients worked at a time" in page  # 2 clients x 2 rounds x 0.6 s in 1.6 s


def test_several_runs_are_told_with_their_deviation() -> None:
    runs = [run_of({"clients": seconds}, total=seconds) for seconds in (1.0, 3.0)]
    assert ["total", "2.0 ± 1.4", "100"] in cells_of(profile_section(runs))


@pytest.mark.parametrize("rounds", [(), ({},)])
def test_a_run_that_measured_no_phase_still_has_its_total(rounds: tuple[dict[str, float], ...]) -> None:
    page = profile_section([run_of(*rounds, total=5.0)])
    assert ["total", "5.0", "100"] in cells_of(page)
    assert "at a time" not in page
