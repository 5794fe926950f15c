"""The commands of ``softbeam bench``: they measure worlds, trackers, codecs, attacks and messages.

Heavy imports stay inside the commands.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from sim.cli.interruption import WAY_ON
from sim.cli.terminal import JsonOption, ProgressBar, SetOption, complete_preset, say, tracked, wide_console

if TYPE_CHECKING:
    from configs.schema import Experiment
    from sim.worksheet import SheetRow


BenchJob = TypeVar("BenchJob")
PresetsOption = Annotated[
    list[str] | None, typer.Option("--preset", help="May be repeated.", autocompletion=complete_preset)
]
SeedsOption = Annotated[str, typer.Option(help="Seeds of data and networks, with commas between them.")]
SheetOption = Annotated[
    Path | None, typer.Option("--json", help="Keep the results in this file; those that it has are not made again.")
]
WorkersOption = Annotated[int, typer.Option(help="Number of processes; 0 uses every core.", min=0)]

bench_cli = typer.Typer(help="Measure the world: speed, learned accuracy, distillation gain.", no_args_is_help=True)


@bench_cli.command("statistics")
def bench_statistics(
    preset: Annotated[list[str] | None, typer.Option(help="May be repeated; default: all.")] = None,
    passes: Annotated[int, typer.Option(help="Passes per preset.", min=1)] = 300,
    camera_passes: Annotated[int, typer.Option(help="Passes filmed at 224x224 for the mask density.", min=0)] = 3,
    seed: Annotated[int, typer.Option(help="Seed that draws the passes.")] = 0,
    deepsense: Annotated[Path | None, typer.Option(help="Measure this scenario instead of the stored values.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table of docs/world.md.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print the statistics of presets beside those of a measured scenario; data inspect --help explains their names."""
    from rich.table import Table

    from configs.presets import PRESETS
    from sim.bench.world_statistics import (
        markdown_table,
        measured_statistics,
        preset_world,
        statistics_rows,
        world_statistics,
    )
    from sim.data.statistics import known_or_none

    worlds = {name: preset_world(name) for name in preset or PRESETS}
    columns = {"scenario 9" if deepsense is None else str(deepsense): measured_statistics(deepsense)}
    for name, world in worlds.items():
        columns[name] = world_statistics(world, num_passes=passes, num_camera_passes=camera_passes, seed=seed)
    if as_json:
        typer.echo(json.dumps({name: known_or_none(column) for name, column in columns.items()}, indent=1))
    elif markdown:
        typer.echo(markdown_table(columns))
    else:
        table = Table("statistic", *columns)
        for line in statistics_rows(columns):
            table.add_row(*line)
        wide_console().print(table)


@bench_cli.command("referee")
def bench_referee(
    preset: Annotated[str, typer.Option(help="The world to judge.")] = "street",
    passes: Annotated[int, typer.Option(help="Passes to draw.", min=1)] = 12,
    frames: Annotated[int, typer.Option(help="Frames to trace, evenly spread over the passes.", min=1)] = 240,
    seed: Annotated[int, typer.Option(help="Seed that draws the passes.", min=0)] = 0,
    as_json: JsonOption = False,
) -> None:
    """Ask a ray tracer (the extra "sionna") for the best beams of the same passes; about 0.1 s a frame."""
    from dataclasses import asdict

    from rich.table import Table

    from sim.bench.referee import judge
    from sim.bench.world_statistics import preset_world

    with ProgressBar(preset, quiet=as_json) as progress:
        rows = judge(
            preset_world(preset),
            seed=seed,
            passes=passes,
            frames=frames,
            progress=lambda done, total: progress("tracing passes", done, total),
        )
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=1))
        return
    table = Table("frames", "number", "same best beam", "within 1", "within 2", "correlation of best power")
    for row in rows:
        shares = [f"{100 * share:.1f} %" for share in row.within or ()] or ["-"] * 3
        correlation = "-" if row.power_correlation is None else f"{row.power_correlation:.2f}"
        table.add_row(row.name, str(row.num_frames), *shares, correlation)
    wide_console().print(table)


