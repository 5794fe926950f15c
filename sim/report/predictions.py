"""What the learners of a run say about the common test set: made once from the kept models, and stored in the run.

Of the clients of a kind, a few stand for all: they are spread evenly over the ranking by Top-5, and the one in the
middle is the typical one. The teacher is always there. What the figures need is stored in ``predictions.npz`` beside
the summary, so that a report of a finished run opens no model and does not load PyTorch.

N windows of the common test set, H horizons, B beams, M windows of the passes that are shown.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clients.data.recording import Recording, open_recording
from clients.learning.metrics import losses_db, rank_beams
from configs.files import swap_in
from sim.report.contact_sheet import choose_passes
from sim.report.leave_one_out import MAX_WINDOWS, LeaveOneOut, leave_one_out
from sim.report.summaries import Row, Summary, federation_of, score, table_rows
from strategies.labels import Contribution, SoftLabels

if TYPE_CHECKING:
    from clients.models.decider import Decider
    from sim.take_home.run_models import RunModels

FILE = "predictions.npz"
FORMAT = 2
# A file of this format has all but the ensemble; it is used where the models cannot be asked again.
WITHOUT_ENSEMBLE = 1
TEACHER = "teacher"
MAX_PER_KIND = 4
"""So many clients of a kind are asked at most."""
BATCH = 128
# What opening a model of an older version, or one whose data or plug-in is gone, may raise.
_CANNOT_OPEN = (ValueError, OSError, RuntimeError, KeyError, TypeError, AttributeError, ImportError)


@dataclass(frozen=True)
class Prediction:
    """What one learner says.

    Attributes:
        name: the id of the client, or ``teacher``.
        modality: the modality of the client; empty for the teacher.
        kind: the kind of the client, as a row of the tables names it; ``teacher`` for the teacher.
        is_typical: whether the client is the one in the middle of its kind by Top-5; always so for the teacher.
        temperatures: those by which its logits are divided, one for each tracker that it decides by.
        first: (N, H) first guess.
        confidence: (N, H) its calibrated probability.
        raw_confidence: (N, H) the largest probability without calibration.
        loss_db: (N, H) power lost by the first guess instead of the best beam, in dB.
        probs: (M, B) probabilities of the current beam in the passes that are shown; none where it is not typical.
    """

    name: str
    modality: str
    kind: str
    is_typical: bool
    temperatures: tuple[float, ...]
    first: NDArray[np.int64]
    confidence: NDArray[np.float32]
    raw_confidence: NDArray[np.float32]
    loss_db: NDArray[np.float32]
    probs: NDArray[np.float32]


@dataclass(frozen=True)
class Predictions:
    """What some learners of a run say about the windows of the common test set.

    Attributes:
        num_beams: B.
        best: (N, H) best beam.
        starts: (N,) first frame of each window.
        num_frames: the frames of a window.
        shown: (M,) the windows, among the N, of the passes that are shown.
        learners: the learners, the teacher last.
        asked: kind -> how many clients of it were asked, and how many there are.
        ensemble: what each member gives to the ensemble; None in a run whose strategy makes no ensemble of soft labels,
            and in a file of an older version.
    """

    num_beams: int
    best: NDArray[np.int64]
    starts: NDArray[np.int64]
    num_frames: int
    shown: NDArray[np.int64]
    learners: tuple[Prediction, ...]
    asked: Mapping[str, tuple[int, int]]
    ensemble: LeaveOneOut | None = None

    @property
    def by_kind(self) -> dict[str, list[Prediction]]:
        """Kind of client, then ``teacher`` -> those that were asked."""
        found: dict[str, list[Prediction]] = {}
        for learner in self.learners:
            found.setdefault(learner.kind, []).append(learner)
        return found


def predictions_of(run: Path, summary: Summary) -> Predictions:
    """Read what is stored with a run, or ask its kept models and store it.

    Args:
        run: the folder of a finished run.
        summary: its summary, as `sim.report.summaries.load_summary` gives it.

    Raises:
        ValueError: neither is possible; the message says why.
    """
    path, digest = run / FILE, _digest(run)
    # A file that is damaged, or of another summary or version, is made again.
    stored = None
    with suppress(OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        stored, is_whole = _unpack(path.read_bytes(), digest)
        if is_whole:
            return stored
    try:
        packed = _pack(_ask(run, summary), digest)
    except ValueError:
        if stored is not None:
            return stored
        raise
    with suppress(OSError):  # whoever may only read the run has the page nevertheless
        swap_in(path, packed)
    return _unpack(packed, digest)[0]  # so that a page is the same whenever it is made


def open_test_set(run: Path) -> Recording:
    """The common test set of a run, where it is still on this machine and says which beam is the best.

    Raises:
        ValueError: the run noted no data, they are gone, or they have no power of beams.
    """
    folder = federation_of(run)
    if folder is None:
        raise ValueError("the run does not say where its data are")
    if not (folder / "test").is_dir():
        raise ValueError(f"its data are no longer in {folder}")
    recording = open_recording(folder / "test")
    if recording.power is None or not len(recording.pass_ids):
        raise ValueError("its common test set has no power of beams")
    return recording


def _ask(run: Path, summary: Summary) -> Predictions:
    """Ask the kept models about the common test set."""
    recording = open_test_set(run)
    try:
        # PyTorch takes seconds to load, and a run whose predictions are stored does not need it.
        from sim.take_home.run_models import RunModels

        models = RunModels(run)
        task = models.experiment.task
        starts = recording.window_starts(task.num_frames, task.num_future)
        if not len(starts):
            raise ValueError("its common test set has no window")
        power = recording.powers(starts, task.num_frames, task.num_future)
        chosen = choose_passes(recording)
        shown = np.flatnonzero([any(part.start <= start < part.stop for part in chosen) for start in starts])
        who = _asked(summary, models.names)
        here = [
            name
            for name in who
            if models.row(name).is_here and recording.sensors.keys() >= set(models.modalities(name))
        ]
        learners, answers = [], {}
        some = slice(None, None, -(-len(starts) // MAX_WINDOWS))
        for name in here:
            said = _probabilities_of(models.decider(name), recording, starts, models.experiment.strategy.temperature)
            learners.append(_prediction(said, power, shown=shown, who=(name, *who[name])))
            answers[name] = said.softened[some]
        passes = recording.pass_ids[starts]
        ensemble = _ensemble(models, answers, who, power=power[some], passes=passes[some])
    except _CANNOT_OPEN as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None
    if not learners:
        raise ValueError("the weights of its models are not in the run folder, or its test set lacks what they sense")
    kinds = [learner.kind for learner in learners]
    asked = {row.kind: (kinds.count(row.kind), len(row.clients)) for row in table_rows([summary], by_client=False)}
    best = power.argmax(axis=-1).astype(np.int64)
    return Predictions(power.shape[-1], best, starts, task.num_frames, shown, tuple(learners), asked, ensemble)


def _ensemble(
    models: RunModels,
    answers: Mapping[str, NDArray[np.float32]],
    who: Mapping[str, tuple[str, str, bool]],
    *,
    power: NDArray[np.float32],
    passes: NDArray[np.integer],
) -> LeaveOneOut | None:
    """What each member gives to the ensemble; None where the strategy makes none, or its rule is gone or refuses.

    Args:
        models: the models of the run.
        answers: learner -> its soft labels (n, H, B), at the temperature of the strategy.
        who: learner -> its modality, its kind, and whether it is typical.
        power: (n, H, B) linear receive power.
        passes: (n,) the pass of each window.
    """
    from configs.placement import Placement
    from strategies.registry import find_plugins

    experiment, task = models.experiment, models.experiment.task
    with suppress(*_CANNOT_OPEN):
        placement = Placement(experiment, models.federation, models.folder, tuple(models.plugins))
        method, aggregator = find_plugins(placement)
        if not models.is_of_code_of_now or not (method.traits.sends_labels and method.traits.asks_samples):
            return None
        # A teacher that votes counts by the windows of the server.
        server = open_recording(models.federation / "server").window_starts(task.num_frames, task.num_future)
        votes = []
        for name, probs in answers.items():
            member = models.members.get(name)
            if member is None and not (name == TEACHER and experiment.strategy.teacher_votes):
                continue
            labels = SoftLabels(np.arange(len(probs)), probs, experiment.strategy.temperature)
            count = len(server) if member is None else member.num_examples
            seen = None if member is None or member.seen is None else np.array(member.seen)
            votes.append(Contribution(name, who[name][0] or TEACHER, labels, count, seen=seen))
        votes.sort(key=lambda vote: (vote.client == TEACHER, vote.client))
        kinds = {name: kind for name, (_, kind, _) in who.items()}
        rule = experiment.strategy.aggregator.name
        return leave_one_out(aggregator, votes, kinds, rule=rule, power=power, pass_of_window=passes)
    return None


def _asked(summary: Summary, names: Sequence[str]) -> dict[str, tuple[str, str, bool]]:
    """Name of each learner to ask -> its modality, its kind, and whether it is typical of the kind."""
    found: dict[str, tuple[str, str, bool]] = {}
    for row in table_rows([summary], by_client=False):
        ranked = _ranked(summary, row)
        if ranked:
            places = np.unique(np.linspace(0, len(ranked) - 1, min(MAX_PER_KIND, len(ranked))).round().astype(int))
            middle = (len(ranked) - 1) // 2
            for place in sorted({*places.tolist(), middle}):
                found[ranked[place]] = (row.modality, row.kind, place == middle)
    return {**found, **({TEACHER: ("", TEACHER, True)} if TEACHER in names else {})}


def _ranked(summary: Summary, row: Row) -> list[str]:
    """The clients of a row that have a result, worst first."""
    scores = {client["id"]: score(client["federated"], "top5") for client in summary["clients"]}
    known = [(value, client) for client in row.clients if (value := scores[client]) is not None]
    return [client for _, client in sorted(known)]


@dataclass(frozen=True)
class _Said:
    """What a learner says about N windows.

    Attributes:
        temperatures: those by which its logits are divided.
        calibrated: (N, H, B) calibrated probabilities.
        raw: (N, H, B) probabilities without calibration.
        softened: (N, H, B) soft labels as it answers them in a round.
    """

    temperatures: tuple[float, ...]
    calibrated: NDArray[np.float32]
    raw: NDArray[np.float32]
    softened: NDArray[np.float32]


def _prediction(
    said: _Said, power: NDArray[np.float32], *, shown: NDArray[np.int64], who: tuple[str, str, str, bool]
) -> Prediction:
    calibrated, raw = said.calibrated, said.raw
    ranked = [rank_beams(calibrated[:, horizon], 1) for horizon in range(calibrated.shape[1])]
    name, modality, kind, is_typical = who
    return Prediction(
        name=name,
        modality=modality,
        kind=kind,
        is_typical=is_typical,
        temperatures=said.temperatures,
        first=np.concatenate(ranked, axis=1),
        confidence=calibrated.max(axis=-1),
        raw_confidence=raw.max(axis=-1),
        loss_db=np.stack([losses_db(power[:, h], one) for h, one in enumerate(ranked)], axis=1).astype(np.float32),
        probs=calibrated[shown, 0] if is_typical else calibrated[:0, 0],
    )


def _probabilities_of(decider: Decider, recording: Recording, starts: NDArray[np.int64], temperature: float) -> _Said:
    """Ask a decider about some windows, with its calibration, without it, and at the temperature of the strategy."""
    import torch

    from clients.models.decider import Decider as Uncalibrated
    from clients.models.tracker import read_windows

    members = list(decider.members)
    plain = Uncalibrated(members, temperatures=[1.0] * len(members), shares=decider.shares)  # type: ignore[arg-type]
    parts = []
    with torch.no_grad():
        for first in range(0, len(starts), BATCH):
            windows = read_windows(
                recording,
                starts[first : first + BATCH],
                modalities=decider.modalities,
                num_frames=decider.task.num_frames,
            )
            logits = [member(windows, None) for member in members]
            joined = decider.joined(logits)
            three = (joined, plain.joined(logits), joined / temperature)
            parts.append([torch.softmax(one, dim=-1).numpy() for one in three])
    return _Said(decider.temperatures, *(np.concatenate(one) for one in zip(*parts, strict=True)))


def _digest(run: Path) -> str:
    return hashlib.sha256((run / "summary.json").read_bytes()).hexdigest()[:16]


def _pack(made: Predictions, digest: str) -> bytes:
    arrays: dict[str, NDArray[Any]] = {
        "best": made.best.astype(np.int16),
        "starts": made.starts.astype(np.int32),
        "shown": made.shown.astype(np.int32),
    }
    for number, one in enumerate(made.learners):
        arrays |= {
            f"{number}.first": one.first.astype(np.int16),
            f"{number}.confidence": one.confidence.astype(np.float16),
            f"{number}.raw_confidence": one.raw_confidence.astype(np.float16),
            f"{number}.loss_db": one.loss_db.astype(np.float16),
            f"{number}.probs": _as_bytes(one.probs),
        }
    if made.ensemble is not None:
        arrays["ensemble"] = made.ensemble.table
    about = {
        "format": FORMAT,
        "summary": digest,
        "num_beams": made.num_beams,
        "num_frames": made.num_frames,
        "asked": {kind: list(counts) for kind, counts in made.asked.items()},
        "ensemble": None if made.ensemble is None else made.ensemble.names,
        "learners": [[one.name, one.modality, one.kind, one.is_typical, one.temperatures] for one in made.learners],
    }
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **arrays)
    return packed.getvalue()


def _as_bytes(probs: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(M, B) square roots of probabilities as bytes: small ones stay apart, and the largest one stays alone."""
    rows, first = np.arange(len(probs)), probs.argmax(axis=1)
    packed = np.round(255.0 * np.sqrt(probs)).astype(np.int64)
    largest = packed[rows, first]
    packed[rows, first] = -1
    packed[rows, first] = np.maximum(largest, np.minimum(packed.max(axis=1, initial=0) + 1, 255))
    return packed.astype(np.uint8)


