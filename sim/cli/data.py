"""The commands of ``softbeam data``. Heavy imports stay inside the commands."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from configs.spelling import did_you_mean
from sim.cli.interruption import WAY_ON
from sim.cli.terminal import ConfigArgument, JsonOption, ProgressBar, SetOption, title_of, wide_console
from sim.data.scenario9 import describe_statistics

if TYPE_CHECKING:
    from configs.schema import World

INSPECT_HELP = f"""Say what is in a folder of data: modalities, passes, frames, labels, problems, statistics.

With --json, it prints a list of one object per recording: "statistics" and, to compare, "scenario_9" hold the names
below (null: not defined for this data); "skew_bits" is the Jensen-Shannon divergence between a client's beams and those
of all clients; "bearing" says where the vehicles were and how the best beam follows them; "sha256" is over power and
pass ids, "folder_sha256" over those of all recordings.

\b
{describe_statistics()}
"""

data_cli = typer.Typer(help="Make, inspect, check, list and clean data.", no_args_is_help=True)


@data_cli.command("make")
def data_make(config: ConfigArgument, override: SetOption = None, as_json: JsonOption = False) -> None:
    """Make the data of an experiment; print its folder, and on stderr the data of each client, with skew and hash.

    Data that exists already is kept.
    """
    from configs.loading import load_experiment
    from configs.placement import federation_folder
    from sim.data.inspection import inspect_folder, left_out_of
    from sim.experiments import make_data
    from sim.report.inspection import show_recordings

    experiment = load_experiment(config, override or [])
    WAY_ON.place = federation_folder(experiment)
    with ProgressBar(title_of(experiment), quiet=as_json) as progress:
        folder, seconds = make_data(experiment, progress)
    rows = inspect_folder(folder)
    left_out = left_out_of(folder)
    if as_json:
        skews = {row["part"]: row["skew_bits"] for row in rows if row["skew_bits"] is not None}
        entry = {
            "folder": str(folder),
            "seconds": seconds,
            "sha256": rows[0]["folder_sha256"],
            "skew_bits": skews,
            "left_out": left_out,
        }
        typer.echo(json.dumps(entry, indent=1))
        return
    show_recordings(rows, wide_console(stderr=True))
    if left_out:
        typer.echo(f"left out or incomplete: {len(left_out)}, the first: {left_out[0]}", err=True)
    typer.echo(folder)


SensorOption = Annotated[
    list[str] | None,
    typer.Option("--sensor", metavar="NAME=MODULE:ROW", help="A sensor of your own, as data.sensors names it."),
]


def _know(sensors: list[str] | None) -> None:
    """Add sensors of a user's own, whose modules are looked for in the current folder."""
    if not sensors:
        return
    from clients.models.own_sensors import add_sensors

    pairs = [one.partition("=") for one in sensors]
    if wrong := [one for one, (_, sign, _) in zip(sensors, pairs, strict=True) if not sign]:
        raise ValueError(f"--sensor {wrong[0]}: expected NAME=MODULE:ROW, such as imu=my_sensors:IMU")
    add_sensors({name: target for name, _, target in pairs}, [Path.cwd()])


