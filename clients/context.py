"""What a message handler of a client works with."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from clients.memory import ClientMemory
from clients.profile import ClientProfile
from configs.files import is_plain_name, write_durably
from configs.home import softbeam_home
from configs.loading import to_values
from configs.placement import Placement
from strategies.messages.wire import Header, WireError

log = logging.getLogger(__name__)

NOTE = "experiment.json"
"""The experiment that a real client learned in, beside its memory; the run folder that has it is on the server."""


@dataclass(frozen=True)
class ClientContext:
    """What a handler works with.

    Attributes:
        profile: the profile of the client.
        placement: the experiment and the folders of the run.
        header: the header of the message.

    Raises:
        WireError: the name of the run, which comes from the server, is not the name of one folder.
    """

    profile: ClientProfile
    placement: Placement
    header: Header

    def __post_init__(self) -> None:
        if not is_plain_name(self.header.run):
            raise WireError(f"run: must be the name of one folder, got {self.header.run[:80]!r}")

    @property
    def folder(self) -> Path:
        """The folder in which this client keeps its memory of this run."""
        profile, run = self.profile, self.header.run
        if profile.memory is not None:
            return profile.memory / run / profile.id
        home = self.placement.run if profile.is_virtual else softbeam_home() / "runs" / run
        return home / "clients" / profile.id

    def memory(self) -> ClientMemory:
        """This client's memory of this run."""
        return ClientMemory(self.folder, is_durable=not self.profile.is_virtual)

    def note_experiment(self) -> None:
        """Keep the experiment beside the memory of a real client, so that the node can publish what it learned.

        Where that is not possible, as on a full disk, a warning says so: what was learned is not lost with it.
        """
        path = self.folder / NOTE
        if self.profile.is_virtual:
            return
        plugins = [str(folder) for folder in self.placement.plugins]
        note = {"experiment": to_values(self.placement.experiment), "plugins": plugins}
        content = (json.dumps(note, indent=1) + "\n").encode()
        try:
            if not path.is_file() or path.read_bytes() != content:
                write_durably(path, content)
        except OSError as error:
            log.warning("%s: %s: not written: %s", self.profile.id, path, error)
