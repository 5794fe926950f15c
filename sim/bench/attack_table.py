"""Scores every aggregation rule under every attack: how often the ensemble is right about the public set.

Many clients learn from their own labels alone; their answers for the public set are kept, and so is the truth. An
attack changes the answers of the clients with the most labelled windows; a rule makes an ensemble of all answers; the
ensemble is scored against the measured power. So a cell of the table takes seconds instead of a federation.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clients.data.by_class import count_classes
from clients.data.recording import PUBLIC_POWER, open_recording
from clients.learning.metrics import BeamMetrics
from clients.profile import profiles_of
from clients.training import make_learner
from configs.files import swap_in
from configs.home import hold, softbeam_home
from configs.loading import data_digest, load_experiment, to_values
from configs.schema import Experiment
from configs.seeding import seed_for
from configs.spelling import did_you_mean
from sim.bench.learnability import train
from sim.data.federation import ensure_federation
from sim.worksheet import row_key
from strategies.aggregation import Aggregator
from strategies.attacks import ATTACKS, AttackerKnowledge
from strategies.labels import Contribution, SoftLabels
from strategies.registry import AGGREGATORS, build_plugin, find_class

# The rules of the table: name -> (short name of an aggregator, its options).
RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "mean": ("mean", {}),
    "example_weighted": ("example_weighted", {}),
    "entropy_mean": ("entropy_mean", {}),
    "entropy_product": ("entropy_product", {}),
    "agreement": ("weighted", {"weights": ["agreement"]}),
    "modality": ("weighted", {"weights": ["modality", "entropy"]}),
    "covered_mean": ("covered_mean", {}),
    "median": ("median", {}),
    "median, covered": ("median", {"coverage": True}),
    "trimmed_mean": ("trimmed_mean", {"trim": 0.3}),
    "trimmed_mean, covered": ("trimmed_mean", {"trim": 0.3, "coverage": True}),
    "geometric_median": ("geometric_median", {}),
    "geometric_median, covered": ("geometric_median", {"coverage": True}),
    "consensus": ("consensus", {"coverage": False}),
    "consensus, covered": ("consensus", {}),
}
CLIENTS_PER_MODALITY = 5


@dataclass(frozen=True)
class Voters:
    """The answers of honest clients, and the truth. C clients, N public samples, H horizons, B beams.

    Attributes:
        contributions: the contribution of every client.
        first: (C, N, H, B) the answers of the clients after a fifth of their steps.
        power: (N, H, B) the linear power at the public samples.
    """

    contributions: tuple[Contribution, ...]
    first: NDArray[np.float32]
    power: NDArray[np.float32]


def voters_experiment(seed: int, overrides: Sequence[str] = ()) -> Experiment:
    """Twenty clients, five of each sensor, on the street of the quickstart."""
    counts = [f"data.nodes.{index}.count={CLIENTS_PER_MODALITY}" for index in range(4)]
    amounts = ["data.passes.public=16", "data.amount_spread=0.5", "training.first_round_steps=500"]
    return load_experiment("quickstart", [f"seed={seed}", *counts, *amounts, *overrides])


def make_voters(experiment: Experiment) -> Voters:
    """Train every client on its own labels, a fifth of the steps first and then the rest; keep the answers on disk.

    Raises:
        ValueError: the data cannot be made.
    """
    torch.set_num_threads(1)
    key = row_key("voters", to_values(experiment), data_digest(experiment)).split()[-1]
    path = softbeam_home() / "bench" / f"voters-{key}.npz"
    hold(path)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        trained = io.BytesIO()
        np.savez(trained, allow_pickle=False, **_train(experiment))
        swap_in(path, trained.getvalue())
    with np.load(path, allow_pickle=False) as file:
        found = {name: file[name] for name in file.files}
    ids = np.arange(len(found["power"]))
    temperature = experiment.strategy.temperature
    contributions = tuple(
        Contribution(
            str(client),
            str(client).partition("-")[2],
            SoftLabels(ids, found["answers"][row], temperature),
            int(found["num_examples"][row]),
            seen=found["seen"][row],
        )
        for row, client in enumerate(found["clients"])
    )
    return Voters(contributions, found["first"], found["power"])


def _train(experiment: Experiment) -> dict[str, NDArray[Any]]:
    folder, _ = ensure_federation(experiment)
    task, temperature = experiment.task, experiment.strategy.temperature
    columns: dict[str, list[Any]] = {name: [] for name in ("clients", "answers", "first", "num_examples", "seen")}
    num_steps = experiment.training.first_round_steps
    for number in range(sum(nodes.count for nodes in experiment.data.groups)):
        (profile,) = profiles_of({"partition-id": number}, folder)
        learner = make_learner(profile, experiment)
        material = learner.material
        every = np.arange(len(material.public_starts))
        learner.learn(None, num_steps=num_steps // 5, total_steps=num_steps)
        columns["first"].append(learner.answer(every, temperature))
        train(learner, None, num_steps=num_steps - num_steps // 5)
        columns["answers"].append(learner.answer(every, temperature))
        columns["clients"].append(profile.id)
        columns["num_examples"].append(len(material.train))
        beams = material.recording.beams(material.train, task.num_frames, task.num_future)
        columns["seen"].append(count_classes(beams, task.num_beams))
    public = replace(open_recording(folder / "public"), power=np.load(folder / PUBLIC_POWER, allow_pickle=False))
    power = public.powers(public.window_starts(task.num_frames, task.num_future), task.num_frames, task.num_future)
    return {**{name: np.array(values) for name, values in columns.items()}, "power": power}


def attacked(voters: Voters, attack: str, num_attackers: int, *, seed: int) -> list[Contribution]:
    """The contributions, after the largest clients have attacked; one that is not a distribution is left out.

    Args:
        voters: the answers of honest clients.
        attack: a key of `ATTACKS`; empty for no attack.
        num_attackers: the number of attackers; they are the clients with the most labelled windows.
        seed: the seed that the attackers share.
    """
    by_size = sorted(voters.contributions, key=lambda one: (-one.num_examples, one.client))
    hostile = {one.client for one in by_size[:num_attackers]} if attack else set()
    contributions = []
    for row, one in enumerate(voters.contributions):
        if one.client in hostile:
            known = AttackerKnowledge(seed_for(seed, attack), one.labels.sample_ids, voters.first[row])
            probs = ATTACKS[attack].poison(one.labels.probs, known)
            try:
                labels = SoftLabels(one.labels.sample_ids, probs, one.labels.temperature)
            except ValueError:
                continue  # The server refuses it, as it would in a federation.
            one = replace(one, labels=labels, num_examples=one.num_examples * ATTACKS[attack].exaggeration)
        contributions.append(one)
    return contributions


@dataclass(frozen=True)
class AttackCell:
    """One rule under one attack in one seed; Top-1, Top-3 and Top-5 in [0, 1], mean over the horizons.

    Attributes:
        rule: a key of `RULES`.
        attack: a key of `ATTACKS`; empty for no attack.
        num_attackers: the number of attackers; they are the clients with the most labelled windows.
        seed: the seed of the voters and of the attackers.
        top1: Top-1 of the ensemble.
        top3: Top-3 of the ensemble.
        top5: Top-5 of the ensemble.
    """

    rule: str
    attack: str
    num_attackers: int
    seed: int
    top1: float
    top3: float
    top5: float


def check_names(*, rules: Iterable[str], attacks: Iterable[str]) -> None:
    """Refuse rules and attacks that are not known.

    Raises:
        ValueError: one is not.
    """
    for kind, wanted, table in (("rule", rules, RULES), ("attack", attacks, ATTACKS)):
        if unknown := [name for name in wanted if name not in table]:
            raise ValueError(
                f"--{kind}: {unknown[0]!r} is unknown; use {', '.join(table)}{did_you_mean(unknown[0], table)}"
            )


def attack_cells(
    voters: Voters, *, seed: int, rules: Iterable[str], attacks: Iterable[str], counts: Iterable[int]
) -> Iterator[AttackCell]:
    """The cells of every rule, without an attack and under each attack.

    Raises:
        ValueError: a rule or an attack is unknown.
    """
    counts, attacks, rules = list(counts), list(attacks), list(rules)
    check_names(rules=rules, attacks=attacks)
    for name in rules:
        short, options = RULES[name]
        rule: Aggregator = build_plugin(find_class(short, AGGREGATORS, key="rule"), options, key="rule")
        for attack, count in [("", 0), *((attack, count) for attack in attacks for count in counts)]:
            probs = rule.aggregate(attacked(voters, attack, count, seed=seed)).probs
            metrics = BeamMetrics.of(probs, voters.power)
            yield AttackCell(name, attack, count, seed, *(metrics.mean(metric) for metric in ("top1", "top3", "top5")))
