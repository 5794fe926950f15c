"""Where models compute: the one place that knows of devices.

A model lives on its device. Windows go there when it is asked, and what it decides comes back. So everything else
(losses, calibration, scores, answers, states, files) works with tensors of the CPU, whatever the device is.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

CPU = torch.device("cpu")

M = TypeVar("M", bound=nn.Module)


def device_named(name: str) -> torch.device:
    """The device of a name that ``engine.device`` may have.

    Args:
        name: ``cpu``, ``cuda``, or ``auto``, which is the GPU where torch sees one.

    Raises:
        ValueError: it is ``cuda``, and torch sees no GPU.

    Example:
        >>> device_named("cpu")
        device(type='cpu')
    """
    if name == "cpu":
        return CPU
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if name == "cuda":
        raise ValueError(
            "engine.device: cuda asks for a GPU, but torch sees none here; set engine.device=auto to go on without "
            "one, or install a driver and a torch with CUDA (https://pytorch.org/get-started/locally)"
        )
    return CPU


def device_of(model: nn.Module) -> torch.device:
    """The device on which a model lives; a model without weights lives on the CPU."""
    first = next(model.parameters(), None)
    return CPU if first is None else first.device


def moved(model: M, device: torch.device) -> M:
    """The model, whose weights live on a device from now on; they stay the same objects."""
    found: M = model.to(device)
    return found


def sent(value: Tensor, device: torch.device) -> Tensor:
    """A tensor as a model on a device takes it; the tensor itself if it lies there already."""
    return value.to(device)


def returned(value: Tensor) -> Tensor:
    """A tensor on the CPU, with its history for gradients; the tensor itself if it lies there already."""
    return value.to(CPU)


def returned_all(values: Any) -> Any:
    """The same for every tensor of a state: nested mappings, lists and tuples."""
    if isinstance(values, Tensor):
        return returned(values.detach())
    if isinstance(values, dict):
        return type(values)((name, returned_all(value)) for name, value in values.items())
    if isinstance(values, list | tuple):
        return type(values)(returned_all(value) for value in values)
    return values


def generators_of(device: torch.device) -> list[torch.Generator]:
    """The streams from which torch draws for a model on a device: that of the CPU, and that of a GPU."""
    if device.type != "cuda":
        return [torch.default_generator]
    torch.cuda.init()  # type: ignore[no-untyped-call]
    place = torch.cuda.current_device() if device.index is None else device.index
    return [torch.default_generator, torch.cuda.default_generators[place]]
