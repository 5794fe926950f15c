"""Deployments for tests: provisioned folders with free ports and a tiny street."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from configs.loading import load_experiment
from configs.placement import HOME_VARIABLE
from configs.schema import Experiment
from sim.data.federation import ensure_federation
from sim.deploy.follow import run_on
from sim.deploy.machine import NodeMachine, ServerMachine
from sim.deploy.provision import hand_out, provision
from sim.deploy.settings import NODE_FILE, Deployment, build_deployment, load_node, load_server, parse_nodes
from sim.deploy.trial import bring_up, take_down
from tests.federations import place, quiet, run_apps
from tests.ports import free_ports

NODES = ["camera:roof-1", "radar:gate-2", "lidar:pole-3", "gps:van-4"]
TINY = {
    "name": "tiny",
    "seed": 0,
    "data": {
        "source": "street",
        "passes": {"server": 4, "public": 3, "test": 2, "client": 3, "client_test": 1, "validation_share": 0.25},
        "nodes": [{"modality": "gps", "count": 1}],
    },
    "controls": False,
    "training": {"first_round_steps": 4, "steps_per_round": 2},
    "teaching": {"pretrain_steps": 4, "first_round_steps": 2, "steps_per_round": 2},
    # A round takes two seconds, on a slow machine ten.
    "strategy": {"rounds": 3, "public_samples": 20, "round_timeout_s": 200},
}
UP_S = 400.0


@dataclass(frozen=True)
class Lab:
    """A deployment that is up.

    Attributes:
        folder: the folder of the deployment.
        deployment: the settings.
    """

    folder: Path
    deployment: Deployment

    @property
    def server(self) -> ServerMachine:
        """The server's machine."""
        return ServerMachine(self.folder / "server", load_server(self.folder / "server"))

    def node(self, name: str) -> NodeMachine:
        """The machine of a node."""
        folder = self.folder / "nodes" / name
        return NodeMachine(folder, load_node(folder))

    def experiment(self, *overrides: str) -> Experiment:
        """The experiment that it runs, with overrides."""
        return experiment_of(self.deployment, "engine.name=deployment", *overrides)

    def run(self, out: Path, *overrides: str) -> Path:
        """Run the experiment on it; the run folder."""
        return run_on(self.folder, self.experiment(*overrides), plugins=(out,), out=out, progress=quiet)

    def simulate(self, run: Path, *overrides: str) -> Path:
        """The same experiment in this process."""
        run_apps(place(experiment_of(self.deployment, *overrides, "engine.name=inline"), run))
        return run

    def pid_of(self, machine: str, program: str) -> int:
        """The process of a program, as the machine's health file has it."""
        folder = self.folder / ("server" if machine == "server" else f"nodes/{machine}")
        return int(json.loads((folder / "state/health.json").read_text())["programs"][program]["pid"])


def make_lab(
    folder: Path,
    *,
    nodes: Sequence[str] = NODES,
    host: str = "localhost",
    bind: str = "127.0.0.1",
    publish_every: int | None = None,
) -> Deployment:
    """A deployment without data."""
    ports = free_ports(2 + len(nodes))
    config = folder.with_name(f"{folder.name}.yaml")
    config.write_text(yaml.safe_dump(TINY))
    deployment = build_deployment(
        host=host,
        port=ports[0],
        superlink_port=ports[1],
        config=str(config),
        nodes=[node.model_dump() for node in parse_nodes(list(nodes))],
    )
    provision(folder, deployment, bind=bind, metrics_port=None, publish_every=publish_every)
    for node, port in zip(deployment.nodes, ports[2:], strict=True):
        path = folder / "nodes" / node.name / NODE_FILE
        values = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump({**values, "runtime_port": port}, sort_keys=False))
    return deployment


def experiment_of(deployment: Deployment, *overrides: str) -> Experiment:
    """The experiment that a lab runs."""
    return load_experiment(deployment.config, [deployment.nodes_override, *overrides])


def give_data(folder: Path, deployment: Deployment) -> Path:
    """Hand the tiny street out; its federation."""
    federation, _ = ensure_federation(experiment_of(deployment))
    hand_out(federation, folder, deployment)
    return federation


@contextmanager
def online_lab(folder: Path, home: Path, *, site: str = "", publish_every: int | None = None) -> Iterator[Lab]:
    """A server and four nodes as real processes on the loopback, online as long as the context lasts.

    Args:
        folder: where the deployment is made.
        home: the folder for generated data.
        site: the source of a `sitecustomize` that every process of Python in the lab imports first.
        publish_every: after how many rounds nodes publish their student.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOME_VARIABLE, str(home))
        deployment = make_lab(folder, publish_every=publish_every)
        give_data(folder, deployment)
        if site:
            (folder / "sitecustomize.py").write_text(site)
            patch.setenv("PYTHONPATH", str(folder), prepend=":")
        try:
            bring_up(folder, timeout_s=UP_S, progress=quiet)
            yield Lab(folder, deployment)
        finally:
            take_down(folder)
