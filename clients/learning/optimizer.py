"""Adam and AdamW over torch's fused kernels.

Two designs were compared. `torch.optim.AdamW(fused=True)` calls the same kernel, but its first use imports
`torch._dynamo`: over one CPU-second in every process that trains, which is more than a small client needs for a round.
The classes here call the kernels themselves. Weights and states are equal to the bit, and a state goes from torch's
class to ours and back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor

# The defaults of Kingma and Ba, arXiv 1412.6980, and of torch.
BETAS = (0.9, 0.999)
EPSILON = 1e-8


class Optimizer(Protocol):
    """What a training loop asks of an optimizer; torch's optimizers have it."""

    param_groups: list[dict[str, Any]]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""

    def step(self) -> Any:
        """Take one step along the gradients."""


class Adam:
    """Adam (arXiv 1412.6980, algorithm 1), in which weight decay is added to the gradient.

    Args:
        parameters: the tensors to train, all of them on one device.
        learning_rate: the learning rate of the first step; ``param_groups[0]["lr"]`` is that of the next one.
        weight_decay: the weight decay.

    Raises:
        ValueError: there is nothing to train.
    """

    decoupled = False

    def __init__(self, parameters: Iterable[Tensor], *, learning_rate: float, weight_decay: float = 0.0) -> None:
        self._parameters = list(parameters)
        if not self._parameters:
            raise ValueError("the model has no parameters, so there is nothing to train")
        self.param_groups: list[dict[str, Any]] = [
            {"params": self._parameters, "lr": learning_rate, "weight_decay": weight_decay}
        ]
        # By the place of the parameter; one that never had a gradient has no state.
        self._state: dict[int, dict[str, Tensor]] = {}

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients; they are always set to None."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Take one step along the gradients; a parameter without one stays as it is."""
        moved = [(place, parameter) for place, parameter in enumerate(self._parameters) if parameter.grad is not None]
        if not moved:
            return
        states = [self._state.get(place) or self._begin(place) for place, _ in moved]
        steps = [state["step"] for state in states]
        torch._foreach_add_(steps, 1)
        kernel = torch._fused_adamw_ if self.decoupled else torch._fused_adam_
        kernel(
            [parameter for _, parameter in moved],
            [parameter.grad for _, parameter in moved if parameter.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            steps,
            lr=self.param_groups[0]["lr"],
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=self.param_groups[0]["weight_decay"],
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )

    def state_dict(self) -> dict[str, Any]:
        """The state, in the form of torch's class."""
        group = {
            "lr": self.param_groups[0]["lr"],
            "betas": BETAS,
            "eps": EPSILON,
            "weight_decay": self.param_groups[0]["weight_decay"],
            "amsgrad": False,
            "maximize": False,
            "foreach": None,
            "capturable": False,
            "differentiable": False,
            "fused": True,
            "decoupled_weight_decay": self.decoupled,
            "params": list(range(len(self._parameters))),
        }
        return {"state": {place: dict(own) for place, own in sorted(self._state.items())}, "param_groups": [group]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that this class or torch's made; its tensors are copied.

        Raises:
            ValueError: the state is that of other parameters.
        """
        (group,) = state["param_groups"]
        if len(group["params"]) != len(self._parameters):
            raise ValueError(f"a state of {len(group['params'])} parameters, not of {len(self._parameters)}")
        for place, own in state["state"].items():
            if own["exp_avg"].shape != self._parameters[place].shape:
                shapes = f"{tuple(own['exp_avg'].shape)}, not {tuple(self._parameters[place].shape)}"
                raise ValueError(f"the state of parameter {place} has shape {shapes}")
        self._state = {
            place: {name: tensor.to(self._parameters[place].device, copy=True) for name, tensor in own.items()}
            for place, own in state["state"].items()
        }
        self.param_groups[0].update(lr=group["lr"], weight_decay=group["weight_decay"])

    def _begin(self, place: int) -> dict[str, Tensor]:
        parameter = self._parameters[place]
        self._state[place] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
        }
        return self._state[place]


class AdamW(Adam):
    """Adam with decoupled weight decay (arXiv 1711.05101, algorithm 2)."""

    decoupled = True
