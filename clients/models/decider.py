"""What a client or a server decides by, as one module: a calibrated tracker, or the weighted mean of two.

N windows, T frames of a window, M modalities, H horizons, B beams.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clients.models.tracker import Tracker, Windows

# The smallest probability of a mixture that has a logarithm: that of float32 zeros would be infinite.
TINY = 1e-30


class Decider(nn.Module):
    """A trained tracker with the temperature that calibrates it, or several with their shares.

    Args:
        members: the trackers, all with the same modalities and task; they are put into evaluation mode.
        temperatures: the temperature of each, above 0; logits are divided by it.
        shares: the weight of each in the mean of their probabilities; the weights are positive and add up to 1.

    Raises:
        ValueError: there are not as many temperatures and shares as members, or one of them is out of range.
    """

    def __init__(self, members: Sequence[Tracker], *, temperatures: Sequence[float], shares: Sequence[float]) -> None:
        super().__init__()
        if not members or not len(members) == len(temperatures) == len(shares):
            raise ValueError("a decider needs at least one tracker, and a temperature and a share for each")
        if min(temperatures) <= 0 or min(shares) <= 0 or abs(sum(shares) - 1.0) > 1e-6:
            raise ValueError(f"temperatures must be > 0 and shares add up to 1, got {temperatures} and {shares}")
        self.members = nn.ModuleList(members)
        self.temperatures = tuple(temperatures)
        self.shares = tuple(shares)
        self.modalities = members[0].modalities
        self.task = members[0].task
        self.eval()

    def forward(self, windows: Windows, present: Tensor | None = None) -> Tensor:
        """(N, H, B) logits whose softmax is the calibrated probability of each beam.

        Args:
            windows: windows with frames of every modality that is present for some window.
            present: (N, M) whether a modality is used for a window; None uses every modality that has frames.
        """
        return self.joined([member(windows, present) for member in self.members])

    def joined(self, logits: Sequence[Tensor]) -> Tensor:
        """(N, H, B) logits of the decider, from those of its members in their order."""
        calibrated = [one / temperature for one, temperature in zip(logits, self.temperatures, strict=True)]
        if len(calibrated) == 1:
            return calibrated[0]
        shared = [share * torch.softmax(one, -1) for one, share in zip(calibrated, self.shares, strict=True)]
        return torch.stack(shared).sum(dim=0).clamp_min(TINY).log()
