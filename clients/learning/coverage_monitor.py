"""An alarm for beam sets whose realised loss has left its band: a sequential test by betting.

A guarantee of `clients.learning.beam_sets` holds while passes are exchangeable with those of the calibration. The
monitor is given the loss of one pass after another. Two gamblers bet, one that the expected loss is above the band, one
that it is below. Each starts with wealth 1 and spreads it evenly over the stakes c of `STAKES`; after a loss l, the
wealth on a stake is multiplied by

    1 + c (l / high - 1)                 against "at most high",
    1 + c ((1 - l) / (1 - low) - 1)      against "at least low".

While the expected loss, given all earlier passes, is in the band, neither wealth grows on average, and so the
probability that it ever reaches 2 / delta is at most delta / 2, at any number of passes and without any assumption on
the distribution of the loss but its range [0, 1]. Thus a false alarm ever is raised with probability at most delta.

Source: the test by betting of a bounded mean, Waudby-Smith and Ramdas, arXiv 2010.09686, section 4, with Ville's
inequality; for the risk of a deployed model, Podkopaev and Ramdas, arXiv 2110.06177.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

STAKES = np.array([1.0 / 16.0, 1.0 / 8.0, 1.0 / 4.0, 1.0 / 2.0])
"""The shares of a wealth that are bet; small ones find small drifts, large ones find large drifts early."""

# Wealth is not counted beyond e to this power, which a float still holds.
LARGEST = 700.0


class CoverageMonitor:
    """Watches the losses of passes, and raises an alarm when their expectation is outside of a band.

    Args:
        low: the lower end of the band of the expected loss, at least 0; 0 raises no alarm for sets that are too large.
        high: its upper end, below 1 and above ``low``. It should be above the alpha of the sets by what one calibration
            may differ from the mean of all of them, since only their mean is bounded.
        delta: the probability of a false alarm ever, in (0, 1).

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> monitor = CoverageMonitor(low=0.0, high=0.1, delta=0.05)
        >>> monitor.first_alarm([0.0, 0.1, 0.05, 0.0]) is None
        True
        >>> monitor.first_alarm([0.9, 0.8, 1.0, 0.9]), monitor.alarm
        (8, 'loss too high')
    """

    def __init__(self, *, low: float = 0.0, high: float, delta: float = 0.05) -> None:
        if not 0.0 <= low < high < 1.0:
            raise ValueError(f"the band must satisfy 0 <= low < high < 1, got low {low} and high {high}")
        if not 0.0 < delta < 1.0:
            raise ValueError(f"delta: must be between 0 and 1, got {delta}")
        self.low, self.high, self.delta = low, high, delta
        self.num_passes = 0
        self.alarm: str | None = None
        self._too_high = np.zeros(len(STAKES))
        self._too_low = np.zeros(len(STAKES))

    @property
    def evidence(self) -> tuple[float, float]:
        """The wealth of the two gamblers: that the loss is too high, and that it is too low."""
        high, low = (np.exp(np.minimum(one, LARGEST)).mean() for one in (self._too_high, self._too_low))
        return float(high), float(low)

    def update(self, loss: float) -> str | None:
        """Take the loss of the next pass.

        Args:
            loss: the share of missed windows of the pass, in [0, 1].

        Returns:
            ``loss too high`` or ``loss too low`` from the pass on that raised the alarm; None before.

        Raises:
            ValueError: the loss is out of range.
        """
        if not 0.0 <= loss <= 1.0:
            raise ValueError(f"loss: must be in [0, 1], got {loss}")
        self.num_passes += 1
        # Logarithms, so that a wealth that was lost over many passes does not become 0.
        self._too_high += np.log1p(STAKES * (loss / self.high - 1.0))
        self._too_low += np.log1p(STAKES * ((1.0 - loss) / (1.0 - self.low) - 1.0))
        if self.alarm is None:
            for wealth, name in zip(self.evidence, ("loss too high", "loss too low"), strict=True):
                if wealth >= 2.0 / self.delta:
                    self.alarm = name
                    break
        return self.alarm

    def first_alarm(self, losses: Iterable[float]) -> int | None:
        """Take losses until an alarm; the number of all passes so far at the alarm, or None if there is none."""
        for loss in losses:
            if self.update(float(loss)) is not None:
                return self.num_passes
        return None
