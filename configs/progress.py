"""The two kinds of callables by which long work tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""A callable that gets the amount of work done and the amount in all."""
PhaseProgress = Callable[[str, int, int], None]
"""A callable that gets the name of the phase under way, its work done and all of its work."""
