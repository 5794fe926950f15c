"""Soft labels: what clients and server exchange. N samples, H horizons, C classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# How far a row may be from the simplex. float16 rows of 64 classes stay within it, logits do not.
SIMPLEX_TOLERANCE = 1e-3
_RELATIVE = 1e-5  # what `numpy.allclose` adds to it
# Smallest probability inside a logarithm.
PROBABILITY_FLOOR = 1e-12


@dataclass(frozen=True)
class SoftLabels:
    """Class distributions for a set of public samples.

    Attributes:
        sample_ids: (N,) public-set indices, strictly increasing.
        probs: (N, H, C) float32 rows on the simplex, already softened by ``temperature``.
        temperature: the temperature of the softmax that made them, > 0.

    Raises:
        ValueError: shapes, ids or values are not those of soft labels.
    """

    sample_ids: NDArray[np.int64]
    probs: NDArray[np.float32]
    temperature: float

    def __post_init__(self) -> None:
        ids, probs = self.sample_ids, self.probs
        if ids.ndim != 1 or probs.ndim != 3 or len(ids) != len(probs):
            raise ValueError(f"expected ids (N,) and probs (N, H, C), got {ids.shape} and {probs.shape}")
        if len(ids) and (ids[0] < 0 or np.any(np.diff(ids) <= 0)):
            raise ValueError("sample_ids must be non-negative and strictly increasing")
        if not np.isfinite(self.temperature) or self.temperature <= 0:
            raise ValueError(f"temperature must be > 0, got {self.temperature}")
        row_sums = probs.sum(axis=-1, dtype=np.float64)
        # The sum of a row is finite only if each of its values is.
        if not np.all(np.isfinite(row_sums)):
            raise ValueError("probs must be finite, found NaN or infinity")
        if probs.min(initial=0.0) < 0 or np.abs(row_sums - 1.0).max(initial=0.0) > SIMPLEX_TOLERANCE + _RELATIVE:
            raise ValueError("probs must be class distributions; did you pass logits?")

    def __len__(self) -> int:
        return len(self.sample_ids)

    def take(self, sample_ids: NDArray[np.int64]) -> SoftLabels:
        """The labels of ``sample_ids``, which must be sorted and all among these."""
        if np.array_equal(sample_ids, self.sample_ids):
            return self
        rows = np.searchsorted(self.sample_ids, sample_ids)
        found = self.sample_ids[np.minimum(rows, len(self) - 1)] if len(self) else np.empty(0, np.int64)
        if not np.array_equal(found, sample_ids):
            raise ValueError("sample_ids are not all among these soft labels")
        return SoftLabels(sample_ids, self.probs[rows], self.temperature)

    def update(self, newer: SoftLabels) -> SoftLabels:
        """These labels and those of ``newer``, which replace labels of the same samples.

        Raises:
            ValueError: the temperatures or the shapes of a row differ.
        """
        if len(self) == 0:
            return newer
        if newer.temperature != self.temperature or newer.probs.shape[1:] != self.probs.shape[1:]:
            raise ValueError("only soft labels of one temperature and one row shape can be joined")
        kept = ~np.isin(self.sample_ids, newer.sample_ids)
        ids = np.concatenate([self.sample_ids[kept], newer.sample_ids])
        probs = np.concatenate([self.probs[kept], newer.probs])
        order = np.argsort(ids)
        return SoftLabels(ids[order], probs[order], self.temperature)


def empty_labels(num_horizons: int, num_classes: int, temperature: float) -> SoftLabels:
    """Soft labels for no sample."""
    return SoftLabels(np.empty(0, np.int64), np.empty((0, num_horizons, num_classes), np.float32), temperature)


@dataclass(frozen=True)
class Contribution:
    """What one client answered in a round.

    Attributes:
        client: the id of the client.
        modality: what the client senses.
        labels: its soft labels, for the samples that it answered.
        num_examples: the number of labelled windows that it learned from.
        age: the number of rounds from the question to the round in which the answer counts; 0 for an answer in time.
        seen: (C,) the number of labelled windows in which each class was the right one, now or in a future slot; None
            if the client did not say, which counts as all classes.
    """

    client: str
    modality: str
    labels: SoftLabels
    num_examples: int
    age: int = 0
    seen: NDArray[np.int64] | None = None


def normalise_rows(weights: NDArray[np.floating]) -> NDArray[np.float32]:
    """Scale non-negative rows (..., C) to sum to one; a row of zeros becomes uniform."""
    total = weights.sum(axis=-1, keepdims=True, dtype=np.float64)
    if np.all(total > 0):
        found = np.empty(weights.shape, np.float32)
        np.divide(weights, total, out=found, dtype=np.float64, casting="same_kind")
        return found
    uniform = np.full_like(weights, 1.0 / weights.shape[-1], dtype=np.float64)
    rows: NDArray[np.float64] = np.divide(weights, total, out=uniform, where=total > 0)
    return rows.astype(np.float32)
