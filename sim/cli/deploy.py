"""The commands of ``softbeam deploy``: they run real clients on separate machines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from clients.serving.margins import Margins
from sim.cli.terminal import (
    JsonOption,
    PowerMarginOption,
    ProgressBar,
    SetOption,
    Top5MarginOption,
    wide_console,
)

deploy_cli = typer.Typer(no_args_is_help=True)

FolderArgument = Annotated[Path, typer.Argument(help="Folder of the deployment, or of the machine.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Print nothing; the logs are in the state folder.")]


@deploy_cli.callback()
def begin() -> None:
    """Run real clients on separate machines."""
    from configs.yaml_files import checkout_folder
    from sim.deploy.supervisor import keep_private

    if checkout_folder() is None:
        raise ValueError(
            "softbeam deploy: Flower brings nodes what lies in a checkout, and this is an installed wheel; clone the "
            "repository and install it in place (pip install --editable .)"
        )
    keep_private()


@deploy_cli.command()
def init(
    folder: Annotated[Path, typer.Argument(help="New folder for the deployment.")],
    nodes: Annotated[list[str], typer.Option(help="Each node as modality:name, such as camera:roof-1 radar:gate-2.")],
    more: Annotated[list[str] | None, typer.Argument(help="Further nodes.", show_default=False)] = None,
    host: Annotated[str, typer.Option(help="Name or address at which the nodes reach the server.")] = "localhost",
    port: Annotated[int, typer.Option(help="Port at which the proxy of the server listens.")] = 8443,
    bind: Annotated[
        str, typer.Option(help="Address at which the proxy listens; default: loopback if the host is localhost.")
    ] = "",
    superlink_port: Annotated[int, typer.Option(help="Port of the SuperLink on the server's loopback.")] = 21000,
    metrics_port: Annotated[int | None, typer.Option(help="Port for Prometheus on the server's loopback.")] = None,
    publish_every: Annotated[
        int | None, typer.Option(min=1, help="After how many rounds nodes publish their student for softbeam predict.")
    ] = None,
    config: Annotated[str, typer.Option(help="The experiment whose data --street makes.")] = "quickstart",
    override: SetOption = None,
    street: Annotated[
        bool, typer.Option("--street", help="Give every machine its part of a synthetic street.")
    ] = False,
) -> None:
    """Make keys, certificates, settings and a folder to copy for every machine."""
    from configs.loading import load_experiment
    from configs.yaml_files import find_config
    from sim.deploy.provision import provision
    from sim.deploy.settings import build_deployment, parse_nodes

    deployment = build_deployment(
        host=host,
        port=port,
        superlink_port=superlink_port,
        config=str(Path(config).resolve()) if Path(config).is_file() else config,
        nodes=[node.model_dump() for node in parse_nodes([*nodes, *(more or [])])],
    )
    # It is checked before anything is written: a mistake must not leave half a deployment.
    load_experiment(find_config(config), [*(override or []), deployment.nodes_override])
    local = host in ("localhost", "127.0.0.1")
    provision(
        folder,
        deployment,
        bind=bind or ("127.0.0.1" if local else "0.0.0.0"),
        metrics_port=metrics_port,
        publish_every=publish_every,
    )
    if street:
        _hand_out_data(folder, override or [])
    typer.echo(f"{folder.resolve()}: copy server/ to the server's machine and nodes/NAME/ to each node's")


@deploy_cli.command()
def data(folder: FolderArgument, override: SetOption = None) -> None:
    """Give every machine its part of the experiment's data: a synthetic street, or a DeepSense 6G scenario."""
    _hand_out_data(folder, override or [])


@deploy_cli.command()
def check(folder: FolderArgument, as_json: JsonOption = False) -> None:
    """Say what is wrong before anything starts; the exit code is 1 if there is an error."""
    from sim.deploy.check import check_folder

    findings = check_folder(folder)
    if as_json:
        typer.echo(json.dumps([finding.__dict__ for finding in findings], indent=1))
    else:
        console = wide_console()
        for finding in findings:
            style = {"error": "bold red", "warning": "yellow", "ok": "green"}[finding.level]
            console.print(
                f"{finding.level:8}{finding.where}: {finding.text}", style=style, highlight=False, markup=False
            )
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)


@deploy_cli.command()
def server(folder: FolderArgument, quiet: QuietOption = False) -> None:
    """Run the server of a deployment on this machine until it is stopped."""
    from sim.deploy.check import check_server, require_no_errors
    from sim.deploy.machine import ServerMachine
    from sim.deploy.settings import load_server, server_folder
    from sim.deploy.supervisor import Supervisor

    where = server_folder(folder).resolve()
    machine = ServerMachine(where, load_server(where))
    require_no_errors(check_server(where))
    echo = _echo(quiet)
    supervisor = Supervisor(machine.state, machine.programs(), echo=echo)
    supervisor.run(started=lambda: echo("server", f"ready on port {machine.settings.port}"))


@deploy_cli.command()
def node(
    folder: FolderArgument,
    name: Annotated[str | None, typer.Argument(help="Name of the node, if FOLDER is a deployment.")] = None,
    quiet: QuietOption = False,
    stock: Annotated[bool, typer.Option("--stock", help="Start a new program for each message, as Flower.")] = False,
) -> None:
    """Run a node on this machine until it is stopped."""
    from sim.deploy.check import check_node, require_no_errors
    from sim.deploy.machine import NodeMachine
    from sim.deploy.publishing import published_health
    from sim.deploy.settings import load_node, node_folder
    from sim.deploy.supervisor import Supervisor
    from sim.deploy.warm import warm_clients, warm_health

    where = node_folder(folder, name).resolve()
    machine = NodeMachine(where, load_node(where))
    require_no_errors(check_node(where))
    echo = _echo(quiet)
    warm = machine.state / "warm"
    with warm_clients(warm, machine.environment(), stock=stock, echo=echo) as environment:
        programs = machine.programs(environment)
        supervisor = Supervisor(
            machine.state,
            programs,
            details=lambda: {**machine.health(), **warm_health(warm), **published_health(machine)},
            echo=echo,
        )
        supervisor.run(started=lambda: echo("node", f"{machine.settings.name} runs"))


