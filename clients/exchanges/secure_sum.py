"""Soft labels of which the server learns the sum only (`strategies.methods.secure_sum`)."""

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
    """Answers integers under pairwise masks; targets come down as they always do."""

    def __init__(self, context: ClientContext, learner: Learner, request: Request, state: State) -> None:
        super().__init__(context, learner, request, state)
        self.key = own_key(context)
        self.participants = _keys(request.arrays.get("keys"))
        if self.key.public not in self.participants:
            raise WireError("this client's key is not among those of the round; did its memory change?")
        check_summands(len(set(self.participants)))
        nonce = request.arrays.get("nonce")
        if nonce is None or nonce.dtype != np.uint8 or nonce.shape != (NONCE_BYTES,):
            raise WireError(f"expected a nonce as uint8 ({NONCE_BYTES},)")
        self.mask_context = context_of(context.header.run, context.header.round, request.ask, nonce.tobytes())

    @classmethod
    def introduction(cls, context: ClientContext) -> Facts:
        """The client's public key."""
        return {"public_key": own_key(context).public.hex()}

    def answer(self) -> Answer:
        """Masked levels, for all that was asked; nothing before it has learned, since a sum takes all or none."""
        said = super().answer()
        if not self.learner.has_learned:
            return Answer(facts=said.facts)
        # A lie of not-a-number has no level.
        levels = Scale(len(self.participants)).quantise(np.nan_to_num(self.claimed))
        peers = [key for key in self.participants if key != self.key.public]
        masked = self.key.mask(levels, peers, self.mask_context)
        return Answer(arrays={"masked": masked}, facts=said.facts, metrics=said.metrics)

    def state(self) -> dict[str, Any]:
        """What the label exchange remembers, and for whom it may tell seeds."""
        return {
            **super().state(),
            "mask_context": self.mask_context,
            "participants": list(self.participants),
        }


def reveal(context: ClientContext, request: Request) -> Reply:
    """Tell the seeds shared with those that dropped out of the round that this client answered last, once.

    Told twice, of different ones, they could be the seeds of all the others, and the answer would lie open.
    """
    memory, now = context.memory(), context.header.round
    whole = memory.load(before_round=now + 1) or {}
    state = whole.get("exchange", {})
    if state.get("known_round") != now - 1 or "mask_context" not in state:
        raise WireError(f"did not answer round {now}, or told seeds of it before; it tells none")
    dropped, participants = _keys(request.arrays.get("dropped")), set(state["participants"])
    if strangers := set(dropped) - participants:
        raise WireError(f"{len(strangers)} of those that dropped out were not in the round")
    check_summands(len(participants - set(dropped)))
    key = own_key(context)
    seeds = [np.frombuffer(key.seed(peer, state["mask_context"]), np.uint8) for peer in dropped]
    forgetful = {name: value for name, value in state.items() if name not in ("mask_context", "participants")}
    memory.save({**whole, "exchange": forgetful}, round_number=now)
    return Reply(arrays={"seeds": np.stack(seeds)})


def own_key(context: ClientContext) -> SecureKey:
    """This client's key in this run: made once, kept in its memory, never sent.

    One that cannot be read is set aside; the new one takes part from the next time that the server asks who is there.
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
        raise WireError(f"expected keys as uint8 (C, {KEY_BYTES})")
    return [row.tobytes() for row in array]
