"""Sums of soft labels of which the server sees no summand: pairwise masks in integer arithmetic, with dropouts.

Every two clients agree on a secret (X25519) and derive from it, for each round, a stream of integers that one adds to
its soft labels and the other subtracts, modulo 2^16 or 2^32. In the sum of all the masks cancel, exactly. Of a client
that drops out, the others tell the server the seeds that they share with it in that round, and the server takes the
rest of its masks out; seeds of other pairs and rounds stay secret.

A sum of one is an answer, so nobody masks, tells seeds or sums for fewer than two. Two are enough against a server that
only listens. Of two, each can take its own answer out of what is published and has the other's, which no mask can hide:
of C clients, all but one can do that together. Every attempt at a round has a number of its own (``nonce``), because a
round that is done again after a stop would otherwise have the same masks over other answers.

Source: Bonawitz et al., CCS 2017, without its second mask. The server must be honest but curious: one that lies about
who dropped out learns that client's answer of the round if it gets it, too, so an answer that comes after its seeds
were told is thrown away unread, and a client tells the seeds of a round once. Double masking would mend that at the
price of a further message a round.

C clients, N samples, H horizons, B beams. A client is known by its public key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

KEY_BYTES = 32
NONCE_BYTES = 32
# Of fewer, the sum shows an answer.
MIN_SUMMANDS = 2


@dataclass(frozen=True)
class Scale:
    """How probabilities become integers whose sum fits the words that travel.

    Attributes:
        num_clients: C, whose levels are summed.
    """

    num_clients: int

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger]:
        """Two bytes for up to 64 clients, whose probabilities then have a thousand levels or more; else four."""
        return np.dtype("<u2" if self.num_clients <= 64 else "<u4")

    @property
    def levels(self) -> int:
        """Of a probability of one."""
        return int(np.iinfo(self.dtype).max) // self.num_clients

    def quantise(self, probs: NDArray[np.float32]) -> NDArray[np.unsignedinteger]:
        """round(p levels); off by at most half a level."""
        return np.rint(np.clip(probs, 0.0, 1.0).astype(np.float64) * self.levels).astype(self.dtype)


class SecureKey:
    """The key of a client.

    Args:
        private: 32 bytes, made by :meth:`private_bytes`; None makes a new one.

    Raises:
        ValueError: it is no key.
    """

    def __init__(self, private: bytes | None = None) -> None:
        self._key = X25519PrivateKey.generate() if private is None else X25519PrivateKey.from_private_bytes(private)
        self.public = self._key.public_key().public_bytes_raw()

    def private_bytes(self) -> bytes:
        """What a client keeps to itself between rounds."""
        return self._key.private_bytes_raw()

    def seed(self, peer: bytes, context: bytes) -> bytes:
        """The 32 bytes that this client and a peer share in one context.

        Args:
            peer: public key.
            context: names run, round and samples; another gives another seed.

        Raises:
            ValueError: the peer's key is none, or this client's own.
        """
        if len(peer) != KEY_BYTES or peer == self.public:
            raise ValueError("a peer's key must be 32 bytes and another's than one's own")
        secret = self._key.exchange(X25519PublicKey.from_public_bytes(peer))
        first, second = sorted((self.public, peer))
        return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=first + second + context).derive(secret)

    def mask(
        self, levels: NDArray[np.unsignedinteger], peers: Sequence[bytes], context: bytes
    ) -> NDArray[np.unsignedinteger]:
        """The levels with the masks of all pairs, modulo the size of their dtype.

        Args:
            levels: of any shape.
            peers: public keys of all the others.
            context: of the round.
        """
        masked = levels.copy()
        for peer in peers:
            masked = masked + _signed(self.public, peer, self.seed(peer, context), levels)
        return masked


def context_of(run: str, round_number: int, sample_ids: NDArray[np.int64], nonce: bytes) -> bytes:
    """What a round's masks are bound to: they fit no other run, round, samples or attempt.

    Args:
        run: its name.
        round_number: of the round.
        sample_ids: (N,) that are answered.
        nonce: ``NONCE_BYTES`` random bytes of this attempt at the round.
    """
    digest = hashes.Hash(hashes.SHA256())
    digest.update(nonce + f"{run}/{round_number}/".encode() + sample_ids.astype("<i8").tobytes())
    return digest.finalize()


def check_summands(count: int) -> None:
    """Refuse a sum that would show an answer.

    Raises:
        ValueError: it has fewer than ``MIN_SUMMANDS``.
    """
    if count < MIN_SUMMANDS:
        raise ValueError(f"secure sum: a sum of {count} would show an answer; it takes {MIN_SUMMANDS} or more")


def sum_masked(
    masked: Mapping[bytes, NDArray[np.unsignedinteger]],
    participants: Sequence[bytes],
    revealed: Mapping[tuple[bytes, bytes], bytes],
) -> NDArray[np.unsignedinteger]:
    """The exact sum of what those who answered had before they masked it.

    Args:
        masked: by public key of those who answered.
        participants: everyone whose keys were given out for the round.
        revealed: (survivor, dropped) -> seed, for every pair of one that answered and one that did not.

    Raises:
        ValueError: as for :func:`check_summands`; a seed is missing; shapes differ.
    """
    check_summands(len(masked))
    if strangers := set(masked) - set(participants):
        raise ValueError(f"secure sum: {len(strangers)} answered that were not asked")
    if len({(array.shape, array.dtype) for array in masked.values()}) > 1:
        raise ValueError("secure sum: masked answers differ in shape or dtype")
    total = np.zeros_like(next(iter(masked.values())))
    for array in masked.values():
        total = total + array
    for survivor in masked:
        for dropped in set(participants) - set(masked):
            if (survivor, dropped) not in revealed:
                raise ValueError(
                    "secure sum: a survivor did not tell the seed that it shares with one that dropped out"
                )
            total = total - _signed(survivor, dropped, revealed[survivor, dropped], total)
    return total


def _signed(own: bytes, peer: bytes, seed: bytes, like: NDArray[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
    """A pair's mask as the client with the smaller key adds it; the other subtracts it."""
    # The seed is used for this stream alone, so a counter from zero is safe.
    stream = Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor()
    mask = np.frombuffer(stream.update(bytes(like.nbytes)), like.dtype).reshape(like.shape)
    return mask if own < peer else (np.zeros_like(mask) - mask)