@deploy_cli.command()
def up(
    folder: FolderArgument, timeout: Annotated[float, typer.Option(help="Seconds until all must be online.")] = 180.0
) -> None:
    """Start the server and all nodes of a deployment in the background on this machine, for a trial."""
    from sim.deploy.trial import bring_up

    with ProgressBar(str(folder)) as progress:
        bring_up(folder, timeout_s=timeout, progress=progress)
    typer.echo(f"{folder}: server and nodes are online; softbeam run CONFIG --on {folder}")


@deploy_cli.command()
def down(folder: FolderArgument) -> None:
    """Stop every part of a deployment that runs on this machine."""
    from sim.deploy.trial import take_down

    typer.echo(f"{folder}: {take_down(folder)} machines stopped")


@deploy_cli.command()
def status(folder: FolderArgument, as_json: JsonOption = False) -> None:
    """Show which nodes are online, which runs exist, and the state of the programs on this machine."""
    from sim.deploy.status import deployment_status, show_status

    found = deployment_status(folder)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        show_status(found, wide_console())


@deploy_cli.command()
def publish(
    folder: FolderArgument,
    name: Annotated[
        str | None, typer.Argument(help="Name of a node, if FOLDER is a deployment; default: all that are here.")
    ] = None,
    run: Annotated[str | None, typer.Option(help="Name of a run; default: the one it learned in last.")] = None,
    top5_margin: Top5MarginOption = Margins.top5_points,
    power_margin: PowerMarginOption = Margins.power_loss_db,
    watch: Annotated[
        bool, typer.Option("--watch", help="Of one node, publish by publish_every of its settings, until stopped.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring the student of a node into its store of models, and serve it unless it is worse.

    It compares both on the node's last passes, on the node; a student that is refused is no error.
    """
    from sim.deploy.machine import NodeMachine
    from sim.deploy.publishing import watch as watch_node
    from sim.deploy.settings import load_node, node_folder

    if watch:  # for hours, so it imports nothing heavy
        where = node_folder(folder, name).resolve()
        watch_node(NodeMachine(where, load_node(where)), lambda: _publish_apart(where))
        return
    from clients.serving.store_command import decision_line
    from sim.deploy.publisher import publish as publish_student
    from sim.deploy.trial import node_folders

    margins = Margins(top5_margin, power_margin)
    rows: list[dict[str, object]] = []
    errors = []
    for where in node_folders(folder, name):
        machine = NodeMachine(where.resolve(), load_node(where))
        row: dict[str, object] = {"node": machine.settings.name, "store": str(machine.models)}
        try:
            decision = publish_student(machine, run=run, margins=margins)
        except ValueError as error:  # those of the other nodes are published all the same
            errors.append(f"{machine.settings.name}: {error}")
            continue
        rows.append({**row, **decision.to_dict()})
        if not as_json:
            typer.echo(f"{machine.settings.name}: {decision_line(decision)}")
    if errors:
        raise ValueError("; ".join(errors))
    if as_json:
        typer.echo(json.dumps(rows, indent=1))


@deploy_cli.command()
def stop(folder: FolderArgument) -> None:
    """Stop every run that has not finished; softbeam resume RUN continues it."""
    from sim.deploy.machine import ServerMachine
    from sim.deploy.settings import load_server, server_folder

    where = server_folder(folder).resolve()
    flower = ServerMachine(where, load_server(where)).flower
    for run_id in flower.unfinished_runs():
        flower.stop(run_id)
        typer.echo(f"run {run_id}: stopped")


@deploy_cli.command()
def revoke(folder: FolderArgument, name: Annotated[str, typer.Argument(help="Name of the node.")]) -> None:
    """Refuse a node from now on: the server no longer accepts its key."""
    from sim.deploy.machine import ServerMachine
    from sim.deploy.settings import load_server, server_folder

    where = server_folder(folder).resolve()
    ServerMachine(where, load_server(where)).revoke(name)
    typer.echo(f"{name}: revoked")


def _publish_apart(folder: Path) -> None:
    """Publish the student of a node in a process of its own, which gives its memory back when it is done."""
    import subprocess
    import sys

    subprocess.run([sys.executable, "-m", "sim.cli.main", "deploy", "publish", str(folder)], check=False)


def _hand_out_data(folder: Path, overrides: list[str]) -> None:
    from configs.loading import load_experiment
    from sim.deploy.provision import hand_out
    from sim.deploy.settings import load_deployment
    from sim.experiments import make_data

    deployment = load_deployment(folder)
    experiment = load_experiment(deployment.config, [*overrides, deployment.nodes_override])
    with ProgressBar(f"{deployment.config}, seed {experiment.seed}") as progress:
        federation, _ = make_data(experiment, progress)
    hand_out(federation, folder, deployment)


def _echo(quiet: bool) -> Callable[[str, str], None]:
    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)

    def echo(name: str, line: str) -> None:
        if not quiet:
            console.print(f"{name:10} {line}")

    return echo
