"""Federated distillation in which the server learns the sum of the clients' soft labels, and none of them.

The sums are made by pairwise masks in integer arithmetic, with dropouts. Every two clients agree on a secret (X25519)
and derive from it, for each round, a stream of integers that one adds to its soft labels and the other subtracts,
modulo 2^16 or 2^32. In the sum over all clients the masks cancel exactly. When a client drops out, the others tell the
server the seeds that they share with it in that round, and the server removes what is left of its masks; seeds of other
pairs and rounds stay secret.

A sum of one answer is that answer, so nobody masks, tells seeds or sums for fewer than two clients. Two are enough
against a server that only listens. But each of two clients can subtract its own answer from what is published and then
has the other's, which no mask can hide; of K clients, all but one can do that together. Every attempt at a round has
its own number (``nonce``), because a round that is done again after a stop would otherwise have the same masks over
other answers.

Source: Bonawitz et al., CCS 2017, without its second mask. The server must be honest but curious: if it lies about who
dropped out, and also gets that client's answer of the round, it learns the answer. Therefore an answer that comes after
its seeds were told is thrown away unread, and a client tells the seeds of a round only once. Double masking would mend
that at the price of a further message a round.

K clients, N samples, H horizons, C classes. A client is known by its public key.
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
        masked: (N, H, C) the levels of its probabilities, with its masks added.
    """

    member: Member
    masked: NDArray[np.unsignedinteger]


class SecureSumStrategy(DistillationStrategy):
    """The plain mean by secure summation: one message a round, and one more where somebody drops out.

    Source: `strategies.methods.secure_sum`. The arguments are those of `DistillationStrategy`.
    """

    traits: ClassVar[Traits] = replace(DistillationStrategy.traits, exchange="secure_sum")

    def prepare(self, round_number: int) -> RoundPlan:
        """Choose the samples, the clients whose masks will be used, and the number of this attempt at the round."""
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
        """The request of `DistillationStrategy`, with the keys of all participants and the number of this attempt."""
        keys = [np.frombuffer(member.public_key, np.uint8) for member in plan.participants.values()]
        table = np.stack(keys) if keys else np.empty((0, KEY_BYTES), np.uint8)
        request = super().request(client, plan)
        return replace(request, arrays={**request.arrays, "keys": table, "nonce": plan.nonce})

    def accept(self, member: Member, outcome: Outcome, reply: Reply, plan: RoundPlan) -> Any:
        """The masked levels of a client; only their shape can be checked, since the masks hide the values."""
        self._note_known_round(outcome, reply)
        if reply.error:
            raise WireError(reply.error)
        masked, task = reply.arrays.get("masked"), self.experiment.task
        expected = (len(outcome.request.ask), task.num_horizons, task.num_classes)
        dtype = Scale(len(plan.participants), task.num_classes).dtype
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
        """Remove the masks of clients that dropped out, sum the answers, teach the teacher and publish targets."""
        ensemble = None
        if contributions and len(plan.asked):
            try:
                ensemble = self.calibrate(self._mean(contributions, plan))
            except ValueError as error:
                log.warning("round %d has no ensemble: %s", plan.round, error)
        return self.publish(ensemble, {}, plan)

    def _mean(self, contributions: Sequence[MaskedAnswer], plan: RoundPlan) -> SoftLabels:
        masked = {one.member.public_key: one.masked for one in contributions}
        # This comes before anybody is asked for seeds, since seeds would uncover a single answer.
        check_summands(len(masked))
        participants = [member.public_key for member in plan.participants.values()]
        dropped = [key for key in participants if key not in masked]
        revealed = self._recover([one.member for one in contributions], dropped) if dropped else {}
        total = sum_masked(masked, participants, revealed)
        mean = total / (Scale(len(participants), self.experiment.task.num_classes).levels * len(masked))
        if self.settings.teacher_votes:
            vote = self.teacher.answer(plan.asked, self.settings.temperature)
            mean = (len(masked) * mean + vote.probs) / (len(masked) + 1)
        return SoftLabels(plan.asked, normalise_rows(mean), self.settings.temperature)

    def _recover(self, survivors: Sequence[Member], dropped: Sequence[bytes]) -> dict[tuple[bytes, bytes], bytes]:
        """(survivor, dropped) -> the seed that they share, from the survivors that answer."""
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
# A sum of fewer answers would show an answer.
MIN_SUMMANDS = 2


