"""What is the exchange worth? Federated minus offline KD and minus local only, where the server lacks something.

Each case is one federation with its controls: a small street whose server has few labelled passes, never recorded by
night or in rain, or lacks a sensor; or a measured scenario with few passes on the server. Scores are Top-5 on the
common test set, mean of the horizons and of the passes, in points.

A difference is paired: the same client, seed and test pass in both arms. Its 95 % interval draws seeds with
replacement, and in each the test passes, because windows of a pass are alike and every seed has passes of its own. With
two or three seeds the part that comes from training is too narrow.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from configs.files import swap_in
from configs.loading import data_digest, load_experiment, to_values
from configs.schema import Experiment
from server.recorder import CONTROL_ARMS, PASSES_FILE
from sim.report.intervals import PairedMean, paired_interval
from sim.report.style import INK, MUTED, drawing
from sim.temporary_run import temporary_run
from sim.worksheet import SheetRow, row_key

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")
# One client of each sensor, with fewer passes and steps than in the quickstart.
SMALL_STREET = (
    "data.passes={public: 30, test: 16, client: 12, client_test: 0, validation_share: 0.25}",
    "data.nodes=[{modality: camera}, {modality: radar}, {modality: lidar}, {modality: gps}]",
    "data.amount_spread=0.0",
    "training.first_round_steps=200",
    "training.steps_per_round=50",
    "teaching.pretrain_steps=400",
    "strategy.rounds=5",
    "strategy.public_samples=600",
    "engine.name=inline",
)
SMALL_SCENARIO = (
    "data.nodes=[{modality: gps, count: 4}]",
    "data.passes={public: 30, test: 27, client: 32, validation_share: 0.2}",
    "strategy.rounds=5",
    "engine.name=inline",
)
"""Four clients with eight passes each, on a scenario of 130 passes or more."""
# What the server lacks -> the settings of a street on which it lacks that. With two masts there is a client of each
# sensor at each, public set and test are from both, and the server has labels from the first alone.
CONDITIONS = {
    "night": ("data.world.night_probability=0.5", "data.server_drive=day"),
    "rain": ("data.world.rain_probability=0.5", "data.server_drive=day"),
    "site": (
        "data.world.sites=2",
        "data.nodes=[{modality: camera, count: 2}, {modality: radar, count: 2}, "
        "{modality: lidar, count: 2}, {modality: gps, count: 2}]",
        "data.server_from=[site-0]",
        "data.public_from=[site-0, site-1]",
        "data.test_from=[site-0, site-1]",
    ),
}


@dataclass(frozen=True)
class WorthCase:
    """One federation of the benchmark.

    Attributes:
        title: what the server has or lacks.
        seed: the seed of data and networks.
        config: the experiment that it starts from, with the overrides that follow.
        overrides: entries ``dotted.path=value``.
    """

    title: str
    seed: int
    config: str
    overrides: tuple[str, ...]

    @property
    def experiment(self) -> Experiment:
        """The experiment of the case.

        Raises:
            ValueError: an override is wrong.
        """
        return load_experiment(self.config, [f"seed={self.seed}", *self.overrides])

    @property
    def key(self) -> str:
        """The key of its row in a sheet."""
        experiment = self.experiment
        return row_key(f"worth {self.title} seed {self.seed}", to_values(experiment), data_digest(experiment))


def street_cases(
    *, labels: Sequence[int], lacking_at: int, lacks: Sequence[str], seeds: Sequence[int], overrides: Sequence[str] = ()
) -> list[WorthCase]:
    """The cases of the small street, seed by seed.

    Args:
        labels: the numbers of labelled passes on the server that lacks nothing else.
        lacking_at: the number of labelled passes of a server that lacks something.
        lacks: what the server lacks, each by itself: keys of `CONDITIONS`, or modalities.
        seeds: the seeds.
        overrides: entries that come last.

    Raises:
        ValueError: there is no such condition or modality on the street.
    """
    found: list[tuple[str, tuple[str, ...]]] = [
        (f"{number} labelled passes", (f"data.passes.server={number}",)) for number in labels
    ]
    sensors: tuple[str, ...] = load_experiment("quickstart", [*SMALL_STREET, "data.passes.server=1"]).modalities
    for name in lacks:
        if name not in CONDITIONS and name not in sensors:
            raise ValueError(f"--lacks: {name!r} is unknown; use {', '.join([*CONDITIONS, *sensors])}")
        settings = CONDITIONS.get(name, (f"data.server_lacks=[{name}]",))
        found.append((f"{lacking_at} passes, no {name}", (f"data.passes.server={lacking_at}", *settings)))
    return [
        WorthCase(f"street, {title}", seed, "quickstart", (*SMALL_STREET, *settings, *overrides))
        for seed in seeds
        for title, settings in found
    ]


def scenario_cases(
    folder: Path, *, labels: Sequence[int], seeds: Sequence[int], overrides: Sequence[str] = ()
) -> list[WorthCase]:
    """The cases of a measured scenario with positions; the arguments are those of :func:`street_cases`."""
    return [
        WorthCase(
            f"{folder.name}, {number} labelled passes",
            seed,
            "deepsense",
            (f"data.folder={folder}", *SMALL_SCENARIO, f"data.passes.server={number}", *overrides),
        )
        for seed in seeds
        for number in labels
    ]


def run_case(case: WorthCase) -> SheetRow:
    """Run the federation of a case with its controls.

    Returns:
        The title and seed of the case; ``clients``: id -> ``modality`` and, for each arm, the Top-5 in percent on each
        test pass, null if the client failed; ``teacher``: Top-5 ``before`` and ``after``.

    Raises:
        ValueError: the data cannot be made or read.
    """
    with temporary_run(case.experiment) as placement:
        summary = json.loads((placement.run / "summary.json").read_text())
        by_pass = json.loads((placement.run / PASSES_FILE).read_text())["top5"]
    teacher = summary["teacher"]
    return {
        "title": case.title,
        "seed": case.seed,
        "clients": {
            client["id"]: {
                "modality": client["modality"],
                **{
                    arm: None if shares is None else [100.0 * share for share in shares]
                    for arm, shares in by_pass.get(client["id"], {}).items()
                },
            }
            for client in summary["clients"]
        },
        "teacher": {when: 100.0 * fmean(teacher[when]["top5"]) for when in ("before", "after")},
    }


@dataclass(frozen=True)
class Worth:
    """What the exchange was worth in the cases of one title.

    Attributes:
        title: what the server has or lacks.
        num_seeds: the number of seeds.
        gains: control -> federated minus that control, mean of the clients, in points of Top-5.
        by_modality: modality -> federated minus *offline KD*, without an interval.
        teacher: Top-5 before and after the federation, in percent.
    """

    title: str
    num_seeds: int
    gains: dict[str, PairedMean]
    by_modality: dict[str, float]
    teacher: tuple[float, float]


def worths(rows: Sequence[SheetRow]) -> list[Worth]:
    """One result for each title, in the order of the rows; a client without a result in every arm is left out."""
    titles = dict.fromkeys(row["title"] for row in rows)
    return [_worth(title, [row for row in rows if row["title"] == title]) for title in titles]


def _worth(title: str, rows: Sequence[SheetRow]) -> Worth:
    arms = (*CONTROL_ARMS, "federated")
    seeds = [[one for one in row["clients"].values() if all(one.get(arm) for arm in arms)] for row in rows]
    seeds = [clients for clients in seeds if clients]
    if not seeds:
        raise ValueError(f"{title}: no client has a result in every arm; delete its rows, and run it again")
    gains = {
        control: paired_interval(
            [np.mean([np.subtract(one["federated"], one[control]) for one in clients], axis=0) for clients in seeds],
            "worth",
        )
        for control in CONTROL_ARMS
    }
    clients = [one for members in seeds for one in members]
    by_modality = {
        modality: fmean(
            fmean(one["federated"]) - fmean(one["offline_kd"]) for one in clients if one["modality"] == modality
        )
        for modality in dict.fromkeys(one["modality"] for one in clients)
    }
    before, after = (fmean(row["teacher"][when] for row in rows) for when in ("before", "after"))
    return Worth(title, len(seeds), gains, by_modality, (before, after))


def worth_table(found: Sequence[Worth]) -> Table:
    """One row for each title: federated minus each control with its interval, by modality, and the teacher."""
    modalities = list(dict.fromkeys(name for one in found for name in one.by_modality))
    table = Table(
        *("server", "seeds", "minus offline KD", "minus local only", *modalities, "teacher"),
        title="Federated, points of Top-5 with 95 % interval; by modality: minus offline KD",
    )
    for one in found:
        gains = [_shown(one.gains[control]) for control in ("offline_kd", "local")]
        parts = [f"{one.by_modality[name]:+.1f}" if name in one.by_modality else "-" for name in modalities]
        table.add_row(one.title, str(one.num_seeds), *gains, *parts, f"{one.teacher[0]:.1f} -> {one.teacher[1]:.1f}")
    return table


def draw_worth(found: Sequence[Worth]) -> Figure:
    """The gain over each control as a dot with its interval, one line for each title."""
    from matplotlib.figure import Figure

    with drawing():
        figure = Figure(figsize=(7.2, 1.2 + 0.42 * len(found)), layout="constrained")
        axis = figure.add_subplot()
        for control, colour, shift, label in (
            ("offline_kd", INK, -0.13, "minus offline KD"),
            ("local", MUTED, 0.13, "minus local only"),
        ):
            gains = [one.gains[control] for one in found]
            centre = np.array([gain.mean for gain in gains])
            error = np.abs(np.array([[gain.low for gain in gains], [gain.high for gain in gains]]) - centre)
            places = np.arange(len(found)) + shift
            axis.errorbar(centre, places, xerr=error, fmt="o", color=colour, capsize=3, label=label)
        axis.axvline(0.0, color=MUTED, linewidth=0.8)
        axis.set_yticks(range(len(found)), [one.title for one in found])
        axis.invert_yaxis()
        axis.set_xlabel("federated, points of Top-5 (95 % interval over seeds and test passes)")
        axis.legend(loc="best", frameon=False)
    return figure


def save_worth(found: Sequence[Worth], path: Path) -> None:
    """Write the figure of :func:`draw_worth`, whole or not at all; the ending of the name is one of `FORMATS`."""
    drawn = io.BytesIO()
    with drawing():
        draw_worth(found).savefig(drawn, format=path.suffix.lower()[1:], dpi=160, facecolor="white")
    swap_in(path, drawn.getvalue())


def _shown(gain: PairedMean) -> str:
    return f"{gain.mean:+.1f} [{gain.low:+.1f}, {gain.high:+.1f}]"
