"""Which answers of clients counted in each round, and for how many of the asked samples a client trusted itself.

A client may answer for a part of the samples only: for those on which it trusts itself (``strategy.answer_filter``), or
for those that it holds. An answer that was refused, missing or late is marked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.report.style import INK, LOSS, PALETTE, panels, tinted
from sim.report.summaries import Row, Summary, table_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Of more clients than these, only the kinds have a row.
MAX_ROWS = 24
# A round with more columns than these has no marks of its own that could be told apart.
MAX_MARKED_ROUNDS = 120

Rounds = Sequence[Mapping[str, Any]]


def draw_answers(summaries: Sequence[Summary], rounds: Sequence[Rounds]) -> Figure | None:
    """Draw, for each client or kind and round, the share of the asked samples that was answered and counted.

    Args:
        summaries: the runs.
        rounds: for each run the lines of its rounds.
    """
    rows, numbers = _rows(summaries), sorted({int(line["round"]) for lines in rounds for line in lines})
    if not numbers or not rows:
        return None
    figure, (axis,) = panels(1, 1, height=0.2 * len(rows) + 0.3, left=0.4 + 0.075 * max(len(name) for name, _ in rows))
    for place, (_, row) in enumerate(rows):
        shares = np.zeros((1, len(numbers)))
        for column, number in enumerate(numbers):
            entries = _entries(rounds, row.clients, number)
            shares[0, column] = np.mean([share for _, share in entries]) if entries else 0.0
            found = [entry for entry, _ in entries]
            if len(numbers) <= MAX_MARKED_ROUNDS:
                if any(entry.get("problem") for entry in found):
                    axis.plot([column], [place], marker="x", color=LOSS, markersize=6)
                if any(entry.get("rounds_late") for entry in found):
                    axis.plot([column], [place], marker="o", color=INK, markersize=5, markerfacecolor="none")
        axis.imshow(
            tinted(shares, PALETTE[row.modality]),
            aspect="auto",
            interpolation="nearest",
            extent=(-0.5, len(numbers) - 0.5, place + 0.42, place - 0.42),
        )
    axis.set(xlim=(-0.5, len(numbers) - 0.5), ylim=(len(rows) - 0.4, -0.6), xlabel="Round")
    axis.set_yticks(range(len(rows)), [name for name, _ in rows])
    every = -(-len(numbers) // 12)
    axis.set_xticks(range(0, len(numbers), every), [str(number) for number in numbers[::every]])
    axis.grid(visible=False)
    return figure


def answers_caption(summaries: Sequence[Summary], rounds: Sequence[Rounds]) -> str:
    """What is to be seen in :func:`draw_answers`."""
    entries = [(client, line, entry) for lines in rounds for line in lines for client, entry in line["clients"].items()]
    counted = [one for one in entries if not one[2].get("problem")]
    kinds: dict[str, int] = {}
    for _, _, entry in entries:
        if entry.get("problem"):
            kind = entry.get("fault") or "refused"
            kinds[kind] = kinds.get(kind, 0) + 1
    late = sum(bool(entry.get("rounds_late")) for _, _, entry in counted)
    said = [f"{len(counted):,} counted{f' ({late:,} of them late)' if late else ''}"]
    said += [f"{count:,} {kind}" for kind, count in kinds.items()]
    sentences = [
        "Strength is the share of the asked samples that a client answered, or whether it answered where no samples "
        "are asked about. Cross: refused, missing or failed; circle: late.",
        f"Of {len(entries):,} answers that were asked for, {', '.join(said)}.",
    ]
    by_client: dict[str, list[float]] = {}
    for client, line, entry in counted:
        if line.get("num_asked"):
            by_client.setdefault(client, []).append(_share(line, entry))
    means = {client: float(np.mean(values)) for client, values in by_client.items()}
    if means:
        least, most = min(means, key=lambda client: means[client]), max(means, key=lambda client: means[client])
        sentences.append(
            "Every client answered for all samples."
            if means[least] >= 1.0
            else f"Where it counted, a client answered for {100 * means[least]:.0f} % ({least}) to "
            f"{100 * means[most]:.0f} % ({most}) of the samples: for the others it does not trust itself or lacks them."
        )
    return " ".join([*sentences, *_mixtures(rounds)])


def _mixtures(rounds: Sequence[Rounds]) -> list[str]:
    """How far clients trust their federated student, where they keep their local self beside it."""
    shares = {
        client: float(entry["federated_share"])
        for lines in rounds
        for line in lines
        for client, entry in line["clients"].items()
        if entry.get("federated_share") is not None
    }
    if not shares:
        return []
    least, most = min(shares, key=lambda client: shares[client]), max(shares, key=lambda client: shares[client])
    return [
        "At the end a client gives its federated student, beside its local self, a weight of "
        f"{100 * shares[least]:.0f} % ({least}) to {100 * shares[most]:.0f} % ({most})."
    ]


def _rows(summaries: Sequence[Summary]) -> list[tuple[str, Row]]:
    clients = table_rows(summaries, by_client=True)
    if len(clients) <= MAX_ROWS:
        return [(row.title, row) for row in clients]
    return [(row.kind, row) for row in table_rows(summaries, by_client=False)]


def _entries(rounds: Sequence[Rounds], clients: Sequence[str], number: int) -> list[tuple[Mapping[str, Any], float]]:
    """What is recorded of some clients in a round of all runs, with the share of the samples that each answered."""
    return [
        (entry, _share(line, entry))
        for lines in rounds
        for line in lines
        if line["round"] == number
        for client in clients
        if (entry := line["clients"].get(client)) is not None
    ]


def _share(line: Mapping[str, Any], entry: Mapping[str, Any]) -> float:
    """The share of the asked samples that an answer is about; 0 for one that did not count."""
    if entry.get("problem"):
        return 0.0
    asked = line.get("num_asked")
    # A line of an older version, or of a strategy that asks about no samples, says only whether the answer counted.
    return min(1.0, entry.get("num_answers", asked) / asked) if asked else 1.0
