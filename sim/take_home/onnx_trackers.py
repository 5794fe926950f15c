"""Our trackers as graphs of ONNX, for whole windows and for streams.

A *window* graph takes the frames of windows in raw units and gives ``logits`` and ``probs``. A *stream* graph takes the
frame of one slot and the features of the L - 1 slots before it, and gives the answer for this slot and the features to
give back at the next one; its answers are those of whole windows.

    window   <modality> (N, L, *frame_shape) [, present (N, M)]
             -> logits (N, H, B), probs (N, H, B)
    stream   <modality> (N, *frame_shape), state_<modality> (N, L - 1, D) for each modality [, present (N, M)]
             -> logits (N, H, B), probs (N, H, B), next_<modality> (N, L - 1, D)

``present`` is there where a tracker has several modalities: whether a sensor counts in a window.

N windows or streams, L frames of a window, M modalities, H horizons, B beams, D features of a modality.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from clients.data.modalities import MODALITIES
from clients.models.decider import TINY, Decider
from clients.models.tracker import BeamTracker
from sim.take_home.onnx_graph import Graph
from sim.take_home.onnx_layers import encode, linear

BATCH = "N"


def window_graph(decider: Decider, notes: Mapping[str, str]) -> Any:
    """The model of ONNX for whole windows.

    Args:
        decider: a decider whose members are trackers of the federation.
        notes: key -> text that is stored in the file.

    Raises:
        ValueError: a member is another tracker, or has a layer that is not known here.
    """
    graph, length = Graph(), decider.task.num_frames
    inputs = {name: _frames(graph, name, (BATCH, length)) for name in decider.modalities}
    present = _present(graph, decider)
    logits = []
    for member in _checked(decider):
        encoded = {}
        for name, frames in inputs.items():
            # All frames of all windows are one batch of the encoder.
            flat = graph.reshape(frames, [-1, *MODALITIES[name].frame_shape])
            features = encode(graph, name, member.encoders[name], flat)  # type: ignore[arg-type]
            encoded[name] = graph.reshape(features, [-1, length, _num_features(member)])
        logits.append(_logits(graph, member, encoded, present))
    _decide(graph, decider, logits)
    return graph.model(notes=notes)


def stream_graph(decider: Decider, notes: Mapping[str, str]) -> Any:
    """The model of ONNX for streams; arguments and errors are those of :func:`window_graph`."""
    graph, before = Graph(), decider.task.num_frames - 1
    members = _checked(decider)
    inputs = {name: _frames(graph, name, (BATCH,)) for name in decider.modalities}
    widths = [_num_features(member) for member in members]
    states = {name: graph.input(f"state_{name}", np.dtype(np.float32), (BATCH, before, sum(widths))) for name in inputs}
    present = _present(graph, decider)
    logits, following = [], {}
    seen: dict[str, str] = {}
    for name, frames in inputs.items():
        new = [encode(graph, name, member.encoders[name], frames) for member in members]  # type: ignore[arg-type]
        joined = new[0] if len(new) == 1 else graph.node("Concat", *new, axis=1)
        row = graph.node("Unsqueeze", joined, graph.constant([1]))
        seen[name] = graph.node("Concat", states[name], row, axis=1)
        following[name] = graph.slice(seen[name], 1, before + 1, axis=1)
    for place, member in enumerate(members):
        begin = sum(widths[:place])
        mine = {
            name: value if len(members) == 1 else graph.slice(value, begin, begin + widths[place], axis=2)
            for name, value in seen.items()
        }
        logits.append(_logits(graph, member, mine, present))
    _decide(graph, decider, logits)
    for name, value in following.items():
        graph.output(value, f"next_{name}", (BATCH, before, sum(widths)))
    return graph.model(notes=notes)


def _checked(decider: Decider) -> list[BeamTracker]:
    members = [member for member in decider.members if isinstance(member, BeamTracker)]
    if len(members) < len(decider.members):
        kinds = ", ".join(sorted({type(one).__name__ for one in decider.members}))
        raise ValueError(f"{kinds}: only trackers of the federation are written as graphs")
    return members


def _frames(graph: Graph, name: str, leading: tuple[int | str, ...]) -> str:
    row = MODALITIES[name]
    return graph.input(name, np.dtype(row.dtype), (*leading, *row.frame_shape))


def _present(graph: Graph, decider: Decider) -> str | None:
    """The input that says which modalities count; None if there is only one."""
    if len(decider.modalities) == 1:
        return None
    return graph.input("present", np.dtype(np.bool_), (BATCH, len(decider.modalities)))


def _num_features(member: BeamTracker) -> int:
    return int(member.absent.shape[1])


def _logits(graph: Graph, member: BeamTracker, encoded: Mapping[str, str], present: str | None) -> str:
    """(N, H * B) logits from the features (N, L, D) of each modality; `BeamTracker.features` and ``decide``."""
    parts = []
    for index, name in enumerate(member.modalities):
        features = encoded[name]
        if present is not None:
            one = graph.reshape(graph.slice(present, index, index + 1, axis=1), [-1, 1, 1])
            features = graph.node("Where", one, features, graph.constant(member.absent[index]))
        parts.append(features)
    seen = parts[0] if len(parts) == 1 else graph.node("Concat", *parts, axis=2)
    length = member.task.num_frames
    first = graph.slice(seen, 0, 1, axis=1)
    earlier = first if length == 1 else graph.node("Concat", first, graph.slice(seen, 0, length - 1, axis=1), axis=1)
    change = graph.node("Mul", graph.node("Sub", seen, earlier), graph.constant(member.change_gain))
    state = _last_state(graph, member.gru, (seen, change), length)
    return linear(graph, member.head, state)


def _last_state(graph: Graph, gru: nn.GRU, inputs: tuple[str, str], length: int) -> str:
    """(N, D) state of a GRU after L steps, one step after the other from a state of zeros.

    The inputs are the features (N, L, F) and their changes (N, L, F). Each has a product of its own, because changes
    are small: in eight bits, on one scale with the features, little would be left of them.

    Source: the equations in the documentation of `torch.nn.GRU`; the order of the gates is reset, update, new.
    """
    size = gru.hidden_size
    layer = {name: value.detach() for name, value in gru.named_parameters()}
    b_i, b_h = layer["bias_ih_l0"], layer["bias_hh_l0"]
    # For the first two gates it makes no difference which product a bias is added to.
    bias = b_i + torch.cat([b_h[: 2 * size], torch.zeros(size)])
    products = [
        graph.node("MatMul", value, graph.constant(part.T.contiguous()))
        for value, part in zip(inputs, layer["weight_ih_l0"].chunk(2, dim=1), strict=True)
    ]
    given = graph.node("Add", graph.node("Add", *products), graph.constant(bias))
    given = graph.node("Transpose", given, perm=[1, 0, 2])
    gates, news = graph.nodes("Split", given, graph.constant([2 * size, size]), outputs=2, axis=2)
    one_each = graph.constant([1] * length)
    gates_at = graph.nodes("Split", gates, one_each, outputs=length, axis=0)
    news_at = graph.nodes("Split", news, one_each, outputs=length, axis=0)
    weight, bias_new = graph.constant(layer["weight_hh_l0"].T.contiguous()), graph.constant(b_h[2 * size :])
    state = ""
    for gate, new in zip(gates_at, news_at, strict=True):
        if state:
            product = graph.node("MatMul", state, weight)
            more, recalled = graph.nodes("Split", product, graph.constant([2 * size, size]), outputs=2, axis=2)
            gate = graph.node("Add", gate, more)
            recalled = graph.node("Add", recalled, bias_new)
        else:
            recalled = bias_new  # the state before the first step is zero
        reset, update = graph.nodes(
            "Split", graph.node("Sigmoid", gate), graph.constant([size, size]), outputs=2, axis=2
        )
        new = graph.node("Tanh", graph.node("Add", new, graph.node("Mul", reset, recalled)))
        difference = graph.node("Sub", state, new) if state else graph.node("Neg", new)
        state = graph.node("Add", new, graph.node("Mul", update, difference))
    return graph.reshape(state, [-1, size])


def _decide(graph: Graph, decider: Decider, logits: list[str]) -> None:
    """What `Decider.joined` does, and the probabilities of it."""
    task = decider.task
    shape = (BATCH, task.num_horizons, task.num_classes)
    calibrated = [
        graph.node("Div", graph.reshape(one, [-1, *shape[1:]]), graph.constant(float(temperature)))
        for one, temperature in zip(logits, decider.temperatures, strict=True)
    ]
    if len(calibrated) == 1:
        graph.output(calibrated[0], "logits", shape)
        graph.output(graph.node("Softmax", calibrated[0], axis=2), "probs", shape)
        return
    shares = [
        graph.node("Mul", graph.node("Softmax", one, axis=2), graph.constant(float(share)))
        for one, share in zip(calibrated, decider.shares, strict=True)
    ]
    probs = graph.node("Sum", *shares)
    graph.output(graph.node("Log", graph.node("Max", probs, graph.constant(TINY))), "logits", shape)
    graph.output(probs, "probs", shape)
