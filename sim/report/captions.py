"""The captions of the figures of a report, and the sentences about what was kept: whatever they claim is computed.

A change of the main metric, such as Top-5 of beams, is called clear from `CLEAR_POINTS` on, and, over several runs,
from one standard deviation on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from clients.learning.task import BEAM_WORDING, Wording
from sim.report.answers import answers_caption
from sim.report.figures import MAX_LINES, Run, bytes_curves
from sim.report.summaries import Spread, Summary, arms_of, bytes_spread, comparable, spread, table_rows, wording_of
from sim.report.verdict import CLEAR_POINTS

# If there are more clients than this to tell of, their number is told.
MAX_NAMED = 8
# A mean divergence from which data is called non-IID, and one below which it is called nearly IID, in bits.
NON_IID_BITS, NEARLY_IID_BITS = 0.1, 0.03
_BAND = "Bands and bars of error: one standard deviation over the runs."


def captions_of(runs: Sequence[Run]) -> dict[str, str]:
    """Figure stem -> its caption; the stems are those of `sim.report.figures.draw_all`."""
    wording = wording_of(_summaries(runs))
    title, has_slots = wording.main_metric.title, wording.is_of_beams
    over = " and the horizons" if has_slots else ""
    texts = {
        "learning-curves": _learning_curves(runs),
        "final-accuracy": [f"Final {title} per modality, mean over its clients{over}."],
        "bytes": _bytes(runs),
        "score-by-bytes": _score_by_bytes(runs),
        "answers": [answers_caption(_summaries(runs), [run.rounds for run in runs])],
    }
    if has_slots:
        texts["horizons"] = [f"{title} by predicted slot: now, and the slots ahead.", *_horizons(runs)]
    band = [_BAND] if len(runs) > 1 else []
    without = ("score-by-bytes", "answers")
    return {stem: " ".join([*sentences, *([] if stem in without else band)]) for stem, sentences in texts.items()}


def is_clear(change: Spread | None) -> bool:
    """Whether a mean change of the main metric, in [-1, 1], is large enough to be called one."""
    return change is not None and abs(change.mean) * 100 >= max(CLEAR_POINTS, 100 * (change.sd or 0.0))


def kept_sentences(runs: Sequence[Run]) -> list[str]:
    """What is to be known of learners that kept nothing of what they learned: of the teacher, and of clients.

    A client keeps the state that validated best, and the teacher its newest one unless held-out passes refute it. The
    teacher begins with the one from before the federation, and a client with that of its first round. Runs of older
    versions do not say what was kept; nothing is said of them.
    """
    sentences = []
    for run in runs:
        where = f" (seed {run.summary['seed']})" if len(runs) > 1 else ""
        flags = _flags(line["teacher"] for line in run.rounds)
        if flags and not any(flags):
            sentences.append(
                f"The teacher never improved{where}: in each of {_count(len(flags), 'round')} its held-out passes "
                "spoke against it, so every update was discarded, and its result is the one from before the federation."
            )
        stuck = []
        for client in run.summary["clients"]:
            flags = _flags(line["clients"].get(client["id"], {}) for line in run.rounds)
            if len(flags) > 1 and not any(flags[1:]):
                stuck.append(client["id"])
        if stuck:
            who = ", ".join(stuck) if len(stuck) <= MAX_NAMED else _count(len(stuck), "client")
            results = "its result is that" if len(stuck) == 1 else "their results are those"
            sentences.append(
                f"{who} never improved after the first round{where}: every later update validated worse and was "
                f"discarded, so {results} of the first round."
            )
    return sentences


def skew_sentence(skews: Sequence[float], wording: Wording = BEAM_WORDING) -> str:
    """How much the labels of clients differ, in words that the measurement bears out; empty where nothing was measured.

    Args:
        skews: for each client, the Jensen-Shannon divergence of its beams from those of all clients, in bits.
        wording: what the classes are called.
    """
    if not skews:
        return ""
    mean = sum(skews) / len(skews)
    word = "non-IID" if mean >= NON_IID_BITS else "nearly IID" if mean < NEARLY_IID_BITS else "moderately skewed"
    labels = "best beams" if wording.is_of_beams else wording.nouns
    return (
        f"The clients' data is {word}: their {labels} differ from those of all clients together by {min(skews):.3f} "
        f"to {max(skews):.3f} bits (Jensen-Shannon divergence; 0 is alike, 1 has nothing in common)."
    )


def _flags(entries: Iterable[Mapping[str, Any]]) -> list[bool]:
    return [entry["kept"] for entry in entries if entry.get("kept") is not None]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _learning_curves(runs: Sequence[Run]) -> list[str]:
    entries = [entry for run in runs for line in run.rounds for entry in (line["teacher"], *line["clients"].values())]
    wording = wording_of(_summaries(runs))
    over = "the horizons and over the clients" if wording.is_of_beams else "the clients"
    sentences = [f"{wording.main_metric.title} on the common test set by round, mean over {over} of a modality."]
    sentences.append("Solid: the state that is kept, which of all so far scored best on the learner's own validation.")
    if len(runs) == 1 and any(len(row.clients) <= MAX_LINES for row in table_rows(_summaries(runs), by_client=False)):
        sentences[-1] = sentences[-1][:-1] + " (thin: each client)."
    if any(entry.get("common_now") for entry in entries):
        flags = _flags(entries)
        one = " Every update was kept, so both lines are one." if flags and all(flags) else ""
        sentences.append(f"Dotted: the state now, as the round left it.{one}")
    else:
        sentences.append("The version that made the run did not record the state in which each round left a learner.")
    arms = arms_of(_summaries(runs))
    alone = "the same clients, trained alone for as many steps; " if "local" in arms else ""
    sentences.append(f"Dashed: {alone}for the teacher, before the federation.")
    if "offline_kd" in arms:
        sentences.append("Level and finely dotted: the same clients by offline KD, for as many steps.")
    lines = [line for run in runs for line in run.rounds]
    scored = [line for line in lines if line["teacher"].get("common")]
    if len(scored) < len(lines):
        sentences.append("Learners were scored in these rounds only (strategy.evaluate_every).")
    if any(not entry["common"] for line in scored for entry in line["clients"].values()):
        sentences.append("A gap is a round without a score.")
    return sentences


def _horizons(runs: Sequence[Run]) -> list[str]:
    wording = wording_of(_summaries(runs))
    main = wording.main
    last = len(runs[0].summary["teacher"]["after"][main]) - 1
    if last == 0:
        return ["There is no slot ahead in this experiment."]
    changes = {row.kind: _change(runs, row.clients) for row in table_rows(_summaries(runs), by_client=False)}
    ahead = [_ahead(run.summary["teacher"]["after"][main]) for run in runs]
    found = {name: change for name, change in {**changes, "teacher": spread(ahead)}.items() if change is not None}
    shown = ", ".join(f"{name} {100 * change.mean:+.1f}" for name, change in found.items())
    signs = {(change.mean > 0) - (change.mean < 0) if is_clear(change) else 0 for change in found.values()}
    verdict = {
        frozenset({-1}): "Further ahead is harder for all: ",
        frozenset({1}): "Further ahead is easier for all here: ",
        frozenset({0}): "How far ahead it is makes no clear difference: ",
    }.get(frozenset(signs), "Further ahead is not harder for all: " if 1 in signs else "")
    points = f"from now to +{last}, {wording.main_metric.title} after the federation changes by {shown} points."
    return [(verdict + points) if verdict else points[0].upper() + points[1:]]


def _ahead(values: Sequence[float]) -> float:
    return values[-1] - values[0]


def _change(runs: Sequence[Run], clients: Sequence[str]) -> Spread | None:
    """By how much the federated score of the last horizon is above that of the first, over clients and then runs."""
    arms = [[client["federated"] for client in comparable(run.summary, clients)] for run in runs]
    main = wording_of(_summaries(runs)).main
    per_run = [spread(_ahead(metrics[main]) for metrics in found if metrics) for found in arms]
    return spread(found.mean for found in per_run if found)


def _bytes(runs: Sequence[Run]) -> list[str]:
    sentences = [
        "Encoded bytes of a client in a round. Black marks: the float32 weights of the student, sent once (4 bytes per "
        "parameter)."
    ]
    above, known = [], []
    for row in table_rows(_summaries(runs), by_client=False):
        found = {way: bytes_spread(_summaries(runs), way, clients=row.clients) for way in ("uplink", "downlink")}
        known += [row.kind for size in found.values() if size]
        above += [f"{row.kind} {way}" for way, size in found.items() if size and size.mean > 4 * row.parameters]
    if above:
        sentences.append(f"Above its mark, so weights would have been cheaper: {', '.join(above)}.")
    elif known:
        sentences.append("No bar is above its mark, so weights would not have been cheaper.")
    return sentences


def _score_by_bytes(runs: Sequence[Run]) -> list[str]:
    title, curves = wording_of(_summaries(runs)).main_metric.title, bytes_curves(runs)
    known = {kind: curve for kind, curve in curves.items() if curve}
    sentences = [
        f"{title} that is kept against the bytes of a client so far, mean over the clients of a kind; a dot for each "
        "round. Diamonds at 0: local only, after as many steps as all rounds have. Triangles above: the float32 "
        "weights of the student, sent once."
    ]
    if not known:
        return sentences
    later = {}
    for kind, curve in known.items():
        half = curve[-1][0] / 2
        reached = [score for spent, score in curve if spent <= half] or [curve[0][1]]
        later[kind] = curve[-1][1] - reached[-1]
    least, most = min(later, key=lambda kind: later[kind]), max(later, key=lambda kind: later[kind])
    spent = [curve[-1][0] for curve in known.values()]
    whole = (
        f"{min(spent):.0f}" if f"{min(spent):.0f}" == f"{max(spent):.0f}" else f"{min(spent):.0f} to {max(spent):.0f}"
    )
    change = f"{later[least]:+.1f} ({least})" + (f" to {later[most]:+.1f} ({most})" if least != most else "")
    sentences.append(
        f"In the end a client has spent {whole} kB; the second half of them changed {title} by {change} points."
    )
    return sentences


def _summaries(runs: Sequence[Run]) -> list[Summary]:
    return [run.summary for run in runs]
