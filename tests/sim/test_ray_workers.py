"""A Ray cluster of two machines: work lands on both, and a run goes on when one is lost."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from configs.schema import Engine
from sim.launch import launch, offline_environment
from tests.conftest import CHECKOUT

NUM_CLIENTS, SLEEP_S = 6, 1.0

CLUSTER = """
import sys
from ray.cluster_utils import Cluster

# Ray notices within seconds that a machine is gone, where it takes half a minute by default.
noticing = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
head = {"num_cpus": 1, "include_dashboard": False, "_system_config": noticing}
cluster = Cluster(initialize_head=True, head_node_args=head)
second = cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
for line in sys.stdin:
    cluster.remove_node(second, allow_graceful=False)
cluster.shutdown()
"""


@pytest.fixture
def cluster() -> Iterator[subprocess.Popen[str]]:
    """Two raylets of one core each; a line on its standard input kills the second one, as a power cut would."""
    environment = {**os.environ, **offline_environment(), "PYTHONPATH": str(CHECKOUT)}
    environment.pop("RAY_ADDRESS")
    command = [sys.executable, "-c", CLUSTER]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def where(sleep_s: float) -> ClientApp:
    """An app that says on which machine of the cluster a client is served."""
    app = ClientApp()

    @app.query("where")
    def answer(message: Message, context: Context) -> Message:
        import time

        import ray

        time.sleep(sleep_s)
        machine = ray.get_runtime_context().get_node_id()
        return Message(RecordDict({"at": ConfigRecord({"machine": machine})}), reply_to=message)

    return app


@pytest.mark.ray
def test_work_lands_on_both_machines_and_goes_on_when_one_is_lost(cluster: subprocess.Popen[str]) -> None:
    assert cluster.stdin is not None and cluster.stdout is not None
    address = cluster.stdout.readline().strip()
    rounds: list[list[str]] = []
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        for number in range(3):
            asked = [
                Message(RecordDict(), dst_node_id=node, message_type="query.where") for node in grid.get_node_ids()
            ]
            if number == 1:
                threading.Timer(SLEEP_S / 2, lambda: print(file=cluster.stdin, flush=True)).start()
            replies = list(grid.send_and_receive(asked, timeout=120))
            assert not [reply.error.reason for reply in replies if reply.has_error()]
            rounds.append([str(reply.content.config_records["at"]["machine"]) for reply in replies])

    launch(server_app, where(SLEEP_S), num_nodes=NUM_CLIENTS, engine=Engine(address=address))
    before, during, after = rounds
    assert len(before) == len(during) == len(after) == NUM_CLIENTS
    assert len(set(before)) == 2
    assert len(set(after)) == 1 and set(after) < set(before)