def _unpack(content: bytes, digest: str) -> tuple[Predictions, bool]:
    """The inverse of :func:`_pack`, and whether the content is whole: of this version.

    Raises:
        ValueError: the content belongs to another summary or version.
    """
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        about = json.loads(arrays["about"].tobytes())
        if about["format"] not in (FORMAT, WITHOUT_ENSEMBLE) or about["summary"] != digest:
            raise ValueError("these predictions belong to another summary or version")
        learners = [
            Prediction(
                name=name,
                modality=modality,
                kind=kind,
                is_typical=is_typical,
                temperatures=tuple(temperatures),
                first=arrays[f"{number}.first"].astype(np.int64),
                confidence=arrays[f"{number}.confidence"].astype(np.float32),
                raw_confidence=arrays[f"{number}.raw_confidence"].astype(np.float32),
                loss_db=arrays[f"{number}.loss_db"].astype(np.float32),
                probs=(arrays[f"{number}.probs"].astype(np.float32) / 255.0) ** 2,
            )
            for number, (name, modality, kind, is_typical, temperatures) in enumerate(about["learners"])
        ]
        names = about.get("ensemble")
        found = Predictions(
            num_beams=about["num_beams"],
            best=arrays["best"].astype(np.int64),
            starts=arrays["starts"].astype(np.int64),
            num_frames=about["num_frames"],
            shown=arrays["shown"].astype(np.int64),
            learners=tuple(learners),
            asked={kind: (counts[0], counts[1]) for kind, counts in about["asked"].items()},
            ensemble=None if names is None else LeaveOneOut.of(names, arrays["ensemble"]),
        )
        return found, about["format"] == FORMAT
