"""How work that takes long tells how far it is: two kinds of callables, for whoever shows it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with the work that is done and the work in all."""
PhaseProgress = Callable[[str, int, int], None]
"""Called with the phase under way, the work of it that is done and all of its work."""
