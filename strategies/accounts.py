"""What happened in a round: who answered, what it cost, what was refused and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# Under this name the teacher's own answer stands among the contributions.
TEACHER = "teacher"


@dataclass(frozen=True)
class Member:
    """A client as the server knows it.

    Attributes:
        id: of the client.
        modality: what it senses.
        num_parameters: of its student.
        num_passes: labelled passes that it trains on or validates with.
        num_examples: labelled windows that it trains on.
        public_key: for secure sums, 32 bytes; empty without.
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
class ClientRound:
    """One client in one round.

    Attributes:
        downlink_bytes: of the encoded arrays sent to it.
        uplink_bytes: of the encoded arrays that it sent.
        metrics: as reported by it, name -> one number or one per horizon.
        num_answers: public samples that it answered.
        seconds: that it worked.
        problem: why its answer was refused or is missing; empty if it counted.
    """

    downlink_bytes: int
    uplink_bytes: int = 0
    metrics: Mapping[str, float | list[float]] = field(default_factory=dict)
    num_answers: int = 0
    seconds: float = 0.0
    problem: str = ""


@dataclass(frozen=True)
class RoundAccount:
    """One round.

    Attributes:
        round: its number, from 1.
        clients: by client id.
        num_asked: public samples asked for.
        num_targets: public samples for which targets were published.
        seconds: phase -> wall-clock seconds.
    """

    round: int
    clients: Mapping[str, ClientRound]
    num_asked: int
    num_targets: int
    seconds: Mapping[str, float]


def break_even_samples(num_parameters: int, bytes_per_sample: float) -> int:
    """Public samples per message above which soft labels cost more than the student's float32 weights.

    Args:
        num_parameters: of the student.
        bytes_per_sample: encoded, before entropy coding and without its id.
    """
    return int(4 * num_parameters // bytes_per_sample)
