"""What a client tells of itself beside its answers, checked: who it is, how much it has, how long it took."""

from __future__ import annotations

import math
from dataclasses import replace

from strategies.accounts import TEACHER, Member, one_line
from strategies.wire import Reply, WireError


def introduced_member(client: str, hello: Reply | WireError, num_beams: int) -> Member:
    """The client that a hello introduces.

    Args:
        client: id that it goes by.
        hello: its reply.
        num_beams: B, for each of which it may say whether it has seen it.

    Raises:
        WireError: it cannot take part, or says of itself what cannot be.
    """
    if isinstance(hello, WireError):
        raise hello
    if hello.error:
        raise WireError(hello.error)
    if client == TEACHER:
        raise WireError(f"{TEACHER} is the server's own name; give the client another client-id")
    names = ("num_parameters", "num_passes", "num_examples")
    numbers = {name: _count(name, hello.facts.get(name)) for name in names}
    try:
        public_key = bytes.fromhex(str(hello.facts.get("public_key", "")))
    except ValueError:
        raise WireError("introduced itself with a public_key that is not hexadecimal") from None
    return Member(
        id=client,
        modality=str(hello.facts.get("modality", "")),
        seen=_seen(hello.facts.get("seen"), num_beams),
        public_key=public_key,
        **numbers,
    )


def with_counts(member: Member, reply: Reply, num_beams: int) -> Member:
    """A client with what its reply tells of its labelled data, if it does: it may have recorded new passes.

    Raises:
        WireError: what it tells cannot be.
    """
    return replace(
        member,
        num_passes=_count("num_passes", reply.facts.get("num_passes", member.num_passes)),
        num_examples=_count("num_examples", reply.facts.get("num_examples", member.num_examples)),
        seen=_seen(reply.facts["seen"], num_beams) if "seen" in reply.facts else member.seen,
    )


def worked_seconds(reply: Reply) -> float:
    """How long a client worked; 0 if it does not say.

    Raises:
        WireError: it is not a finite number >= 0.
    """
    seconds = reply.facts.get("seconds", 0.0)
    if not isinstance(seconds, (int, float)) or not 0 <= seconds < math.inf:
        raise WireError(f"seconds must be a number >= 0, got {seconds!r}")
    return float(seconds)


def warning_of(reply: Reply) -> str:
    """What a client itself found worth telling; empty for nothing.

    Raises:
        WireError: it is not a text.
    """
    warning = reply.facts.get("warning", "")
    if not isinstance(warning, str):
        raise WireError(f"warning must be a text, got {warning!r}")
    return one_line(warning)


def _count(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise WireError(f"{name} must be a count, got {value!r}")
    return value


def _seen(value: object, num_beams: int) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not (isinstance(value, list) and len(value) == num_beams and set(value) <= {0, 1}):
        raise WireError(f"seen must be a 0 or 1 for each of {num_beams} beams, got {value!r}")
    return tuple(value)
