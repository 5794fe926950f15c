"""Reads the summaries of runs, groups them by their settings, and averages them by one rule.

The rule is the same everywhere: the metric of a client is its mean over the horizons, that of a modality is the mean
over its clients, and mean and s.d. (n - 1) are then taken over the runs. A client that failed in one arm is left out
of all arms in the mean of its modality, so that arms are compared over the same clients.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from clients.learning.baselines import BASELINES
from clients.learning.task import BEAM_WORDING, Wording
from configs.files import EXPERIMENT
from configs.loading import NOT_STUDIED, build_experiment, to_values
from server.recorder import ARMS, OWN_TEST
from sim.report.labels import flatten, labels_of

Summary = Mapping[str, Any]

ARM_TITLES = {"local": "local only", "offline_kd": "offline KD", "federated": "federated"}
_SUMMARY_KEYS = ("experiment", "seed", "engine", "seconds", "clients", "teacher", "break_even_samples", "rounds")
_CLIENT_KEYS = ("id", "modality", "parameters", *ARMS, "uplink_bytes", "downlink_bytes", "refused")
# These change how a run is made, but not what it studies.
_NOT_SETTINGS = ("seed", "controls", *NOT_STUDIED)
# The sections of an experiment that say what is learned and on what it is tested.
DATA_SECTIONS = ("data.", "task.")


@dataclass(frozen=True)
class Spread:
    """Mean and s.d. over runs; ``sd`` is None for a single run."""

    mean: float
    sd: float | None = None


@dataclass(frozen=True)
class Row:
    """The clients over which one line of a table is averaged.

    Attributes:
        title: the name of the client, or the number of clients.
        modality: the modality of all these clients.
        parameters: the number of parameters of a student.
        clients: the ids of the clients.
        kind: the modality, with the number of parameters where another row of the table has the same modality.
    """

    title: str
    modality: str
    parameters: int
    clients: tuple[str, ...]
    kind: str


def load_summary(run: Path) -> dict[str, Any]:
    """The summary of a finished run, and what its folder says beside it.

    That is ``settings`` (dotted key -> value), ``folder``, and ``data_digest``: a digest of the data that the run had,
    empty if it is not known. Where the experiment names modules of the user's own, the digest of their text counts as
    a setting, ``own_code``: a rule that was edited is another one.

    Raises:
        ValueError: the summary is missing, or is not one that a run writes; the message names the file.
    """
    path = run / "summary.json"
    mend = f"remove this file, and softbeam resume {run} writes it again"
    try:
        summary = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{path}: not found; give the folder of a run, or finish it: softbeam resume {run}") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error}); {mend}") from None
    parts: list[tuple[str, Any, tuple[str, ...]]] = [("", summary, _SUMMARY_KEYS)]
    if isinstance(summary, dict):
        parts += [(f"clients.{i}.", client, _CLIENT_KEYS) for i, client in enumerate(summary.get("clients", []))]
    for prefix, part, keys in parts:
        missing = [key for key in keys if not isinstance(part, dict) or key not in part]
        if missing:
            raise ValueError(f"{path}: {prefix}{missing[0]} is missing; {mend}")
    try:
        wording_of([summary])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: task is not what a run writes ({error}); {mend}") from None
    settings = _read_settings(run / EXPERIMENT)
    if own_code := _note_of(run).get("own_code"):
        settings["own_code"] = str(own_code)
    return {**summary, "settings": settings, "data_digest": _read_data_digest(run), "folder": str(run)}


def wording_of(summaries: Sequence[Summary]) -> Wording:
    """What the task of some runs and its scores are called; a run that names none was of beam tracking."""
    named = summaries[0].get("task") if summaries else None
    return BEAM_WORDING if named is None else Wording.from_dict(named)


def by_task(summaries: Sequence[Summary]) -> list[list[Summary]]:
    """The runs apart by their task, in order of appearance: scores of different tasks share no table."""
    parts: dict[str, list[Summary]] = {}
    for summary in summaries:
        parts.setdefault(json.dumps(summary.get("task"), sort_keys=True), []).append(summary)
    return list(parts.values())


def without_repeats(runs: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Runs of one experiment with one seed are one run, wherever their folders lie: they say nothing about a spread.

    Returns:
        The runs without repeats, of each the one with results of more clients, else the first; and a line for each
        that is left out, which says why.
    """
    kept: dict[str, tuple[Path, int]] = {}
    notes = []
    for run in runs:
        summary = load_summary(run)
        same_run = [summary["experiment"], summary["seed"], summary["settings"], summary["data_digest"]]
        key = json.dumps(same_run, sort_keys=True)
        count = sum(client["federated"] is not None for client in summary["clients"])
        if key not in kept:
            kept[key] = run, count
            continue
        (better, most), (other, fewer) = kept[key], (run, count)
        if count > most:
            (better, most), (other, fewer) = (run, count), kept[key]
            kept[key] = better, most
        same = "the same folder" if other.resolve() == better.resolve() else "the same experiment and seed"
        lacking = f", with results of {fewer} clients instead of {most}" if fewer != most else ""
        notes.append(f"{other}: left out, {same} as {better}{lacking}; a run counts once")
    return [run for run, _ in kept.values()], notes