@dataclass(frozen=True)
class Scale:
    """How probabilities become integers whose sum fits the words that travel.

    Attributes:
        num_clients: the number K of clients whose levels are summed.
        num_classes: the number C of classes, over which a row spreads its probability.
    """

    num_clients: int
    num_classes: int = 64

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger]:
        """Two bytes if a flat row still has about sixteen levels then, as for 64 clients and 64 classes; else four."""
        return np.dtype("<u2" if self.num_clients * self.num_classes <= 64 * 64 else "<u4")

    @property
    def levels(self) -> int:
        """The level that a probability of one becomes."""
        return int(np.iinfo(self.dtype).max) // self.num_clients

    def quantise(self, probs: NDArray[np.float32]) -> NDArray[np.unsignedinteger]:
        """round(p levels); off by at most half a level."""
        return np.rint(np.clip(probs, 0.0, 1.0).astype(np.float64) * self.levels).astype(self.dtype)


class SecureKey:
    """The private key of a client, and the public key that belongs to it.

    Args:
        private: the 32 bytes that :meth:`private_bytes` gives; None makes a new key.

    Raises:
        ValueError: the bytes are not a key.
    """

    def __init__(self, private: bytes | None = None) -> None:
        self._key = X25519PrivateKey.generate() if private is None else X25519PrivateKey.from_private_bytes(private)
        self.public = self._key.public_key().public_bytes_raw()

    def private_bytes(self) -> bytes:
        """The private key, 32 bytes, which a client keeps to itself between rounds."""
        return self._key.private_bytes_raw()

    def seed(self, peer: bytes, context: bytes) -> bytes:
        """The 32 bytes that this client and a peer share in one context.

        Args:
            peer: the public key of the peer.
            context: the context, from :func:`context_of`; another context gives another seed.

        Raises:
            ValueError: the peer's key does not have 32 bytes, or it is this client's own.
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
            levels: the levels, in any shape.
            peers: the public keys of all other participants.
            context: the context of the round, from :func:`context_of`.
        """
        masked = levels.copy()
        for peer in peers:
            masked = masked + _signed(self.public, peer, self.seed(peer, context), levels)
        return masked


def context_of(run: str, round_number: int, sample_ids: NDArray[np.int64], nonce: bytes) -> bytes:
    """The context of a round's masks, which fit no other run, round, samples or attempt.

    Args:
        run: the name of the run.
        round_number: the number of the round.
        sample_ids: (N,) the samples that are answered.
        nonce: the ``NONCE_BYTES`` random bytes of this attempt at the round.
    """
    digest = hashes.Hash(hashes.SHA256())
    digest.update(nonce + f"{run}/{round_number}/".encode() + sample_ids.astype("<i8").tobytes())
    return digest.finalize()


def check_summands(count: int) -> None:
    """Refuse a sum that would show an answer.

    Raises:
        ValueError: the sum has fewer than ``MIN_SUMMANDS`` answers.
    """
    if count < MIN_SUMMANDS:
        raise ValueError(f"secure sum: a sum of {count} would show an answer; it takes {MIN_SUMMANDS} or more")


def sum_masked(
    masked: Mapping[bytes, NDArray[np.unsignedinteger]],
    participants: Sequence[bytes],
    revealed: Mapping[tuple[bytes, bytes], bytes],
) -> NDArray[np.unsignedinteger]:
    """The exact sum of the levels that the clients which answered had before they masked them.

    Args:
        masked: the public key of each client that answered -> its masked levels.
        participants: the public keys that were given out for the round.
        revealed: (survivor, dropped) -> seed, for every pair of a client that answered and one that did not.

    Raises:
        ValueError: there are too few answers (:func:`check_summands`), a seed is missing, or shapes differ.
    """
    check_summands(len(masked))
    if strangers := set(masked) - set(participants):
        raise ValueError(f"secure sum: {len(strangers)} clients answered that were not asked")
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
    """The mask of a pair with its sign: the client with the smaller key adds it, the other subtracts it."""
    # The seed is used for this stream alone, so a counter from zero is safe.
    stream = Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor()
    mask = np.frombuffer(stream.update(bytes(like.nbytes)), like.dtype).reshape(like.shape)
    return mask if own < peer else (np.zeros_like(mask) - mask)
