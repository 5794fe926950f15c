"""What a run leaves behind: one line for every round, and the summary that scripts and papers read."""

from __future__ import annotations

import csv
import importlib.metadata
import io
import json
import logging
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from clients.data.recording import SITE_TESTS
from clients.learning.baselines import BASELINES
from clients.learning.task import BEAM_WORDING, Scores, Wording
from configs.files import EXPERIMENT, append_line, plain_cell, read_lines, remove_leftovers, write_whole
from configs.loading import commit_of_source, experiment_digest, source_digest, to_values
from configs.schema import Experiment
from configs.strategy import Strategy
from server.set_scores import set_summary, told_by
from strategies.messages.records import ClientRound, Event, Member, RoundAccount

CONTROL_ARMS = ("local", "offline_kd")
ARMS = (*CONTROL_ARMS, "federated")
VALIDATION_FILE = "validation.json"
PASSES_FILE = "passes.json"
EVENTS_FILE = "events.jsonl"
ALL_SITES = "all sites"
# The test that a client alone has, beside the common one.
OWN_TEST = "own"

log = logging.getLogger(__name__)
# The folders of which was said that rounds are missing.
_told: set[Path] = set()


@dataclass(frozen=True)
class TeacherRound:
    """The teacher after a round.

    Attributes:
        kept: the scores on the common test set of the state that is kept; None in a round without scores.
        now: the scores of the state in which the round left it; None in a round without scores.
        is_kept: whether both are the same state: the round's update is kept.
        validation: the validation score of the state that is kept; None without validation windows.
    """

    kept: Scores | None
    now: Scores | None
    is_kept: bool
    validation: float | None


