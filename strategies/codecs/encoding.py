"""How soft labels travel: from distributions to arrays for a message, and back. N samples, H horizons, C classes.

Three steps, each with its inverse: a row codec (`strategies.codecs.table`) makes encoded rows, which is what both sides
keep; a difference against what the other side holds and entropy coding (`strategies.codecs.packing`) make bytes; the
ids travel as numbers or as a bitmap, whichever is smaller.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strategies.cache import CachedLabels
from strategies.codecs.packing import MAX_SAMPLES, compress, expand, pack_ids, unpack_ids
from strategies.codecs.table import find_codec
from strategies.labels import SoftLabels


@dataclass(frozen=True)
class EncodedLabels:
    """Encoded soft labels as they travel.

    Attributes:
        ids: the packed sample ids.
        values: the encoded rows (N, ...), or (M,) uint8 where they are entropy coded.
        rounds: the round in which the rows were made: one number for all rows, or one for each.
        is_delta: whether the values are a difference against what the receiver holds.
    """

    ids: NDArray[np.generic]
    values: NDArray[np.generic]
    rounds: NDArray[np.generic]
    is_delta: bool = False


class Encoding:
    """How soft labels of one shape are encoded and packed.

    Args:
        spec: the name of the codec, such as ``top8-uint4`` or ``uint4+delta``.
        num_horizons: the number of horizons, H.
        num_classes: the number of classes, C.

    Raises:
        ValueError: the codec is unknown.

    Example:
        >>> encoding = Encoding("uint8+zlib", num_horizons=1, num_classes=4)
        >>> labels = SoftLabels(np.array([2, 7]), np.full((2, 1, 4), 0.25, np.float32), 2.0)
        >>> sent = encoding.pack(encoding.encode(labels, 1))
        >>> encoding.decode(encoding.unpack(sent), 2.0).sample_ids.tolist()
        [2, 7]
    """

    def __init__(self, spec: str, num_horizons: int, num_classes: int) -> None:
        self.spec = spec
        layers = spec.split("+")[1:]
        self.codec = find_codec(spec, num_classes)
        self.is_delta = "delta" in layers
        self.is_compressed = bool(layers)
        self.num_horizons = num_horizons
        self.num_classes = num_classes
        none = self.codec.encode(np.empty((0, num_horizons, num_classes), np.float32))
        self.nothing = CachedLabels(np.empty(0, np.int64), none, np.empty(0, np.int64))

    def encode(self, labels: SoftLabels, round_number: int) -> CachedLabels:
        """Encode soft labels as rows that were made in a round."""
        return CachedLabels(labels.sample_ids, self.codec.encode(labels.probs), np.full(len(labels), round_number))

    def decode(self, cached: CachedLabels, temperature: float) -> SoftLabels:
        """Decode rows to the soft labels that they stand for.

        Raises:
            ValueError: the rows do not stand for distributions.
        """
        probs = self.codec.decode(cached.payload, self.num_horizons, self.num_classes)
        return SoftLabels(cached.sample_ids, probs, temperature)

    def pack(self, cached: CachedLabels, *, reference: CachedLabels | None = None) -> EncodedLabels:
        """Pack encoded rows for the wire.

        Args:
            cached: the labels to send.
            reference: the labels that the receiver holds; None if that is not known for sure.
        """
        is_delta = self.is_delta and reference is not None
        values = cached.payload
        if is_delta and reference is not None:
            values = compress(values, reference=reference.rows_of(cached.sample_ids))
        elif self.is_compressed:
            values = compress(values)
        rounds = np.unique(cached.rounds)
        made = rounds if len(rounds) == 1 else cached.rounds
        return EncodedLabels(pack_ids(cached.sample_ids), values, made.astype(np.uint16), is_delta)

    def unpack(
        self,
        encoded: EncodedLabels,
        *,
        reference: CachedLabels | None = None,
        asked: NDArray[np.int64] | None = None,
    ) -> CachedLabels:
        """Unpack what came over the wire.

        Args:
            encoded: the labels as they came.
            reference: the labels that we hold.
            asked: (N,) the samples that may be in it; None where all may. They bound what is made of the bytes.

        Raises:
            ValueError: it was not packed by this encoding, or against something that we do not hold, or it is of
                samples that were not asked for.
        """
        below = MAX_SAMPLES if asked is None else int(asked[-1]) + 1 if len(asked) else 0
        sample_ids = unpack_ids(encoded.ids, below=below)
        is_all = asked is None or np.array_equal(sample_ids, asked)
        if asked is not None and not is_all and not np.all(np.isin(sample_ids, asked)):
            raise ValueError("answered samples that it was not asked for")
        values, row = encoded.values, self.nothing.payload
        if self.is_compressed:
            known = None
            if encoded.is_delta:
                if reference is None:
                    raise ValueError("the values are a difference against rows that are not known here")
                known = reference.rows_of(sample_ids)
            values = expand(values, (len(sample_ids), *row.shape[1:]), row.dtype, reference=known)
        elif encoded.is_delta:
            raise ValueError("the values are a difference, but this codec sends whole rows")
        if values.shape[:1] != (len(sample_ids),):
            raise ValueError(f"expected values of {len(sample_ids)} samples, got shape {values.shape}")
        rounds = encoded.rounds
        if rounds.dtype != np.uint16 or rounds.shape not in ((1,), (len(sample_ids),)):
            raise ValueError(f"rounds must be uint16, one or {len(sample_ids)}, got {rounds.dtype} {rounds.shape}")
        made = np.broadcast_to(rounds.astype(np.int64), (len(sample_ids),)).copy()
        return CachedLabels(sample_ids, values, made)
