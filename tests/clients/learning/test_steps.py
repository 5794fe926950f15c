"""Batches of windows, the learning rate, and steps."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch

from clients.learning.learner import RUN_LENGTH, cosine, take_steps, window_batches
from configs.seeding import rng_for


@pytest.mark.parametrize(("num", "batch_size"), [(100, 32), (100, 8), (7, 32), (33, 16), (1, 1), (100, 3), (64, 12)])
def test_an_epoch_draws_every_window_once_in_batches_no_larger_than_asked(num: int, batch_size: int) -> None:
    positions = np.arange(num) * 3
    batches = window_batches(positions, batch_size=batch_size, rng=rng_for(0, num))
    for _ in range(3):
        epoch: list[int] = []
        while len(epoch) < num:
            batch = next(batches)
            assert 0 < len(batch) <= batch_size
            epoch += batch.tolist()
        assert sorted(epoch) == positions.tolist()


@pytest.mark.parametrize("batch_size", [8, 12, 20, 32])
def test_most_batches_are_as_large_as_asked(batch_size: int) -> None:
    sizes = [len(batch) for batch in islice(window_batches(np.arange(1000), batch_size=batch_size, rng=rng_for(0)), 20)]
    assert np.median(sizes) == batch_size


def test_windows_of_a_batch_come_in_runs_of_neighbours() -> None:
    batch = next(window_batches(np.arange(1000), batch_size=32, rng=rng_for(0)))
    assert np.sum(np.diff(batch) == 1) >= 32 - 32 // RUN_LENGTH - 1


def test_the_same_stream_draws_the_same_batches_and_each_epoch_other_ones() -> None:
    def drawn(seed: int) -> list[list[int]]:
        batches = window_batches(np.arange(64), batch_size=32, rng=rng_for(seed))
        return [batch.tolist() for batch in islice(batches, 6)]

    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)
    assert drawn(0)[:3] != drawn(0)[3:]


def test_nothing_to_draw_from_is_an_error() -> None:
    with pytest.raises(ValueError, match="no window"):
        next(window_batches(np.empty(0, np.int64), batch_size=4, rng=rng_for(0)))


def test_the_cosine_is_1_at_the_first_step_a_half_in_the_middle_and_0_at_the_end() -> None:
    assert cosine(0, 100) == 1.0
    assert cosine(50, 100) == pytest.approx(0.5)
    assert cosine(100, 100) == pytest.approx(0.0)
    assert all(cosine(step, 100) > cosine(step + 1, 100) for step in range(100))


def test_a_step_goes_downhill_at_its_own_rate_and_the_loss_is_the_mean() -> None:
    weight = torch.nn.Parameter(torch.tensor(0.25))
    optimizer = torch.optim.SGD([weight], lr=99.0)
    loss = take_steps(optimizer, [lambda: weight**2 / 2] * 2, [0.5, 0.1], max_grad_norm=10.0)
    assert weight.item() == pytest.approx(0.25 * 0.5 * 0.9)
    assert loss == pytest.approx((0.25**2 + 0.125**2) / 4)


def test_a_gradient_is_clipped_to_its_norm() -> None:
    weight = torch.nn.Parameter(torch.tensor([30.0, 40.0]))
    take_steps(torch.optim.SGD([weight], lr=1.0), [lambda: weight.square().sum() / 2], [1.0], max_grad_norm=5.0)
    torch.testing.assert_close(weight.detach(), torch.tensor([27.0, 36.0]))


def test_no_step_changes_nothing() -> None:
    weight = torch.nn.Parameter(torch.tensor(1.0))
    assert take_steps(torch.optim.SGD([weight], lr=1.0), [], [], max_grad_norm=1.0) == 0.0
    assert weight.item() == 1.0
