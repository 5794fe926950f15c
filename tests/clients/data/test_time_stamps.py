"""Time stamps become numbers that ascend with time; where a form may be read in two ways, both are given."""

from __future__ import annotations

import pytest

from clients.data.time_stamps import readings


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1650000000.5", "", "-2"], [[(1650000000.5,), None, (-2.0,)]]),
        (["2022-04-01T12:00:05.25Z"], [[(2022, 4, 1, 12, 0, 5, 0.25)]]),
        (["2022-04-01 12:30:05 AM"], [[(2022, 4, 1, 0, 30, 5)]]),
        (["2022-04-01 1:30:05 p.m."], [[(2022, 4, 1, 13, 30, 5)]]),
        (["30/04/2022 12:00:05"], [[(2022, 4, 30, 12, 0, 5)], [(2022, 30, 4, 12, 0, 5)]]),
        (["['16-45-05-799']"], [[(16, 45, 5, 799)], [(16, 45, 5, 799)]]),
        (["23-59-59-0", "00-00-01-0"], [[(23, 59, 59, 0), (0, 0, 1, 0)], [(23, 59, 59, 0), (24, 0, 1, 0)]]),
        (["frame 12, run 3", "words"], [[(12, 3), None]]),
        (["", ""], [[None, None]]),
    ],
)
def test_stamps_are_read(cells: list[str], expected: list[list[tuple[float, ...] | None]]) -> None:
    assert readings(cells) == expected