class Recorder:
    """Writes the files of one run folder; a resumed run continues in the same files.

    Args:
        folder: the folder of the run; it is made if it is missing.
        experiment: the experiment, which is written there as a snapshot.
        wording: the metrics of the task, and what they are called.
    """

    def __init__(self, folder: Path, experiment: Experiment, wording: Wording = BEAM_WORDING) -> None:
        self.folder = folder
        self.experiment = experiment
        self.wording = wording
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        write_whole(folder / EXPERIMENT, yaml.safe_dump(to_values(experiment), sort_keys=False))
        write_whole(folder / "environment.json", json.dumps(_environment(experiment), indent=1) + "\n")

    def write_round(self, account: RoundAccount, teacher: TeacherRound) -> None:
        """Add the line of a round durably, because the checkpoint that follows relies on it.

        Raises:
            OSError: the disk is full or broken; the earlier lines are complete.
        """
        line = {
            "round": account.round,
            "num_asked": account.num_asked,
            "num_targets": account.num_targets,
            "seconds": dict(account.seconds),
            "teacher": {
                "common": None if teacher.kept is None else teacher.kept.to_dict(),
                "common_now": None if teacher.now is None else teacher.now.to_dict(),
                "kept": teacher.is_kept,
                "validation": teacher.validation,
            },
            "clients": {client: _client_line(entry, self.wording) for client, entry in account.clients.items()},
        }
        append_line(self.folder / "rounds.jsonl", line)

    def write_event(self, round_number: int, event: Event) -> None:
        """Add an event that is not an answer, such as a resumption; round 0 is before the first round."""
        time = datetime.now(UTC).isoformat(timespec="seconds")
        line = {"time": time, "round": round_number, "kind": event.kind, "who": event.who, "text": event.text}
        append_line(self.folder / EVENTS_FILE, line)

    def keep_rounds(self, last: int) -> None:
        """Remove the lines of rounds after ``last``: a round that has no checkpoint is carried out again."""
        lines = [json.dumps(line) + "\n" for line in read_rounds(self.folder) if line["round"] <= last]
        write_whole(self.folder / "rounds.jsonl", "".join(lines))

    def write_validation(self, controls: Mapping[str, Mapping[str, Any]], *, teacher_before: float | None) -> None:
        """Write the validation score of every learner and arm, which is what runs are chosen by.

        Args:
            controls: client -> the metrics that it reported for its controls.
            teacher_before: the validation score of the pretrained teacher; None, as for clients, if there is none.
        """
        rounds = read_rounds(self.folder)
        clients: dict[str, dict[str, Any]] = {}
        for client in sorted({*controls, *(client for line in rounds for client in line["clients"])}):
            metrics = controls.get(client, {})
            lines = [line["clients"][client] for line in rounds if client in line["clients"]]
            scores = [line["validation"] for line in lines if line["validation"] is not None]
            clients[client] = {arm: metrics.get(f"{arm}.validation") for arm in CONTROL_ARMS}
            clients[client]["federated"] = scores[-1] if scores else None
        after = rounds[-1]["teacher"]["validation"] if rounds else teacher_before
        scores_by_learner = {"clients": clients, "teacher": {"before": teacher_before, "after": after}}
        write_whole(self.folder / VALIDATION_FILE, json.dumps(scores_by_learner, indent=1) + "\n")

    def write_passes(self, controls: Mapping[str, Mapping[str, Any]], *, pass_ids: Sequence[int]) -> None:
        """Write the main score of every client and arm on each pass of the common test set, for paired comparisons.

        A task without such scores writes nothing.

        Args:
            controls: client -> the metrics that it reported for its controls.
            pass_ids: the passes that have a window, ascending.
        """
        rounds, num_passes, main = read_rounds(self.folder), len(pass_ids), self.wording.main
        if not self.wording.is_of_beams:
            return
        clients: dict[str, dict[str, Any]] = {}
        for client in sorted({*controls, *(client for line in rounds for client in line["clients"])}):
            metrics = controls.get(client, {})
            lines = [line["clients"][client] for line in rounds if client in line["clients"]]
            scored = [line.get(f"passes_{main}") for line in without_stale(lines) if line["common"]]
            found = {arm: metrics.get(f"{arm}.passes.{main}") for arm in CONTROL_ARMS}
            found["federated"] = scored[-1] if scored else None
            # A list of another length is of other passes.
            clients[client] = {arm: one if len(one or ()) == num_passes else None for arm, one in found.items()}
        values = {"passes": list(pass_ids), main: clients}
        write_whole(self.folder / PASSES_FILE, json.dumps(values) + "\n")

    def write_summary(
        self,
        *,
        engine: str,
        seconds: Mapping[str, float],
        members: Sequence[Member],
        absent: Sequence[Member] = (),
        controls: Mapping[str, Mapping[str, Any]],
        teacher: Mapping[str, Any],
        break_even_samples: int,
    ) -> dict[str, Any]:
        """Write ``summary.json`` and ``summary.csv``.

        Args:
            engine: the engine that ran the experiment.
            seconds: the seconds of ``data``, ``start``, ``rounds`` and ``total``.
            members: every client that took part.
            absent: every client that should have taken part and never could; it has no results, and a fault says why.
            controls: client -> the metrics that it reported for its controls and for what needs no training.
            teacher: ``parameters`` of the teacher, and its metrics ``before`` and ``after`` the federation; those of
                its last state and the round that it was kept from are added from the record.
            break_even_samples: public samples per message above which the smallest student's weights are cheaper.

        Returns:
            The content of ``summary.json``.
        """
        rounds, events = read_rounds(self.folder), read_lines(self.folder / EVENTS_FILE)
        everyone = sorted([*members, *absent], key=lambda member: member.id)
        clients = [
            {
                **_client_summary(member, _scores_of_controls(controls.get(member.id, {}), self.wording), rounds),
                "differs": self.experiment.differences_of(member.id, member.modality),
            }
            for member in everyone
        ]
        summary = {
            **({} if self.wording.is_of_beams else {"task": self.wording.to_dict()}),
            "experiment": self.experiment.name,
            "seed": self.experiment.seed,
            "engine": engine,
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
            "clients": clients,
            "teacher": {**teacher, **_teacher_at_the_end(rounds)},
            "break_even_samples": break_even_samples,
            "rounds": len(rounds),
            "faults": [*faults_of(rounds), *(_absence(member.id, events, len(rounds)) for member in absent)],
            "events": events,
        }
        if self.wording.is_of_beams and rounds:
            task = self.experiment.task
            found = set_summary(rounds[-1]["clients"], task.num_horizons, task.num_beams)
            summary |= {} if found is None else {"beam_sets": found}
        write_whole(self.folder / "summary.json", json.dumps(summary, indent=1) + "\n")
        _write_csv(self.folder / "summary.csv", summary, self.experiment.strategy)
        return summary


def read_rounds(folder: Path) -> list[dict[str, Any]]:
    """The lines of ``rounds.jsonl``; one that a crash cut short is left out, and a round without a line is told."""
    lines = read_lines(folder / "rounds.jsonl")
    there = {line.get("round") for line in lines}
    missing = [number for number in range(1, max((int(one) for one in there if one), default=0)) if number not in there]
    if missing and folder not in _told:
        _told.add(folder)
        log.warning(
            "%s: %s missing, perhaps its line was damaged; what is computed from the rounds is without it",
            *(folder / "rounds.jsonl", f"round {missing[0]} is" if len(missing) == 1 else f"{len(missing)} rounds are"),
        )
    return lines