@data_cli.command("inspect", help=INSPECT_HELP)
def data_inspect(
    folder: Annotated[Path, typer.Argument(help="A federation, a recording or a DeepSense 6G scenario.")],
    passes: Annotated[bool, typer.Option("--passes", help="List every pass as well.")] = False,
    sheet: Annotated[
        Path | None, typer.Option(help="Write a contact sheet of some passes to this PNG, SVG or PDF.")
    ] = None,
    sensor: SensorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what is in a folder of data: modalities, passes, frames, labels, problems, statistics."""
    _know(sensor)
    from sim.data.inspection import inspect_folder, inspect_passes, open_parts
    from sim.report.inspection import show_inspection

    rows = inspect_folder(folder)
    if passes:
        rows = [row | {"each_pass": inspect_passes(part)} for row, part in zip(rows, open_parts(folder), strict=True)]
    if sheet is not None:
        from sim.report.contact_sheet import write_contact_sheet

        write_contact_sheet(open_parts(folder), sheet)
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
    else:
        show_inspection(rows, wide_console())


@data_cli.command("validate")
def data_validate(
    folder: Annotated[Path, typer.Argument(help="The folder of a federation.")],
    sensor: SensorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say everything that is wrong with a ready federation, with file, row and how to mend it; exit with 1 then.

    docs/data.md specifies the form.
    """
    from sim.data.validation import find_faults

    _know(sensor)
    faults = find_faults(folder)
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), "faults": [fault.to_json() for fault in faults]}, indent=1))
    else:
        for fault in faults:
            typer.echo(str(fault))
        typer.echo(f"{folder}: {len(faults)} faults" if faults else f"{folder}: no fault", err=bool(faults))
    if faults:
        raise typer.Exit(1)


@data_cli.command("check")
def data_check(
    folder: Annotated[Path, typer.Argument(help="Folder of a DeepSense 6G scenario with GPS and power.")],
    split: Annotated[
        str, typer.Option(help="random (as on the leaderboard; it leaks between frames) or pass.")
    ] = "random",
    seeds: Annotated[int, typer.Option(help="Number of seeds.", min=1)] = 5,
    as_json: JsonOption = False,
) -> None:
    """Predict the current beam from GPS alone, as the leaderboard does, to check reader, labels and metrics."""
    from sim.data.inspection import check_scenario

    result = check_scenario(folder, split=split, num_seeds=seeds)
    if as_json:
        typer.echo(json.dumps(result, indent=1))
        return
    for name, entry in result["metrics"].items():
        typer.echo(f"{name:14s} {entry['mean']:7.3f} +- {entry['sd']:.3f}")
    if (fit := result["bearing"]) and fit["correlation"] is not None:
        typer.echo(f"{'bearing':14s} {fit['correlation']:7.3f} correlation with the best beam")
    for problem in result["problems"][:10]:
        typer.echo(problem, err=True)


@data_cli.command("list")
def data_list(as_json: JsonOption = False) -> None:
    """List the data in the cache: what made it, its size, when it was used last, and whether it is in use.

    The cache is $SOFTBEAM_HOME, or softbeam in $XDG_CACHE_HOME, or ~/.cache/softbeam.
    """
    from configs.home import softbeam_home
    from sim.data.cache import cache_entries
    from sim.report.inspection import show_cache

    entries = cache_entries()
    if as_json:
        found = [entry.to_json() for entry in entries]
        typer.echo(json.dumps({"folder": str(softbeam_home()), "entries": found}, indent=1))
        return
    show_cache(entries, softbeam_home(), wide_console())