def spread(values: Iterable[float | None]) -> Spread | None:
    """Mean and s.d. of the values that are not None; None if there is no value."""
    found = [value for value in values if value is not None]
    if not found:
        return None
    return Spread(statistics.fmean(found), statistics.stdev(found) if len(found) > 1 else None)


def score(metrics: Mapping[str, Sequence[float]] | None, name: str) -> float | None:
    """One metric, averaged over the horizons; None where the arm failed."""
    return statistics.fmean(metrics[name]) if metrics else None


def arm_spread(summaries: Sequence[Summary], arm: str, name: str, *, clients: Iterable[str]) -> Spread | None:
    """A metric of one arm, averaged over ``clients`` and then over runs."""
    wanted = set(clients)
    means = [spread(score(client[arm], name) for client in comparable(summary, wanted)) for summary in summaries]
    return spread(found.mean for found in means if found)


def baselines_of(summaries: Sequence[Summary]) -> tuple[str, ...]:
    """The baselines that any client of any of the runs has; older runs have none."""
    clients = [client for summary in summaries for client in summary["clients"]]
    return tuple(name for name in BASELINES if any(name in client.get("baselines", {}) for client in clients))


def baseline_spread(summaries: Sequence[Summary], baseline: str, name: str, *, clients: Iterable[str]) -> Spread | None:
    """A metric of one baseline, averaged over those of ``clients`` that have it and then over runs."""
    wanted = set(clients)
    means = [
        spread(
            score(client.get("baselines", {}).get(baseline), name)
            for client in summary["clients"]
            if client["id"] in wanted
        )
        for summary in summaries
    ]
    return spread(found.mean for found in means if found)


def comparable(summary: Summary, clients: Collection[str]) -> list[Mapping[str, Any]]:
    """Those of ``clients`` that have a result for every arm for which any of them has one."""
    members = [client for client in summary["clients"] if client["id"] in clients]
    arms = [arm for arm in ARMS if any(client[arm] for client in members)]
    return [client for client in members if all(client[arm] for arm in arms)]


def arms_of(summaries: Sequence[Summary]) -> tuple[str, ...]:
    """The arms to show: the federated one, and the controls that any client of any of the runs has."""
    clients = [client for summary in summaries for client in summary["clients"]]
    return tuple(arm for arm in ARMS if arm == "federated" or any(client[arm] for client in clients))


def teacher_spread(summaries: Sequence[Summary], when: str, name: str) -> Spread | None:
    """A metric of the teacher ``before`` or ``after`` the federation, over runs."""
    return spread(score(summary["teacher"][when], name) for summary in summaries)


def own_test_spread(
    summaries: Sequence[Summary], arm: str, name: str, *, clients: Iterable[str] | None = None
) -> Spread | None:
    """A metric of one arm on each client's own test, over those that have all arms there, and then over runs.

    Args:
        summaries: the runs.
        arm: the arm.
        name: the metric.
        clients: the ids of the clients that count; None for all.
    """
    wanted, arms, means = None if clients is None else set(clients), arms_of(summaries), []
    for summary in summaries:
        members = [one for one in summary["clients"] if wanted is None or one["id"] in wanted]
        scored = [one[OWN_TEST] for one in members if OWN_TEST in one and all(one[OWN_TEST].get(arm) for arm in arms)]
        means.append(spread(score(by_arm[arm], name) for by_arm in scored))
    return spread(found.mean for found in means if found)


def bytes_spread(summaries: Sequence[Summary], way: str, *, clients: Iterable[str]) -> Spread | None:
    """Mean encoded bytes, ``uplink`` or ``downlink``, of a client in a round; None if there was no round."""
    wanted = set(clients)
    means = []
    for summary in summaries:
        totals = [client[f"{way}_bytes"] for client in summary["clients"] if client["id"] in wanted]
        if totals and summary["rounds"]:
            means.append(statistics.fmean(totals) / summary["rounds"])
    return spread(means)


def is_better(name: str, candidate: Spread | None, control: Spread | None, wording: Wording = BEAM_WORDING) -> bool:
    """Whether the mean of the candidate is better than that of the control; False if one is missing."""
    if candidate is None or control is None:
        return False
    is_gain = wording.metrics[name].is_gain
    return candidate.mean > control.mean if is_gain else candidate.mean < control.mean


def show(found: Spread | None, name: str, wording: Wording = BEAM_WORDING) -> str:
    """A metric as text without its unit, such as ``43.1±0.8``; a dash if it is missing."""
    if found is None:
        return "-"
    metric = wording.metrics[name]
    parts = [found.mean] if found.sd is None else [found.mean, found.sd]
    return "±".join(f"{part * metric.scale:.{metric.decimals}f}" for part in parts)


