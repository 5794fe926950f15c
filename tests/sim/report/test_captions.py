"""Captions and sentences: what they claim is computed from the data, also where it says the opposite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from sim.report.captions import captions_of, kept_sentences, skew_sentence
from sim.report.figures import Run

CLIENTS = ("000-camera", "001-gps")


def metrics(*top5: float) -> dict[str, list[float]]:
    return {name: list(top5) for name in ("top1", "top3", "top5", "dba", "dba_k3", "power_loss_db")}


def run_of(
    camera: Sequence[float] = (0.9, 0.5),
    gps: Sequence[float] = (0.9, 0.5),
    teacher: Sequence[float] = (0.9, 0.5),
    *,
    seed: int = 0,
    controls: bool = True,
    uplink: int = 1000,
    kept: Sequence[Sequence[bool]] | None = ((True, True), (True, True), (True, True)),
    scored: bool = True,
) -> Run:
    """A run of two clients with the given Top-5 by horizon; ``kept``: of the teacher and of each client, by round."""
    shares = dict(zip(CLIENTS, (camera, gps), strict=True))
    lines: list[dict[str, Any]] = []
    for place in range(2):
        now = {} if kept is None else {"common_now": metrics(0.5), "kept": kept[0][place]}
        entries = {}
        for i, client in enumerate(CLIENTS, start=1):
            said = {} if kept is None else {"common_now": metrics(0.5), "kept": kept[i][place]}
            common = metrics(0.5) if scored or place or i == 2 else None
            entries[client] = {"common": common, "problem": "", **said}
        lines.append({"round": place + 1, "teacher": {"common": metrics(0.5), **now}, "clients": entries})
    clients = [
        {
            "id": client,
            "modality": client[4:],
            "parameters": 1000,
            "local": metrics(*values) if controls else None,
            "offline_kd": None,
            "federated": metrics(*values),
            "uplink_bytes": 2 * uplink,
            "downlink_bytes": 2 * uplink,
        }
        for client, values in shares.items()
    ]
    summary = {"seed": seed, "rounds": 2, "clients": clients, "teacher": {"after": metrics(*teacher)}}
    return Run(summary, lines)


FALLS, RISES, LEVEL = (0.9, 0.5), (0.5, 0.75), (0.5, 0.502)


@pytest.mark.parametrize(
    ("runs", "claim"),
    [
        ([run_of(FALLS, FALLS, FALLS)], "Further ahead is harder for all: from now to +1,"),
        ([run_of(RISES, RISES, RISES)], "Further ahead is easier for all here: from now to +1,"),
        ([run_of(LEVEL, LEVEL, LEVEL)], "How far ahead it is makes no clear difference: from now to +1,"),
        ([run_of(FALLS, RISES, FALLS)], "Further ahead is not harder for all: from now to +1,"),
        ([run_of(FALLS, LEVEL, FALLS)], "slots ahead. From now to +1, Top-5 after the federation changes by"),
        ([run_of((0.5,), (0.5,), (0.5,))], "There is no slot ahead in this experiment."),
        ([run_of(FALLS, RISES, LEVEL)], "changes by camera -40.0, gps +25.0, teacher +0.2 points."),
        # One seed falls and the other rises: on average there is a change, but it is not clear.
        ([run_of(FALLS, FALLS, FALLS), run_of(RISES, RISES, RISES, seed=1)], "makes no clear difference"),
    ],
)
def test_what_is_said_of_the_slots_ahead_is_what_the_scores_say(runs: list[Run], claim: str) -> None:
    caption = captions_of(runs)["horizons"]
    assert claim in caption
    assert ("Further ahead is harder" in caption) == ("Further ahead is harder" in claim)


@pytest.mark.parametrize(
    ("uplink", "claim"),
    [
        (3999, "No bar is above its mark, so weights would not have been cheaper."),
        (4000, "No bar is above its mark"),
        (4001, "weights would have been cheaper: camera uplink, camera downlink, gps uplink, gps downlink."),
    ],
)
def test_weights_are_called_cheaper_where_a_bar_is_above_their_mark_only(uplink: int, claim: str) -> None:
    assert claim in captions_of([run_of(uplink=uplink)])["bytes"]


def test_what_the_second_half_of_the_bytes_brought_is_said() -> None:
    run = run_of()
    for number, line in enumerate(run.rounds):
        for client, level in zip(CLIENTS, (0.5, 0.8), strict=True):
            line["clients"][client] |= {"common": metrics(0.5 if number == 0 else level), "uplink_bytes": 4000}
    caption = captions_of([run])["score-by-bytes"]
    assert "has spent 8 kB; the second half of them changed Top-5 by +0.0 (camera) to +30.0 (gps) points." in caption


@pytest.mark.parametrize(
    ("run", "said", "unsaid"),
    [
        (run_of(), ["Every update was kept", "the same clients, trained alone"], ["A gap is", "did not record"]),
        (run_of(controls=False), ["Dashed: for the teacher"], ["trained alone"]),
        (run_of(kept=((True, False), (True, True), (True, True))), ["Dotted: the state now"], ["Every update"]),
        (run_of(kept=None), ["did not record the state"], ["Dotted", "Every update"]),
        (run_of(scored=False), ["A gap is a round without a score."], []),
    ],
)
def test_the_caption_of_the_curves_names_the_lines_that_are_there(run: Run, said: list[str], unsaid: list[str]) -> None:
    caption = captions_of([run])["learning-curves"]
    assert [words for words in said if words not in caption] == []
    assert [words for words in unsaid if words in caption] == []


def test_bands_are_named_where_there_are_several_runs_only() -> None:
    assert not any("standard deviation" in text for text in captions_of([run_of()]).values())
    several = captions_of([run_of(), run_of(seed=1)])
    told = {stem for stem, text in several.items() if "standard deviation" in text}
    assert several.keys() - told == {"score-by-bytes", "answers"}  # these have means only


TEACHER = "The teacher never improved"


@pytest.mark.parametrize(
    ("kept", "sentences"),
    [
        (((False, False), (True, True), (True, True)), [f"{TEACHER}: in each of 2 rounds"]),
        (((False, True), (True, True), (True, True)), []),
        (
            ((True, False), (True, False), (True, True)),
            ["000-camera never improved after the first round: every later"],
        ),
        (((False, False), (True, False), (True, False)), [TEACHER, "000-camera, 001-gps never improved"]),
        (None, []),
    ],
)
def test_a_learner_that_kept_nothing_of_what_it_learned_is_named(kept: Any, sentences: list[str]) -> None:
    found = kept_sentences([run_of(kept=kept)])
    assert len(found) == len(sentences)
    assert all(text.startswith(words) for text, words in zip(found, sentences, strict=True))


def test_of_several_runs_the_seed_is_named_in_which_nothing_was_kept() -> None:
    stuck = run_of(seed=7, kept=((False, False), (True, True), (True, True)))
    (sentence,) = kept_sentences([run_of(), stuck])
    assert sentence.startswith("The teacher never improved (seed 7): ")


@pytest.mark.parametrize(
    ("skews", "word"),
    [([0.006, 0.018], "is nearly IID: "), ([0.2, 0.5], "is non-IID: "), ([0.05, 0.07], "is moderately skewed: ")],
)
def test_non_iid_is_said_where_the_measured_skew_is_only(skews: list[float], word: str) -> None:
    sentence = skew_sentence(skews)
    assert word in sentence and f"by {skews[0]:.3f} to {skews[1]:.3f} bits" in sentence
    assert ("non-IID" in sentence) == ("non-IID" in word)
    assert skew_sentence([]) == ""
