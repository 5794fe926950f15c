"""The optimizers against torch's: equal to the bit, states in both directions, and without torch's compiler."""

import subprocess
import sys

import pytest
import torch

from clients.learning.optimizer import Adam, AdamW

OURS_AND_TORCHS = [(AdamW, torch.optim.AdamW), (Adam, torch.optim.Adam)]


def network() -> torch.nn.Sequential:
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3), torch.nn.Linear(3, 3))


def take(model: torch.nn.Sequential, optimizer, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        optimizer.param_groups[0]["lr"] = 0.01 / (1 + step)
        optimizer.zero_grad(set_to_none=True)
        # The last layer has no gradient in the first steps.
        out = model[:-1] if step < 3 else model
        out(torch.randn(4, 5, generator=generator)).square().sum().backward()
        optimizer.step()


def equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize(("ours", "torchs"), OURS_AND_TORCHS)
def test_weights_are_equal_to_the_bit(ours, torchs, decay):
    mine, theirs = network(), network()
    take(mine, ours(mine.parameters(), learning_rate=0.01, weight_decay=decay), range(8))
    take(theirs, torchs(theirs.parameters(), lr=0.01, weight_decay=decay, fused=True), range(8))
    assert equal(mine, theirs)
    assert not equal(mine, network())


@pytest.mark.parametrize("split", [2, 5])
@pytest.mark.parametrize(("ours", "torchs"), OURS_AND_TORCHS)
def test_states_go_from_torchs_class_to_ours_and_back(ours, torchs, split):
    whole, parts = network(), network()
    take(whole, torchs(whole.parameters(), lr=0.01, weight_decay=0.1, fused=True), range(12))
    first = torchs(parts.parameters(), lr=0.01, weight_decay=0.1, fused=True)
    take(parts, first, range(split))
    second = ours(parts.parameters(), learning_rate=99.0)
    second.load_state_dict(first.state_dict())
    take(parts, second, range(split, 9))
    third = torchs(parts.parameters(), lr=99.0, fused=True)
    third.load_state_dict(second.state_dict())
    take(parts, third, range(9, 12))
    assert equal(whole, parts)


def test_a_loaded_state_is_a_copy():
    model = network()
    first, second = AdamW(model.parameters(), learning_rate=0.01), AdamW(model.parameters(), learning_rate=0.01)
    take(model, first, range(4))
    before = {place: own["exp_avg"].clone() for place, own in first.state_dict()["state"].items()}
    second.load_state_dict(first.state_dict())
    take(model, second, range(4, 6))
    assert all(torch.equal(own["exp_avg"], before[place]) for place, own in first.state_dict()["state"].items())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (torch.nn.Linear(5, 7), "a state of 2 parameters, not of 6"),
        (torch.nn.Sequential(*[torch.nn.Linear(2, 2) for _ in range(3)]), r"parameter 0 has shape \(2, 2\)"),
    ],
)
def test_a_state_of_other_parameters_is_refused(other, message):
    optimizer = AdamW(other.parameters(), learning_rate=0.1)
    for parameter in other.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    with pytest.raises(ValueError, match=message):
        AdamW(network().parameters(), learning_rate=0.1).load_state_dict(optimizer.state_dict())


def test_nothing_to_train_is_refused():
    with pytest.raises(ValueError, match="no parameters"):
        AdamW([], learning_rate=0.1)


def test_training_does_not_import_the_compiler():
    script = """
import sys, torch
from clients.learning.learner import take_steps
from clients.learning.optimizer import AdamW
layer = torch.nn.Linear(2, 1)
optimizer = AdamW(layer.parameters(), learning_rate=0.1)
take_steps(optimizer, [lambda: layer(torch.ones(1, 2)).sum()], [0.1], max_grad_norm=1.0)
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
