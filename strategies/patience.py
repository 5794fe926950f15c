"""How long a round waits for stragglers: a multiple of the time that a share of the clients took."""

from __future__ import annotations

import math
from collections.abc import Sequence

# Shares such as 0.7 of 10 are a little more than 7 in floating point.
_ROUNDING = 1e-9


def time_limit(
    answered_s: Sequence[float], num_asked: int, *, patience: float | None, quorum: float, timeout_s: float
) -> float:
    """Seconds after its beginning at which a round goes on without those who have not answered yet.

    Let t be when ``quorum`` of the clients had answered: the limit is ``patience`` t, at most ``timeout_s``. While
    fewer have answered, or without patience, it is ``timeout_s``.

    Rounds with patience depend on the wall clock: whose answer comes before the limit differs from machine to machine
    and from run to run, and with it everything that is learned afterwards. Such runs are not reproducible to the bit.

    Source: the reporting window of Bonawitz et al., arXiv 1902.01046, section 2.2, which closes when enough devices
    have reported or its time is over; ours is as long as the clients make it instead of a constant.

    Args:
        answered_s: seconds from the beginning of the round to each answer so far; errors are none.
        num_asked: clients that were asked and have not failed.
        patience: >= 1; None waits for everyone.
        quorum: share in (0, 1] of ``num_asked``, rounded up, at least one client.
        timeout_s: > 0.
    """
    needed = max(1, math.ceil(quorum * num_asked - _ROUNDING))
    if patience is None or len(answered_s) < needed:
        return timeout_s
    return min(timeout_s, patience * sorted(answered_s)[needed - 1])
