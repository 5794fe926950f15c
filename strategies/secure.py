"""Federated distillation in which the server learns the sum of the clients' soft labels, and none of them."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from strategies.distillation import DistillationStrategy
from strategies.labels import SoftLabels, normalise_rows
from strategies.messages.mailbox import Answer
from strategies.messages.records import Member
from strategies.messages.wire import REVEAL, Reply, Request, WireError
from strategies.secure_sum import KEY_BYTES, NONCE_BYTES, Scale, check_summands, sum_masked

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MaskedAnswer:
    """What one client sent.

    Attributes:
        member: the client.
        masked: (N, H, B) levels under its masks.
    """

    member: Member
    masked: NDArray[np.unsignedinteger]


class SecureDistillationStrategy(DistillationStrategy):
    """The plain mean by secure summation: one message a round, and one more where somebody drops out.

    Source: `strategies.secure_sum`. The arguments are those of `DistillationStrategy`.
    """

    kind: ClassVar[str] = "masked"

    def prepare(self, round_number: int) -> None:
        """Choose samples and say whose masks there will be, and for which attempt at the round."""
        super().prepare(round_number)
        self._nonce = np.frombuffer(secrets.token_bytes(NONCE_BYTES), np.uint8)
        invited = set(self.invite(round_number))
        self._participants = {
            client: member
            for client, member in self.mailbox.members.items()
            if client in invited and len(member.public_key) == KEY_BYTES
        }

    def request(self, client: str, round_number: int) -> Request:
        """As ever, with the keys of all participants and the number of this attempt."""
        keys = [np.frombuffer(member.public_key, np.uint8) for member in self._participants.values()]
        table = np.stack(keys) if keys else np.empty((0, KEY_BYTES), np.uint8)
        request = super().request(client, round_number)
        return replace(request, arrays={**request.arrays, "keys": table, "nonce": self._nonce})

    def accept(self, member: Member, answer: Answer, reply: Reply) -> Any:
        """Masked levels of the right shape; nothing else can be checked, which is the point."""
        self._note_known_round(answer, reply)
        if reply.error:
            raise WireError(reply.error)
        masked, task = reply.arrays.get("masked"), self.experiment.task
        expected = (len(answer.request.ask), task.num_horizons, task.num_beams)
        dtype = Scale(len(self._participants)).dtype
        if masked is None or masked.shape != expected or masked.dtype != dtype:
            found = "nothing" if masked is None else f"{masked.dtype} {masked.shape}"
            raise WireError(f"expected masked {dtype} of shape {expected}, got {found}")
        if member.id not in self._participants:
            raise WireError("its key was not among those of the round")
        return MaskedAnswer(member, masked)  # type: ignore[arg-type]

    def num_answers(self, contribution: Any) -> int:
        """Samples that a client answered."""
        return len(contribution.masked)

    def conclude(self, contributions: Sequence[Any], round_number: int) -> int:
        """Recover from those that dropped out, sum, teach, publish."""
        ensemble = None
        if contributions and len(self._asked):
            try:
                ensemble = self.calibrate(self._mean(contributions))
            except ValueError as error:
                log.warning("round %d has no ensemble: %s", round_number, error)
        return self.publish(ensemble, {}, round_number)

    def _mean(self, contributions: Sequence[MaskedAnswer]) -> SoftLabels:
        masked = {one.member.public_key: one.masked for one in contributions}
        # Before anybody is asked for seeds: with them, a single answer would lie open.
        check_summands(len(masked))
        participants = [member.public_key for member in self._participants.values()]
        dropped = [key for key in participants if key not in masked]
        revealed = self._recover([one.member for one in contributions], dropped) if dropped else {}
        total = sum_masked(masked, participants, revealed)
        mean = total / (Scale(len(participants)).levels * len(masked))
        if self.settings.teacher_votes:
            vote = self.teacher.answer(self._asked, self.settings.temperature)
            mean = (len(masked) * mean + vote.probs) / (len(masked) + 1)
        return SoftLabels(self._asked, normalise_rows(mean), self.settings.temperature)

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
