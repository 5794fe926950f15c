"""The losses of students and teacher. N samples, H horizons, C classes (B beams), D features.

A loss of logits is the mean over N and H. The loss of relations between samples is in `strategies.relations`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

# The smallest linear power that enters a logarithm: a reading of zero stays finite, and its beam gets no weight.
POWER_FLOOR = 1e-30
# The share of the softened power in a target; the best beam has the rest.
POWER_SHARE = 0.5


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean of -sum_b t_b ln p_b; zero when every right class has probability one.

    Args:
        logits: (N, H, C).
        targets: (N, H) int64 classes, or (N, H, C) distributions t.
    """
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten(0, 1))


def focal_loss(logits: Tensor, targets: Tensor, gamma: float = 2.0) -> Tensor:
    """Mean of -sum_b t_b (1 - p_b)^gamma ln p_b; gamma = 0 is cross-entropy.

    Source: arXiv 1708.02002; alpha = 1 and gamma = 2 as in arXiv 2603.16116, which has best beams only.

    Args:
        logits: (N, H, C).
        targets: (N, H) int64 classes, or (N, H, C) distributions t.
        gamma: >= 0; a larger one gives easy samples less weight.
    """
    log_p = functional.log_softmax(logits, dim=-1)
    if targets.is_floating_point():
        return -(targets * (1.0 - log_p.exp()) ** gamma * log_p).sum(dim=-1).mean()
    log_p = log_p.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return -((1.0 - log_p.exp()) ** gamma * log_p).mean()


def best_beams(power: Tensor) -> Tensor:
    """(N, H) int64 beam of the greatest power (N, H, B), the first of equals: the label of DeepSense 6G."""
    return power.argmax(dim=-1)


def power_targets(power: Tensor, temperature_db: float, share: float = POWER_SHARE) -> Tensor:
    """(N, H, B) distributions: ``share`` softmax_b(10 log10 P_b / temperature_db), and the rest on the best beam.

    A beam that is 0.2 dB below the best is nearly as good, and the best of the two changes with the noise of the
    measurement; the best beam alone hides that. Both parts tend to the best beam as the temperature tends to 0.

    Source: soft labels from beam power, mixed with the best beam, as in arXiv 2607.00936; the use of decibels is ours.

    Args:
        power: (N, H, B) linear receive power >= 0; where all of it is zero the soft part is uniform.
        temperature_db: the temperature in decibels, > 0.
        share: the share of the softened power, in [0, 1].
    """
    power_db = 10.0 * torch.log10(power.clamp_min(POWER_FLOOR))
    best = functional.one_hot(best_beams(power), power.shape[-1])
    return share * torch.softmax(power_db / temperature_db, dim=-1) + (1.0 - share) * best


def response_kd(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """tau^2 KL(targets || softmax(logits / tau)), summed over classes; zero at equality.

    tau^2 keeps the gradient's size when the temperature changes.

    Source: arXiv 1503.02531; summed over classes as in arXiv 2603.16116.

    Args:
        logits: (N, H, C) logits of the student.
        targets: (N, H, C) probabilities, already softened by ``temperature``.
        temperature: the temperature tau > 0.
    """
    log_student = functional.log_softmax(logits / temperature, dim=-1)
    divergence = functional.kl_div(log_student, targets, reduction="none").sum(dim=-1)
    return temperature**2 * divergence.mean()


def feature_kd(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error of features that are each centred and scaled over D; zero at equality.

    Neither an offset nor a positive scale of a whole feature matters. Values are compared one by one, so both sides
    need the same D and the same samples (and frames) in the same order.

    Source: layer normalisation (arXiv 1607.06450) without learned parameters, as in the feature distillation of
    arXiv 2603.16116; that paper can also learn a mapping between sequences of different length, which is left to the
    caller here.

    Args:
        student: (..., D) features of the student.
        teacher: features of the teacher, of the same shape.
    """
    size = student.shape[-1:]
    return functional.mse_loss(functional.layer_norm(student, size), functional.layer_norm(teacher, size))


def distil(task: Tensor, knowledge: Tensor, weight: float) -> Tensor:
    """(1 - a) task + a knowledge, for one batch that has both; a = 0 is no distillation, to the bit.

    Source: arXiv 2603.16116 (a from 0.1 to 0.5).

    Args:
        task: the loss on labels.
        knowledge: the finite loss of distillation, from responses, relations or features.
        weight: the weight a, in [0, 1].
    """
    return (1.0 - weight) * task + weight * knowledge


TASK_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cross_entropy": cross_entropy, "focal": focal_loss}


def task_loss(name: str, power_temperature_db: float | None) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of beam tracking on own labels, a function of logits (N, H, B) and measured power (N, H, B).

    It takes power, so that only this function knows what a label is. The alternative, a learner that makes the
    targets, would have to know the temperature and the mix, and every loss would come with its kind of target.

    Args:
        name: a key of `TASK_LOSSES`.
        power_temperature_db: the temperature > 0 of :func:`power_targets`; None takes the best beams alone as targets.
    """
    loss = TASK_LOSSES[name]
    if power_temperature_db is None:
        return lambda logits, power: loss(logits, best_beams(power))
    return lambda logits, power: loss(logits, power_targets(power, power_temperature_db))


def soften(logits: Tensor, temperature: float) -> Tensor:
    """The softmax of logits (..., C) at a temperature > 0."""
    return torch.softmax(logits / temperature, dim=-1)
