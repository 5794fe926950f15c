"""What the losses are worth, where they are zero, and which way they push."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from strategies.losses import (
    POWER_SHARE,
    TASK_LOSSES,
    cross_entropy,
    distil,
    feature_kd,
    focal_loss,
    power_targets,
    response_kd,
    soften,
    task_loss,
)

N, H, B = 3, 2, 5


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def beams() -> Tensor:
    return torch.randint(0, B, (N, H), generator=torch.Generator().manual_seed(3))


def power() -> Tensor:
    return 0.01 + torch.rand((N, H, B), generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def gradient(loss: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    leaf = logits.clone().requires_grad_()
    (result,) = torch.autograd.grad(loss(leaf), leaf)
    return result


def finite_differences(loss: Callable[[Tensor], Tensor], logits: Tensor, step: float = 1e-6) -> Tensor:
    slopes = torch.zeros_like(logits)
    for index in range(logits.numel()):
        nudge = torch.zeros_like(logits).view(-1)
        nudge[index] = step
        nudge = nudge.view_as(logits)
        slopes.view(-1)[index] = (loss(logits + nudge) - loss(logits - nudge)) / (2 * step)
    return slopes


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 8.0])
def test_distillation_is_zero_with_zero_gradient_at_equality(temperature: float) -> None:
    logits = normal(0, N, H, B)
    targets = soften(logits, temperature)
    assert response_kd(logits, targets, temperature).item() == pytest.approx(0.0, abs=1e-12)
    torch.testing.assert_close(
        gradient(lambda x: response_kd(x, targets, temperature), logits), torch.zeros_like(logits), atol=1e-12, rtol=0
    )


def test_distillation_from_other_logits_costs_something() -> None:
    assert response_kd(normal(0, N, H, B), soften(normal(1, N, H, B), 2.0), 2.0).item() > 0.01


def test_distillation_on_a_hand_computed_row() -> None:
    # tau = 2, student uniform over 2 beams, target (0.75, 0.25): 4 (0.75 ln 1.5 + 0.25 ln 0.5).
    loss = response_kd(torch.zeros(1, 1, 2), torch.tensor([[[0.75, 0.25]]]), 2.0)
    assert loss.item() == pytest.approx(4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5)), rel=1e-6)


def test_distillation_from_a_certain_target_is_tau_squared_times_cross_entropy_of_the_softened() -> None:
    logits, labels = normal(0, N, H, B), beams()
    certain = torch.nn.functional.one_hot(labels, B).double()
    expected = 4.0 * cross_entropy(logits / 2.0, labels)
    torch.testing.assert_close(response_kd(logits, certain, 2.0), expected)


def test_losses_are_means_over_samples_and_horizons() -> None:
    logits, targets, labels = normal(0, N, H, B), soften(normal(1, N, H, B), 2.0), beams()
    losses: list[Callable[[slice], Tensor]] = [
        lambda rows: response_kd(logits[rows], targets[rows], 2.0),
        lambda rows: cross_entropy(logits[rows], labels[rows]),
        lambda rows: focal_loss(logits[rows], labels[rows]),
    ]
    for loss in losses:
        each = torch.stack([loss(slice(n, n + 1)) for n in range(N)])
        torch.testing.assert_close(loss(slice(None)), each.mean())


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: response_kd(x, soften(normal(1, N, H, B), 3.0), 3.0),
        lambda x: response_kd(x, torch.nn.functional.one_hot(beams(), B).double(), 1.0),
        lambda x: cross_entropy(x, beams()),
        lambda x: focal_loss(x, beams()),
        lambda x: focal_loss(x, beams(), gamma=1.0),
        lambda x: task_loss("cross_entropy", 0.5)(x, power()),
        lambda x: task_loss("focal", 0.5)(x, power()),
        lambda x: feature_kd(x, normal(1, N, H, B)),
        lambda x: distil(focal_loss(x, beams()), response_kd(x, soften(normal(1, N, H, B), 3.0), 3.0), 0.3),
    ],
    ids=[
        "kd", "kd from certain targets", "cross entropy", "focal", "focal gamma 1", "power", "focal power", "features",
        "mix",
    ],
)  # fmt: skip
def test_a_gradient_is_that_of_finite_differences(loss: Callable[[Tensor], Tensor]) -> None:
    logits = normal(0, N, H, B)
    torch.testing.assert_close(gradient(loss, logits), finite_differences(loss, logits), atol=1e-8, rtol=1e-6)


def test_features_cost_nothing_at_equality_and_up_to_an_offset_and_a_scale_of_each() -> None:
    features = normal(0, N, 7)
    assert feature_kd(features, features).item() == 0.0
    scale = torch.tensor([[0.5], [1.0], [20.0]], dtype=torch.float64)
    assert feature_kd(scale * features + 3.0, features).item() == pytest.approx(0.0, abs=1e-6)
    assert feature_kd(features, features.flip(-1)).item() > 0.01


def test_opposite_features_cost_four() -> None:
    # Normalised, (1, -1) is itself and (-1, 1) its opposite: ((1 + 1)^2 + (1 + 1)^2) / 2 = 4.
    one, other = torch.tensor([[1.0, -1.0]]), torch.tensor([[-3.0, 3.0]])
    assert feature_kd(one, other).item() == pytest.approx(4.0, rel=1e-4)


def test_a_feature_without_variance_has_a_finite_gradient() -> None:
    assert torch.isfinite(gradient(lambda x: feature_kd(x, normal(1, N, 7)), torch.zeros(N, 7).double())).all()


def test_distillation_of_weight_0_is_none_and_of_weight_1_is_all_to_the_bit() -> None:
    logits, labels = torch.randn(N, H, B, generator=torch.Generator().manual_seed(0)), beams()
    targets = soften(torch.randn(N, H, B, generator=torch.Generator().manual_seed(1)), 4.0)

    def mixed(weight: float) -> Callable[[Tensor], Tensor]:
        return lambda x: distil(focal_loss(x, labels), response_kd(x, targets, 4.0), weight)

    parts = ((0.0, lambda x: focal_loss(x, labels)), (1.0, lambda x: response_kd(x, targets, 4.0)))
    for weight, alone in parts:
        assert torch.equal(mixed(weight)(logits), alone(logits))
        assert torch.equal(gradient(mixed(weight), logits), gradient(alone, logits))


def test_a_network_that_distils_with_weight_0_takes_the_step_of_one_that_does_not() -> None:
    inputs, labels = torch.randn(N, 6, generator=torch.Generator().manual_seed(0)), beams()
    targets = soften(torch.randn(N, H, B, generator=torch.Generator().manual_seed(1)), 4.0)
    stepped = []
    for distils in (False, True):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, H * B))
        optimizer = torch.optim.AdamW(network.parameters())
        logits = network(inputs).view(N, H, B)
        loss = focal_loss(logits, labels)
        loss = distil(loss, response_kd(logits, targets, 4.0), 0.0) if distils else loss
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        stepped.append([parameter.detach() for parameter in network.parameters()])
    for plain, mixed in zip(*stepped, strict=True):
        assert torch.equal(plain, mixed)


def test_tau_squared_keeps_the_size_of_the_gradient_when_it_is_warm() -> None:
    # For tau >> 1 the gradient tends to (student - teacher logits, both centred) / B, without tau in it.
    student, teacher = normal(0, 1, 1, B), normal(1, 1, 1, B)
    limit = ((student - student.mean()) - (teacher - teacher.mean())) / B
    for temperature in (100.0, 1000.0):
        found = gradient(lambda x, tau=temperature: response_kd(x, soften(teacher, tau), tau), student)  # type: ignore[misc]
        torch.testing.assert_close(found, limit, atol=3.0 / temperature, rtol=0)


def test_focal_loss_with_gamma_0_is_cross_entropy() -> None:
    logits, labels = normal(0, N, H, B), beams()
    torch.testing.assert_close(focal_loss(logits, labels, gamma=0.0), cross_entropy(logits, labels))


def test_focal_loss_on_a_hand_computed_row() -> None:
    # p = 1/2 over two beams: (1/2)^2 ln 2.
    assert focal_loss(torch.zeros(1, 1, 2), torch.tensor([[1]])).item() == pytest.approx(0.25 * math.log(2), rel=1e-6)


def test_focal_loss_and_its_gradient_are_finite_where_the_student_is_certain() -> None:
    logits = torch.zeros(1, 1, B)
    logits[..., 2] = 200.0
    for label in (2, 3):
        labels = torch.tensor([[label]])
        assert torch.isfinite(gradient(lambda x, y=labels: focal_loss(x, y), logits)).all()  # type: ignore[misc]
    assert focal_loss(logits, torch.tensor([[2]])).item() == 0.0


def test_distillation_is_finite_where_a_target_is_zero_or_the_student_certain() -> None:
    logits = torch.zeros(1, 1, B)
    logits[..., 2] = 200.0
    certain = torch.nn.functional.one_hot(torch.tensor([[3]]), B).float()
    loss = response_kd(logits, certain, 1.0)
    assert loss.item() == pytest.approx(200.0)
    assert torch.isfinite(gradient(lambda x: response_kd(x, certain, 1.0), logits)).all()


@pytest.mark.parametrize("name", sorted(TASK_LOSSES))
def test_a_task_loss_falls_when_the_best_beam_gains(name: str) -> None:
    worse, better = torch.zeros(1, 1, B), torch.zeros(1, 1, B)
    better[..., 1] = 1.0
    labels = torch.tensor([[1]])
    assert TASK_LOSSES[name](better, labels) < TASK_LOSSES[name](worse, labels)


def test_a_higher_temperature_softens_and_keeps_the_ranking() -> None:
    logits = normal(0, N, H, B)
    sharp, soft = soften(logits, 1.0), soften(logits, 10.0)
    assert torch.all(soft.amax(dim=-1) < sharp.amax(dim=-1))
    torch.testing.assert_close(soft.argsort(dim=-1), sharp.argsort(dim=-1))
    torch.testing.assert_close(soft.sum(dim=-1), torch.ones(N, H, dtype=torch.float64))


@pytest.mark.parametrize("name", sorted(TASK_LOSSES))
def test_without_a_power_temperature_a_task_loss_is_bit_by_bit_that_of_the_best_beams(name: str) -> None:
    logits, measured = normal(0, N, H, B), power()
    measured[0, 0, [1, 3]] = 9.0  # of two equals the first is the label
    labels = torch.from_numpy(measured.numpy().argmax(axis=-1))
    assert labels[0, 0] == 1
    assert torch.equal(task_loss(name, None)(logits, measured), TASK_LOSSES[name](logits, labels))
    hard = gradient(lambda x: TASK_LOSSES[name](x, labels), logits)
    assert torch.equal(gradient(lambda x: task_loss(name, None)(x, measured), logits), hard)


@pytest.mark.parametrize("name", sorted(TASK_LOSSES))
def test_a_task_loss_from_power_tends_to_that_of_the_best_beams_as_the_temperature_tends_to_zero(name: str) -> None:
    logits, measured = normal(0, N, H, B), power()
    torch.testing.assert_close(task_loss(name, 1e-6)(logits, measured), task_loss(name, None)(logits, measured))
    assert not torch.allclose(task_loss(name, 5.0)(logits, measured), task_loss(name, None)(logits, measured))


def test_a_certain_distribution_costs_what_its_beam_costs() -> None:
    logits, labels = normal(0, N, H, B), beams()
    certain = torch.nn.functional.one_hot(labels, B).double()
    for loss in TASK_LOSSES.values():
        torch.testing.assert_close(loss(logits, certain), loss(logits, labels))


def test_a_beam_3_db_down_gets_a_twentieth_of_the_best_one_s_soft_weight_at_1_db() -> None:
    # 10 log10 2 = 3.0103 dB at 1 dB: e^-3.0103 = 0.04928; softened (1, 0.04928) / 1.04928, then half of it is hard.
    soft = torch.tensor([1.0, math.exp(-10 * math.log10(2))], dtype=torch.float64)
    soft = soft / soft.sum()
    found = power_targets(torch.tensor([[[0.2, 0.1]]], dtype=torch.float64), 1.0)
    expected = POWER_SHARE * soft + (1 - POWER_SHARE) * torch.tensor([1.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(found[0, 0], expected)


def test_power_targets_do_not_change_with_the_gain_of_the_receiver() -> None:
    torch.testing.assert_close(power_targets(power(), 0.5), power_targets(1e-6 * power(), 0.5))


def test_power_targets_at_share_0_are_the_best_beam_and_at_share_1_the_softened_power() -> None:
    measured = power()
    best = torch.nn.functional.one_hot(measured.argmax(dim=-1), B).double()
    torch.testing.assert_close(power_targets(measured, 0.5, share=0.0), best)
    torch.testing.assert_close(power_targets(measured, 0.5, share=1.0), soften(10 * torch.log10(measured), 0.5))


def test_power_of_zero_gets_no_weight_and_no_power_at_all_none_that_is_not_a_number() -> None:
    some = torch.tensor([[[0.0, 0.5, 0.0]]])
    torch.testing.assert_close(power_targets(some, 0.5), torch.tensor([[[0.0, 1.0, 0.0]]]))
    nothing = power_targets(torch.zeros(1, 1, 4), 0.5)
    torch.testing.assert_close(nothing.sum(), torch.tensor(1.0))
    logits = torch.zeros(1, 1, 3)
    for name in TASK_LOSSES:
        assert torch.isfinite(gradient(lambda x, n=name: task_loss(n, 1e-3)(x, some), logits)).all()  # type: ignore[misc]


def test_the_gradient_of_cross_entropy_from_power_is_the_answer_minus_the_target() -> None:
    logits, measured = normal(0, N, H, B), power()
    expected = (torch.softmax(logits, dim=-1) - power_targets(measured, 0.5)) / (N * H)
    torch.testing.assert_close(gradient(lambda x: task_loss("cross_entropy", 0.5)(x, measured), logits), expected)
