"""The order and the identity of the rows of a table, checked against columns of the same table.

A window is eight rows one after the other, so rows out of order make nonsense without any error. DeepSense 6G counts
its rows in ``index`` and stamps most of them; where a table has one of these, it decides, not the place in the file.
Where it has both and they disagree, the index decides, and the reader says so.

Source: the tables of scenarios 1 to 9, in which ``index`` counts by one and each ``seq_index`` is one run of rows.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from clients.data.deepsense_table import INDEX_COLUMNS, TIME_COLUMNS, Table
from clients.data.time_stamps import Stamp, readings

FILE = "the file"
# Runs of fewer rows on average are no passes that were driven one after the other.
SHORTEST_RUN = 3


@dataclass(frozen=True)
class RowOrder:
    """The rows of a table that count, in time order, each with its pass.

    Attributes:
        rows: (F,) row numbers of the table.
        passes: (F,) pass of each of them; rows of one pass are contiguous.
        problems: one line for each kind of disorder that was found, and what was done about it.
        gaps: the places in ``rows`` at which a pass was cut, because rows of it were left out just before.
    """

    rows: NDArray[np.int64]
    passes: NDArray[np.int64]
    problems: tuple[str, ...] = ()
    gaps: tuple[int, ...] = ()


def order_rows(
    table: Table, rows: Sequence[int], passes: Sequence[int], left_out: Mapping[int, int | None] | None = None
) -> RowOrder:
    """Put rows into time order, drop those that stand twice, and part passes that are not one run of rows.

    A window must not run over a row that was left out, so a pass is cut there, and goes on as a pass of its own.

    Args:
        table: of the release.
        rows: (R,) row numbers of the table that can be read.
        passes: (R,) the ``seq_index`` of each.
        left_out: the rows that cannot be read, with the ``seq_index`` of each, None if that cannot be told either.
    """
    kept, problems = _without_repeats(table, rows)
    pass_of = dict(zip(rows, passes, strict=True))
    keys, column = _keys(table, kept, [pass_of[row] for row in kept])
    recordings = _recordings(keys)
    order = sorted(range(len(kept)), key=lambda at: (recordings[at], keys[at], at))
    num_recordings = 1 + max(recordings, default=0)
    if num_recordings > 1:
        again = kept[recordings.index(1)]
        problems.append(
            f"{table.places[again]}: {column} counts from the beginning again; {num_recordings} recordings are "
            "taken one after the other, and the passes of later ones are numbered on"
        )
    elif order != list(range(len(kept))):
        first = next(at for at, wanted in enumerate(order) if at != wanted)
        problems.append(f"{table.places[kept[first]]}: rows are out of time order; they are taken in that of {column}")
    found, parted = _part(
        [kept[at] for at in order], [pass_of[kept[at]] for at in order], [recordings[at] for at in order]
    )
    num_runs, is_parted = len(set(passes)) + len(parted), True
    if parted and (column == FILE or len(order) < SHORTEST_RUN * num_runs):
        # Without an index nobody can say whether these rows were driven apart or written apart, and passes that take
        # turns row by row are two vehicles at once.
        problems.append(
            f"{table.places[parted[0]]}: pass {pass_of[parted[0]]} goes on after rows of another, as if they "
            f"took turns, or {column} did not tell the order; the rows of a pass are taken together"
        )
        found = [pass_of[kept[at]] for at in order]
        is_parted = False
    elif parted:
        problems.append(
            f"{table.places[parted[0]]}: pass {pass_of[parted[0]]} goes on after rows of another; such runs of rows, "
            f"{len(parted)} in all, are taken as passes of their own"
        )
    in_order = [kept[at] for at in order]
    problems += _jumps(table, in_order, found, [keys[at] for at in order], column)
    problems += _contradictions(table, in_order, found, column)
    # Ascending passes, as everybody downstream has them; time order stays within each.
    final = np.argsort(np.array(found, np.int64), kind="stable")
    ordered, numbers = np.array(in_order, np.int64)[final], np.array(found, np.int64)[final]
    left_out = left_out or {}
    cuts = _gaps(
        _places(table, ordered.tolist(), [pass_of[row] for row in ordered.tolist()], left_out, column),
        numbers.tolist(),
        # Where passes are runs of rows, whatever lies within one is a gap; where they take turns, only its own rows.
        left_out if not is_parted else dict.fromkeys(left_out),
        ordered.tolist(),
    )
    for number, at in enumerate(cuts, start=1 + max(found, default=0)):
        numbers[at:][numbers[at:] == numbers[at]] = number
    final = np.argsort(numbers, kind="stable")
    gaps = np.flatnonzero(np.isin(final, cuts))
    return RowOrder(ordered[final], numbers[final], tuple(problems), tuple(gaps.tolist()))


def _places(
    table: Table, rows: Sequence[int], passes: Sequence[int], left_out: Mapping[int, int | None], column: str
) -> Mapping[int, Stamp]:
    """Row -> its place in time, also for rows that were left out; those of which nobody can tell it have none."""
    if all(
        one < other for (one, first), (other, second) in pairwise(zip(rows, passes, strict=True)) if first == second
    ):
        return {row: (row,) for row in (*rows, *left_out)}
    known = [
        row
        for row, pass_id in left_out.items()
        if pass_id is not None and (column not in INDEX_COLUMNS or _index_of(table.cell(row, column)) is not None)
    ]
    every = [*rows, *known]
    keys, found = _keys(table, every, [*passes, *(left_out[row] or 0 for row in known)])
    return dict(zip(every, keys, strict=True)) if found == column else {row: (row,) for row in rows}


def _gaps(
    places: Mapping[int, Stamp], passes: Sequence[int], left_out: Mapping[int, int | None], rows: Sequence[int]
) -> list[int]:
    """Where rows were left out between one row of a pass and the next; a gap is named by the row after it."""
    of_pass: dict[int | None, list[Stamp]] = {}
    for row, pass_id in left_out.items():
        if row in places:
            of_pass.setdefault(pass_id, []).append(places[row])
    for found in of_pass.values():
        found.sort()
    return [
        at
        for at in range(1, len(rows))
        if passes[at] == passes[at - 1]
        and any(
            bisect_right(found, places[rows[at - 1]]) < bisect_left(found, places[rows[at]])
            for found in (of_pass.get(passes[at], []), of_pass.get(None, []))
        )
    ]


def _without_repeats(table: Table, rows: Sequence[int]) -> tuple[list[int], list[str]]:
    first: dict[tuple[str, ...], int] = {}
    repeats = []
    for row in rows:
        content = tuple(table.rows[row].values())
        if content in first:
            repeats.append(row)
        else:
            first[content] = row
    if not repeats:
        return list(rows), []
    original = first[tuple(table.rows[repeats[0]].values())]
    line = f"{table.places[repeats[0]]}: the same as {table.places[original]}; {len(repeats)} repeated rows count once"
    return list(first.values()), [line]


def _recordings(keys: Sequence[Stamp]) -> list[int]:
    """The recording that each key comes from: the second time that it comes, it comes from a second one."""
    seen = Counter[Stamp]()
    found: list[int] = []
    for key in keys:
        found.append(seen[key])
        seen[key] += 1
    return found


def _keys(table: Table, rows: Sequence[int], passes: Sequence[int]) -> tuple[list[Stamp], str]:
    """What orders the rows, and the name of the column that says it; their place in the file if none does."""
    if (column := table.column(INDEX_COLUMNS)) is not None:
        keys = _index_keys([table.cell(row, column) for row in rows], passes)
        if keys is not None:
            return keys, column
    if (column := table.column(TIME_COLUMNS)) is not None:
        stamps = _stamps([table.cell(row, column) for row in rows], passes)
        whole = [stamp for stamp in stamps if stamp is not None]
        # A time stamp may be as coarse as a second: it orders rows only if it tells them apart.
        if len(set(whole)) == len(stamps):
            return whole, column
    return [(at,) for at in range(len(rows))], FILE


def _index_keys(cells: Sequence[str], passes: Sequence[int]) -> list[Stamp] | None:
    """Keys from an index that counts through the table, or through each pass; None if it does not count."""
    numbers = [_index_of(cell) for cell in cells]
    keys: list[Stamp] = [(number,) for number in numbers if number is not None]
    if len(keys) < len(cells):
        return None
    within: list[Stamp] = [(pass_id, *key) for pass_id, key in zip(passes, keys, strict=True)]
    if len(set(keys)) < len(keys) == len(set(within)):
        return within
    # One number in all rows would make each of them a recording.
    is_counted = len(keys) >= SHORTEST_RUN * (1 + max(_recordings(keys), default=0))
    return keys if is_counted else None


def _stamps(cells: Sequence[str], passes: Sequence[int]) -> list[Stamp | None]:
    """The time stamps in that reading in which passes stay together, and then the file ascends, the most."""

    def disorder(stamps: Sequence[Stamp | None]) -> tuple[int, int]:
        known = [(stamp, pass_id) for stamp, pass_id in zip(stamps, passes, strict=True) if stamp is not None]
        parted = sum(one[1] != other[1] for one, other in pairwise(sorted(known)))
        return parted, sum(one[0] > other[0] for one, other in pairwise(known))

    return min(readings(cells), key=disorder)


def _index_of(cell: str) -> int | None:
    try:
        number = float(cell)
    except ValueError:
        return None
    return int(number) if number.is_integer() else None


def _part(rows: Sequence[int], passes: Sequence[int], recordings: Sequence[int]) -> tuple[list[int], list[int]]:
    """Passes of which each is one run of rows of one recording; and the rows at which a pass went on elsewhere."""
    taken: set[int] = set()
    unused = max(passes, default=0) + 1
    found, parted = list[int](), list[int]()
    before: tuple[int, int] | None = None
    for row, pass_id, recording in zip(rows, passes, recordings, strict=True):
        if before != (pass_id, recording):
            name = pass_id
            if pass_id in taken:
                name, unused = unused, unused + 1
                if recording == 0:
                    parted.append(row)
            taken.add(name)
            before = (pass_id, recording)
        found.append(name)
    return found, parted


def _jumps(table: Table, rows: Sequence[int], passes: Sequence[int], keys: Sequence[Stamp], column: str) -> list[str]:
    """A line where rows are missing within passes, as the index tells."""
    if column not in INDEX_COLUMNS:
        return []
    # A row that cannot be read is reported by itself, and is not missing.
    is_counted_through = len(keys[0]) == 1
    told = range(len(table.rows)) if is_counted_through else sorted(set(range(len(table.rows))) - set(rows))
    present = {_index_of(table.cell(row, column)) for row in told}
    jumps = [
        (rows[at], int(keys[at][-1] - keys[at - 1][-1]) - 1)
        for at in range(1, len(rows))
        if passes[at] == passes[at - 1] and keys[at][-1] > keys[at - 1][-1] + 1 and keys[at][-1] - 1 not in present
    ]
    if not jumps:
        return []
    missing = sum(count for _, count in jumps)
    return [
        f"{table.places[jumps[0][0]]}: {missing} rows are missing within passes ({column} jumps in {len(jumps)} "
        "places); windows go over these gaps"
    ]


def _contradictions(table: Table, rows: Sequence[int], passes: Sequence[int], column: str) -> list[str]:
    """A line where time stamps go back within passes while the index goes on."""
    other = table.column(TIME_COLUMNS)
    if column not in INDEX_COLUMNS or other is None:
        return []
    stamps = _stamps([table.cell(row, other) for row in rows], passes)
    back = [
        at
        for at in range(1, len(rows))
        if passes[at] == passes[at - 1]
        and (before := stamps[at - 1]) is not None
        and (now := stamps[at]) is not None
        and now < before
    ]
    if not back:
        return []
    return [
        f"{table.places[rows[back[0]]]}: {other} goes back while {column} goes on, in {len(back)} of {len(rows)} rows; "
        f"they are taken in the order of {column}, so see which of the two is right"
    ]
