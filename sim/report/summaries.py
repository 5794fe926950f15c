"""Reads the summaries of runs, groups them by their settings, and averages them by one rule.

The rule is the same everywhere: the metric of a client is its mean over the horizons, that of a modality is the mean
over its clients, and mean and s.d. (n - 1) are then taken over the runs. A client that failed in one arm is left out
of all arms in the mean of its modality, so that arms are compared over the same clients.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from clients.learning.baselines import BASELINES
from configs.loading import build_experiment, to_values
from server.recorder import ARMS
from sim.report.labels import flatten, labels_of

Summary = Mapping[str, Any]

ARM_TITLES = {"local": "local only", "offline_kd": "offline KD", "federated": "federated"}
_SUMMARY_KEYS = ("experiment", "seed", "engine", "seconds", "clients", "teacher", "break_even_samples", "rounds")
_CLIENT_KEYS = ("id", "modality", "parameters", *ARMS, "uplink_bytes", "downlink_bytes", "refused")
# These change how a run is made, but not what it studies.
_NOT_SETTINGS = ("seed", "engine", "controls")
# The sections of an experiment that say what is learned and on what it is tested.
DATA_SECTIONS = ("data.", "task.")


@dataclass(frozen=True)
class Metric:
    """How a metric is shown.

    Attributes:
        title: the title of its column.
        unit: the unit of the shown value.
        scale: the factor from the stored to the shown value.
        decimals: the number of decimals that are shown.
        is_gain: whether larger is better.
    """

    title: str
    unit: str = "%"
    scale: float = 100.0
    decimals: int = 1
    is_gain: bool = True


METRICS = {
    "top1": Metric("Top-1"),
    "top3": Metric("Top-3"),
    "top5": Metric("Top-5"),
    "dba": Metric("DBA"),
    "dba_k3": Metric("DBA (K=3)"),
    "power_loss_db": Metric("Power loss", unit="dB", scale=1.0, decimals=2, is_gain=False),
}


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
    """

    title: str
    modality: str
    parameters: int
    clients: tuple[str, ...]


def load_summary(run: Path) -> dict[str, Any]:
    """The summary of a finished run, and what its folder says beside it.

    That is ``settings`` (dotted key -> value), ``folder``, and ``data_digest``: a digest of the data that the run had,
    empty if it is not known.

    Raises:
        ValueError: the summary is missing, or is not one that a run writes; the message names the file.
    """
    path = run / "summary.json"
    try:
        summary = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{path}: not found; give the folder of a run, or finish it: softbeam resume {run}") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error}); run the experiment again") from None
    parts: list[tuple[str, Any, tuple[str, ...]]] = [("", summary, _SUMMARY_KEYS)]
    if isinstance(summary, dict):
        parts += [(f"clients.{i}.", client, _CLIENT_KEYS) for i, client in enumerate(summary.get("clients", []))]
    for prefix, part, keys in parts:
        missing = [key for key in keys if not isinstance(part, dict) or key not in part]
        if missing:
            raise ValueError(f"{path}: {prefix}{missing[0]} is missing; run the experiment again")
    settings = _read_settings(run / "experiment.yaml")
    return {**summary, "settings": settings, "data_digest": _read_data_digest(run), "folder": str(run)}


def without_repeats(runs: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Runs of one experiment with one seed are one run, wherever their folders lie: they say nothing about a spread.

    Returns:
        The runs without repeats, the first of each kept; and a line for each that is left out, which says why.
    """
    kept: dict[str, Path] = {}
    notes = []
    for run in runs:
        summary = load_summary(run)
        same_run = [summary["experiment"], summary["seed"], summary["settings"], summary["data_digest"]]
        key = json.dumps(same_run, sort_keys=True)
        if key in kept:
            same = "the same folder" if run.resolve() == kept[key].resolve() else "the same experiment and seed"
            notes.append(f"{run}: left out, {same} as {kept[key]}; a run counts once")
        else:
            kept[key] = run
    return list(kept.values()), notes


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


def bytes_spread(summaries: Sequence[Summary], way: str, *, clients: Iterable[str]) -> Spread | None:
    """Mean encoded bytes, ``uplink`` or ``downlink``, of a client in a round; None if there was no round."""
    wanted = set(clients)
    means = []
    for summary in summaries:
        totals = [client[f"{way}_bytes"] for client in summary["clients"] if client["id"] in wanted]
        if totals and summary["rounds"]:
            means.append(statistics.fmean(totals) / summary["rounds"])
    return spread(means)


def is_better(name: str, candidate: Spread | None, control: Spread | None) -> bool:
    """Whether the mean of the candidate is better than that of the control; False if one is missing."""
    if candidate is None or control is None:
        return False
    return candidate.mean > control.mean if METRICS[name].is_gain else candidate.mean < control.mean


def show(found: Spread | None, name: str) -> str:
    """A metric as text without its unit, such as ``43.1±0.8``; a dash if it is missing."""
    if found is None:
        return "-"
    metric = METRICS[name]
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
        return [Row(i, client["modality"], client["parameters"], (i,)) for i, client in clients.items()]
    members: dict[tuple[str, int], list[str]] = {}
    for i, client in clients.items():
        members.setdefault((client["modality"], client["parameters"]), []).append(i)
    return [
        Row(f"{len(ids)} client{'s' if len(ids) > 1 else ''}", modality, parameters, tuple(ids))
        for (modality, parameters), ids in members.items()
    ]


def federation_of(run: Path) -> Path | None:
    """The folder of the data that a run had, if it noted one; it may be gone."""
    try:
        return Path(str(json.loads((run / "placement.json").read_text())["federation"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


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
