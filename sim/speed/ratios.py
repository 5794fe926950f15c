"""The ratios of the benchmark of speed: what is compared with what, on how much work, and how sure the result is.

Source: percentile intervals: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.table import Table

from configs.seeding import rng_for
from configs.spelling import did_you_mean
from sim.report.intervals import NUM_REPLICATES, TAILS
from sim.speed.conductor import AGAIN, EXACT, Family, Repetition, Size, TellTurn, Turn, conduct

NOISE = 0.05
"""Where the plain loop may take more than so much longer or shorter the second time, wall-clock says nothing."""
STUDENTS = ("gps", "lidar", "radar", "camera")
BARE = "bare-2proc"


@dataclass(frozen=True)
class Ratio:
    """What is divided by what.

    Attributes:
        top: family and arm above the line.
        bottom: family and arm below it.
        means: what the number says.
        goal: what it should be at most or, for what should be large, at least.
        is_gain: whether larger is better.
        per_client: whether seconds are divided by the number of clients first.
    """

    top: tuple[str, str]
    bottom: tuple[str, str]
    means: str
    goal: float
    is_gain: bool = False
    per_client: bool = False


RATIOS: Mapping[str, Ratio] = {
    "gps_vs_loop2": Ratio(("gps", "ours"), ("gps", BARE), "ours / two plain processes", 0.75),
    "gps_vs_flower_tuned": Ratio(("gps", "flower-tuned"), ("gps", "ours"), "tuned Flower / ours", 4.0, is_gain=True),
    "gps_vs_flower_default": Ratio(
        ("gps", "flower-default"), ("gps", "ours"), "default Flower / ours", 8.0, is_gain=True
    ),
    "lidar_vs_loop2": Ratio(("lidar", "ours"), ("lidar", BARE), "ours / two plain processes", 0.85),
    "radar_vs_loop2": Ratio(("radar", "ours"), ("radar", BARE), "ours / two plain processes", 1.0),
    "camera_vs_loop2": Ratio(("camera", "ours"), ("camera", BARE), "ours / two plain processes", 1.0),
    "clients_1000_vs_100": Ratio(
        ("clients-1000", "ours"), ("clients-100", "ours"), "seconds a client, 1000 / 100 clients", 1.3, per_client=True
    ),
}
NULL, TAX = "null_ms_per_client", "tax"
OF_CPU = {
    NULL: ("CPU-ms a client that does no work", 0.5),
    TAX: ("CPU-seconds of ours / two plain processes, the worst student", 1.1),
}
"""What is told of CPU time alone: what it means, and what it should be at most."""
NAMES = (*RATIOS, NULL, TAX)
QUICK = ("gps_vs_loop2", "gps_vs_flower_tuned", TAX)
"""What ``--quick`` measures unless it is told what."""

SIZES = {
    "gps": Size(clients=40, passes=12, public_passes=19, steps=8, rounds=4),
    "lidar": Size(clients=12, passes=12, public_passes=19, steps=8, rounds=4),
    "radar": Size(clients=8, passes=12, public_passes=19, steps=8, rounds=4),
    "camera": Size(clients=6, passes=12, public_passes=19, steps=8, rounds=4),
    "clients-100": Size(clients=100, passes=2, public_passes=8, steps=2, rounds=3),
    "clients-1000": Size(clients=1000, passes=2, public_passes=8, steps=2, rounds=3),
    "null": Size(clients=1000, passes=2, public_passes=19, steps=1, rounds=3),
}
"""About one epoch of 256 windows and soft labels for 512 public samples, where clients learn."""
QUICK_CLIENTS = {"gps": 16, "lidar": 4, "radar": 4, "camera": 2, "null": 100}
NULL_FAMILY, SCALE = "null", "clients_1000_vs_100"


@dataclass(frozen=True)
class Estimate:
    """A median over pairs.

    Attributes:
        value: the median.
        low: the lower limit of its 95 % interval; equal to it where there is one pair.
        high: the upper limit.
    """

    value: float
    low: float
    high: float


def estimate(values: Sequence[float]) -> Estimate:
    """The median of the ratios of pairs, with its interval over pairs drawn with replacement."""
    drawn = rng_for(0, "speed", len(values)).integers(len(values), size=(NUM_REPLICATES, len(values)))
    low, high = np.quantile(np.median(np.asarray(values, np.float64)[drawn], axis=1), TAILS)
    return Estimate(median(values), float(low), float(high))


def groups_of(names: Sequence[str], *, quick: bool, overrides: Sequence[str] = ()) -> list[list[Family]]:
    """The families that some ratios need, with the arms that they need; a group is measured interleaved.

    Args:
        names: keys of `NAMES`.
        quick: take fewer clients and rounds.
        overrides: entries ``dotted.path=value`` of the experiments that come last.

    Raises:
        ValueError: a name is unknown, or needs more than ``quick`` allows.
    """
    for name in names:
        if name not in NAMES:
            raise ValueError(
                f"--ratio {name}: there is no such ratio{did_you_mean(name, NAMES)}; use {', '.join(NAMES)}"
            )
    if quick and SCALE in names:
        raise ValueError(f"--ratio {SCALE}: a thousand clients take longer than --quick promises; leave --quick out")
    needed = [arm for name, ratio in RATIOS.items() if name in names for arm in (ratio.top, ratio.bottom)]
    if NULL in names:
        needed.append((NULL_FAMILY, "null"))
    if TAX in names and not any(family in STUDENTS for family, _ in needed):
        needed.append(("gps", "ours"))
    arms: dict[str, dict[str, None]] = {}
    for family, arm in needed:
        arms.setdefault(family, {})[arm] = None
    for family in arms.keys() & set(STUDENTS):
        arms[family] = dict.fromkeys(["ours", *arms[family], BARE, AGAIN])
    families = {name: _family(name, tuple(found), quick=quick, overrides=overrides) for name, found in arms.items()}
    together = [families.pop(name) for name in ("clients-100", "clients-1000") if name in families]
    return [*([one] for one in families.values()), *([together] if together else [])]


def _family(name: str, arms: tuple[str, ...], *, quick: bool, overrides: Sequence[str]) -> Family:
    size = replace(SIZES[name], clients=QUICK_CLIENTS[name], rounds=3) if quick else SIZES[name]
    # Clients of no work send what they send by default; all others owe the same bits.
    exact = () if name == NULL_FAMILY else (EXACT,)
    return Family(name, name if name in STUDENTS else "gps", size, arms, (*exact, *overrides))


def measure(
    names: Sequence[str],
    *,
    pairs: int,
    quick: bool = False,
    overrides: Sequence[str] = (),
    progress: TellTurn = lambda text: None,
) -> dict[str, Any]:
    """Run the arms that some ratios need, and compare them.

    Args:
        names: keys of `NAMES`.
        pairs: the number of times that each arm takes its turn.
        quick: take fewer clients and rounds.
        overrides: entries ``dotted.path=value`` of the experiments that come last.
        progress: is called with a text that says what is being done.

    Returns:
        The result, as JSON takes it; :func:`compared` tells its parts, and ``machine`` where it was measured.

    Raises:
        ValueError: a ratio is unknown, or an arm gave other soft labels than the reference.
        RuntimeError: an arm failed.
    """
    groups = groups_of(names, quick=quick, overrides=overrides)
    before = os.getloadavg()[0]
    repetitions: list[dict[tuple[str, str], Turn]] = [{} for _ in range(pairs)]
    for group in groups:
        for all_turns, turns in zip(repetitions, conduct(group, pairs=pairs, progress=progress), strict=True):
            all_turns.update(turns)
    clients = {family.name: family.size.clients for group in groups for family in group}
    load = {"before": before, "after": os.getloadavg()[0]}
    return {
        "machine": {**_machine(), "load": load},
        "quick": quick,
        "pairs": pairs,
        **compared(names, repetitions, clients),
    }


def compared(names: Sequence[str], repetitions: Sequence[Repetition], clients: Mapping[str, int]) -> dict[str, Any]:
    """Compare the arms of some repetitions.

    Args:
        names: keys of `NAMES`.
        repetitions: the turns of each repetition; each has all arms that the ratios need.
        clients: family -> the number of its clients.

    Returns:
        ``ratios``: name -> median; ``intervals``: name -> its limits; ``cpu_ratios``: name -> the same ratio of
        CPU-seconds; ``tax_by_student``: student -> its tax; ``again``: student -> the ratio of the plain loop to
        itself with its limits; ``noisy``: whether one of them is further from 1 than `NOISE`; ``arms``: what a steady
        round of each cost.
    """
    found: dict[str, Estimate] = {}
    by_cpu: dict[str, float] = {}
    for name, ratio in RATIOS.items():
        if name in names:
            scale = clients[ratio.bottom[0]] / clients[ratio.top[0]] if ratio.per_client else 1.0
            found[name] = estimate([scale * one[ratio.top].seconds / one[ratio.bottom].seconds for one in repetitions])
            by_cpu[name] = median(scale * one[ratio.top].cpu_s / one[ratio.bottom].cpu_s for one in repetitions)
    if NULL in names:
        key = (NULL_FAMILY, "null")
        found[NULL] = estimate([1000.0 * one[key].cpu_s / clients[NULL_FAMILY] for one in repetitions])
    students = [name for name in STUDENTS if (name, AGAIN) in repetitions[0]]
    taxes = {
        name: estimate([one[name, "ours"].cpu_s / one[name, BARE].cpu_s for one in repetitions]) for name in students
    }
    if TAX in names:
        found[TAX] = max(taxes.values(), key=lambda one: one.value)
    again = {
        name: estimate([one[name, AGAIN].seconds / one[name, BARE].seconds for one in repetitions]) for name in students
    }
    return {
        "noisy": any(
            not 1.0 - NOISE <= limit <= 1.0 + NOISE for one in again.values() for limit in (one.low, one.high)
        ),
        "again": {name: [one.value, one.low, one.high] for name, one in again.items()},
        "ratios": {name: one.value for name, one in found.items()},
        "intervals": {name: [one.low, one.high] for name, one in found.items()},
        "cpu_ratios": by_cpu,
        "tax_by_student": {name: one.value for name, one in taxes.items()},
        "arms": [
            {
                "family": family,
                "arm": arm,
                "clients": clients[family],
                **{
                    part: median(getattr(one[family, arm], part) for one in repetitions)
                    for part in ("seconds", "cpu_s", "first_s", "total_s")
                },
            }
            for family, arm in repetitions[0]
        ],
    }


def arms_table(result: Mapping[str, Any]) -> Table:
    """What a steady round of each arm cost, its first round, and a whole turn with start and end."""
    table = Table("students", "arm", "clients", "s a round", "CPU-s a round", "first round s", "whole turn s")
    for one in result["arms"]:
        seconds = [f"{one[part]:.2f}" for part in ("seconds", "cpu_s", "first_s", "total_s")]
        table.add_row(one["family"], one["arm"], str(one["clients"]), *seconds)
    return table


def ratios_table(result: Mapping[str, Any]) -> Table:
    """Each ratio with its interval and its goal; a noisy result shows ratios of CPU-seconds only."""
    noisy = result["noisy"]
    title = "noisy: wall-clock of the plain loop differs from itself, so CPU ratios only" if noisy else None
    table = Table("ratio", "what", "wall", "95 % interval", "CPU", "goal", title=title)
    for name, value in result["ratios"].items():
        low, high = result["intervals"][name]
        shown, limits = f"{value:.2f}", f"{low:.2f} to {high:.2f}"
        if name in OF_CPU:
            means, goal = OF_CPU[name]
            table.add_row(name, means, "", limits, shown, f"at most {goal:g}")
            continue
        ratio = RATIOS[name]
        wall = ["noisy", ""] if noisy else [shown, limits]
        goal_text = f"at {'least' if ratio.is_gain else 'most'} {ratio.goal:g}"
        table.add_row(name, ratio.means, *wall, f"{result['cpu_ratios'][name]:.2f}", goal_text)
    return table


def _machine() -> dict[str, Any]:
    """The processor and the versions that a result depends on."""
    model, flags = platform.processor(), ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        facts = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
        facts = {name.strip(): value.strip() for name, value in facts.items()}
        model, flags = facts.get("model name", model), facts.get("flags", "")
    return {
        "processor": model,
        "avx512": "avx512f" in flags,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "flwr", "ray", "numpy")},
    }