def format_bytes(count: float) -> str:
    """A number of bytes in decimal units, such as ``93.7 kB`` (1 kB = 1,000 B)."""
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB"):
        count /= 1000
        if count < 999.95:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} GB"


def group_by_settings(summaries: Sequence[Summary]) -> dict[str, list[Summary]]:
    """Group the runs that differ only in seed, engine and controls, in order of appearance.

    Returns:
        Label -> runs; see `sim.report.labels`.
    """
    groups: dict[str, list[Summary]] = {}
    for summary, data in zip(summaries, data_keys(summaries), strict=True):
        key = json.dumps([summary["experiment"], summary.get("settings"), data], sort_keys=True)
        groups.setdefault(key, []).append(summary)
    labels = labels_of([group[0] for group in groups.values()])
    return dict(zip(labels, groups.values(), strict=True))


def with_labels(summaries: Sequence[Summary], labels: Sequence[str]) -> list[Summary]:
    """The summaries with the labels of a user: one for each group, in the order in which the groups appear.

    Raises:
        ValueError: there are more or fewer labels than groups, or two of them are alike or empty.
    """
    groups = group_by_settings(summaries)
    plain = [" ".join(label.split()) for label in labels]
    if len(plain) != len(groups):
        raise ValueError(
            f"--label: got {len(plain)} for {len(groups)} {'row' if len(groups) == 1 else 'rows'}, which are in this "
            f"order: {'; '.join(groups)}; runs that differ in their seed only share a row"
        )
    if "" in plain or len(set(plain)) < len(plain):
        raise ValueError(f"--label: each row needs a label of its own, got {', '.join(map(repr, plain))}")
    label_of = {id(run): label for label, group in zip(plain, groups.values(), strict=True) for run in group}
    return [{**summary, "label": label_of[id(summary)]} for summary in summaries]


def data_keys(summaries: Sequence[Summary]) -> list[str]:
    """For each run what it learned and was tested on, without the seed; only runs of one key can be compared.

    It is the sections ``data`` and ``task`` of the experiment. Where two runs have these and the seed in common, but
    their data was made from other files or by other code, a number tells them apart.
    """
    keys, seen = [], dict[str, list[dict[Any, str]]]()
    for summary in summaries:
        settings = summary.get("settings", {})
        data: Any = {key: value for key, value in settings.items() if key.startswith(DATA_SECTIONS)}
        # Without a record of the settings, runs with the same clients are taken for comparable.
        data = data or sorted((client["id"], client.get("modality")) for client in summary["clients"])
        key, digest = json.dumps(data, sort_keys=True), summary.get("data_digest", "")
        variants = seen.setdefault(key, [])
        fitting = [
            one for one in variants if "" in (digest, one.get(summary["seed"], "")) or one[summary["seed"]] == digest
        ]
        if not fitting:
            fitting = [{}]
            variants.append(fitting[0])
        if digest:
            fitting[0][summary["seed"]] = digest
        keys.append(key + f" {next(i for i, one in enumerate(variants) if one is fitting[0])}")
    return keys


def table_rows(summaries: Sequence[Summary], *, by_client: bool) -> list[Row]:
    """One row per client of the runs, or one row per modality and size of its students."""
    clients = {client["id"]: client for summary in summaries for client in summary["clients"]}
    if by_client:
        return [
            Row(i, client["modality"], client["parameters"], (i,), client["modality"]) for i, client in clients.items()
        ]
    members: dict[tuple[str, int], list[str]] = {}
    for i, client in clients.items():
        members.setdefault((client["modality"], client["parameters"]), []).append(i)
    sizes = Counter(modality for modality, _ in members)
    return [
        Row(
            title=f"{len(ids)} client{'s' if len(ids) > 1 else ''}",
            modality=modality,
            parameters=parameters,
            clients=tuple(ids),
            kind=modality if sizes[modality] == 1 else f"{modality} ({parameters:,} parameters)",
        )
        for (modality, parameters), ids in members.items()
    ]


def federation_of(run: Path) -> Path | None:
    """The folder of the data that a run had, if it noted one; it may be gone."""
    federation = _note_of(run).get("federation")
    return None if federation is None else Path(str(federation))


def _note_of(run: Path) -> dict[str, Any]:
    """What the launch of a run noted in its folder; empty if nothing can be read."""
    try:
        note = json.loads((run / "placement.json").read_text())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _read_data_digest(run: Path) -> str:
    """The last part of the name of the federation's folder (`configs.placement.federation_folder`)."""
    federation = federation_of(run)
    return "" if federation is None else federation.name.rpartition("-")[2]


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text()) if path.exists() else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: not readable as YAML ({reason}); run the experiment again") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: this is not an experiment; run the experiment again")
    with suppress(ValueError):
        # A run of an older version lacks newer settings; it behaved as their defaults do.
        values = to_values(build_experiment(values, origin=str(path)))
    return flatten({key: value for key, value in values.items() if key not in _NOT_SETTINGS})
