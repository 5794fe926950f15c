"""What happened in a round: who answered, what it cost, what was refused and why."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

# What kept a client from counting in a round: nothing; its node was not connected; no answer in time; it, or its node,
# said that it failed; or its answer was not what the protocol says.
Fault = Literal["", "away", "missing", "failed", "refused"]

# Longest text of a stranger that is written down.
MAX_TEXT = 300

# Under this name the teacher's own answer stands among the contributions.
TEACHER = "teacher"


@dataclass(frozen=True)
class Member:
    """A client as the server knows it.

    Attributes:
        id: the id of the client.
        modality: what it senses.
        num_parameters: the number of parameters of its student.
        num_passes: labelled passes that it trains on or validates with.
        num_examples: labelled windows that it trains on.
        public_key: its key for secure sums, 32 bytes; empty without them.
        seen: (B,) 1 for each beam that is the best in one of its labelled windows, else 0; None if it did not say.
    """

    id: str
    modality: str
    num_parameters: int
    num_passes: int
    num_examples: int
    seen: tuple[int, ...] | None = None
    public_key: bytes = b""


@dataclass(frozen=True)
class RegisteredNode:
    """Who was provisioned on a node, which its key proves: Flower gives a node its id by its key.

    Attributes:
        name: the name that people read, such as ``roof-1``.
        client: id of the only client that may live there.
        modality: what that client senses.
    """

    name: str
    client: str
    modality: str


@dataclass(frozen=True)
class Event:
    """An event of a run that is no answer: a client came, went, was not let in or answered twice.

    Attributes:
        kind: ``joined``, ``moved``, ``left``, ``back``, ``refused`` or ``repeated``; the server adds its own.
        who: the node or client.
        text: what happened, or why it was refused; one line.
    """

    kind: str
    who: str
    text: str


@dataclass(frozen=True)
class ClientRound:
    """One client in one round.

    Attributes:
        downlink_bytes: the bytes of the encoded arrays sent to it.
        uplink_bytes: the bytes of the encoded arrays that it sent.
        metrics: the metrics that it reported, name -> one number or one per horizon.
        num_answers: public samples that it answered.
        seconds: how long it worked.
        problem: why its answer was refused or is missing; empty if it counted.
        fault: the kind of problem; empty if it counted.
        warning: what the client itself found worth telling; empty for nothing.
        rounds_late: rounds between the question and this one, which got the answer; 0 in time.
        seconds_late: the seconds from when its round went on without it until the answer came; None if it was in time.
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
    """One round.

    Attributes:
        round: its number, from 1.
        clients: what became of each client, by its id.
        num_asked: public samples asked for.
        num_targets: public samples for which targets were published.
        seconds: phase -> wall-clock seconds.
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
        """End a phase: its seconds since the last one ended."""
        now = time.monotonic()
        self.laps[phase] = round(now - self._last, 4)
        self._last = now


def one_line(text: str) -> str:
    """A text from outside as it may be written down: one line of at most ``MAX_TEXT`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_TEXT else line[: MAX_TEXT - 3] + "..."


def break_even_samples(num_parameters: int, bytes_per_sample: float) -> int:
    """Public samples per message above which soft labels cost more than the student's float32 weights.

    Args:
        num_parameters: the number of parameters of the student.
        bytes_per_sample: encoded, before entropy coding and without its id.
    """
    return int(4 * num_parameters // bytes_per_sample)
