"""Ray clusters: work lands on both of two machines and goes on when one is lost; workers get their share of a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from configs.schema import Engine
from sim.launch import gpu_share, launch, offline_environment
from sim.ray_workers import workers_of
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


# Ray counts the GPUs that it is told of, and does not look for them.
ONE_GPU = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "num_gpus": 1, "include_dashboard": False})
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture
def cluster() -> Iterator[subprocess.Popen[str]]:
    """Two raylets of one core each; a line on its standard input kills the second one, as a power cut would."""
    with started(CLUSTER) as process:
        yield process


@contextmanager
def started(script: str) -> Iterator[subprocess.Popen[str]]:
    """A process that runs a cluster until its standard input is closed."""
    environment = {**os.environ, **offline_environment(), "PYTHONPATH": str(CHECKOUT)}
    environment.pop("RAY_ADDRESS")
    command = [sys.executable, "-c", script]
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


def what_is_set_aside() -> ClientApp:
    """An app that says which worker serves a client, and what Ray has set aside for it."""
    app = ClientApp()

    @app.query("where")
    def answer(message: Message, context: Context) -> Message:
        import os
        import time

        import ray

        time.sleep(SLEEP_S / 2)
        resources = ray.get_runtime_context().get_assigned_resources()
        told = ConfigRecord({"gpu": float(resources.get("GPU", 0.0)), "worker": os.getpid()})
        return Message(RecordDict({"set aside": told}), reply_to=message)

    return app


@pytest.mark.ray
@pytest.mark.parametrize(("share", "num_workers"), [(0.5, 2), (0.0, 4)])
def test_each_worker_gets_its_share_of_a_gpu_and_there_are_as_many_as_have_room(share: float, num_workers: int) -> None:
    found: list[tuple[float, int]] = []
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        asked = [Message(RecordDict(), dst_node_id=node, message_type="query.where") for node in grid.get_node_ids()]
        for reply in grid.send_and_receive(asked, timeout=120):
            assert not reply.has_error(), reply.error.reason
            told = reply.content.config_records["set aside"]
            found.append((float(told["gpu"]), int(told["worker"])))

    with started(ONE_GPU) as process:
        assert process.stdout is not None
        engine = Engine(address=process.stdout.readline().strip(), device="auto", gpu_per_worker=share)
        launch(server_app, what_is_set_aside(), num_nodes=8, engine=engine)
    assert len(found) == 8
    assert {gpu for gpu, _ in found} == {share}
    assert len({worker for _, worker in found}) == num_workers


def test_a_share_that_no_machine_has_is_refused_unless_the_cpu_will_do() -> None:
    assert gpu_share(Engine(device="cuda", gpu_per_worker=0.5), num_gpus=1) == 0.5
    assert gpu_share(Engine(device="auto", gpu_per_worker=0.5), num_gpus=0) == 0.0
    assert gpu_share(Engine(device="cuda"), num_gpus=0) == 0.0
    with pytest.raises(
        ValueError, match=r"engine\.gpu_per_worker: .* 0\.5 of a GPU, but Ray has 0 GPUs; .*device=auto"
    ):
        gpu_share(Engine(device="cuda", gpu_per_worker=0.5), num_gpus=0)


def test_a_machine_has_room_for_a_worker_for_each_core_and_each_share_of_a_gpu() -> None:
    assert workers_of({"CPU": 4.0}, gpu_share=0.0) == 4
    assert workers_of({"CPU": 4.0, "GPU": 1.0}, gpu_share=0.5) == 2
    assert workers_of({"CPU": 1.0, "GPU": 2.0}, gpu_share=0.5) == 1
    assert workers_of({"CPU": 4.0}, gpu_share=0.5) == 0
    assert workers_of({}, gpu_share=0.5) == 0
