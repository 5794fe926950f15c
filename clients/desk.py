"""What a message handler of a client works with."""

from __future__ import annotations

from dataclasses import dataclass

from clients.memory import ClientMemory
from clients.profile import ClientProfile
from configs.placement import Placement
from strategies.wire import Header


@dataclass(frozen=True)
class Desk:
    """What a handler works with.

    Attributes:
        profile: of the client.
        placement: experiment and folders.
        header: of the message.
    """

    profile: ClientProfile
    placement: Placement
    header: Header

    def memory(self) -> ClientMemory:
        """This client's memory of this run."""
        return ClientMemory(self.placement.run / "clients" / self.profile.id)
