"""Relations between samples: what leaves them as they are, what they cost, and where their gradients are finite."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from strategies.relations import Relations, draw_partners, relational_kd, relations

N, K, D = 9, 4, 6


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def partners(num_samples: int = N, num_partners: int = K, seed: int = 0) -> Tensor:
    return torch.from_numpy(draw_partners(num_samples, num_partners, np.random.default_rng(seed)))


def loss(student: Tensor, teacher: Tensor, pairs: Tensor | None = None) -> Tensor:
    pairs = partners(len(student)) if pairs is None else pairs
    return relational_kd(student, relations(teacher, pairs), pairs, distance_weight=3.0, angle_weight=5.0)


def gradient(student: Tensor, teacher: Tensor, pairs: Tensor | None = None) -> Tensor:
    leaf = student.clone().requires_grad_()
    (result,) = torch.autograd.grad(loss(leaf, teacher, pairs), leaf)
    return result


def rotation(seed: int, size: int = D) -> Tensor:
    orthogonal, _ = torch.linalg.qr(normal(seed, size, size))
    return orthogonal


@pytest.mark.parametrize("seed", range(20))
def test_a_partner_is_never_the_anchor_and_never_drawn_twice(seed: int) -> None:
    drawn = draw_partners(N, K, np.random.default_rng(seed))
    assert drawn.shape == (N, K) and drawn.dtype == np.int64
    assert drawn.min() >= 0 and drawn.max() < N
    assert not np.any(drawn == np.arange(N)[:, None])
    assert all(len(set(row)) == K for row in drawn.tolist())


def test_every_other_sample_is_drawn_equally_often() -> None:
    rng = np.random.default_rng(0)
    counts = np.zeros((4, 4))
    for _ in range(3000):
        np.add.at(counts, (np.arange(4)[:, None], draw_partners(4, 2, rng)), 1)
    # Each of three others is among two partners with chance 2 / 3; five standard deviations of 3000 draws.
    np.testing.assert_allclose(counts[~np.eye(4, dtype=bool)] / 3000, 2 / 3, atol=5 * np.sqrt(2 / 9 / 3000))


def test_a_small_batch_gives_each_anchor_all_the_others_and_a_sample_alone_none() -> None:
    assert [sorted(row) for row in draw_partners(3, K, np.random.default_rng(0)).tolist()] == [[1, 2], [0, 2], [0, 1]]
    assert draw_partners(1, K, np.random.default_rng(0)).shape == (1, 0)


@pytest.mark.parametrize(("num_samples", "num_partners", "name"), [(0, 4, "num_samples"), (4, 0, "num_partners")])
def test_counts_below_one_are_refused(num_samples: int, num_partners: int, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: must be >= 1, got 0"):
        draw_partners(num_samples, num_partners, np.random.default_rng(0))


def test_the_draw_of_a_seed_stays_what_it_is() -> None:
    # Server and clients draw for themselves: another order would be another meaning of what is on the wire.
    assert draw_partners(4, 2, np.random.default_rng(0)).tolist() == [[3, 2], [0, 2], [3, 0], [2, 1]]


def test_three_corners_of_a_triangle_by_hand() -> None:
    # Between 0 and 1 lie 5, between 2 and 1 sqrt(52); each pair is at right angles. 0 and 2 point the same way.
    corners = torch.tensor([[3.0, 0.0], [0.0, 4.0], [6.0, 0.0]], dtype=torch.float64)
    pairs = torch.tensor([[1], [0], [1]])
    mean = (5 + 5 + 52**0.5) / 3
    found = relations(corners, pairs)
    expected = torch.tensor([[5.0], [5.0], [52**0.5]], dtype=torch.float64) / mean
    torch.testing.assert_close(found.distances, expected)
    torch.testing.assert_close(found.angles, torch.ones(3, 1, dtype=torch.float64))
    torch.testing.assert_close(
        relations(corners, torch.tensor([[2], [2], [0]])).angles[[0, 2]], torch.zeros(2, 1).double()
    )


def test_the_loss_of_two_pairs_by_hand() -> None:
    # Student: distances 1, 1 over their mean 1; (1, 0) and (0, 1) are at right angles, so c = 1, 1.
    student = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    teacher = Relations(distances=torch.tensor([[1.5], [0.5]]), angles=torch.tensor([[0.0], [0.8]]))
    found = relational_kd(student, teacher, torch.tensor([[1], [0]]), distance_weight=2.0, angle_weight=10.0)
    assert found.item() == pytest.approx(2.0 * 0.25 + 10.0 * (1.0 + 0.04) / 2)


def test_equal_features_cost_nothing_with_no_gradient() -> None:
    features = normal(0, N, D)
    assert loss(features, features).item() == 0.0
    torch.testing.assert_close(gradient(features, features), torch.zeros(N, D, dtype=torch.float64), atol=1e-12, rtol=0)


def test_other_features_cost_something() -> None:
    assert loss(normal(0, N, D), normal(1, N, D)).item() > 0.1


@pytest.mark.parametrize(
    "change",
    [
        lambda features: features @ rotation(2),
        lambda features: 1e-3 * features,
        lambda features: 1e3 * features @ rotation(3),
    ],
    ids=["rotated", "shrunk", "grown and rotated"],
)
def test_neither_rotation_nor_scale_of_either_side_changes_the_loss(change: Callable[[Tensor], Tensor]) -> None:
    student, teacher = normal(0, N, D), normal(1, N, D + 2)[:, :D]
    torch.testing.assert_close(loss(change(student), teacher), loss(student, teacher))
    torch.testing.assert_close(loss(student, change(teacher)), loss(student, teacher))


def test_a_shift_changes_angles_but_no_distances() -> None:
    features, pairs = normal(0, N, D), partners()
    here, there = relations(features, pairs), relations(features + 2.0, pairs)
    torch.testing.assert_close(there.distances, here.distances)
    assert (there.angles - here.angles).abs().max() > 0.1


def test_student_and_teacher_may_have_features_of_any_size_and_shape() -> None:
    student, teacher, pairs = normal(0, N, 2, D), normal(1, N, 5), partners()
    torch.testing.assert_close(loss(student, teacher, pairs), loss(student.flatten(1), teacher, pairs))


def test_the_gradient_is_that_of_finite_differences() -> None:
    teacher, pairs = normal(1, N, 3), partners()
    student = normal(0, N, D).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, teacher, pairs), student, eps=1e-6, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda features: features.index_fill(0, torch.tensor([1, 2]), 0.0),
        lambda features: features.index_fill(0, torch.tensor([1, 2]), 0.7),
        lambda features: torch.ones_like(features),
        lambda features: torch.zeros_like(features),
        lambda features: 1e-30 * features,
    ],
    ids=["two zero", "two equal", "all equal", "all zero", "all tiny"],
)
def test_loss_and_gradient_are_finite_where_features_are_equal_or_zero(
    spoil: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    pairs = partners(num_partners=N - 1)
    student, teacher = normal(0, N, D).to(dtype), normal(1, N, D).to(dtype)
    for mine, other in ((spoil(student), teacher), (student, spoil(teacher)), (spoil(student), spoil(teacher))):
        assert torch.isfinite(loss(mine, other, pairs))
        assert torch.isfinite(gradient(mine, other, pairs)).all()


def test_equal_features_have_no_distance_and_zero_ones_no_direction() -> None:
    found = relations(torch.zeros(N, D), partners())
    assert torch.equal(found.distances, torch.zeros(N, K))
    assert torch.equal(found.angles, torch.ones(N, K))


def test_a_sample_alone_costs_exactly_nothing_with_no_gradient() -> None:
    alone = partners(num_samples=1)
    assert loss(normal(0, 1, D), normal(1, 1, D), alone).item() == 0.0
    assert torch.equal(gradient(normal(0, 1, D), normal(1, 1, D), alone), torch.zeros(1, D, dtype=torch.float64))


def test_descending_the_loss_gives_a_student_the_relations_of_a_wider_teacher() -> None:
    teacher, pairs = normal(1, N, 12), partners()
    student = normal(0, N, D).requires_grad_()
    optimizer = torch.optim.Adam([student], lr=0.05)
    before = loss(student, teacher, pairs).item()
    for _ in range(200):
        optimizer.zero_grad()
        loss(student, teacher, pairs).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert loss(student, teacher, pairs).item() < 0.1 * before
