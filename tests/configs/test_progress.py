"""Counting calls as work done."""

import pytest

from configs.progress import counting


@pytest.mark.parametrize(("done", "total", "calls"), [(0, 3, 3), (2, 3, 1), (0, 0, 0), (3, 3, 2), (1, 2, 4)])
def test_every_call_is_one_more_unit_and_never_more_than_all(done, total, calls):
    said = []
    advance = counting(lambda *what: said.append(what), "federation", done, total)
    for _ in range(calls):
        advance()
    assert said == [("federation", min(done + number, total), total) for number in range(calls + 1)]
