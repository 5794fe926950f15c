"""What the data and models of runs still show: figures and passes of a page, or a sentence on why one is missing.

The data of a run may be gone, its models may be on their nodes, and other data may lack what a figure needs. Then the
page says so in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sim.data.inspection import RecordingPart, open_parts
from sim.report.beams_held import beams_held, beams_held_caption, draw_beams_held
from sim.report.gains import (
    PassScores,
    draw_gain_by_horizon,
    draw_gains,
    gain_by_horizon_caption,
    gains_caption,
    read_passes,
)
from sim.report.leave_one_out import draw_leave_one_out, leave_one_out_caption
from sim.report.pass_viewer import learners_of, shown_passes, viewer_caption, viewer_section
from sim.report.prediction_figures import (
    confusion_caption,
    draw_confusion,
    draw_errors,
    draw_reliability,
    errors_caption,
    outcomes_of,
    reliability_caption,
)
from sim.report.predictions import Predictions, open_test_set, predictions_of
from sim.report.street_map import draw_map, is_nominal_street, map_caption, tracks_of
from sim.report.style import drawing
from sim.report.summaries import Summary, federation_of, wording_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PREDICTION_STEMS = ("leave-one-out", "confusion", "errors", "reliability")
# The figures that are about beams, or are paired by test pass.
EVIDENCE_STEMS = ("gains", "gain-by-horizon", "map", "beams-held", *PREDICTION_STEMS)


@dataclass
class Evidence:
    """What a page shows of data and models.

    Attributes:
        passes: the scores by test pass of each run.
        figures: file stem -> figure.
        captions: file stem -> what is to be seen.
        missing: file stem, or ``viewer`` -> why it is not there.
        viewer: the passes of the test set as HTML; empty if there are none.
    """

    passes: Sequence[PassScores]
    figures: dict[str, Figure] = field(default_factory=dict)
    captions: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    viewer: str = ""


def gather_evidence(runs: Sequence[Path], summaries: Sequence[Summary]) -> Evidence:
    """Draw what the folders and the data of some runs of one experiment show; the data are those of the first run.

    All of it is about beams, so there is nothing of it in another task.
    """
    evidence = Evidence([read_passes(run) for run in runs])
    if not wording_of(summaries).is_of_beams:
        return evidence
    with drawing():
        _draw_gains(evidence, summaries)
        with _or_say(evidence, "map", "beams-held"):
            parts, federation = _open_data(runs[0])
            _draw_data(evidence, parts, federation, summaries[0])
        found: list[Predictions] = []
        with _or_say(evidence, *PREDICTION_STEMS):
            found = [predictions_of(run, summary) for run, summary in zip(runs, summaries, strict=True)]
            _draw_predictions(evidence, found)
            _draw_ensemble(evidence, found, str(summaries[0].get("settings", {}).get("strategy.name", "its strategy")))
        with _or_say(evidence, "viewer"):
            _show_passes(evidence, runs[0], found[0] if found else None)
    return evidence


def _draw_gains(evidence: Evidence, summaries: Sequence[Summary]) -> None:
    drawn = {
        "gains": (
            draw_gains(summaries, evidence.passes),
            lambda: gains_caption(summaries, evidence.passes),
            "No control was scored by test pass, so gains by kind have no interval and no figure.",
        ),
        "gain-by-horizon": (
            draw_gain_by_horizon(summaries),
            lambda: gain_by_horizon_caption(summaries),
            "No client has a control, so there is no figure of gains by predicted slot.",
        ),
    }
    for stem, (figure, caption, why) in drawn.items():
        _add(evidence, stem, figure, caption, why)


def _draw_data(evidence: Evidence, parts: Sequence[RecordingPart], federation: Path, summary: Summary) -> None:
    modality_of = {client["id"]: client["modality"] for client in summary["clients"]}
    held = beams_held(parts, modality_of)
    _add(
        evidence,
        "beams-held",
        draw_beams_held(held) if held else None,
        lambda: beams_held_caption(held),
        "No client of these data has labels here, so there is no figure of who holds what.",
    )
    tracks = tracks_of(parts)
    has_street = is_nominal_street(federation)
    num_beams = max((len(one.counts) for one in held), default=1)
    with_positions = {part.name for part in parts if "gps" in part.recording.sensors}
    without = dict.fromkeys(
        modality for client, modality in modality_of.items() if f"clients/{client}" not in with_positions
    )
    _add(
        evidence,
        "map",
        draw_map(tracks, num_beams=num_beams, has_street=has_street) if tracks else None,
        lambda: map_caption(tracks, has_street=has_street, without=list(without)),
        "These data hold no positions by GPS, so there is no map.",
    )


def _draw_predictions(evidence: Evidence, found: Sequence[Predictions]) -> None:
    outcomes = outcomes_of(found)
    evidence.figures |= {
        "confusion": draw_confusion(outcomes, found[0].num_beams),
        "errors": draw_errors(outcomes),
        "reliability": draw_reliability(outcomes),
    }
    asked = ", ".join(
        f"{count} of {all_of_them} {kind}" for kind, (count, all_of_them) in found[0].asked.items() if count
    )
    who = f" Asked were {asked}." if any(count < number for count, number in found[0].asked.values()) else ""
    evidence.captions |= {
        "confusion": confusion_caption(outcomes) + who,
        "errors": errors_caption(outcomes),
        "reliability": reliability_caption(outcomes),
    }


def _draw_ensemble(evidence: Evidence, found: Sequence[Predictions], strategy: str) -> None:
    ensembles = [one.ensemble for one in found if one.ensemble is not None]
    figure = draw_leave_one_out(ensembles) if ensembles else None
    who = " ".join(
        f"Of {number} {kind} clients, {count} are members here."
        for kind, (count, number) in found[0].asked.items()
        if count < number
    )
    _add(
        evidence,
        "leave-one-out",
        figure,
        lambda: f"{leave_one_out_caption(ensembles)} {who}".strip(),
        f"There is no figure of what each client gives to the ensemble: {strategy} makes none of several members' soft "
        "labels, or its rule is not here.",
    )


def _show_passes(evidence: Evidence, run: Path, predictions: Predictions | None) -> None:
    passes = shown_passes(open_test_set(run), predictions)
    if not passes:
        raise ValueError("its passes are too short to step through")
    learners = learners_of(predictions)
    evidence.captions["viewer"] = viewer_caption(passes, learners)
    evidence.viewer = viewer_section(passes, learners)


def _open_data(run: Path) -> tuple[list[RecordingPart], Path]:
    federation = federation_of(run)
    if federation is None:
        raise ValueError("the run does not say where its data are")
    return open_parts(federation), federation


def _add(evidence: Evidence, stem: str, figure: Figure | None, caption: Callable[[], str], why: str) -> None:
    """Add a figure with its caption, or why there is none."""
    if figure is None:
        evidence.missing[stem] = why
    else:
        evidence.figures[stem], evidence.captions[stem] = figure, caption()


_TITLES = {
    "map": "map from above",
    "beams-held": "figure of who holds what",
    "leave-one-out": "figure of what each client gives to the ensemble",
    "confusion": "figure of confused beams",
    "errors": "figure of errors",
    "reliability": "figure of confidence",
    "viewer": "pass to step through",
}


@contextmanager
def _or_say(evidence: Evidence, *stems: str) -> Iterator[None]:
    """What the block cannot draw is told in the places of the figures that it did not add."""
    try:
        yield
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        evidence.missing.update(
            {
                stem: f"There is no {_TITLES[stem]} of this run: {reason}."
                for stem in stems
                if stem not in evidence.figures
            }
        )