@bench_cli.command("learning")
def bench_learning(
    preset: PresetsOption = None,
    seeds: SeedsOption = "0,1,2",
    inputs: Annotated[str, typer.Option(help="Sensors; all means the fused tracker.")] = "gps,lidar,radar,camera,all",
    frames: Annotated[str, typer.Option(help="Frames of a window; all lengths are scored on the same slots.")] = "8",
    passes: Annotated[int, typer.Option(help="Labelled passes, validation passes included.", min=2)] = 95,
    test_passes: Annotated[int, typer.Option(help="Passes to score on.", min=1)] = 41,
    steps: Annotated[int, typer.Option(help="Optimizer steps of each tracker.", min=1)] = 2500,
    conditions: Annotated[bool, typer.Option("--conditions", help="Test by day, by night, in rain, in rush.")] = False,
    deepsense: Annotated[Path | None, typer.Option(help="Train on this measured scenario instead.")] = None,
    override: SetOption = None,
    workers: WorkersOption = 0,
    sheet: SheetOption = None,
) -> None:
    """Train trackers centrally on a preset; print Top-1/3/5 by sensor and length beside the published values.

    GPS and radar were published for a single frame: --frames 1 --set task.num_future=0.
    """
    from sim.bench.experiments import CONDITIONS, scenario_data, street_data
    from sim.bench.learnability import FUSED, LearningJob, experiments_of, learn_job
    from sim.bench.tables import conditions_table, learning_table

    lengths, names = numbers(frames, "--frames"), inputs.split(",")
    parts = {"server": passes, "public": 1, "test": test_passes, "client": 1, "validation_share": 0.1}
    if deepsense is None:
        sections = [street_data(name, parts) for name in preset or ["s9", "street"]]
    else:
        sections = [scenario_data(deepsense, parts, [name for name in names if name != FUSED])]
    jobs = [
        LearningJob(experiment, name, length, tuple(CONDITIONS) if conditions else ())
        for experiment in _experiments(sections, seeds, override, steps=steps, num_frames=max(lengths))
        for name in names
        for length in lengths
    ]
    data = [experiment for job in jobs for experiment in experiments_of(job)]
    rows = _work({job.key: job for job in jobs}, learn_job, data=data, sheet=sheet, workers=workers)
    wide_console().print(learning_table(rows))
    if conditions:
        wide_console().print(conditions_table(rows))


@bench_cli.command("distillation")
def bench_distillation(
    preset: PresetsOption = None,
    seeds: SeedsOption = "0,1,2",
    labelled: Annotated[int, typer.Option(help="Labelled passes of a node, validation passes included.", min=2)] = 8,
    public: Annotated[int, typer.Option(help="Unlabelled passes that teacher and nodes share.", min=1)] = 90,
    teacher_passes: Annotated[int, typer.Option(help="Labelled passes of the teacher.", min=2)] = 100,
    test_passes: Annotated[int, typer.Option(help="Passes to score on.", min=1)] = 41,
    steps: Annotated[int, typer.Option(help="Optimizer steps of the teacher and of each arm.", min=1)] = 2000,
    override: SetOption = None,
    workers: WorkersOption = 0,
    sheet: SheetOption = None,
) -> None:
    """Train a node per sensor, with its own labels alone and also with a teacher on the public set; print the gain."""
    from sim.bench.distillation_gain import DistillationJob, distil_job
    from sim.bench.experiments import street_data
    from sim.bench.tables import distillation_table

    parts = {"server": teacher_passes, "public": public, "test": test_passes, "client": labelled}
    sections = [street_data(name, parts) for name in preset or ["street"]]
    experiments = _experiments(sections, seeds, override, steps=steps)
    jobs = [DistillationJob(experiment) for experiment in experiments]
    rows = _work({job.key: job for job in jobs}, distil_job, data=experiments, sheet=sheet, workers=workers)
    wide_console().print(distillation_table(rows))


