"""What happened in a round: who answered, what it cost, what was refused and why."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

# Why a client does not count in a round: "" if it counts; "away" if its node was not connected; "missing" if no answer
# came in time; "failed" if the client or its node said so; "refused" if its answer was not what the protocol says.
Fault = Literal["", "away", "missing", "failed", "refused"]

# The most characters of a received text that are recorded.
MAX_TEXT = 300

# The name of the teacher among the contributions.
TEACHER = "teacher"


@dataclass(frozen=True)
class Member:
    """A client as the server knows it.

    Attributes:
        id: the id of the client.
        modality: what the client senses.
        num_parameters: the number of parameters of its student.
        num_passes: the number of labelled passes that it trains on or validates with.
        num_examples: the number of labelled windows that it trains on.
        public_key: its key for secure sums, 32 bytes; empty if it has none.
        site: the name of its site; empty in a federation that has only one.
        seen: (C,) 1 for each class that is the right one in a labelled window of it, else 0; None if it did not say.
    """

    id: str
    modality: str
    num_parameters: int
    num_passes: int
    num_examples: int
    seen: tuple[int, ...] | None = None
    public_key: bytes = b""
    site: str = ""


@dataclass(frozen=True)
class RegisteredNode:
    """The client that was provisioned on a node. The node proves itself by its key, to which Flower ties the node id.

    Attributes:
        name: the name that people use, such as ``roof-1``.
        client: the id of the only client that may live there.
        modality: the modality of that client.
    """

    name: str
    client: str
    modality: str


@dataclass(frozen=True)
class Event:
    """A node or client that joined, moved, left, came back, was refused or answered twice.

    Attributes:
        kind: ``joined``, ``moved``, ``left``, ``back``, ``refused`` or ``repeated``; the server adds kinds of its own.
        who: the node or client that it is about.
        text: what happened, or why it was refused; one line.
    """

    kind: str
    who: str
    text: str


@dataclass(frozen=True)
class ClientRound:
    """The record of one client in one round.

    Attributes:
        downlink_bytes: the bytes of the encoded arrays that were sent to the client.
        uplink_bytes: the bytes of the encoded arrays that the client sent.
        metrics: what the client reported, name -> one number or one per horizon.
        num_answers: the number of public samples that the client answered.
        seconds: the seconds that the client worked.
        problem: why the answer was refused or is missing; empty if it counted.
        fault: the kind of problem; empty if the answer counted.
        warning: a warning from the client itself; empty if there is none.
        rounds_late: the number of rounds from the request to this round, which got the answer; 0 for an answer in time.
        seconds_late: the seconds from when the round went on without the answer until it came; None for an answer in
            time.
    """

    downlink_bytes: int
    uplink_bytes: int = 0
    metrics: Mapping[str, float | list[float]] = field(default_factory=dict)
    num_answers: int = 0
    seconds: float = 0.0
    problem: str = ""
    fault: Fault = ""
    warning: str = ""
    rounds_late: int = 0
    seconds_late: float | None = None


@dataclass(frozen=True)
class RoundAccount:
    """The record of one round.

    Attributes:
        round: the number of the round, from 1.
        clients: client id -> the record of the client.
        num_asked: the number of public samples that clients were asked about.
        num_targets: the number of public samples for which targets were published.
        seconds: phase -> its wall-clock seconds.
    """

    round: int
    clients: Mapping[str, ClientRound]
    num_asked: int
    num_targets: int
    seconds: Mapping[str, float]


class PhaseClock:
    """Wall-clock seconds of the phases of a round."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, phase: str) -> None:
        """End a phase and note the seconds since the last one ended."""
        now = time.monotonic()
        self.laps[phase] = round(now - self._last, 4)
        self._last = now


# Characters that Unicode calls printable although nobody sees them: fillers, joiners and selectors of variants.
_UNSEEN = frozenset(
    map(chr, (0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x2800, 0x3164, 0xFFA0))
) | frozenset(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))


def printable(text: str) -> str:
    r"""A text that was received, with an escape in place of each character that a terminal or a page would obey.

    Those are control characters (also those of colours and titles), marks that turn the direction of writing, what has
    no width, line separators, and halves of characters. Whatever is shown or recorded of a stranger's text passes here.

    Example:
        >>> print(printable(chr(27) + "[31mred" + chr(0x202E) + "txt.exe"))
        \x1b[31mred\u202etxt.exe
    """
    return "".join(
        one if one.isprintable() and one not in _UNSEEN else one.encode("unicode_escape").decode() for one in text
    )


def one_line(text: str) -> str:
    """A received text in the form in which it is recorded: one printable line of at most ``MAX_TEXT`` characters."""
    # A text of many megabytes is cut before each of its characters is looked at.
    line = printable(" ".join(text[: 4 * MAX_TEXT].split()))
    return line if len(line) <= MAX_TEXT else line[: MAX_TEXT - 3] + "..."


def break_even_samples(num_parameters: int, bytes_per_sample: float) -> int:
    """Public samples per message above which soft labels cost more than the student's float32 weights.

    Args:
        num_parameters: the number of parameters of the student.
        bytes_per_sample: the bytes of an encoded sample, before entropy coding and without its id.
    """
    return int(4 * num_parameters // bytes_per_sample)
