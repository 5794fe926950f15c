"""The arms that need Flower itself: a plain ClientApp in the stock simulation, and clients that do no work.

The plain app is what somebody writes who knows Flower and PyTorch: the training step of Softbeam in a handler, the
state of a student in `Context.state`, soft labels as arrays. Nothing in Flower is repaired or replaced.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from numpy.typing import NDArray

from clients.learning.state import pack_state, unpack_state
from configs.schema import Strategy, Task
from sim.speed.work import Labels, Note, Script, learner_of, read_targets, script_of_worker, take_part
from strategies.codecs.encoding import Encoding
from strategies.labels import SoftLabels
from strategies.messages.wire import Reply, Request, pack_replies, unpack_header, unpack_requests

if TYPE_CHECKING:
    from flwr.server.superlink.fleet.vce.backend.backend import BackendConfig


def run_plain_flower(script: Script, folder: Path, note: Note, *, is_tuned: bool) -> Labels:
    """Run the rounds of a script in the stock simulation of Flower.

    Args:
        script: the script.
        folder: the folder of the script.
        note: a callable that is told of each round.
        is_tuned: one core for each client, and one thread; otherwise what Flower and PyTorch take by themselves.

    Returns:
        For each client (N, H, B) its soft labels in the last round.

    Raises:
        RuntimeError: a client failed.
    """
    from flwr.simulation import run_simulation

    answers: list[NDArray[np.float32]] = []
    failures: list[BaseException] = []
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        try:
            answers.extend(run_rounds(grid, script, folder, note))
        except BaseException as error:  # Flower would log it and end as if nothing had happened
            failures.append(error)

    tuned: BackendConfig = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    run_simulation(
        server_app=server_app,
        client_app=plain_app(folder, is_tuned=is_tuned),
        num_supernodes=script.num_clients,
        backend_config=tuned if is_tuned else None,
    )
    if failures:
        raise failures[0]
    return answers


def run_rounds(grid: Grid, script: Script, folder: Path, note: Note) -> list[NDArray[np.float32]]:
    """The rounds of a plain server; the arguments and the result are those of :func:`run_plain_flower`.

    Raises:
        RuntimeError: a client failed.
    """
    while len(nodes := list(grid.get_node_ids())) < script.num_clients:
        time.sleep(0.01)
    targets = read_targets(folder, script.experiment.strategy.temperature)
    found: dict[int, NDArray[np.float32]] = {}
    note(0)
    for number in range(1, script.num_rounds + 1):
        messages = [Message(_asked(targets.get(number)), node, "train") for node in nodes]
        found = {}
        for reply in grid.send_and_receive(messages):
            if reply.has_error():
                raise RuntimeError(f"a client of plain Flower failed: {reply.error.reason}")
            partition = int(str(reply.content["facts"]["partition"]))
            found[partition] = reply.content.array_records["answers"]["probs"].numpy()
        np.mean(list(found.values()), axis=0)  # what a server of federated distillation does at least
        note(number)
    return [found[partition] for partition in sorted(found)]


def _asked(targets: SoftLabels | None) -> RecordDict:
    """What a plain server sends: the targets, or nothing."""
    if targets is None:
        return RecordDict({})
    arrays = {"sample_ids": Array(targets.sample_ids), "probs": Array(targets.probs)}
    return RecordDict({"targets": ArrayRecord(arrays)})


def plain_app(folder: Path, *, is_tuned: bool) -> ClientApp:
    """A plain ClientApp that takes part in the rounds of the script in a folder."""
    client_app = ClientApp()

    @client_app.train()
    def train(message: Message, context: Context) -> Message:
        if is_tuned:
            torch.set_num_threads(1)
        script, partition = script_of_worker(folder), int(str(context.node_config["partition-id"]))
        state = None
        if "memory" in context.state:
            content = context.state["memory"]["state"]
            state = unpack_state(content) if isinstance(content, bytes) else None
        learner = learner_of(script, partition, state)
        targets = None
        if "targets" in message.content:
            sent = message.content.array_records["targets"]
            targets = SoftLabels(
                sent["sample_ids"].numpy(), sent["probs"].numpy(), script.experiment.strategy.temperature
            )
        probs = take_part(script, learner, targets)
        context.state["memory"] = ConfigRecord({"state": pack_state(learner.state())})
        reply = RecordDict({"answers": ArrayRecord({"probs": Array(probs)})})
        reply["facts"] = ConfigRecord({"partition": partition})
        return Message(reply, reply_to=message)

    return client_app


class NotingApp(ClientApp):
    """The same app, which first tells the round and the request of each client in a message.

    Args:
        client_app: the app.
        note: a callable that gets the number of the round and a request.
    """

    def __init__(self, client_app: ClientApp, note: Callable[[int, Request], None]) -> None:
        super().__init__()
        self._client_app = client_app
        self._note = note

    def __call__(self, message: Message, context: Context) -> Message:
        """The reply of the app."""
        for request in unpack_requests(message.content).values():
            self._note(unpack_header(message.content).round, request)
        return self._client_app(message, context)


def null_app(strategy: Strategy, task: Task, cohorts: Sequence[range]) -> ClientApp:
    """An app whose clients answer at once with uniform soft labels: whatever a round costs is the framework's.

    Args:
        strategy: the settings, which have the codec.
        task: the task, which has the shape of the soft labels.
        cohorts: the numbers of the clients on each node.
    """
    encoding = Encoding(strategy.codec, task.num_horizons, task.num_classes)
    row = np.full((1, task.num_horizons, task.num_classes), 1.0 / task.num_classes, np.float32)
    client_app = ClientApp()

    @client_app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        facts: dict[str, str | int] = {"modality": "gps", "num_parameters": 1, "num_passes": 1, "num_examples": 1}
        carried = cohorts[int(str(context.node_config["partition-id"]))]
        replies = {f"{number:05d}-gps": Reply(facts=facts) for number in carried}
        return Message(pack_replies(unpack_header(message.content), replies), reply_to=message)

    @client_app.train("round")
    def answer(message: Message, context: Context) -> Message:
        header, replies = unpack_header(message.content), {}
        for client, request in unpack_requests(message.content).items():
            labels = SoftLabels(request.ask, np.repeat(row, len(request.ask), axis=0), strategy.temperature)
            replies[client] = Reply(labels=encoding.pack(encoding.encode(labels, header.round)))
        return Message(pack_replies(header, replies), reply_to=message)

    return client_app
