"""The tables of beam sets: for a terminal, for a page, and as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from clients.learning.beam_sets import least_alpha
from configs.progress import PhaseProgress
from sim.beam_sets.adaptive import AdaptiveRow, adaptive_rows
from sim.beam_sets.arms import ARMS, arm_sources, chosen_clients, passes_to_judge, swept
from sim.beam_sets.coverage import NUM_SPLITS, SweepRow, sweep_rows
from sim.beam_sets.drift import DriftRow, drift_rows
from sim.take_home.run_models import RunModels

Cells = Sequence[tuple[str, ...]]
# The titles of the columns; the first ones hold words, and the others numbers.
SWEEP_WORDS, SWEEP_NUMBERS = ("within", "wanted", "arm"), ("coverage", "lowest client", "beams", "Top-K", "saved")
ADAPTIVE_NUMBERS = ("coverage", "beams", "shrinking: coverage", "beams", "confirmed")
DRIFT_WORDS, DRIFT_NUMBERS = ("arm", "of"), ("loss before", "after", "false alarms", "alarms", "passes to the alarm")


def _table(title: str, words: Sequence[str], numbers: Sequence[str], rows: Cells) -> Table:
    table = Table(*words, title=title)
    for name in numbers:
        table.add_column(name, justify="right")
    for cells in rows:
        table.add_row(*cells)
    return table


def _markdown(titles: Sequence[str], rows: Cells) -> str:
    lines = [tuple(titles), ("---",) * len(titles), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _sweep_cells(row: SweepRow) -> tuple[str, ...]:
    coverage = f"{100 * row.coverage:.1f} %"
    if not row.is_in_band:
        coverage += " (missed)"
    return (
        f"{row.within_db:g} dB",
        f"{100 * (1 - row.alpha):g} %" + ("" if row.is_possible else ", all beams"),
        row.arm,
        coverage,
        f"{100 * row.worst_coverage:.1f} %",
        f"{row.beams:.1f}",
        f"{row.top_k:.1f}",
        f"{100 * row.saved:.0f} %",
    )


def _adaptive_cells(row: AdaptiveRow) -> tuple[str, ...]:
    return (
        f"{row.within_db:g} dB",
        f"{100 * (1 - row.alpha):g} %" + ("" if row.is_possible else ", all beams"),
        row.arm,
        f"{100 * row.fixed_coverage:.1f} %",
        f"{row.fixed_beams:.1f}",
        f"{100 * row.coverage:.1f} %",
        f"{row.beams:.1f}",
        f"{100 * row.confirmed:.0f} %",
    )


def _drift_cells(row: DriftRow) -> tuple[str, ...]:
    return (
        row.arm,
        row.owner,
        f"{100 * row.loss_before:.1f} %",
        f"{100 * row.loss_after:.1f} %",
        f"{100 * row.false_alarms:.0f} %",
        f"{100 * row.alarms:.0f} %",
        "-" if row.passes is None else f"{row.passes:g}",
    )


@dataclass(frozen=True)
class SweepReport:
    """What was measured of one run.

    Attributes:
        title: the name of the run or scenario.
        num_passes: the number of passes that are split.
        num_splits: the number of splits.
        rows: the sets.
        drift: the name of the change that the monitor watched; empty if there is none.
        drift_rows: when it spoke.
        adaptive: sets that shrink, beside those that do not; empty if nobody asked.
    """

    title: str
    num_passes: int
    num_splits: int
    rows: tuple[SweepRow, ...]
    drift: str
    drift_rows: tuple[DriftRow, ...]
    adaptive: tuple[AdaptiveRow, ...] = ()

    @property
    def headline(self) -> str:
        """What was measured on how many passes, and what they can guarantee at best."""
        count = self.rows[0].num_calibration
        return (
            f"{self.title}: {self.num_passes} passes, {count} calibrate, mean of {self.num_splits} splits; "
            f"at best {100 * (1 - least_alpha(count)):.1f} % can be guaranteed"
        )

    def tables(self) -> list[Table]:
        """The tables of a terminal."""
        found = [_table(self.headline, SWEEP_WORDS, SWEEP_NUMBERS, [*map(_sweep_cells, self.rows)])]
        if self.drift_rows:
            found.append(_table(self._drift_line, DRIFT_WORDS, DRIFT_NUMBERS, [*map(_drift_cells, self.drift_rows)]))
        if self.adaptive:
            rows = [*map(_adaptive_cells, self.adaptive)]
            found.append(_table(self._adaptive_line, SWEEP_WORDS, ADAPTIVE_NUMBERS, rows))
        return found

    def markdown(self) -> str:
        """The tables of docs/beam-sets.md."""
        parts = [self.headline, _markdown((*SWEEP_WORDS, *SWEEP_NUMBERS), [*map(_sweep_cells, self.rows)])]
        if self.drift_rows:
            parts += [
                self._drift_line,
                _markdown((*DRIFT_WORDS, *DRIFT_NUMBERS), [*map(_drift_cells, self.drift_rows)]),
            ]
        if self.adaptive:
            rows = [*map(_adaptive_cells, self.adaptive)]
            parts += [self._adaptive_line, _markdown((*SWEEP_WORDS, *ADAPTIVE_NUMBERS), rows)]
        return "\n\n".join(parts) + "\n"

    @property
    def _adaptive_line(self) -> str:
        return f"{self.title}: the current slot, sets of one threshold and sets that shrink after a confirmed slot"

    @property
    def _drift_line(self) -> str:
        row = self.drift_rows[0]
        return (
            f"{self.title}: by day, then {self.drift}; {row.num_before} and {row.num_after} passes; "
            f"alpha {row.alpha:g}, alarm above {row.high:g}"
        )

    def to_dict(self) -> dict[str, Any]:
        """The values by name."""
        return {
            "title": self.title,
            "num_passes": self.num_passes,
            "num_splits": self.num_splits,
            "sets": [row.to_dict() for row in self.rows],
            "drift": self.drift,
            "monitor": [row.to_dict() for row in self.drift_rows],
            "adaptive": [row.to_dict() for row in self.adaptive],
        }


def report_of(
    models: RunModels,
    *,
    title: str,
    clients: Sequence[str] = (),
    arms: Sequence[str] = (),
    num_passes: int | None = None,
    drift: str | None = None,
    adaptive: bool = False,
    share: float = 0.5,
    num_splits: int = NUM_SPLITS,
    progress: PhaseProgress,
) -> SweepReport:
    """Measure the sets of a run.

    Args:
        models: the run.
        title: its name.
        clients: the clients to measure; empty takes all.
        arms: names of `ALL_ARMS`; empty takes those of `ARMS`.
        num_passes: the number of passes that are drawn anew; None takes the test set of the run.
        drift: a condition of the street that the monitor is to find after a calibration by day; None leaves it out.
        adaptive: whether sets that shrink after a confirmed slot are measured as well.
        share: the share of the passes that calibrate.
        num_splits: the number of splits.
        progress: is called with the phase, the work that is done and the whole work.

    Raises:
        ValueError: a client or an arm is unknown, a measured scenario is asked for other passes, or there are fewer
            than two.
    """
    names, task = chosen_clients(models, clients), models.experiment.task
    recording = passes_to_judge(models, num_passes)
    conditions = () if drift is None else ("day", drift)
    changed = [passes_to_judge(models, num_passes, name) for name in conditions]
    sources = []
    for source in arm_sources(models, names, arms or ARMS):
        sources.append(source)
        progress("arms", len({one.owner for one in sources}), len(names) + 1)
    found = swept(recording, sources, task)
    rows = sweep_rows(
        found, share=share, num_splits=num_splits, progress=lambda done, total: progress("splits", done, total)
    )
    seen = [swept(one, sources, task) for one in changed]
    watched = drift_rows(seen[0], seen[1], share=share, num_splits=num_splits) if seen else []
    shrinking = adaptive_rows(found, share=share, num_splits=num_splits) if adaptive else []
    return SweepReport(title, found.num_passes, num_splits, tuple(rows), drift or "", tuple(watched), tuple(shrinking))