@data_cli.command("clean")
def data_clean(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Entries that `softbeam data list` shows, or the name of an experiment; default: all."),
    ] = None,
    older: Annotated[str | None, typer.Option(help="Only what was last used so long ago, such as 30d or 12h.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove data from the cache and say what was freed; it can be made again.

    What a running process uses or makes is kept. Results of runs are not in the cache, and are never removed.
    """
    from sim.data.cache import cache_entries, choose_entries, clean_cache, seconds_of
    from sim.report.inspection import size_text

    entries = choose_entries(cache_entries(), names or [], older_s=None if older is None else seconds_of(older))
    if entries and not yes:
        total = size_text(sum(entry.num_bytes for entry in entries))
        if as_json or not sys.stdin.isatty():
            raise ValueError(f"data clean would remove {len(entries)} entries ({total}); give --yes to remove them")
        for entry in entries:
            typer.echo(f"{entry.name}: {size_text(entry.num_bytes)}" + (", in use, kept" if entry.in_use else ""))
        typer.confirm(f"remove {total} of data that can be made again?", abort=True)
    result = clean_cache(entries)
    if as_json:
        freed, kept = ([entry.to_json() for entry in some] for some in (result.freed, result.kept))
        typer.echo(json.dumps({"bytes": result.num_bytes, "freed": freed, "kept": kept}, indent=1))
        return
    for entry in result.freed:
        typer.echo(f"removed {entry.name}: {size_text(entry.num_bytes)}")
    for entry in result.kept:
        typer.echo(f"kept {entry.name}: a running process uses it")
    typer.echo(f"freed {size_text(result.num_bytes)}" if result.freed else "nothing was removed")


@data_cli.command("convert")
def data_convert(
    folder: Annotated[Path, typer.Argument(help="Folder of a DeepSense 6G release: the one that holds its CSV.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the recording; default: converted/ in the cache.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Convert a DeepSense 6G release into one recording and print its folder; a stopped conversion is continued."""
    from sim.data.conversion import convert_scenario, open_conversion

    WAY_ON.place = out or folder
    with _passes_done(f"convert {folder.name}", quiet=as_json) as progress:
        made = convert_scenario(folder, out, progress=progress)
    scenario = open_conversion(made)
    if as_json:
        modalities = sorted(scenario.sensors)
        entry = {"folder": str(made), "frames": len(scenario.pass_ids), "modalities": modalities}
        typer.echo(json.dumps({**entry, "problems": list(scenario.problems)}, indent=1))
        return
    for problem in scenario.problems[:10]:
        typer.echo(problem, err=True)
    if len(scenario.problems) > 10:
        typer.echo(f"and {len(scenario.problems) - 10} more, see `softbeam data inspect --json`", err=True)
    typer.echo(made)


@data_cli.command("export")
def data_export(
    out: Annotated[Path, typer.Argument(help="Folder to write; about 1.2 MB a frame, 50 MB a pass.")],
    preset: Annotated[str, typer.Option(help="The preset of the street, such as s9 or street.")] = "street",
    passes: Annotated[int, typer.Option(help="Number of vehicles that drive by.", min=1)] = 10,
    seed: Annotated[int, typer.Option(help="Seed that draws everything.")] = 0,
    modalities: Annotated[str, typer.Option(help="Sensors, with commas between them.")] = "camera,radar,lidar,gps",
    image_size: Annotated[str, typer.Option(help="Width x height of the pictures in pixels.")] = "960x540",
    config: Annotated[str, typer.Option(help="Use the street of this YAML instead of a preset.")] = "",
) -> None:
    """Write passes of the synthetic street in the official layout of DeepSense 6G scenario 9."""
    from configs.presets import PRESETS
    from configs.schema import World
    from sim.data.deepsense_writer import Export, write_release

    if preset not in PRESETS:
        raise ValueError(f"--preset {preset}: no such street; use {', '.join(PRESETS)}{did_you_mean(preset, PRESETS)}")
    size = re.fullmatch(r"(\d+)x(\d+)", image_size)
    if size is None:
        raise ValueError(f"--image-size {image_size}: expected width x height, such as 960x540")
    export = Export(
        world=_world_of(config) if config else World.model_validate({"preset": preset}),
        num_passes=passes,
        seed=seed,
        modalities=tuple(modalities.split(",")),
        image_size=(int(size[1]), int(size[2])),
    )
    WAY_ON.place = out
    with _passes_done(f"export {out.name}", quiet=False) as progress:
        write_release(export, out, progress=progress)
    typer.echo(out)


def _world_of(config: str) -> World:
    from configs.loading import load_experiment

    data = load_experiment(config, []).data
    if data.source != "street":
        raise ValueError(f"--config {config}: data.source is {data.source}; only a street can be exported")
    return data.world


@contextmanager
def _passes_done(title: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show the progress with the time left, on stderr."""
    with ProgressBar(title, quiet=quiet) as progress:
        yield lambda done, total: progress("passes", done, total)
