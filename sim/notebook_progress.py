"""Progress of a run in a notebook: one line for each phase, which is written over until the phase has ended."""

from __future__ import annotations

import sys
import time


class NotebookProgress:
    """Writes to the standard output, which a notebook shows below the cell.

    Args:
        title: the text in front of every phase.
    """

    PERIOD_S = 0.5

    def __init__(self, title: str) -> None:
        self._title = title
        self._phase = ""
        self._begun = self._shown = 0.0
        self._width = 0

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Show how far a phase is."""
        now = time.monotonic()
        if phase != self._phase:
            self.close()
            self._phase, self._begun, self._shown = phase, now, 0.0
        if done < total and now - self._shown < self.PERIOD_S:
            return
        self._shown = now
        spent = now - self._begun
        left = f", {spent / done * (total - done):.0f} s left" if 0 < done < total else ""
        line = f"{self._title}: {phase}: {done} of {total}, {spent:.0f} s{left}"
        sys.stdout.write(f"\r{line.ljust(self._width)}")
        sys.stdout.flush()
        self._width = len(line)

    def close(self) -> None:
        """End the line of the last phase."""
        if self._width:
            sys.stdout.write("\n")
            self._width = 0


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    return "ipykernel" in sys.modules and not sys.stdout.isatty()
