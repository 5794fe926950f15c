"""Torch's own random stream, from which torch draws initial weights and dropout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from clients.models.device import CPU, generators_of


@contextmanager
def torch_seeded(seed: int, device: torch.device = CPU) -> Iterator[None]:
    """Let torch draw from ``seed`` within this context; afterwards its streams go on undisturbed.

    These are the stream of the CPU and, for a device that is a GPU, the stream of this GPU.

    `torch.manual_seed` gives the same draws, but it formats the stack of its caller for devices that are not there:
    0.14 CPU-ms a call, which is more than a small client needs for a step.

    Args:
        seed: a seed, in [0, 2**64).
        device: where a model draws; a GPU has a stream of its own, with other draws.
    """
    before = [(stream, stream.get_state()) for stream in generators_of(device)]
    for stream, _ in before:
        stream.manual_seed(seed)
    try:
        yield
    finally:
        for stream, state in before:
            stream.set_state(state)
