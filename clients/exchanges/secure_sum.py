"""The exchange of soft labels of which the server learns only the sum (`strategies.methods.secure_sum`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.context import ClientContext
from clients.exchanges.base import Answer, Facts, State
from clients.exchanges.labels import PublicExchange
from clients.learning.learner import Learner
from clients.memory import set_aside
from configs.files import write_durably
from strategies.messages.wire import Reply, Request, WireError
from strategies.methods.secure_sum import KEY_BYTES, NONCE_BYTES, Scale, SecureKey, check_summands, context_of

KEY_FILE = "secret.key"


class SecureSumExchange(PublicExchange):
    """Answers with integers under pairwise masks; targets are sent to the client as in every label exchange."""

    def __init__(self, context: ClientContext, learner: Learner, request: Request, state: State) -> None:
        super().__init__(context, learner, request, state)
        self.key = own_key(context)
        self.participants = _keys(request.arrays.get("keys"))
        if self.key.public not in self.participants:
            raise WireError("the keys of this round do not include this client's key; was its memory deleted?")
        check_summands(len(set(self.participants)))
        nonce = request.arrays.get("nonce")
        if nonce is None or nonce.dtype != np.uint8 or nonce.shape != (NONCE_BYTES,):
            raise WireError(f"the request must hold a nonce: expected a nonce as uint8 ({NONCE_BYTES},)")
        self.mask_context = context_of(context.header.run, context.header.round, request.ask, nonce.tobytes())

    @classmethod
    def introduction(cls, context: ClientContext) -> Facts:
        """The client's public key."""
        return {"public_key": own_key(context).public.hex()}

    def answer(self) -> Answer:
        """Masked levels for all samples asked for; nothing before the client has learned, since a sum needs all."""
        said = super().answer()
        if not self.learner.has_learned:
            return Answer(facts=said.facts)
        # An attack may send NaN, for which there is no level.
        levels = Scale(len(self.participants), self.task.num_classes).quantise(np.nan_to_num(self.claimed))
        peers = [key for key in self.participants if key != self.key.public]
        masked = self.key.mask(levels, peers, self.mask_context)
        return Answer(arrays={"masked": masked}, facts=said.facts, metrics=said.metrics)

    def state(self) -> dict[str, Any]:
        """The state of the label exchange, with the participants whose seeds this client may reveal."""
        return {
            **super().state(),
            "mask_context": self.mask_context,
            "participants": list(self.participants),
        }


def reveal(context: ClientContext, request: Request) -> Reply:
    """Reveal, once, the seeds that this client shares with those that dropped out of the round it answered last.

    A client that revealed seeds twice, for different lists, could reveal the seeds of all others; the server could then
    unmask the client's answer.

    Raises:
        WireError: the client did not answer this round or has revealed seeds of it, or the request is malformed.
        ValueError: too few participants are left for a sum that hides each answer.
    """
    memory, now = context.memory(), context.header.round
    whole = memory.load(before_round=now + 1) or {}
    state = whole.get("exchange", {})
    if state.get("known_round") != now - 1 or "mask_context" not in state:
        raise WireError(f"this client did not answer round {now}, or has told seeds of it before; it tells no seeds")
    dropped, participants = _keys(request.arrays.get("dropped")), set(state["participants"])
    if strangers := set(dropped) - participants:
        raise WireError(f"{len(strangers)} of the keys that dropped out were not in the round")
    check_summands(len(participants - set(dropped)))
    key = own_key(context)
    seeds = [np.frombuffer(key.seed(peer, state["mask_context"]), np.uint8) for peer in dropped]
    forgetful = {name: value for name, value in state.items() if name not in ("mask_context", "participants")}
    memory.save({**whole, "exchange": forgetful}, round_number=now)
    return Reply(arrays={"seeds": np.stack(seeds)})


def own_key(context: ClientContext) -> SecureKey:
    """This client's key in this run: it is made once, kept in the client's memory and never sent.

    A key that cannot be read is set aside; the new one counts from the next time the server asks for introductions.
    """
    path = context.folder / KEY_FILE
    if path.is_file():
        try:
            return SecureKey(path.read_bytes())
        except ValueError as error:
            set_aside(path, error)
    key = SecureKey()
    write_durably(path, key.private_bytes(), mode=0o600)
    return key


def _keys(array: NDArray[np.generic] | None) -> list[bytes]:
    if array is None or array.dtype != np.uint8 or array.ndim != 2 or array.shape[1] != KEY_BYTES:
        raise WireError(f"the request must hold keys as uint8 (C, {KEY_BYTES})")
    return [row.tobytes() for row in array]
