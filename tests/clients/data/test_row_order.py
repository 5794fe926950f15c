"""Whatever the order of a table's rows, frames come in the order of time, and disorder is said."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.data.deepsense_table import Table
from clients.data.row_order import RowOrder, order_rows

Rows = list[dict[str, str]]


def made(num_passes: int = 3, length: int = 5, **columns: Callable[[int], str]) -> Rows:
    """Rows of passes 1, 2, ..., with an index from 1, a time stamp and the row's number in the cell ``at``."""
    rows = []
    for number in range(num_passes * length):
        stamp = f"['16-05-{number // 10:02d}-{100 * (number % 10):03d}']"
        row = {
            "index": str(number + 1),
            "seq_index": str(1 + number // length),
            "time_stamp[UTC]": stamp,
            "at": str(number),
        }
        rows.append(row | {name: make(number) for name, make in columns.items()})
    return rows


def ordered(rows: Rows) -> tuple[list[tuple[int, int]], RowOrder]:
    """(row's own number, pass) in the order found, and all that was said."""
    table = Table((Path("scenario9.csv"),), Path(), rows, [f"scenario9.csv, line {at + 2}" for at in range(len(rows))])
    found = order_rows(table, range(len(rows)), [int(row["seq_index"]) for row in rows])
    numbers = [int(rows[at]["at"]) for at in found.rows]
    return list(zip(numbers, found.passes.tolist(), strict=True)), found


STRAIGHT = [(number, 1 + number // 5) for number in range(15)]


def shuffled(rows: Rows) -> Rows:
    rows = list(rows)
    random.Random(0).shuffle(rows)
    return rows


def without(rows: Rows, column: str) -> Rows:
    return [{name: cell for name, cell in row.items() if name != column} for row in rows]


DISORDER: dict[str, tuple[Callable[[Rows], Rows], str]] = {
    "shuffled": (shuffled, "rows are out of time order; they are taken in that of index"),
    "reversed": (lambda rows: rows[::-1], "line 2: rows are out of time order"),
    "shuffled within a pass": (lambda rows: [*shuffled(rows[:5]), *rows[5:]], "rows are out of time order"),
    "passes swapped": (lambda rows: [*rows[5:10], *rows[:5], *rows[10:]], "rows are out of time order"),
    "all twice": (lambda rows: rows + rows, "line 17: the same as scenario9.csv, line 2; 15 repeated rows count once"),
    "one row twice": (lambda rows: [*rows[:4], rows[3], *rows[4:]], "line 6: the same as scenario9.csv, line 5; 1 rep"),
    "shuffled, by time stamp alone": (
        lambda rows: shuffled(without(rows, "index")),
        "taken in that of time_stamp[UTC]",
    ),
    "shuffled, with an index of which a cell is blank": (
        lambda rows: shuffled([*rows[:-1], {**rows[-1], "index": ""}]),
        "taken in that of time_stamp[UTC]",
    ),
}


@pytest.mark.parametrize("case", DISORDER)
def test_disorder_is_mended_and_said(case: str) -> None:
    disturb, text = DISORDER[case]
    found, order = ordered(disturb(made()))
    assert found == STRAIGHT
    (problem,) = order.problems
    assert text in problem


@pytest.mark.parametrize("column", ["index", "time_stamp[UTC]", "neither"])
def test_rows_in_order_are_left_as_they_are_and_nothing_is_said(column: str) -> None:
    rows = made()
    for name in {"index", "time_stamp[UTC]"} - {column}:
        rows = without(rows, name)
    found, order = ordered(rows)
    assert found == STRAIGHT
    assert order.problems == ()


def test_passes_that_count_from_one_again_are_passes_of_their_own() -> None:
    rows = made(num_passes=4)
    again = [{**row, "seq_index": str(1 + (int(row["seq_index"]) - 1) % 2)} for row in rows]
    found, order = ordered(again)
    assert [number for number, _ in found] == list(range(20))
    assert [pass_id for _, pass_id in found] == [1] * 5 + [2] * 5 + [3] * 5 + [4] * 5
    (problem,) = order.problems
    assert "line 12: pass 1 goes on after rows of another" in problem
    assert "2 in all" in problem


def test_a_second_recording_that_counts_everything_from_one_again_comes_after_the_first() -> None:
    first = made(num_passes=2)
    second = [{**row, "at": str(int(row["at"]) + 10)} for row in made(num_passes=2)]
    found, order = ordered([*second[:0], *first, *second])
    assert [number for number, _ in found] == list(range(20))
    assert [pass_id for _, pass_id in found] == [1] * 5 + [2] * 5 + [3] * 5 + [4] * 5
    (problem,) = order.problems
    assert problem.startswith("scenario9.csv, line 12: index counts from the beginning again; 2 recordings")


def test_rows_that_are_missing_within_a_pass_are_counted_and_those_between_passes_are_not() -> None:
    rows = made()
    found, order = ordered([row for row in rows if row["at"] not in ("2", "3", "4", "7")])
    assert len(found) == 11
    (problem,) = order.problems
    # Row 7 lies within pass 2; rows 2 to 4 are the end of pass 1.
    assert "line 6: 1 rows are missing within passes (index jumps in 1 places)" in problem


def test_a_row_that_cannot_be_read_is_not_missing() -> None:
    rows = made()
    table = Table((Path("s.csv"),), Path(), rows, [str(at) for at in range(len(rows))])
    readable = [at for at in range(15) if at != 7]
    found = order_rows(table, readable, [int(rows[at]["seq_index"]) for at in readable])
    assert found.problems == ()
    np.testing.assert_array_equal(found.rows, readable)


@pytest.mark.parametrize(
    "disturb",
    [lambda rows: rows, shuffled, lambda rows: shuffled(without(rows, "index")), lambda rows: without(rows, "index")],
)
def test_a_pass_is_cut_where_rows_of_it_were_left_out_and_nowhere_else(disturb: Callable[[Rows], Rows]) -> None:
    rows = disturb(made())
    table = Table((Path("s.csv"),), Path(), rows, [str(at) for at in range(15)])
    # Row 4 is the last of pass 1, row 7 lies within pass 2, and rows 11 and 13 lie within pass 3.
    left_out = {at: int(row["seq_index"]) for at, row in enumerate(rows) if row["at"] in ("4", "7", "11", "13")}
    readable = [at for at in range(15) if at not in left_out]
    found = order_rows(table, readable, [int(rows[at]["seq_index"]) for at in readable], left_out)
    pieces: dict[int, list[int]] = {}
    for row, number in zip(found.rows, found.passes.tolist(), strict=True):
        pieces.setdefault(number, []).append(int(rows[row]["at"]))
    assert pieces == {1: [0, 1, 2, 3], 2: [5, 6], 3: [10], 4: [8, 9], 5: [12], 6: [14]}
    assert [int(rows[found.rows[at]]["at"]) for at in found.gaps] == [8, 12, 14]


def test_passes_that_take_turns_are_cut_only_where_rows_of_their_own_were_left_out() -> None:
    rows = [{"seq_index": str(1 + at % 2), "at": str(at)} for at in range(12)]
    table = Table((Path("s.csv"),), Path(), rows, [str(at) for at in range(12)])
    readable = [at for at in range(12) if at != 5]
    found = order_rows(table, readable, [1 + at % 2 for at in readable], {5: 2})
    assert found.rows.tolist() == [0, 2, 4, 6, 8, 10, 1, 3, 7, 9, 11]
    assert found.passes.tolist() == [1] * 6 + [2] * 2 + [3] * 3


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_rows_gives_the_same_frames(seed: int) -> None:
    rows = made(num_passes=5, length=4)
    rng = random.Random(seed)
    mixed: list[dict[str, Any]] = rows + rng.sample(rows, rng.randrange(5))
    rng.shuffle(mixed)
    found, _ = ordered(mixed)
    assert found == [(number, 1 + number // 4) for number in range(20)]


def clock(seconds: float) -> str:
    whole, thousandths = divmod(round(1000 * seconds), 1000)
    return f"{whole // 3600 % 24:02d}-{whole // 60 % 60:02d}-{whole % 60:02d}-{thousandths:03d}"


def day(number: int, pattern: str) -> str:
    """A stamp every eight hours, over the end of a month."""
    days, hour = divmod(8 * number, 24)
    month, date = (4, 29 + days) if days < 2 else (5, days - 1)
    return pattern.format(d=date, m=month, h=hour, s=hour % 12 or 12, half="AM" if hour < 12 else "PM")


STAMPS: dict[str, Callable[[int], str]] = {
    "seconds with a fraction": lambda at: str(1.65e9 + at / 8),
    "seconds before zero": lambda at: str(-3 + at / 8),
    "over midnight, within a pass": lambda at: f"['{clock(86_400 - 7 + at)}']",
    "over midnight, between passes": lambda at: f"['{clock(86_400 - 10 + at)}']",
    "a fraction of a second in any number of digits": lambda at: f"2022-04-01T12:00:{at // 4:02d}.{25 * (at % 4):02d}0"[
        : 22 - at % 2
    ],
    "with a time zone": lambda at: f"2022-04-01 12:00:{at:02d}.5+00:00",
    "the day first": lambda at: day(at, "{d:02d}/{m:02d}/2022 {h:02d}:00:00"),
    "the month first": lambda at: day(at, "{m:02d}/{d:02d}/2022 {h:02d}:00:00"),
    "the year first": lambda at: day(at, "2022/{m:02d}/{d:02d} {h:02d}:00:00"),
    "points between day and month": lambda at: day(at, "{d:02d}.{m:02d}.2022 {h:02d}:00:00"),
    "hours of twelve": lambda at: day(at, "2022-{m:02d}-{d:02d} {s}:00:00 {half}"),
}


@pytest.mark.parametrize("mix", [list, shuffled], ids=["in order", "shuffled"])
@pytest.mark.parametrize("case", STAMPS)
def test_time_stamps_of_any_form_order_the_rows(case: str, mix: Callable[[Rows], Rows]) -> None:
    rows = without(made(**{"time_stamp[UTC]": STAMPS[case]}), "index")
    found, order = ordered(mix(rows))
    if mix is list:
        assert (found, order.problems) == (STRAIGHT, ())
    elif "between passes" in case:  # which day a pass was driven on, nobody can tell from shuffled rows
        assert sorted(found) == STRAIGHT
    else:
        assert found == STRAIGHT


INDEXES: dict[str, Callable[[int], str]] = {
    "counts within each pass": lambda at: str(1 + at % 5),
    "counts down to below zero": lambda at: str(at - 20),
    "is written as a decimal number": lambda at: f"{at}.0",
    "is the same in all rows, and time stamps tell": lambda at: "1",
}


@pytest.mark.parametrize("mix", [list, shuffled], ids=["in order", "shuffled"])
@pytest.mark.parametrize("case", INDEXES)
def test_an_index_of_any_form_orders_the_rows(case: str, mix: Callable[[Rows], Rows]) -> None:
    found, order = ordered(mix(made(index=INDEXES[case])))
    assert found == STRAIGHT
    assert len(order.problems) == (mix is shuffled)


def test_rows_that_are_missing_are_counted_where_the_index_counts_within_each_pass() -> None:
    rows = made(index=lambda at: str(1 + at % 5))
    found, order = ordered([row for row in rows if row["at"] not in ("6", "7", "14")])
    assert len(found) == 12
    (problem,) = order.problems
    assert "line 8: 2 rows are missing within passes (index jumps in 1 places)" in problem


@pytest.mark.parametrize(
    ("stamp", "lines"),
    [
        (
            lambda at: f"['16-05-{59 - at:02d}-000']",
            "line 3: time_stamp[UTC] goes back while index goes on, in 12 of 15",
        ),
        (lambda at: f"['16-05-{at if at != 7 else 0:02d}-000']", "line 9: time_stamp[UTC] goes back"),
        (lambda at: f"['16-05-{at // 5:02d}-000']", ""),
        (lambda at: f"['{clock(86_400 - 7 + at)}']", ""),
        (lambda at: "" if at % 2 else f"['16-05-{at:02d}-000']", ""),
        (lambda at: "", ""),
    ],
    ids=["reversed", "one", "coarse", "midnight", "blanks", "blank"],
)
def test_time_stamps_that_go_back_while_the_index_goes_on_are_told(stamp: Callable[[int], str], lines: str) -> None:
    found, order = ordered(made(**{"time_stamp[UTC]": stamp}))
    assert found == STRAIGHT
    assert [lines in problem for problem in order.problems] == ([True] if lines else [])
