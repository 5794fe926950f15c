"""Federated distillation in which the server learns the sum of the clients' soft labels, and none of them.

The sums are made by pairwise masks in integer arithmetic, with dropouts. Every two clients agree on a secret (X25519)
and derive from it, for each round, a stream of integers that one adds to its soft labels and the other subtracts,
modulo 2^16 or 2^32. In the sum of all the masks cancel, exactly. Of a client that drops out, the others tell the server
the seeds that they share with it in that round, and the server takes the rest of its masks out; seeds of other pairs
and rounds stay secret.

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

import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from configs.recipes import Traits
from strategies.labels import SoftLabels, normalise_rows
from strategies.messages.mailbox import Outcome
from strategies.messages.records import Member
from strategies.messages.wire import REVEAL, Reply, Request, WireError
from strategies.methods.base import RoundPlan
from strategies.methods.distillation import DistillationStrategy

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MaskedAnswer:
    """The masked answer of one client.

    Attributes:
        member: the client.
        masked: (N, H, B) levels under its masks.
    """

    member: Member
    masked: NDArray[np.unsignedinteger]


class SecureSumStrategy(DistillationStrategy):
    """The plain mean by secure summation: one message a round, and one more where somebody drops out.

    Source: `strategies.methods.secure_sum`. The arguments are those of `DistillationStrategy`.
    """

    traits: ClassVar[Traits] = replace(DistillationStrategy.traits, exchange="secure_sum")

    def prepare(self, round_number: int) -> RoundPlan:
        """Choose samples and say whose masks there will be, and for which attempt at the round."""
        plan = super().prepare(round_number)
        invited = set(self.invite(round_number))
        participants = {
            client: member
            for client, member in self.mailbox.members.items()
            if client in invited and len(member.public_key) == KEY_BYTES
        }
        nonce = np.frombuffer(secrets.token_bytes(NONCE_BYTES), np.uint8)
        return replace(plan, participants=participants, nonce=nonce)

    def request(self, client: str, plan: RoundPlan) -> Request:
        """As ever, with the keys of all participants and the number of this attempt."""
        keys = [np.frombuffer(member.public_key, np.uint8) for member in plan.participants.values()]
        table = np.stack(keys) if keys else np.empty((0, KEY_BYTES), np.uint8)
        request = super().request(client, plan)
        return replace(request, arrays={**request.arrays, "keys": table, "nonce": plan.nonce})

    def accept(self, member: Member, outcome: Outcome, reply: Reply, plan: RoundPlan) -> Any:
        """Masked levels of the right shape; nothing else can be checked, which is the point."""
        self._note_known_round(outcome, reply)
        if reply.error:
            raise WireError(reply.error)
        masked, task = reply.arrays.get("masked"), self.experiment.task
        expected = (len(outcome.request.ask), task.num_horizons, task.num_beams)
        dtype = Scale(len(plan.participants)).dtype
        if masked is None or masked.shape != expected or masked.dtype != dtype:
            found = "nothing" if masked is None else f"{masked.dtype} {masked.shape}"
            raise WireError(f"expected masked {dtype} of shape {expected}, got {found}")
        if member.id not in plan.participants:
            raise WireError("its key was not among those of the round")
        return MaskedAnswer(member, masked)  # type: ignore[arg-type]

    def num_answers(self, contribution: Any) -> int:
        """Return the number of samples that a client answered."""
        return len(contribution.masked)

    def conclude(self, contributions: Sequence[Any], plan: RoundPlan) -> int:
        """Recover from those that dropped out, sum, teach, publish."""
        ensemble = None
        if contributions and len(plan.asked):
            try:
                ensemble = self.calibrate(self._mean(contributions, plan))
            except ValueError as error:
                log.warning("round %d has no ensemble: %s", plan.round, error)
        return self.publish(ensemble, {}, plan)

    def _mean(self, contributions: Sequence[MaskedAnswer], plan: RoundPlan) -> SoftLabels:
        masked = {one.member.public_key: one.masked for one in contributions}
        # Before anybody is asked for seeds: with them, a single answer would lie open.
        check_summands(len(masked))
        participants = [member.public_key for member in plan.participants.values()]
        dropped = [key for key in participants if key not in masked]
        revealed = self._recover([one.member for one in contributions], dropped) if dropped else {}
        total = sum_masked(masked, participants, revealed)
        mean = total / (Scale(len(participants)).levels * len(masked))
        if self.settings.teacher_votes:
            vote = self.teacher.answer(plan.asked, self.settings.temperature)
            mean = (len(masked) * mean + vote.probs) / (len(masked) + 1)
        return SoftLabels(plan.asked, normalise_rows(mean), self.settings.temperature)

    def _recover(self, survivors: Sequence[Member], dropped: Sequence[bytes]) -> dict[tuple[bytes, bytes], bytes]:
        """(survivor, dropped) -> seed, from those who answer."""
        table = np.stack([np.frombuffer(key, np.uint8) for key in dropped])
        requests = {member.id: Request(arrays={"dropped": table}) for member in survivors}
        keys = {member.id: member.public_key for member in survivors}
        answers = self.mailbox.ask(
            self.grid, REVEAL, requests, round_number=self.now, timeout=self.settings.round_timeout_s
        )
        revealed = {}
        for answer in answers:
            reply = answer.reply
            problem = str(reply) if isinstance(reply, WireError) else reply.error
            if isinstance(reply, WireError) or problem:
                log.warning("client %s tells no seeds: %s", answer.client, problem)
                continue
            self.extra_bytes[answer.client] = (self.mailbox.sent_bytes[answer.client], reply.num_bytes)
            seeds = reply.arrays.get("seeds")
            if seeds is None or seeds.dtype != np.uint8 or seeds.shape != (len(dropped), KEY_BYTES):
                log.warning("client %s tells no seeds: expected uint8 (%d, %d)", answer.client, len(dropped), KEY_BYTES)
                continue
            for key, seed in zip(dropped, seeds, strict=True):
                revealed[keys[answer.client], key] = seed.tobytes()
        return revealed


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
        """The level that a probability of one becomes."""
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
            raise ValueError("the key of a peer must be 32 bytes long, and must not be this client's own key")
        secret = self._key.exchange(X25519PublicKey.from_public_bytes(peer))
        first, second = sorted((self.public, peer))
        return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=first + second + context).derive(secret)

    def mask(
        self, levels: NDArray[np.unsignedinteger], peers: Sequence[bytes], context: bytes
    ) -> NDArray[np.unsignedinteger]:
        """The levels with the masks of all pairs, modulo the size of their dtype.

        Args:
            levels: an array of levels, of any shape.
            peers: public keys of all the others.
            context: the bytes that name the round (:func:`context_of`).
        """
        masked = levels.copy()
        for peer in peers:
            masked = masked + _signed(self.public, peer, self.seed(peer, context), levels)
        return masked


def context_of(run: str, round_number: int, sample_ids: NDArray[np.int64], nonce: bytes) -> bytes:
    """What a round's masks are bound to: they fit no other run, round, samples or attempt.

    Args:
        run: its name.
        round_number: the number of the round.
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
        masked: the masked levels, by the public key of the client that answered.
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