def faults_of(rounds: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What went wrong with each client, how often and when, sorted by client and kind.

    The kinds are those of `strategies.messages.records.Fault`, ``late`` (the answer counted in a later round) and
    ``warning`` (the client itself reported a problem); a summary adds ``absent`` (it never took part). ``reason`` is
    the reason of the last occurrence.
    """
    faults: dict[tuple[str, str], dict[str, Any]] = {}
    for line in rounds:
        for client, entry in line["clients"].items():
            for kind, reason in _faults_of(entry):
                number = line["round"]
                fault = faults.setdefault(
                    (client, kind), {"client": client, "kind": kind, "times": 0, "first_round": number}
                )
                fault |= {"times": fault["times"] + 1, "last_round": number, "reason": reason}
    return [fault for _, fault in sorted(faults.items())]


def why_fruitless(rounds: Sequence[Mapping[str, Any]]) -> str:
    """Why a run gave no result: no answer of any client counted in any round; empty where one did."""
    entries = [entry for line in rounds for entry in line["clients"].values()]
    if not entries or not all(entry["problem"] for entry in entries):
        return ""
    return f"no client counted in any of {len(rounds)} rounds; the last reason: {faults_of(rounds)[0]['reason']}"


def _absence(client: str, events: Sequence[Mapping[str, Any]], num_rounds: int) -> dict[str, Any]:
    """The fault of a client that took part in no round: what was said when it was refused, if it ever came."""
    said = [event["text"] for event in events if event["kind"] == "refused" and event["who"] == f"client {client}"]
    reason = said[-1] if said else "it never introduced itself"
    return {
        **{"client": client, "kind": "absent", "times": num_rounds, "first_round": min(1, num_rounds)},
        **{"last_round": num_rounds, "reason": reason},
    }


def _faults_of(entry: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = []
    if entry["problem"]:
        found.append((entry.get("fault") or "refused", entry["problem"]))
    elif entry.get("rounds_late"):
        late = entry["rounds_late"]
        plural = "" if late == 1 else "s"
        found.append(("late", f"{late} round{plural}, {entry['seconds_late']:.1f} s after its own had gone on"))
    if entry.get("warning"):
        found.append(("warning", entry["warning"]))
    return found


def metrics_of(
    values: Mapping[str, Any], prefix: str, wording: Wording = BEAM_WORDING
) -> dict[str, list[float]] | None:
    """The metrics whose names begin with ``prefix`` in a client's flat mapping; None if some are missing."""
    found = {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
    if found.keys() != wording.metrics.keys() or not all(isinstance(row, list) for row in found.values()):
        return None
    metrics = {name: [float(value) for value in found[name]] for name in wording.metrics}
    return metrics if len({len(row) for row in metrics.values()}) == 1 else None


def _scores_of_controls(values: Mapping[str, Any], wording: Wording) -> dict[str, Any]:
    """Arm or baseline -> its metrics on the common test set, and ``arm.part`` -> those on other tests."""
    return {
        **{arm: metrics_of(values, f"{arm}.common.", wording) for arm in (*CONTROL_ARMS, *BASELINES)},
        **{
            f"{arm}.{part}": metrics_of(values, f"{arm}.{part}.", wording)
            for arm in CONTROL_ARMS
            for part in (*SITE_TESTS, OWN_TEST)
        },
    }


def _client_line(entry: ClientRound, wording: Wording) -> dict[str, Any]:
    by_site = {part: metrics_of(entry.metrics, f"{part}.", wording) for part in SITE_TESTS}
    by_pass = f"passes_{wording.main}"
    return {
        **{part: scores for part, scores in by_site.items() if scores},
        "common": metrics_of(entry.metrics, "common.", wording),
        "common_now": metrics_of(entry.metrics, "common_now.", wording),
        "kept": None if (kept := entry.metrics.get("kept")) is None else bool(kept),
        "own": metrics_of(entry.metrics, "own.", wording),
        **({by_pass: entry.metrics.get(f"passes.{wording.main}")} if wording.is_of_beams else {}),
        **(told_by(entry.metrics) if "set_passes" in entry.metrics else {}),
        "validation": entry.metrics.get("validation"),
        "federated_share": entry.metrics.get("federated_share"),
        "loss": entry.metrics.get("loss"),
        "epsilon": entry.metrics.get("epsilon"),
        "window_epsilon": entry.metrics.get("window_epsilon"),
        "window_delta": entry.metrics.get("window_delta"),
        "uplink_bytes": entry.uplink_bytes,
        "downlink_bytes": entry.downlink_bytes,
        "num_answers": entry.num_answers,
        "seconds": entry.seconds,
        "problem": entry.problem,
        "fault": entry.fault,
        "warning": entry.warning,
        "rounds_late": entry.rounds_late,
        "seconds_late": None if entry.seconds_late is None else round(entry.seconds_late, 3),
    }


def without_stale(lines: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The lines of a client by round, or none of them where what it scored last is not what it is now.

    That is so where it was not scored after the last round in which its answer counted (``strategy.evaluate_every``).
    """
    counted = [line for line in lines if not line["problem"]]
    # A node without the common test set has scores on its own test all the same.
    is_scored = not counted or any(counted[-1].get(part) for part in ("common", OWN_TEST, *SITE_TESTS))
    return lines if is_scored else ()


def _client_summary(member: Member, controls: Mapping[str, Any], rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    lines = [line["clients"][member.id] for line in rounds if member.id in line["clients"]]
    current = without_stale(lines)
    scored = [line["common"] for line in current if line["common"]]
    now = [line["common_now"] for line in current if line["common_now"]]
    return {
        "id": member.id,
        "modality": member.modality,
        "parameters": member.num_parameters,
        "passes": member.num_passes,
        "local": controls.get("local"),
        "offline_kd": controls.get("offline_kd"),
        "federated": scored[-1] if scored else None,
        "baselines": {name: found for name in BASELINES if (found := controls.get(name))},
        "federated_now": now[-1] if now else None,
        "kept_round": _kept_round((line["round"], line["clients"].get(member.id, {}).get("kept")) for line in rounds),
        "uplink_bytes": sum(line["uplink_bytes"] for line in lines),
        "downlink_bytes": sum(line["downlink_bytes"] for line in lines),
        "refused": sum(bool(line["problem"]) for line in lines),
        **_by_test(member, controls, current),
    }


def _by_test(member: Member, controls: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The site of a client, and its scores on other tests than the whole common one: by site, and on its own test."""
    found: dict[str, Any] = {"site": member.site} if member.site else {}
    for part in (*SITE_TESTS, OWN_TEST):
        scored = [line[part] for line in lines if line.get(part)]
        arms = {arm: controls.get(f"{arm}.{part}") for arm in CONTROL_ARMS}
        arms["federated"] = scored[-1] if scored else None
        if any(arms.values()):
            found[part] = arms
    return found


def _teacher_at_the_end(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "after_now": rounds[-1]["teacher"]["common_now"] if rounds else None,
        "kept_round": _kept_round((line["round"], line["teacher"]["kept"]) for line in rounds),
    }


def _kept_round(rounds: Iterable[tuple[int, bool | None]]) -> int | None:
    """The last round whose state is kept; 0 if none of those recorded is, None if no round says whether it is."""
    said = {number: is_kept for number, is_kept in rounds if is_kept is not None}
    return max((number for number, is_kept in said.items() if is_kept), default=0) if said else None


def _write_csv(path: Path, summary: Mapping[str, Any], strategy: Strategy) -> None:
    """Write one header, then a row for each learner, arm and horizon; the rows of several runs can be put together.

    Every row names the folder of its run, for settings of a run may differ that no column has.

    In a federation with several sites, two more columns say of which site a learner is and which tests a row is about.

    The bytes of a client are those of the federation, whole run, and stand in each of its rows; those of the teacher
    are the sum over the clients.
    """
    metrics = list(summary["teacher"]["before"])
    ways = ("uplink_bytes", "downlink_bytes")
    of_run = [summary["experiment"], strategy.name, strategy.aggregator.name, strategy.codec, summary["seed"]]
    run = path.parent.name
    totals = [sum(client[way] for client in summary["clients"]) for way in ways]
    learners: list[tuple[list[Any], Mapping[str, Any], tuple[str, ...], list[int]]] = [
        (
            [client["id"], client["modality"], client["parameters"]],
            {**client, **client["baselines"]},
            (*ARMS, *client["baselines"]),
            [client[way] for way in ways],
        )
        for client in summary["clients"]
    ]
    teacher = summary["teacher"]
    learners.append((["teacher", "fused", teacher["parameters"]], teacher, ("before", "after"), totals))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    has_sites = any(part in scores for _, scores, _, _ in learners for part in SITE_TESTS)
    header = ["experiment", "strategy", "aggregator", "codec", "seed", "id", "modality", "parameters", "arm", "horizon"]
    writer.writerow([*header, *metrics, *ways, *(["site", "tests"] if has_sites else []), "run"])
    for who, scores, arms, sizes in learners:
        for tests, by_arm in {
            ALL_SITES: scores,
            **{SITE_TESTS[part]: scores.get(part, {}) for part in SITE_TESTS},
        }.items():
            last = [scores.get("site", ""), tests] if has_sites else []
            for arm in (arm for arm in arms if by_arm.get(arm)):
                for horizon in range(len(by_arm[arm][metrics[0]])):
                    values = [by_arm[arm][metric][horizon] for metric in metrics]
                    writer.writerow(
                        [plain_cell(cell) for cell in (*of_run, *who, arm, horizon, *values, *sizes, *last, run)]
                    )
    write_whole(path, text.getvalue())


def _environment(experiment: Experiment) -> dict[str, Any]:
    versions = {name: importlib.metadata.version(name) for name in ("flwr", "ray", "torch", "numpy")}
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "versions": versions,
        "experiment_digest": experiment_digest(experiment),
        "source_digest": source_digest(),
        "commit": commit_of_source(),
    }
