"""The table of codecs, which turn soft labels into rows of bytes and back. N samples, H horizons, C classes.

A row codec turns (N, H, C) probabilities into an array with one row a sample, encoded by itself: the same sample gives
the same row in any message. Decoding always ends on the simplex, and refuses what no encoder makes. The suffixes
``+delta`` and ``+zlib`` of a codec's name say what is done to the rows afterwards, differences and entropy coding (see
`strategies.codecs.encoding`).
"""

from __future__ import annotations

import re
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from configs.spelling import did_you_mean
from strategies.codecs.dense import FloatCodec, FourBitCodec, SquareRootCodec
from strategies.codecs.sparse import ArgMaxCodec, TopCodec, TopFourBitCodec


class Codec(Protocol):
    """One way to encode soft labels."""

    def encode(self, probs: NDArray[np.float32]) -> NDArray[np.generic]:
        """The encoded rows (N, ...) of (N, H, C) probabilities."""

    def decode(self, payload: NDArray[np.generic], num_horizons: int, num_classes: int) -> NDArray[np.float32]:
        """The (N, H, C) probabilities of encoded rows.

        Raises:
            ValueError: the payload was not made by this codec for these shapes.
        """


CODECS: dict[str, Codec] = {
    "float32": FloatCodec(np.float32),
    "float16": FloatCodec(np.float16),
    "uint8": SquareRootCodec(),
    "uint4": FourBitCodec(),
    "top8": TopCodec(8),
    "top8-uint4": TopFourBitCodec(8),
    "argmax": ArgMaxCodec(),
}


# What is done to encoded rows before they travel (`strategies.codecs.packing`): suffix -> description, source.
SUFFIXES: dict[str, tuple[str, str]] = {
    "zlib": ("The rows are entropy coded.", "zlib, RFC 1950"),
    "delta": (
        "The rows are a difference against what the other side holds, entropy coded; whole where that is not known.",
        "differences as in CFD, arXiv 2012.00632; zlib, RFC 1950",
    ),
}


def find_codec(spec: str, num_classes: int) -> Codec:
    """The row codec that a name stands for; a suffix must be known, but changes nothing here.

    Args:
        spec: a key of `CODECS`, ``topK`` or ``topK-uint4`` with K from 1 to ``num_classes`` (of those in the
            table, all classes where there are fewer); then perhaps ``+zlib``
            (entropy coded) or ``+delta`` (as a difference against the last round, entropy coded).
        num_classes: the number of classes, C.

    Raises:
        ValueError: there is no such codec.

    Example:
        >>> labels = np.full((1, 4, 64), 1 / 64, np.float32)
        >>> find_codec("float32", 64).encode(labels).nbytes
        1024
        >>> find_codec("uint4", 64).encode(labels).nbytes
        128
    """
    name, _, layer = spec.partition("+")
    top = re.fullmatch(r"top([1-9][0-9]*)(-uint4)?", name)
    if layer in ("", *SUFFIXES) and (spec == name or layer):
        # A name of the table is good for any number of classes: where there are fewer than it keeps, it keeps all.
        kept = 0 if top is None else min(int(top[1]), num_classes) if name in CODECS else int(top[1])
        if top is not None and kept <= num_classes:
            return TopFourBitCodec(kept) if top[2] else TopCodec(kept)
        if top is None and name in CODECS:
            return CODECS[name]
    known = [f"{name}{suffix}" for name in CODECS for suffix in ("", *(f"+{layer}" for layer in SUFFIXES))]
    raise ValueError(
        f"unknown codec {spec!r}; known are {', '.join(CODECS)}, other topK and topK-uint4 up to K = {num_classes}, "
        f"each also with +zlib or +delta{did_you_mean(spec, known)}"
    )
