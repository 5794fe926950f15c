"""One temperature makes certainty fit the facts."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from clients.learning.calibration import CANDIDATES, fit_temperature, is_refuted


def drawn(scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that are ``scale`` times as certain as the beams drawn from them deserve."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(2000, 2, 8, generator=generator)
    beams = torch.multinomial(torch.softmax(logits, -1).view(-1, 8), 1, generator=generator).view(2000, 2)
    return scale * logits, beams


def test_a_tracker_that_is_twice_as_certain_as_it_may_be_gets_temperature_2() -> None:
    for scale in (0.5, 1.0, 2.0, 4.0):
        fitted, _ = fit_temperature(*drawn(scale))
        assert 2 ** (-1 / 8) - 1e-9 <= fitted / scale <= 2 ** (1 / 8) + 1e-9


def test_a_temperature_is_one_of_the_candidates_however_wrong_the_tracker_is() -> None:
    logits, beams = drawn(1.0)
    assert fit_temperature(-1000 * logits, beams)[0] == max(CANDIDATES)
    assert fit_temperature(0.001 * logits, beams)[0] == min(CANDIDATES)


def test_the_loss_is_the_cross_entropy_at_the_temperature_found() -> None:
    logits, beams = drawn(2.0)
    temperature, loss = fit_temperature(logits, beams)
    expected = -torch.log_softmax(logits / temperature, -1).gather(-1, beams.unsqueeze(-1)).mean()
    assert abs(loss - float(expected)) < 1e-5


@pytest.mark.parametrize(
    ("now", "peak", "expected"),
    [
        pytest.param([-3.0], [-2.5], False, id="one pass is a coin toss"),
        pytest.param([-3.0], [-2.0], True, id="unless the right class has less than half its probability"),
        pytest.param([-3.0, -2.0], [-2.0, -2.9], False, id="passes disagree"),
        pytest.param([-2.2, -2.2], [-2.0, -2.1], True, id="passes agree that it is worse"),
        pytest.param([-2.2, -2.2, -2.1], [-2.0, -2.1, -2.3], False, id="three passes disagree"),
        pytest.param([-1.0, -1.5], [-2.0, -1.6], False, id="better"),
        pytest.param([-2.0, -1.6], [-2.0, -1.6], False, id="the same"),
        pytest.param([-2.1, -1.7], [-2.0, -1.6], True, id="worse by the same on every pass"),
    ],
)
def test_held_out_passes_refute_what_is_worse_by_more_than_their_standard_error(
    now: Sequence[float], peak: Sequence[float], expected: bool
) -> None:
    assert is_refuted(now, peak) is expected
