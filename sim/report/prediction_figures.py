"""Figures of what learners say about the common test set: which beams they confuse, by how much, and how surely.

The horizons of a window are taken together, and the clients of a kind that were asked too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sim.report.predictions import TEACHER, Predictions
from sim.report.style import INK, MUTED, PALETTE, panels, tinted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_BINS = 15
"""Bins of confidence, of equal width. Source: Guo et al., On Calibration of Modern Neural Networks, 1706.04599."""
MAX_STEPS, MAX_LOSS_DB = 10, 10.0
# So few guesses of a bin say nothing about how often it is right.
LEAST_IN_BIN = 20
STYLES: tuple[Any, ...] = ("-", "--", "-.", ":")


@dataclass(frozen=True)
class KindOutcome:
    """What the learners of one kind said, of all runs, windows and horizons; G guesses.

    Attributes:
        modality: their modality; empty for the teacher.
        best: (G,) best beam.
        first: (G,) first guess.
        confidence: (G,) calibrated probability of the first guess; ``raw_confidence`` is the one without calibration.
        loss_db: (G,) power lost by the first guess, in dB.
        temperatures: the temperatures of the learners.
    """

    modality: str
    best: NDArray[np.int64]
    first: NDArray[np.int64]
    confidence: NDArray[np.float32]
    raw_confidence: NDArray[np.float32]
    loss_db: NDArray[np.float32]
    temperatures: tuple[float, ...]

    @property
    def steps(self) -> NDArray[np.int64]:
        """(G,) distance of the first guess from the best beam, in beams."""
        found: NDArray[np.int64] = np.abs(self.first - self.best)
        return found


def outcomes_of(runs: Sequence[Predictions]) -> dict[str, KindOutcome]:
    """Kind, then ``teacher`` -> what its learners said, over all runs."""
    members = [(one, run.best) for run in runs for one in run.learners]
    kinds = dict.fromkeys(one.kind for one, _ in members if one.kind != TEACHER)
    found = {}
    for kind in (*kinds, TEACHER):
        mine = [(one, best) for one, best in members if one.kind == kind]
        if mine:
            found[kind] = KindOutcome(
                modality=mine[0][0].modality,
                best=np.concatenate([best.ravel() for _, best in mine]),
                first=np.concatenate([one.first.ravel() for one, _ in mine]),
                confidence=np.concatenate([one.confidence.ravel() for one, _ in mine]),
                raw_confidence=np.concatenate([one.raw_confidence.ravel() for one, _ in mine]),
                loss_db=np.concatenate([one.loss_db.ravel() for one, _ in mine]),
                temperatures=tuple(value for one, _ in mine for value in one.temperatures),
            )
    return found


def expected_calibration_error(
    confidence: NDArray[np.floating], is_right: NDArray[np.bool_], num_bins: int = NUM_BINS
) -> float:
    """The mean distance of the confidence of a bin from its share of right guesses, in [0, 1], weighted by guesses.

    Source: Guo et al., arXiv 1706.04599, equation 3.

    Args:
        confidence: (G,) probability of each first guess.
        is_right: (G,) whether the guess is the best beam.
        num_bins: the number of bins of equal width.

    Example:
        Of two guesses made with a confidence of 0.75, one is right.

        >>> expected_calibration_error(np.array([0.75, 0.75]), np.array([True, False]))
        0.25
    """
    surplus = np.bincount(
        _bins(confidence, num_bins), weights=is_right - confidence.astype(np.float64), minlength=num_bins
    )
    return float(np.abs(surplus).sum() / len(confidence))


def draw_confusion(outcomes: Mapping[str, KindOutcome], num_beams: int) -> Figure:
    """Draw, for each kind, which first guess was made for which best beam; each row of a panel adds up to 1."""
    columns = min(len(outcomes), 3)
    rows = math.ceil(len(outcomes) / columns)
    figure, axes = panels(rows, columns, height=2.15, between=0.55)
    for axis, (kind, one) in zip(axes, outcomes.items(), strict=False):
        counts = np.zeros((num_beams, num_beams))
        np.add.at(counts, (one.best, one.first), 1.0)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
        axis.imshow(
            tinted(np.sqrt(shares), PALETTE[one.modality] if one.modality else MUTED),
            origin="lower",
            aspect="auto",
            interpolation="nearest",
            extent=(-0.5, num_beams - 0.5, -0.5, num_beams - 0.5),
        )
        axis.plot([0, num_beams - 1], [0, num_beams - 1], color=MUTED, linewidth=0.5, linestyle=":")
        axis.grid(visible=False)
        axis.set(title=kind, xlabel="First guess (beam)", ylabel="Best beam")
    for axis in axes[len(outcomes) :]:
        axis.remove()
    return figure


def confusion_caption(outcomes: Mapping[str, KindOutcome]) -> str:
    """What is to be seen in :func:`draw_confusion`."""
    near = {kind: 100 * float(np.mean(one.steps <= 2)) for kind, one in outcomes.items()}
    best, worst = max(near, key=lambda kind: near[kind]), min(near, key=lambda kind: near[kind])
    beside = [100 * float(np.mean(one.steps[one.steps > 0] <= 2)) for one in outcomes.values() if one.steps.any()]
    missed = f" Of wrong guesses, {min(beside):.0f} to {max(beside):.0f} % are at most two beams off." if beside else ""
    spread = f"{near[best]:.0f} % of the guesses of {best}"
    if worst != best:
        spread += f" to {near[worst]:.0f} % of {worst}"
    return (
        "Which beam was guessed first for which best beam; the dotted line is where both are one, and strength is the "
        f"share of a row. Within two beams of the best lie {spread}.{missed}"
    )


def draw_errors(outcomes: Mapping[str, KindOutcome]) -> Figure:
    """Draw how many beams the first guesses are off (left) and how much power they lose (right), as shares of all."""
    figure, (left, right) = panels(1, 2, height=2.5, between=0.6)
    steps = np.arange(MAX_STEPS + 1)
    losses = np.linspace(0.0, MAX_LOSS_DB, 101)
    for style, (kind, one) in _styled(outcomes):
        within = [100 * float(np.mean(one.steps <= step)) for step in steps]
        left.plot(steps, within, marker="o", markersize=2.5, label=kind, **style)
        right.plot(losses, 100 * _shares_within(one.loss_db, losses), **style)
    left.set(xlabel="Error (beams, at most)", ylabel="First guesses (%)", ylim=(0, 102), title="Error in beam steps")
    right.set(xlabel="Power loss (dB, at most)", ylabel="First guesses (%)", ylim=(0, 102), title="Power loss")
    right.axvline(3.0, color=MUTED, linewidth=0.8, linestyle=":")
    left.legend(fontsize=7.5, loc="lower right")
    return figure


def errors_caption(outcomes: Mapping[str, KindOutcome]) -> str:
    """What is to be seen in :func:`draw_errors`."""
    told = [
        f"{kind} {100 * float(np.mean(one.steps <= 1)):.0f} % and {100 * float(np.mean(one.loss_db <= 3.0)):.0f} %"
        for kind, one in outcomes.items()
    ]
    far = [float(np.quantile(one.loss_db, 0.95)) for one in outcomes.values()]
    return (
        "Share of first guesses that are at most so many beams from the best one, and that lose at most so much power. "
        f"At most one beam off, and at most 3 dB (half the power; dotted): {'; '.join(told)}. One guess in twenty "
        f"loses more than {min(far):.1f} to {max(far):.1f} dB."
    )


def draw_reliability(outcomes: Mapping[str, KindOutcome]) -> Figure:
    """Draw how often guesses of a confidence are right, with calibration (left) and without (right)."""
    figure, axes = panels(1, 2, height=2.7, between=0.6)
    sides: tuple[tuple[str, Callable[[KindOutcome], NDArray[np.float32]]], ...] = (
        ("calibrated", lambda one: one.confidence),
        ("as trained (temperature 1)", lambda one: one.raw_confidence),
    )
    for axis, (title, confidence_of) in zip(axes, sides, strict=True):
        axis.plot([0, 100], [0, 100], color=MUTED, linewidth=0.8, linestyle=":")
        for style, (kind, one) in _styled(outcomes):
            confidence, is_right = confidence_of(one), one.steps == 0
            error = expected_calibration_error(confidence, is_right)
            x, y = _reliability(confidence, is_right)
            axis.plot(100 * x, 100 * y, marker="o", markersize=3, label=f"{kind} ({100 * error:.1f})", **style)
        axis.set(title=title, xlabel="Confidence (%)", ylabel="Right first guesses (%)", xlim=(0, 100), ylim=(0, 100))
        axis.legend(fontsize=7.5, loc="upper left", title="error (points)", title_fontsize=7.5)
    return figure


def reliability_caption(outcomes: Mapping[str, KindOutcome]) -> str:
    """What is to be seen in :func:`draw_reliability`."""
    errors = {
        kind: [100 * expected_calibration_error(c, one.steps == 0) for c in (one.confidence, one.raw_confidence)]
        for kind, one in outcomes.items()
    }
    better = [kind for kind, (calibrated, raw) in errors.items() if calibrated < raw]
    told = "; ".join(
        f"{kind} {_range(one.temperatures)}, {errors[kind][1]:.1f} and {errors[kind][0]:.1f} points"
        for kind, one in outcomes.items()
    )
    return (
        "How often first guesses of a confidence are right: on the dotted line, a learner is as sure as it may be; "
        f"above it, it is too modest. Temperatures, fitted on validation passes, and the expected calibration error "
        f"without and with them: {told}. Calibration helps on the test set for {len(better)} of {len(errors)}."
    )


def _styled(outcomes: Mapping[str, KindOutcome]) -> list[tuple[dict[str, Any], tuple[str, KindOutcome]]]:
    """Each kind with the colour of its modality and, where another has the same, a line style of its own."""
    found, seen = [], dict[str, int]()
    for kind, one in outcomes.items():
        number = seen.get(one.modality, 0)
        seen[one.modality] = number + 1
        colour = PALETTE[one.modality] if one.modality else INK
        found.append(({"color": colour, "linestyle": STYLES[number % len(STYLES)], "linewidth": 1.5}, (kind, one)))
    return found


def _shares_within(values: NDArray[np.floating], limits: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of the values that are at most each of the limits."""
    found: NDArray[np.float64] = np.searchsorted(np.sort(values), limits, side="right") / len(values)
    return found


def _bins(confidence: NDArray[np.floating], num_bins: int) -> NDArray[np.int64]:
    """(G,) the bin of each guess, of equal width."""
    found: NDArray[np.int64] = np.minimum((confidence * num_bins).astype(np.int64), num_bins - 1)
    return found


def _reliability(
    confidence: NDArray[np.floating], is_right: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean confidence and share of right guesses of each bin that has enough of them."""
    bins = _bins(confidence, NUM_BINS)
    counts = np.bincount(bins, minlength=NUM_BINS)
    kept = counts >= LEAST_IN_BIN
    means = np.bincount(bins, weights=confidence, minlength=NUM_BINS)[kept] / counts[kept]
    shares = np.bincount(bins, weights=is_right, minlength=NUM_BINS)[kept] / counts[kept]
    return means, shares


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}"
