"""By how much a new version of a model may be worse; it imports nothing, so that a command line starts soon."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Margins:
    """By how much a new version may be worse than the current one.

    Attributes:
        top5_points: the largest loss of Top-5, in points of per cent.
        power_loss_db: the largest rise of the power loss of the first guess, in dB.
        passes: the number of passes that are looked at, at most.
    """

    top5_points: float = 2.0
    power_loss_db: float = 0.5
    passes: int = 8

    def __post_init__(self) -> None:
        if not (self.top5_points >= 0 and self.power_loss_db >= 0):
            raise ValueError(f"margins must be at least 0, got {self.top5_points} points and {self.power_loss_db} dB")
        if self.passes < 1:
            raise ValueError(f"passes: must be at least 1, got {self.passes}")
