"""One root seed, many independent streams."""

import hashlib

import numpy as np


def seed_for(root: int, *labels: str | int) -> int:
    """A 63-bit seed for the stream that ``labels`` name, independent of every other stream.

    The same root and labels give the same seed on every machine, in every process and in any order of calls.

    Args:
        root: the experiment's seed.
        labels: what the stream is for, e.g. ``"client", 3, "training"``.
    """
    text = "/".join([str(root), *(f"{type(label).__name__}:{label}" for label in labels)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def rng_for(root: int, *labels: str | int) -> np.random.Generator:
    """A NumPy generator seeded by :func:`seed_for`.

    Example:
        >>> draws = [int(rng_for(0, "client", 3, "round", 1).integers(1_000_000)) for _ in range(2)]
        >>> draws[0] == draws[1]
        True
        >>> draws[0] == int(rng_for(0, "client", 4, "round", 1).integers(1_000_000))
        False
    """
    return np.random.default_rng(seed_for(root, *labels))
