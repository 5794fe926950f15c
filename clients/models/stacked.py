"""Trackers of one architecture that compute as one: each matrix product is one batched product for all of them.

A small tracker spends its time on calls of many small kernels, and not on arithmetic. Trackers of vectors (GPS, boxes,
past power, vectors of a user's own sensor) consist of a perceptron, a GRU and a linear layer, all of which stack.
Convolutions gain nothing from it on a CPU. What a tracker of the stack computes is what it computes alone, except for
the order in which numbers are added: differences are of the size of a float's last digits.

K trackers, U frames, N windows, T frames of a window, C channels, D features, S units of the GRU, H horizons, B beams.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from clients.models.encoders import encodes_vectors
from clients.models.tracker import BeamTracker, Tracker, Windows


def architecture_of(tracker: Tracker) -> Hashable | None:
    """What trackers must have in common to be stacked; None for a tracker that cannot be stacked."""
    if type(tracker) is not BeamTracker or len(tracker.modalities) != 1 or not encodes_vectors(tracker.modalities[0]):
        return None
    shapes = tuple((name, tuple(one.shape), one.dtype) for name, one in tracker.state_dict().items())
    task = tracker.task
    return (tracker.modalities, task.num_frames, task.num_horizons, task.num_classes, tracker.dropout.p, shapes)


class StackedTracker:
    """Trackers of one architecture in training.

    The parameters of each tracker become views into those of the stack, so each goes on to have weights, an optimizer
    and a state of its own.

    Args:
        trackers: at least one tracker; :func:`architecture_of` is the same for all.
    """

    def __init__(self, trackers: Sequence[BeamTracker]) -> None:
        first = trackers[0]
        self._name = first.modalities[0]
        self._encoder: Any = first.encoders[self._name]
        self._parameters: dict[str, Tensor] = {}
        self._rows: list[list[nn.Parameter]] = []
        for name, parameter in first.named_parameters():
            if not parameter.requires_grad:
                continue
            rows = [tracker.get_parameter(name) for tracker in trackers]
            stacked = torch.stack([row.detach() for row in rows])
            for row, weights in zip(rows, stacked, strict=True):
                row.data = weights
            self._rows.append(rows)
            self._parameters[name] = stacked.requires_grad_()
        scales: list[Any] = [tracker.encoders[self._name].standardise for tracker in trackers]
        self._scale = 1.0 / torch.stack([one.scale for one in scales])[:, None]
        self._offset = -torch.stack([one.mean for one in scales])[:, None] * self._scale

    def features(self, windows: Sequence[Windows]) -> Tensor:
        """(K, N, S) last states of the GRU for a batch of each tracker, where N is the size of the largest batch.

        Rows beyond the batch of a tracker are of no use, and must get no gradient.

        With A and B the parts of the input weights for features x and for their changes, of which g is the gain, a step
        of the GRU sees A x_t + B g (x_t - x_(t-1)) = (A + B g) x_t - B g x_(t-1). Both terms are computed once for
        each frame and not for each window that the frame is in.
        """
        told, before = self._gates(self._encoded([one.frames[self._name] for one in windows]))
        rows = pad_sequence([one.own_rows.get(self._name, one.rows) for one in windows], batch_first=True)
        # (T, K, N): the frames of a tracker follow those of the trackers before it.
        places = rows.permute(2, 0, 1)
        places = places + told.shape[1] * torch.arange(len(windows), device=places.device)[:, None]
        earlier = torch.cat([places[:1], places[:-1]])
        gates = functional.embedding(places, told.flatten(0, 1)) - functional.embedding(earlier, before.flatten(0, 1))
        weights, bias = self._parameters["gru.weight_hh_l0"], self._parameters["gru.bias_hh_l0"]
        last: Tensor = _LastState.apply(gates, weights, bias)  # type: ignore[no-untyped-call]
        return last

    def decide(self, features: Tensor) -> Tensor:
        """(K, N, H * B) logits from features (K, N, S), without dropout."""
        return self._linear("head", features)

    def backward(self, logits: Tensor, gradients: Tensor) -> None:
        """Give each tracker the gradients of its parameters.

        Args:
            logits: (K, N, H * B) what the stack decided.
            gradients: (K, N, H * B) the gradient of the loss of each tracker.
        """
        # Autograd imports two CPU-seconds of symbolic algebra where it is given gradients; of a sum it needs none.
        found = torch.autograd.grad(torch.dot(logits.flatten(), gradients.flatten()), list(self._parameters.values()))
        for rows, stacked in zip(self._rows, found, strict=True):
            # The kernel of the optimizer takes gradients to lie in memory as the weights do.
            for row, gradient in zip(rows, stacked.contiguous(), strict=True):
                row.grad = gradient

    def _encoded(self, frames: Sequence[Tensor]) -> Tensor:
        """(K, U, D) features of the frames of each tracker, where U is the largest number of frames."""
        inputs = self._encoder.inputs(torch.cat(list(frames)))
        seen = pad_sequence(inputs.split([len(one) for one in frames]), batch_first=True)
        seen = torch.addcmul(self._offset, seen, self._scale)
        for index, layer in enumerate(self._encoder.network):
            is_linear = isinstance(layer, nn.Linear)
            seen = self._linear(f"encoders.{self._name}.network.{index}", seen) if is_linear else layer(seen)
        return seen

    def _gates(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """(K, U, 3 S) what a frame tells the gates in its own step, and what is taken off in the step after it."""
        weights, bias = self._parameters["gru.weight_ih_l0"], self._parameters["gru.bias_ih_l0"]
        num_features = seen.shape[-1]
        of_change = weights[..., num_features:] * self._parameters["change_gain"][:, None]
        of_both = weights[..., :num_features] + of_change
        return torch.baddbmm(bias[:, None], seen, of_both.transpose(1, 2)), torch.bmm(seen, of_change.transpose(1, 2))

    def _linear(self, layer: str, values: Tensor) -> Tensor:
        weights, bias = self._parameters[f"{layer}.weight"], self._parameters[f"{layer}.bias"]
        return torch.baddbmm(bias[:, None], values, weights.transpose(1, 2))


class _LastState(torch.autograd.Function):
    """The last state of K GRUs, with gradients of one product for all steps where a chain of small ones would be slow.

    Source: the equations in the documentation of `torch.nn.GRU`; r, z and n are its gates, in its order.
    """

    @staticmethod
    def forward(ctx: Any, gates: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
        """(K, N, S) from what the inputs tell the gates (T, K, N, 3 S), and weights and bias of the states."""
        size = weights.shape[-1]
        state = gates.new_zeros(*gates.shape[1:3], size)
        by_column, bias = weights.transpose(1, 2).contiguous(), bias[:, None]
        ctx.steps = []
        for gate in gates:
            told = torch.baddbmm(bias, state, by_column)
            reset_update = torch.add(gate[..., : 2 * size], told[..., : 2 * size]).sigmoid_()
            reset, update = reset_update[..., :size], reset_update[..., size:]
            held = told[..., 2 * size :]
            new = torch.addcmul(gate[..., 2 * size :], reset, held).tanh_()
            ctx.steps.append((state, reset, update, new, held))
            state = torch.lerp(new, state, update)
        ctx.save_for_backward(weights)
        return state

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of gates, weights and bias."""
        (weights,), (slope,) = ctx.saved_tensors, gradients
        size, num_steps = weights.shape[-1], len(ctx.steps)
        of_gates = slope.new_empty(num_steps, *slope.shape[:2], 3 * size)
        of_told = slope.new_empty(slope.shape[0], num_steps, slope.shape[1], 3 * size)
        for step in reversed(range(num_steps)):
            state, reset, update, new, held = ctx.steps[step]
            of_new = slope * (1.0 - update) * (1.0 - new * new)
            of_gate, told = of_gates[step], of_told[:, step]
            torch.mul(of_new * held, reset * (1.0 - reset), out=of_gate[..., :size])
            torch.mul(slope * (state - new), update * (1.0 - update), out=of_gate[..., size : 2 * size])
            of_gate[..., 2 * size :] = of_new
            told[..., : 2 * size] = of_gate[..., : 2 * size]
            torch.mul(of_new, reset, out=told[..., 2 * size :])
            slope = torch.baddbmm(slope * update, told, weights)
        told = of_told.flatten(1, 2)
        states = torch.stack([step[0] for step in ctx.steps], dim=1).flatten(1, 2)
        return of_gates, torch.bmm(told.transpose(1, 2), states), told.sum(dim=1)
