"""Soft labels of which the server learns the sum only (`strategies.secure_sum`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.desk import Desk
from clients.exchange import Said, State
from clients.label_exchanges import PublicExchange
from clients.sensing.learner import Learner
from strategies.secure_sum import KEY_BYTES, Scale, SecureKey, context_of
from strategies.wire import Reply, Request, WireError

KEY_FILE = "secret.key"


class MaskedExchange(PublicExchange):
    """Answers integers under pairwise masks; targets come down as they always do."""

    def __init__(self, desk: Desk, learner: Learner, request: Request, state: State) -> None:
        super().__init__(desk, learner, request, state)
        self.key = own_key(desk)
        self.participants = _keys(request.arrays.get("keys"))
        if self.key.public not in self.participants:
            raise WireError("this client's key is not among those of the round; did its memory change?")
        self.context = context_of(desk.header.run, desk.header.round, request.ask)

    def answer(self) -> Said:
        """Masked levels, for all that was asked."""
        said = super().answer()
        labels = self.last_answer
        levels = Scale(len(self.participants)).quantise(labels.probs)
        peers = [key for key in self.participants if key != self.key.public]
        masked = self.key.mask(levels, peers, self.context)
        return Said(arrays={"masked": masked}, facts=said.facts, metrics=said.metrics)

    def state(self) -> dict[str, Any]:
        """What the label exchange remembers, and for whom it may tell seeds."""
        return {
            **super().state(),
            "context": self.context,
            "participants": list(self.participants),
        }


def reveal(desk: Desk, request: Request) -> Reply:
    """Tell the seeds shared with those that dropped out of the round that this client answered last."""
    state = (desk.memory().load(before_round=desk.header.round + 1) or {}).get("exchange", {})
    if state.get("known_round") != desk.header.round - 1 or "context" not in state:
        raise WireError(f"did not answer round {desk.header.round}, so it tells no seeds of it")
    dropped = _keys(request.arrays.get("dropped"))
    if strangers := set(dropped) - set(state["participants"]):
        raise WireError(f"{len(strangers)} of those that dropped out were not in the round")
    key = own_key(desk)
    seeds = [np.frombuffer(key.seed(peer, state["context"]), np.uint8) for peer in dropped]
    return Reply(arrays={"seeds": np.stack(seeds)})


def own_key(desk: Desk) -> SecureKey:
    """This client's key in this run: made once, kept in its memory, never sent."""
    path = desk.memory().folder / KEY_FILE
    if path.is_file():
        return SecureKey(path.read_bytes())
    key = SecureKey()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(key.private_bytes())
    return key


def _keys(array: NDArray[np.generic] | None) -> list[bytes]:
    if array is None or array.dtype != np.uint8 or array.ndim != 2 or array.shape[1] != KEY_BYTES:
        raise WireError(f"expected keys as uint8 (C, {KEY_BYTES})")
    return [row.tobytes() for row in array]