@bench_cli.command("few")
def bench_few(
    folders: Annotated[list[Path], typer.Argument(help="Folders of scenarios with positions.", show_default=False)],
    passes: Annotated[str, typer.Option(help="Passes of each client and of the server, with commas.")] = "1,2,3,6",
    seeds: SeedsOption = "0,1,2,3,4",
    override: SetOption = None,
    workers: WorkersOption = 0,
    sheet: SheetOption = None,
) -> None:
    """Run federations of few passes on measured scenarios: is a client worse off than alone, does an arm collapse?"""
    from sim.few_passes import FewCase, few_table, run_case, summaries

    cases = [
        FewCase(folder.resolve(), number, seed, tuple(override or ()))
        for seed in numbers(seeds, "--seeds")
        for number in numbers(passes, "--passes")
        for folder in _of_different_names(folders)
    ]
    jobs = {case.key: case for case in cases}
    rows = _work(jobs, run_case, data=[case.experiment for case in cases], sheet=sheet, workers=workers)
    wide_console().print(few_table(summaries(rows)))


@bench_cli.command("worth")
def bench_worth(
    labels: Annotated[str, typer.Option(help="Labelled passes of a server that lacks nothing else.")] = "4,8,16,32",
    lacks: Annotated[
        str, typer.Option(help="What a server lacks: night, rain, site, a sensor.")
    ] = "night,rain,site,camera,lidar",
    lacking_at: Annotated[int, typer.Option(help="Labelled passes of a server that lacks something.", min=1)] = 16,
    deepsense: Annotated[Path | None, typer.Option(help="A measured scenario with positions, such as 9.")] = None,
    scenario_labels: Annotated[str, typer.Option(help="Labelled passes of the server in this scenario.")] = "2,3,4",
    seeds: SeedsOption = "0,1,2",
    figure: Annotated[Path | None, typer.Option(help="Draw the intervals: .svg, .png or .pdf.")] = None,
    override: SetOption = None,
    workers: WorkersOption = 0,
    sheet: SheetOption = None,
) -> None:
    """Measure what the exchange adds to one-way distillation, by what the server lacks; half an hour on two cores.

    Federated minus offline KD and minus local only, with paired intervals over seeds and test passes. An empty
    --lacks or --labels leaves these cases out.
    """
    from sim.report.destinations import check_destination
    from sim.worth import FORMATS, run_case, save_worth, scenario_cases, street_cases, worth_table, worths

    if figure is not None:
        check_destination("--figure", figure, FORMATS)
    wanted = numbers(seeds, "--seeds")
    cases = street_cases(
        labels=numbers(labels, "--labels") if labels else (),
        lacking_at=lacking_at,
        lacks=lacks.split(",") if lacks else (),
        seeds=wanted,
        overrides=override or (),
    )
    if deepsense is not None:
        passes = numbers(scenario_labels, "--scenario-labels")
        cases += scenario_cases(deepsense.resolve(), labels=passes, seeds=wanted, overrides=override or ())
    jobs = {case.key: case for case in cases}
    found = worths(_work(jobs, run_case, data=[case.experiment for case in cases], sheet=sheet, workers=workers))
    wide_console().print(worth_table(found))
    if figure is not None:
        save_worth(found, figure)


