"""A stack of trackers computes what each of its trackers computes alone, forwards and backwards."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from clients.data.recording import Recording
from clients.models.own import build_tracker
from clients.models.stacked import StackedTracker, _LastState, architecture_of
from clients.models.tracker import BeamTracker, Windows, read_windows
from configs.schema import Model, Task

TASK = Task(num_frames=4, num_future=2, num_beams=4)
SIZE = Model(width=3, features=10, hidden=12, dropout=0.0)


def trackers(count: int, modality: str = "gps", size: Model = SIZE) -> list[BeamTracker]:
    torch.manual_seed(3)
    found = [BeamTracker((modality,), size, TASK) for _ in range(count)]
    for tracker in found:
        with torch.no_grad():
            tracker.change_gain.copy_(torch.randn(size.features))
    return found


def windows(recording: Recording, sizes: list[int]) -> list[Windows]:
    starts = recording.window_starts(4, 2)
    return [
        read_windows(recording, starts[3 * place :][:size], modalities=["gps"], num_frames=4)
        for place, size in enumerate(sizes)
    ]


def test_a_batch_of_each_tracker_has_the_logits_and_gradients_of_that_tracker_alone(street: Recording) -> None:
    alone = trackers(3)
    together = trackers(3)
    for tracker in (*alone, *together):
        tracker.fit_scale(street, street.window_starts(4, 2))
    batches = windows(street, [5, 8, 1])
    stack = StackedTracker(together)
    logits = stack.decide(stack.features(batches))
    slopes = torch.zeros_like(logits)
    for place, (tracker, batch) in enumerate(zip(alone, batches, strict=True)):
        wanted = tracker(batch)
        found = logits[place, : len(batch.rows)].view_as(wanted)
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)
        slope = torch.randn(wanted.shape)
        wanted.backward(slope)
        slopes[place, : len(batch.rows)] = slope.flatten(1)
    stack.backward(logits, slopes)
    for one, other in zip(alone, together, strict=True):
        for (name, wanted), found in zip(one.named_parameters(), other.parameters(), strict=True):
            assert (wanted.grad is None) == (found.grad is None), name
            if wanted.grad is not None and found.grad is not None:
                torch.testing.assert_close(found.grad, wanted.grad, atol=1e-5, rtol=1e-4, msg=name)
                assert found.grad.stride() == found.stride(), name


def test_the_gradients_of_a_stack_of_grus_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    gates = torch.randn(3, 2, 2, 9, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 9, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(_LastState.apply, (gates, weights, bias))


def test_windows_with_frames_of_their_own_are_stacked_too(street: Recording) -> None:
    (plain,) = windows(street, [4])
    frames = plain.frames["gps"][plain.rows].flatten(0, 1)
    own = replace(plain, frames={"gps": frames}, own_rows={"gps": torch.arange(16).view(4, 4)})
    stack = StackedTracker(trackers(2))
    one, other = stack.features([plain, own])
    alone = StackedTracker(trackers(2)).features([plain, plain])
    torch.testing.assert_close(one, alone[0], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(other, alone[1], atol=1e-6, rtol=1e-5)


def test_the_weights_of_a_tracker_are_views_of_those_of_the_stack(street: Recording) -> None:
    found = trackers(2)
    stack = StackedTracker(found)
    (batch,) = windows(street, [4])
    before = stack.decide(stack.features([batch, batch])).detach()
    with torch.no_grad():
        found[1].head.bias.add_(1.0)
    after = stack.decide(stack.features([batch, batch])).detach()
    torch.testing.assert_close(after[1], before[1] + 1.0)
    assert torch.equal(after[0], before[0])


@pytest.mark.parametrize("modality", ["gps", "box", "past_power"])
def test_trackers_of_vectors_have_an_architecture_by_their_sizes(modality: str) -> None:
    one, other = trackers(2, modality)
    assert architecture_of(one) is not None
    assert architecture_of(one) == architecture_of(other)
    assert hash(architecture_of(one)) == hash(architecture_of(other))
    (larger,) = trackers(1, modality, SIZE.model_copy(update={"hidden": 13}))
    assert architecture_of(larger) != architecture_of(one)


@pytest.mark.parametrize("modality", ["camera", "radar", "lidar"])
def test_trackers_with_convolutions_have_none(modality: str) -> None:
    assert architecture_of(trackers(1, modality)[0]) is None


def test_fused_trackers_and_those_of_the_study_have_none() -> None:
    assert architecture_of(BeamTracker(("gps", "box"), SIZE, TASK)) is None
    named = build_tracker(Model(model="radar-light"), ("maps",), Task(num_frames=8))
    assert architecture_of(named) is None


def test_numbers_of_one_tracker_do_not_reach_the_others(street: Recording) -> None:
    batches = windows(street, [6, 6])
    wanted = StackedTracker(trackers(2)).features(batches)[0]
    spoiled = trackers(2)
    with torch.no_grad():
        for parameter in spoiled[1].parameters():
            parameter.fill_(np.nan)
    found = StackedTracker(spoiled).features(batches)
    assert torch.equal(found[0], wanted)
    assert torch.isnan(found[1]).all()
