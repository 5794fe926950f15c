"""Whether a new version of a model may take the place of the current one: both answer for the node's last passes.

The passes that count are the last ones that nobody trained on (those of the splits ``validation`` and ``test``), or the
last of all where there are none. Each pass counts alike, for windows of a pass are alike. The new version is refused if
its Top-5 is lower by more than a margin, or its power loss higher, in the mean of the passes and horizons. With few
passes that finds gross errors and no small ones: what was compared is written down beside the verdict.

N windows, L frames of a window, H horizons, B beams.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.data.arrivals import ARRIVALS, open_growing
from clients.data.recording import Recording, open_recording
from clients.learning.metrics import hits, losses_db, rank_beams
from clients.serving.beam_model import BeamModel
from clients.serving.loading import load_model
from clients.serving.manifest import read_manifest
from clients.serving.margins import Margins
from clients.serving.model_store import ModelStore, digest_of, require_same_form

BATCH = 128
# The share of arrivals that is held out where no experiment says another: `configs.data.HELD_OUT_SHARE`, whose module
# needs more than a node without torch has.
HELD_OUT_SHARE = 0.2


@dataclass(frozen=True)
class Score:
    """How a version did on the passes that were looked at, in the mean of horizons.

    Attributes:
        top5: the Top-5 of each pass, in [0, 1].
        power_loss_db: the power loss of the first guess in each pass, in dB.
    """

    top5: tuple[float, ...]
    power_loss_db: tuple[float, ...]

    def mean(self, name: str) -> float:
        """One of the two over the passes, each of which counts alike."""
        return float(np.mean(getattr(self, name)))


@dataclass(frozen=True)
class Decision:
    """What became of a new version.

    Attributes:
        version: its name in the store; the one with the same content, if it was there already.
        is_current: whether it is current now.
        reason: why, as a sentence for a reader.
    """

    version: str
    is_current: bool
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """The values by name."""
        return asdict(self)


def admit(store: ModelStore, model: Path, recording: Recording | None, *, margins: Margins | None = None) -> Decision:
    """Bring a new version into a store, and make it current unless it is worse than the current one.

    The first version of a store has nothing to be worse than: it only has to answer with numbers.

    Args:
        store: the store.
        model: an exported model.
        recording: what the node has recorded, with power; None if it has none, which is enough for the first.
        margins: by how much it may be worse; None takes the defaults.

    Raises:
        ValueError: the model cannot be read, has another form than the current one, or there is nothing labelled to
            compare them on.
    """
    margins = margins or Margins()
    digest = digest_of(model)
    with store.writing():
        state = store.state()
        if state.current is not None:
            require_same_form(store.version(state.current), model)
            if digest_of(store.version(state.current)) == digest:
                return Decision(state.current, True, "is current already")
        if digest in state.banned:
            same = next((name for name in store.versions() if digest_of(store.version(name)) == digest), "")
            return Decision(same, False, f"was refused before: {state.banned[digest]}")
        new = load_model(model)
        old = None if state.current is None else load_model(store.version(state.current))
        evidence = {} if recording is None else _compared(new, old, recording, margins)
        reason = _objection(new, evidence, margins) if evidence or old is None else None
        if not evidence and old is not None:
            raise ValueError(
                f"{store.folder}: there is no labelled pass to compare version {state.current} and the new one on; "
                "name a recording with power, or choose by hand: softbeam store add ... --unchecked"
            )
        name = store.put(model)
        verdict = reason or ("is the first version" if old is None else _praise(evidence))
        about = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "version": name,
            "against": state.current,
            "taken": reason is None,
            "reason": verdict,
            "margins": asdict(margins),
            **evidence,
        }
        store.note_canary(name, about)
        if reason is None:
            store.switch_to(name)
        else:
            store.ban(name, f"version {name}: {reason}")
        return Decision(name, reason is None, verdict)


def recording_for(folder: Path, model: Path) -> Recording | None:
    """The recording in a folder, with all that arrived since, for the canary of a model; None if it is still empty.

    Raises:
        ValueError: the folder holds no recording, or that of another sensor.
    """
    manifest = read_manifest(model)
    if not (folder / ARRIVALS).is_dir():
        return open_recording(folder)
    if len(manifest.modalities) > 1:
        raise ValueError(f"{folder}: a recording that grows has one sensor, and the model {len(manifest.modalities)}")
    return open_growing(
        folder,
        modality=manifest.modalities[0],
        num_classes=manifest.num_beams,
        validation_share=HELD_OUT_SHARE,
    )


def _compared(new: BeamModel, old: BeamModel | None, recording: Recording, margins: Margins) -> dict[str, Any]:
    """The passes that both versions answered for, with their scores; empty if no labelled pass has a window."""
    if recording.power is None:
        return {}
    _require_fitting(recording, new)
    starts = recording.window_starts(new.manifest.num_frames, new.manifest.horizons[-1])
    passes = recording.pass_ids[starts]
    in_order = list(dict.fromkeys(passes.tolist()))
    learned_from = set(recording.splits.get("train", ()))
    unseen = [number for number in in_order if number not in learned_from]
    looked_at = (unseen or in_order)[-margins.passes :]
    if not looked_at:
        return {}
    starts = starts[np.isin(passes, looked_at)]
    scores = {"new": _score(new, recording, starts)}
    if old is not None:
        try:
            scores["old"] = _score(old, recording, starts)
        except ValueError:  # its files are damaged, and whatever answers is better
            scores["old"] = None
    return {
        "recording": str(recording.folder),
        "passes": looked_at,
        "held_out": bool(unseen),
        "windows": len(starts),
        **{name: None if score is None else asdict(score) for name, score in scores.items()},
    }


def _require_fitting(recording: Recording, model: BeamModel) -> None:
    """Refuse a recording of other sensors or of another array.

    Raises:
        ValueError: it does not fit the model.
    """
    if lacking := [name for name in model.manifest.modalities if name not in recording.sensors]:
        raise ValueError(f"{recording.folder}: has no frames of {', '.join(lacking)}, which the model senses")
    beams = 0 if recording.power is None else recording.power.shape[1]
    if beams != model.manifest.num_beams:
        text = f"its power has {beams} beams, and the model {model.manifest.num_beams}"
        raise ValueError(f"{recording.folder}: {text}; name a recording of the same array")


def _score(model: BeamModel, recording: Recording, starts: NDArray[np.int64]) -> Score | None:
    """The score of a version in each pass; None if it answers with what is no number."""
    length, ahead = model.manifest.num_frames, model.manifest.horizons[-1]
    right, lost = [], []
    for first in range(0, len(starts), BATCH):
        some = starts[first : first + BATCH]
        rows = some[:, None] + np.arange(length)
        logits = model.logits({name: np.asarray(recording.sensors[name][rows]) for name in model.manifest.modalities})
        if not np.isfinite(logits).all():
            return None
        power = recording.powers(some, length, ahead)
        ranked = [rank_beams(logits[:, ahead]) for ahead in range(logits.shape[1])]
        right.append(np.mean([hits(one, power[:, h].argmax(axis=1), 5) for h, one in enumerate(ranked)], axis=0))
        lost.append(np.mean([losses_db(power[:, h], one) for h, one in enumerate(ranked)], axis=0))
    _, place, counts = np.unique(recording.pass_ids[starts], return_inverse=True, return_counts=True)
    by_pass = [np.bincount(place, weights=np.concatenate(one)) / counts for one in (right, lost)]
    return Score(*(tuple(float(value) for value in one) for one in by_pass))


def _differences(evidence: dict[str, Any]) -> tuple[float, float]:
    """How much better the new version is: Top-5 in points, and by how many dB its power loss is higher."""
    new, old = (Score(**evidence[name]) for name in ("new", "old"))
    return 100.0 * (new.mean("top5") - old.mean("top5")), new.mean("power_loss_db") - old.mean("power_loss_db")


def _objection(new: BeamModel, evidence: dict[str, Any], margins: Margins) -> str | None:
    """Why the new version is refused; None if it is not."""
    if not evidence:
        return None if _answers(new) else "answers with what is no number"
    if evidence["new"] is None:
        return "answers with what is no number"
    if evidence.get("old") is None:
        return None
    points, decibels = _differences(evidence)
    if points < -margins.top5_points or decibels > margins.power_loss_db:
        margin = f"the margin is {margins.top5_points:g} points and {margins.power_loss_db:g} dB"
        return f"is worse: {_told(points, decibels, evidence)}; {margin}"
    return None


def _praise(evidence: dict[str, Any]) -> str:
    if evidence.get("old") is None:
        return "takes the place of a version that does not answer"
    return f"is taken: {_told(*_differences(evidence), evidence)}"


def _told(points: float, decibels: float, evidence: dict[str, Any]) -> str:
    count = len(evidence["passes"])
    kind = "held-out passes" if evidence["held_out"] else "passes, all of which were trained on,"
    where = "1 " + kind.replace("passes", "pass", 1) if count == 1 else f"{count} {kind}"
    return f"Top-5 {points:+.1f} points and power loss {decibels:+.2f} dB on the last {where}"


def _answers(model: BeamModel) -> bool:
    frames = {
        one.modality: np.zeros((1, model.manifest.num_frames, *one.frame_shape), one.dtype)
        for one in model.manifest.inputs
    }
    return bool(np.isfinite(model.logits(frames)).all())
