"""The callables by which long work tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""A callable that gets the amount of work done and the amount in all."""
PhaseProgress = Callable[[str, int, int], None]
"""A callable that gets the name of the phase under way, its work done and all of its work."""


def counting(progress: PhaseProgress, phase: str, done: int, total: int) -> Callable[[], None]:
    """Report where a phase begins, and return a function that reports one more unit of work at every call.

    Args:
        progress: the function that gets the reports.
        phase: the name of the phase.
        done: the work that is done already.
        total: all of the work; more calls than that report no more than that.
    """
    left = iter(range(done + 1, total + 1))
    progress(phase, done, total)
    return lambda: progress(phase, next(left, total), total)


def silent(phase: str, done: int, total: int) -> None:
    """Report nothing."""
