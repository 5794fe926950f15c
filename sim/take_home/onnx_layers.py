"""The layers, encoders and the GRU of our trackers as nodes of ONNX, scales of the inputs included.

Every function writes what the torch module of the same name computes; `sim.take_home.verification` compares both.
U frames, N windows, T frames of a window, C channels, R rows, K columns, D features.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from clients.data.modalities import MODALITIES
from clients.models import encoders
from clients.models.encoders import LIDAR_RANGE_M, Encoder, PatchStem
from sim.take_home.onnx_graph import Graph


def encode(graph: Graph, modality: str, encoder: Encoder, frames: str) -> str:
    """Frames (U, *frame_shape) as stored on disk to features (U, D).

    Args:
        graph: the graph that grows.
        modality: a key of `MODALITIES`.
        encoder: the encoder of the modality.
        frames: the frames in the graph.

    Raises:
        ValueError: there is no such encoder here.
    """
    kind = type(encoder)
    if kind not in _INPUTS:
        raise ValueError(f"{kind.__name__} cannot be exported to ONNX; choose --format torch, which takes every model")
    is_picture = len(MODALITIES[modality].frame_shape) == 3
    inputs = _image if kind is encoders.ImageEncoder and is_picture else _INPUTS[kind]
    values = _standardise(graph, encoder, inputs(graph, frames))
    if kind is encoders.LidarEncoder:
        values = graph.node("Transpose", values, perm=[0, 2, 1])
    for layer in encoder.network.children():
        values = _layer(graph, layer, values, num_axes=1 if kind is encoders.LidarEncoder else 2)
    return values


def _standardise(graph: Graph, encoder: Encoder, values: str) -> str:
    mean, scale = encoder.standardise.mean, encoder.standardise.scale
    centred = graph.node("Sub", values, graph.constant(mean))
    return graph.node("Mul", centred, graph.constant(1.0 / scale))


# What the method `inputs` of each encoder does: frames as stored to float32 with channels last.


def _image(graph: Graph, frames: str) -> str:
    return graph.cast(frames)


def _map(graph: Graph, frames: str) -> str:
    return graph.reshape(graph.cast(frames), [0, 0, 0, 1])


def _motion(graph: Graph, frames: str) -> str:
    """Bits by division and remainder, and the share of pixels in each cell by two products with one matrix."""
    bytes_ = graph.node("Unsqueeze", graph.cast(frames), graph.constant([3]))
    powers = graph.constant(2.0 ** torch.arange(7, -1, -1))
    shifted = graph.node("Floor", graph.node("Div", bytes_, powers))
    bits = graph.reshape(graph.node("Mod", shifted, graph.constant(2.0), fmod=1), [0, 0, -1])
    side = MODALITIES["motion"].frame_shape[0]
    # Row c of this matrix averages the pixels of cell c, which is what adaptive pooling does along one axis.
    pool = nn.functional.adaptive_avg_pool1d(torch.eye(side)[None], 64)[0].T.contiguous()
    cells = graph.node("MatMul", graph.constant(pool), bits)
    pooled = graph.node("MatMul", cells, graph.node("Transpose", graph.constant(pool), perm=[1, 0]))
    return graph.reshape(pooled, [0, 0, 0, 1])


def _maps(graph: Graph, frames: str) -> str:
    pooled = graph.node("AveragePool", graph.cast(frames), kernel_shape=[2, 1], strides=[2, 1])
    return graph.node("Transpose", pooled, perm=[0, 2, 3, 1])


def _lidar(graph: Graph, frames: str) -> str:
    ranges = graph.cast(frames)
    closeness = graph.node("Sub", graph.constant(1.0), graph.node("Div", ranges, graph.constant(LIDAR_RANGE_M)))
    returned = graph.node("Greater", ranges, graph.constant(0.0))
    return graph.reshape(graph.node("Where", returned, closeness, graph.constant(0.0)), [0, 0, 1])


def _gps(graph: Graph, frames: str) -> str:
    position = graph.cast(frames)
    distance = graph.node("ReduceL2", position, axes=[1], keepdims=1)
    bearing = graph.node("Div", position, graph.node("Max", distance, graph.constant(1e-3)))
    log_range = graph.node("Log", graph.node("Add", distance, graph.constant(1.0)))
    return graph.node("Concat", position, bearing, log_range, axis=1)


def _box(graph: Graph, frames: str) -> str:
    box = graph.cast(frames)
    broken = graph.node("Or", graph.node("IsNaN", box), graph.node("IsInf", box))
    most = graph.node("ReduceMax", graph.cast(broken), axes=[1], keepdims=1)
    found = graph.node("Sub", graph.constant(1.0), most)
    there = graph.node("Greater", found, graph.constant(0.5))
    return graph.node("Concat", graph.node("Where", there, box, graph.constant(0.0)), found, axis=1)


_INPUTS: dict[type[Encoder], Callable[[Graph, str], str]] = {
    encoders.Encoder: _image,
    encoders.ImageEncoder: _map,
    encoders.MotionEncoder: _motion,
    encoders.MapsEncoder: _maps,
    encoders.LidarEncoder: _lidar,
    encoders.GpsEncoder: _gps,
    encoders.BoxEncoder: _box,
    encoders.PowerEncoder: _image,
}


# Layers.


def _layer(graph: Graph, layer: nn.Module, values: str, *, num_axes: int) -> str:
    """A layer; ``num_axes`` is the number of axes behind the channels of its inputs."""
    if isinstance(layer, nn.ReLU):
        return graph.node("Relu", values)
    if isinstance(layer, nn.Flatten):
        return graph.node("Flatten", values, axis=1)
    if isinstance(layer, nn.Linear):
        return linear(graph, layer, values)
    if isinstance(layer, PatchStem):
        return _patches(graph, layer, values)
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        return _convolution(graph, layer, values)
    if isinstance(layer, nn.GroupNorm) and layer.num_groups == 1:
        return _norm(graph, layer, values, num_axes=num_axes)
    raise ValueError(f"{type(layer).__name__} cannot be exported to ONNX; choose --format torch")


def linear(graph: Graph, layer: nn.Linear, values: str) -> str:
    """Values (U, C) to (U, D)."""
    return graph.node("Gemm", values, graph.constant(layer.weight), graph.constant(layer.bias), transB=1)


def _patches(graph: Graph, layer: PatchStem, values: str) -> str:
    """Images (U, R, K, C), channels last, to maps (U, D, R / 4, K / 4): a convolution with its weights."""
    weight = layer.linear.weight
    kernel = weight.view(len(weight), 4, 4, -1).permute(0, 3, 1, 2).contiguous()
    images = graph.node("Transpose", values, perm=[0, 3, 1, 2])
    inputs = (images, graph.constant(kernel), graph.constant(layer.linear.bias))
    return graph.node("Conv", *inputs, kernel_shape=[4, 4], strides=[4, 4])


def _convolution(graph: Graph, layer: nn.Conv1d | nn.Conv2d, values: str) -> str:
    padding = [int(one) for one in layer.padding]
    inputs = [values, graph.constant(layer.weight), *([] if layer.bias is None else [graph.constant(layer.bias)])]
    return graph.node(
        *("Conv", *inputs), kernel_shape=list(layer.kernel_size), strides=list(layer.stride), pads=[*padding, *padding]
    )


def _norm(graph: Graph, layer: nn.GroupNorm, values: str, *, num_axes: int) -> str:
    """One group: mean and variance over all channels and places of a frame, then a gain for each channel."""
    one, zero = graph.constant(torch.ones(1)), graph.constant(torch.zeros(1))
    flat = graph.reshape(values, [0, 1, -1])
    normal = graph.node("InstanceNormalization", flat, one, zero, epsilon=layer.eps)
    back = graph.node("Reshape", normal, graph.node("Shape", values))
    shape = (-1, *[1] * num_axes)
    gained = graph.node("Mul", back, graph.constant(layer.weight.view(shape)))
    return graph.node("Add", gained, graph.constant(layer.bias.view(shape)))