@bench_cli.command("speed")
def bench_speed(
    ratio: Annotated[list[str] | None, typer.Option(help="What to compare; repeatable; default: all.")] = None,
    pairs: Annotated[int, typer.Option(help="Turns of each arm; --quick takes two.", min=1)] = 5,
    quick: Annotated[
        bool, typer.Option("--quick", help="Two pairs of few clients; by default GPS and tuned Flower alone.")
    ] = False,
    override: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare rounds with stock Flower and with two plain processes that train the same students; equal work first.

    Arms take turns, forwards and backwards, each in a process of its own; nothing else should run meanwhile. A turn
    takes up to a minute, most of it imports; with all ratios it is many turns, with --quick eight.
    """
    from sim.speed.ratios import NAMES, QUICK, arms_table, measure, ratios_table

    names = ratio or (QUICK if quick else NAMES)
    result = measure(
        names,
        pairs=min(pairs, 2) if quick else pairs,
        quick=quick,
        overrides=override or (),
        progress=(lambda line: None) if as_json else say,
    )
    if as_json:
        typer.echo(json.dumps(result, indent=1))
        return
    wide_console().print(arms_table(result))
    wide_console().print(ratios_table(result))


@bench_cli.command("sets")
def bench_sets(
    places: Annotated[
        list[Path], typer.Argument(help="Finished runs, or folders of scenarios with positions.", show_default=False)
    ],
    client: Annotated[list[str] | None, typer.Option(help="Only this client; may be repeated; default: all.")] = None,
    arm: Annotated[
        list[str] | None, typer.Option(help="federated, local, ensemble and so on; may be repeated.")
    ] = None,
    passes: Annotated[int | None, typer.Option(help="Draw so many test passes anew; streets only.", min=2)] = None,
    share: Annotated[float, typer.Option(help="Share of the passes that calibrates.", min=0.0, max=1.0)] = 0.5,
    splits: Annotated[int, typer.Option(help="Random splits of the passes.", min=1)] = 100,
    drift: Annotated[
        str | None, typer.Option(help="Calibrate by day, and then watch this: night, rain or rush; streets only.")
    ] = None,
    adaptive: Annotated[
        bool, typer.Option("--adaptive", help="Also measure sets that shrink after a confirmed slot.")
    ] = False,
    override: SetOption = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables of docs/beam-sets.md.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure beam sets with a guarantee: realised coverage, beams swept, and Top-K at the same coverage.

    The passes of the common test set are split at random into passes that calibrate and passes that judge. On a folder
    of a scenario the federation of configs/deepsense.yaml is run first; --set is for it.
    """
    from sim.beam_sets.arms import opened_models
    from sim.beam_sets.report import report_of

    found = []
    for place in _of_different_names(places):
        with ProgressBar(place.name, quiet=as_json) as progress, opened_models(place, override or (), progress) as run:
            found.append(
                report_of(
                    run,
                    title=place.resolve().name,
                    clients=client or (),
                    arms=arm or (),
                    num_passes=passes,
                    drift=drift,
                    adaptive=adaptive,
                    share=share,
                    num_splits=splits,
                    progress=progress,
                )
            )
    if as_json:
        typer.echo(json.dumps([one.to_dict() for one in found], indent=1))
        return
    for one in found:
        if markdown:
            typer.echo(one.markdown())
        else:
            wide_console().print(*one.tables())


@bench_cli.command("generation")
def bench_generation(
    preset: PresetsOption = None,
    passes: Annotated[int, typer.Option(help="Passes to time.", min=1)] = 8,
    seed: Annotated[int, typer.Option(help="Seed that draws the passes.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Time the making of the data, in CPU milliseconds a frame: the scene, the power and each sensor."""
    from sim.bench.experiments import SENSORS
    from sim.bench.generation_cost import generation_cost
    from sim.bench.tables import generation_table
    from sim.bench.world_statistics import preset_world

    worlds = {name: preset_world(name) for name in preset or ["s9", "street"]}
    costs = {
        name: generation_cost(world, seed=seed, num_passes=passes, sensors=SENSORS) for name, world in worlds.items()
    }
    if as_json:
        typer.echo(json.dumps(costs, indent=1))
        return
    wide_console().print(generation_table(costs))


def _of_different_names(folders: Sequence[Path]) -> Sequence[Path]:
    """The folders of scenarios, which a table tells apart by their names.

    Raises:
        ValueError: two of them have one name.
    """
    names = [folder.resolve().name for folder in folders]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(
            f"{twice}: two folders have this name, by which the table tells them apart; rename one of them"
        )
    return folders


def _experiments(
    sections: Sequence[Mapping[str, Any]],
    seeds: str,
    overrides: Sequence[str] | None,
    *,
    steps: int,
    num_frames: int = 8,
) -> list[Experiment]:
    """One experiment for each pair of a section ``data`` and a seed."""
    from sim.bench.experiments import bench_experiment

    return [
        bench_experiment(data, seed=seed, steps=steps, num_frames=num_frames, overrides=overrides or ())
        for data in sections
        for seed in numbers(seeds, "--seeds")
    ]


def _work(
    jobs: Mapping[str, BenchJob],
    work: Callable[[BenchJob], SheetRow],
    *,
    data: Sequence[Experiment],
    sheet: Path | None,
    workers: int,
) -> list[SheetRow]:
    """Make the data, do the jobs that the sheet lacks, and return all rows in the order of the jobs."""
    from configs.placement import federation_folder
    from sim.data.federation import ensure_federation
    from sim.worksheet import fill_sheet, read_sheet

    workers, WAY_ON.place = workers or os.cpu_count() or 1, sheet if sheet is not None and sheet.exists() else None
    if jobs.keys() - read_sheet(sheet).keys():
        places = list({federation_folder(experiment): experiment for experiment in data}.values())
        for experiment in tracked(places, "data", total=len(places)):
            ensure_federation(experiment, workers=workers)
    filled = fill_sheet(jobs, work, sheet=sheet, workers=workers)
    rows = {}
    for key, row in tracked(filled, "trackers", total=len(jobs)):
        rows[key] = row
        WAY_ON.place = sheet  # from the first row on it is there
    return [rows[key] for key in jobs]


def numbers(text: str, option: str) -> list[int]:
    """Read numbers with commas between them.

    Raises:
        ValueError: the text is something else; the message names ``option``.
    """
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise ValueError(f"{option} {text}: expected numbers with commas between them, such as 0,1,2") from None


@bench_cli.command("warm")
def bench_warm(
    app: Annotated[list[str] | None, typer.Option(help="torch, optimizer or softbeam; may be repeated.")] = None,
    messages: Annotated[int, typer.Option(help="Messages to measure for each app and way.", min=1)] = 5,
    as_json: JsonOption = False,
) -> None:
    """Measure the CPU of a message on an idle node, with apps from Flower or from the fork server; about 4 minutes."""
    from rich.table import Table

    from sim.bench.loopback import CLIENT_APPS, Loopback
    from sim.bench.warm_cost import Way, message_costs
    from sim.deploy.forkserver import shim_environment, start_forkserver, stop_forkserver

    tell = (lambda line: None) if as_json else say
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Loopback(folder) as loopback:
            server = start_forkserver(folder / "fork", environment=loopback.environment("warm"))
            try:
                ways = [Way("stock"), Way("warm", shim_environment(folder / "fork"), server.pid)]
                apps = app or list(CLIENT_APPS)
                costs = message_costs(loopback, ways, apps=apps, num_messages=messages, progress=tell)
            finally:
                stop_forkserver(server)
    if as_json:
        typer.echo(json.dumps([asdict(cost) for cost in costs], indent=1))
        return
    title = f"CPU-seconds of a message, medians of {messages}"
    table = Table("app", "way", "all", "from", "to", "node", "started", "forked", "seconds", "idle per s", title=title)
    for cost in costs:
        seconds = (cost.cpu.total, *cost.cpu_range_s, cost.cpu.node, cost.cpu.started, cost.cpu.forked, cost.seconds)
        table.add_row(cost.app, cost.way, *(f"{value:.2f}" for value in seconds), f"{cost.idle_cpu_s:.3f}")
    wide_console().print(table)


@bench_cli.command("codecs")
def bench_codecs(
    codec: Annotated[list[str] | None, typer.Option(help="Codec without suffix; repeatable; default: all.")] = None,
    samples: Annotated[int, typer.Option(help="Public samples of a round.", min=1)] = 400,
    seeds: SeedsOption = "0,1,2",
    as_json: JsonOption = False,
) -> None:
    """Measure bytes and loss of codecs on bell-shaped soft labels: without suffix, with +zlib and with +delta."""
    from sim.bench.codec_cost import codec_costs
    from sim.bench.tables import codecs_table
    from strategies.codecs.table import CODECS

    costs = codec_costs(codec or list(CODECS), seeds=numbers(seeds, "--seeds"), num_samples=samples)
    if as_json:
        typer.echo(json.dumps([asdict(cost) for cost in costs], indent=1))
        return
    wide_console().print(codecs_table(costs))


@bench_cli.command("attacks")
def bench_attacks(
    rule: Annotated[list[str] | None, typer.Option(help="May be repeated; default: all.")] = None,
    attack: Annotated[list[str] | None, typer.Option(help="May be repeated; default: all.")] = None,
    attackers: Annotated[str, typer.Option(help="Numbers of attackers, with commas between them.")] = "4,6",
    seeds: SeedsOption = "0,1,2",
    override: SetOption = None,
    out: Annotated[Path | None, typer.Option("--json", help="Keep the cells in this file.")] = None,
) -> None:
    """Try every aggregation rule under every attack; the clients with the most data attack. Two minutes a seed."""
    from sim.bench.attack_table import RULES, AttackCell, attack_cells, check_names, make_voters, voters_experiment
    from sim.bench.tables import attacks_table
    from strategies.attacks import ATTACKS

    cells = list[AttackCell]()
    wanted = {"rules": rule or list(RULES), "attacks": attack or list(ATTACKS)}
    check_names(**wanted)
    wanted_seeds = numbers(seeds, "--seeds")
    for seed in tracked(wanted_seeds, "seeds", total=len(wanted_seeds)):
        voters = make_voters(voters_experiment(seed, override or []))
        cells += attack_cells(voters, seed=seed, counts=numbers(attackers, "--attackers"), **wanted)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps([asdict(cell) for cell in cells], indent=1) + "\n")
    for metric in ("top1", "top3", "top5"):
        wide_console().print(attacks_table(cells, metric))


@bench_cli.command("privacy")
def bench_privacy(
    steps: Annotated[int, typer.Option(help="Optimizer steps of a client.", min=1)] = 750,
    seeds: SeedsOption = "0,1,2",
    as_json: JsonOption = False,
) -> None:
    """Guess from released soft labels which windows a client trained on; a minute and a half a seed."""
    from sim.bench.membership import Leak, audit
    from sim.bench.tables import leaks_table

    leaks = list[Leak]()
    wanted_seeds = numbers(seeds, "--seeds")
    for seed in tracked(wanted_seeds, "seeds", total=len(wanted_seeds), quiet=as_json):
        leaks += audit(seed, num_steps=steps)
    if as_json:
        rows = [{**asdict(leak), "epsilon": None if math.isinf(leak.epsilon) else leak.epsilon} for leak in leaks]
        typer.echo(json.dumps(rows, indent=1))
        return
    wide_console().print(leaks_table(leaks))


@bench_cli.command("trackers")
def bench_trackers(
    model: Annotated[list[str] | None, typer.Option(help="May be repeated; default: all.")] = None,
    frames: Annotated[int, typer.Option(help="Frames that a tracker sees.", min=2)] = 8,
    future: Annotated[int, typer.Option(help="Slots ahead.", min=1)] = 3,
    rounds: Annotated[int, typer.Option(help="Rounds of timing; every tracker has a turn in each.", min=1)] = 30,
    as_json: JsonOption = False,
) -> None:
    """Measure parameters, operations, bytes and milliseconds of the trackers of a study, whole and streaming."""
    from clients.models.registry import MODELS
    from sim.bench.tracker_cost import costs_table, tracker_costs

    costs = tracker_costs(model or list(MODELS), num_frames=frames, num_future=future, rounds=rounds)
    if as_json:
        typer.echo(json.dumps([asdict(cost) for cost in costs], indent=1))
        return
    wide_console().print(costs_table(costs))


@bench_cli.command("devices")
def bench_devices(
    run: Annotated[Path, typer.Argument(help="The folder of a run that has finished.")],
    client: Annotated[
        list[str] | None, typer.Option(help="A client, or teacher; may be repeated. Default: every student.")
    ] = None,
    windows: Annotated[int, typer.Option(help="Windows of the test set at most; 0 takes all.", min=0)] = 0,
    published: Annotated[
        bool, typer.Option("--published", help="Measure the published students of the study beside them, in torch.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure latency, memory, bytes and operations of the students of a run in torch and onnxruntime.

    Joules are added where the machine tells them (RAPL). Nothing else should run meanwhile.
    """
    from sim.take_home.device_cost import device_costs, device_table, published_costs, ratio_lines
    from sim.take_home.run_models import TEACHER, RunModels

    models = RunModels(run)
    names = client or [row.name for row in models.rows() if row.is_here and row.name != TEACHER]
    with ProgressBar("softbeam", quiet=as_json) as progress:
        costs = list(device_costs(models, names, windows=windows, progress=progress))
        costs += published_costs(models.experiment.task, windows=windows) if published else ()
    if as_json:
        typer.echo(json.dumps([cost.to_dict() for cost in costs], indent=1))
        return
    wide_console().print(device_table(costs))
    for line in ratio_lines(costs):
        typer.echo(line)
