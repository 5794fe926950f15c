"""The soft labels that server and clients keep: one form and one rule of freshness for both sides.

*Cached labels* are soft labels as they were encoded, each with the round in which it was made. Server and client keep
the encoded rows, not what was decoded from them, so that both decode the same numbers, a difference can be coded
against what the other side holds, and equal labels have equal digests. The alternative, to keep probabilities and
encode them again for every client, drifts as soon as a codec is not exact on its own output.

A client that holds the targets up to round r lacks exactly those made later. N samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The number of publications that are kept apart, so that differences can be coded against what a client holds. A client
# that is further behind gets whole rows.
KEPT_PUBLICATIONS = 8


def is_fresh(made: NDArray[np.int64] | int, now: int, lifetime: int | None) -> NDArray[np.bool_]:
    """Whether soft labels may still be used: they are fresh for ``lifetime`` rounds after the one that made them.

    Args:
        made: the round in which each of them was made.
        now: the round in which they would be used.
        lifetime: the number of rounds; None means that they never expire.
    """
    age = now - np.asarray(made)
    return age <= (np.iinfo(np.int64).max if lifetime is None else lifetime)


@dataclass(frozen=True)
class CachedLabels:
    """Encoded soft labels, one row for each sample.

    Attributes:
        sample_ids: (N,) strictly increasing.
        payload: (N, ...) the encoded rows.
        rounds: (N,) the round in which each row was made.
    """

    sample_ids: NDArray[np.int64]
    payload: NDArray[np.generic]
    rounds: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.sample_ids)

    def update(self, newer: CachedLabels) -> CachedLabels:
        """These labels and those of ``newer``, which replace labels of the same samples."""
        if np.array_equal(self.sample_ids, newer.sample_ids):
            return newer
        kept = ~np.isin(self.sample_ids, newer.sample_ids)
        ids = np.concatenate([self.sample_ids[kept], newer.sample_ids])
        order = np.argsort(ids)
        payload = np.concatenate([self.payload[kept], newer.payload])[order]
        return CachedLabels(ids[order], payload, np.concatenate([self.rounds[kept], newer.rounds])[order])

    def take(self, wanted: NDArray[np.bool_]) -> CachedLabels:
        """The rows for which ``wanted`` (N,) is true."""
        if wanted.all():
            return self
        return CachedLabels(self.sample_ids[wanted], self.payload[wanted], self.rounds[wanted])

    def newer_than(self, round_number: int) -> CachedLabels:
        """The labels that were made after a round."""
        return self.take(self.rounds > round_number)

    def fresh(self, now: int, lifetime: int | None) -> CachedLabels:
        """The labels that may still be used in round ``now``."""
        return self.take(is_fresh(self.rounds, now, lifetime))

    def rows_of(self, sample_ids: NDArray[np.int64]) -> NDArray[np.generic]:
        """(M, ...) the encoded rows of the given samples; zeros for samples that are not held."""
        rows = np.zeros((len(sample_ids), *self.payload.shape[1:]), self.payload.dtype)
        held = np.isin(sample_ids, self.sample_ids)
        rows[held] = self.payload[np.searchsorted(self.sample_ids, sample_ids[held])]
        return rows

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """The labels as arrays by name, for a file; :meth:`from_arrays` takes them back."""
        return {"sample_ids": self.sample_ids, "payload": self.payload, "rounds": self.rounds}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> CachedLabels:
        """The labels that :meth:`arrays` gave."""
        return cls(arrays["sample_ids"], arrays["payload"], arrays["rounds"])

    def digest(self) -> str:
        """A hash of the content, which is the same on every machine for the same content."""
        content = hashlib.sha256(self.sample_ids.astype("<i8").tobytes())
        content.update(self.rounds.astype("<i8").tobytes())
        content.update(self.payload.astype(self.payload.dtype.newbyteorder("<")).tobytes())
        return content.hexdigest()[:16]


@dataclass(frozen=True)
class TargetCache:
    """The newest published target of every public sample.

    Attributes:
        base: the targets that were published before the ``recent`` ones.
        recent: the last publications, oldest first.
    """

    base: CachedLabels
    recent: tuple[CachedLabels, ...] = ()

    def publish(self, targets: CachedLabels) -> TargetCache:
        """The cache with newer targets in it."""
        if len(targets) == 0:
            return self
        recent = (*self.recent, targets)
        if len(recent) <= KEPT_PUBLICATIONS:
            return TargetCache(self.base, recent)
        return TargetCache(self.base.update(recent[0]), recent[1:])

    @property
    def newest(self) -> CachedLabels:
        """The newest target of every sample that has one."""
        return self._up_to(len(self.recent))

    def held_at(self, round_number: int) -> CachedLabels | None:
        """The targets of a client that holds all up to a round; None if that round is too long ago to know."""
        if len(self.base) and self.base.rounds.max() > round_number:
            return None
        return self._up_to(sum(int(one.rounds.max()) <= round_number for one in self.recent))

    def _up_to(self, count: int) -> CachedLabels:
        cached = self.base
        for publication in self.recent[:count]:
            cached = cached.update(publication)
        return cached
