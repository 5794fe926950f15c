"""The health of a client on a real machine: one small file beside its memory, rewritten after every message."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from clients.context import ClientContext
from configs.files import write_durably
from strategies.messages.records import one_line
from strategies.messages.wire import Reply

log = logging.getLogger(__name__)

HEALTH_FILE = "health.json"


@dataclass(frozen=True)
class Health:
    """The health of a client after a message.

    Attributes:
        client: the id of the client.
        modality: the modality that the client senses.
        run: the name of the run that the message belonged to.
        round: the round of the message; 0 before the first.
        time: when the message was handled, UTC, ISO 8601.
        seconds: the seconds that handling it took.
        passes: the number of labelled passes that the client had; None if the message did not need them.
        examples: the number of labelled windows that it trained on; None if the message did not need them.
        ok: whether the client could do what it was asked.
        error: why it could not; empty if it could.
        warning: what the operator should look at; empty if there is nothing.
    """

    client: str
    modality: str
    run: str
    round: int
    time: str
    seconds: float
    passes: int | None
    examples: int | None
    ok: bool
    error: str
    warning: str


def health_of(context: ClientContext, reply: Reply, *, seconds: float, now: datetime) -> Health:
    """The health of a client that gave a reply after so many seconds, at the time ``now``."""
    passes, examples = (reply.facts.get(name) for name in ("num_passes", "num_examples"))
    return Health(
        client=context.profile.id,
        modality=context.profile.modality,
        run=context.header.run,
        round=context.header.round,
        time=now.isoformat(timespec="seconds"),
        seconds=round(seconds, 3),
        passes=passes if isinstance(passes, int) else None,
        examples=examples if isinstance(examples, int) else None,
        ok=not reply.error,
        error=one_line(reply.error),
        warning=one_line(str(reply.facts.get("warning", ""))),
    )


def report_health(context: ClientContext, reply: Reply, *, seconds: float) -> None:
    """Write the health file of a client on a real machine; if that fails, only the log says so."""
    if context.profile.is_virtual:
        return
    health = health_of(context, reply, seconds=seconds, now=datetime.now(UTC))
    try:
        write_durably(context.folder / HEALTH_FILE, (json.dumps(asdict(health), indent=1) + "\n").encode())
    except OSError as error:
        log.warning("%s: health not written: %s", context.profile.id, error)
