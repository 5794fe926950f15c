"""How a client on a real machine is: one small file beside its memory, new after every message."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from clients.context import ClientContext
from configs.files import write_durably
from strategies.messages.wire import Reply

log = logging.getLogger(__name__)

HEALTH_FILE = "health.json"


@dataclass(frozen=True)
class Health:
    """How a client was after a message.

    Attributes:
        client: its id.
        modality: what it senses.
        run: that the message belonged to.
        round: of the message; 0 before the first.
        time: when it was handled, UTC, ISO 8601.
        seconds: that it took.
        passes: labelled passes that it had; None where the message did not need them.
        examples: labelled windows that it trained on; None likewise.
        ok: whether it could do what it was asked.
        error: why not; empty if it could.
        warning: what the operator should look at; empty for nothing.
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
    """How a client is that gave a reply after some seconds."""
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
        error=reply.error,
        warning=str(reply.facts.get("warning", "")),
    )


def report_health(context: ClientContext, reply: Reply, *, seconds: float) -> None:
    """Write the health file of a client on a real machine; where that fails, it is logged and nothing else."""
    if context.profile.is_virtual:
        return
    health = health_of(context, reply, seconds=seconds, now=datetime.now(UTC))
    try:
        write_durably(context.folder / HEALTH_FILE, (json.dumps(asdict(health), indent=1) + "\n").encode())
    except OSError as error:
        log.warning("%s: health not written: %s", context.profile.id, error)
