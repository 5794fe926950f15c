"""The one seam where a run meets an engine: Flower's simulation runtime on Ray, or this process.

Both engines give a node the same config (``partition-id``, ``num-partitions``), keep its `Context.state` between
messages, answer a failing handler with an error reply and leave that client's state as it was before the message.

What Ray asks of a ClientApp: it travels to a worker with every message. What can be imported goes by name, and workers
import what this process imports, this checkout first. Everything else (closures, lambdas) goes by value: keep settings
in closures small, and caches that should outlive a message in an importable module.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from importlib.metadata import version
from inspect import signature, unwrap
from operator import attrgetter
from pathlib import Path
from queue import Empty, Queue, SimpleQueue
from types import CodeType
from typing import TYPE_CHECKING, Any, cast

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from configs.schema import Engine
from sim.inline import GuardedApp, run_inline
from sim.ray_workers import POLL_S, RayWorkers

if TYPE_CHECKING:
    from flwr.server.superlink.fleet.vce.backend.backend import Backend, BackendConfig

CHECKOUT = Path(__file__).resolve().parents[1]
FLEET = "flwr.server.superlink.fleet.vce"
RAY_BACKEND = f"{FLEET}.backend.raybackend"
ACTORS = "flwr.simulation.ray_transport.ray_actor"
LINK_STATE = "flwr.server.superlink.linkstate.in_memory_linkstate"
ADDRESS_TIMEOUT_S = 5.0
"""How long a Ray cluster named by the environment has to take a connection."""
_SET_BY_RAY = {"RAY_CLIENT_MODE", "RAY_ENABLE_UV_RUN_RUNTIME_ENV"}
"""The variables that Ray puts into the environment when it is imported."""
HANDING_POLL_S = 0.1
"""How often the thread that hands messages to whoever serves nodes looks whether the run is over."""
MAX_WORKERS = 4096  # threads that may wait for clients; Flower starts as many as it has workers


def offline_environment(address: str | None = None) -> dict[str, str]:
    """Environment variables for a run that calls nobody and shares its cores well.

    Args:
        address: a Ray cluster, as for ``engine.address``; None keeps a `RAY_ADDRESS` that is set already.
    """
    return {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ADDRESS": address or os.environ.get("RAY_ADDRESS") or "local",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a client that reserves no GPU still sees it
        "OMP_NUM_THREADS": "1",
    }


def launch(server_app: ServerApp, client_app: ClientApp, *, num_nodes: int, engine: Engine) -> None:
    """Run a federation to its end.

    Args:
        server_app: the `ServerApp`; its main gets a grid with ``num_nodes`` nodes.
        client_app: the `ClientApp` that every node runs.
        num_nodes: the number of virtual nodes; partition ids are 0 to ``num_nodes - 1``, node ids are arbitrary.
        engine: the engine that runs the nodes.

    Raises:
        ValueError: the engine cannot run these apps.
        RuntimeError: the engine broke down.
        BaseException: whatever the ServerApp raised.

    Example:
        Every client answers with its partition id, and the server prints the answers:

        >>> from flwr.app import Message, MetricRecord, RecordDict
        >>> from flwr.clientapp import ClientApp
        >>> from flwr.serverapp import ServerApp
        >>> from configs.schema import Engine
        >>> client_app, server_app = ClientApp(), ServerApp()
        >>> @client_app.query()
        ... def answer(message, context):
        ...     partition = context.node_config["partition-id"]
        ...     return Message(RecordDict({"answer": MetricRecord({"partition": partition})}), reply_to=message)
        >>> @server_app.main()
        ... def main(grid, context):
        ...     messages = [Message(RecordDict(), node, "query") for node in grid.get_node_ids()]
        ...     replies = grid.send_and_receive(messages)
        ...     print(sorted(reply.content["answer"]["partition"] for reply in replies))
        >>> launch(server_app, client_app, num_nodes=3, engine=Engine(name="inline"))
        [0, 1, 2]
    """
    if num_nodes < 1:
        raise ValueError(f"data.nodes: expected at least one node, got {num_nodes}")
    check_engine(engine)
    if engine.name == "inline":
        run_inline(server_app, client_app, num_nodes=num_nodes)
    else:
        _run_ray(server_app, client_app, num_nodes=num_nodes, engine=engine)


def check_engine(engine: Engine) -> None:
    """Check that a federation can be launched on an engine in this environment; starts nothing.

    Raises:
        ValueError: it cannot; says why, and what can be done.
    """
    if engine.name == "deployment":
        raise ValueError("engine.name: deployment runs on real machines; use softbeam run CONFIG --on DIR")
    if engine.device == "cuda":
        from clients.models.device import device_named

        device_named(engine.device)
    if engine.name == "ray":
        with _environment(offline_environment(engine.address)):
            import ray

            _check_address(os.environ["RAY_ADDRESS"], is_asked_for=engine.address is not None)
            _check_flower()
        if ray.is_initialized():
            raise ValueError("engine.name: Ray already runs in this process; call ray.shutdown() before the run")


def _check_address(address: str, *, is_asked_for: bool) -> None:
    """Refuse an address at which no Ray answers: Ray itself would wait for minutes before it says so.

    Args:
        address: ``local``, ``auto`` or where a cluster is.
        is_asked_for: whether the experiment names it, and not the environment.

    Raises:
        ValueError: nobody listens there, somebody else does, or ``auto`` finds no cluster or a trace of an old one.
    """
    if address == "local":
        return
    found = _address_of_auto() if address == "auto" else address
    try:
        if found == "auto":
            raise ValueError("none runs on this machine")
        _ask_ray(found)
    except (OSError, ValueError, OverflowError) as error:
        source = "engine.address" if is_asked_for else "RAY_ADDRESS"
        where = address if found == address else f"{found}, which {source}={address} finds"
        way_out = "leave it out" if is_asked_for else "unset the variable"
        raise ValueError(
            f"{source}: no Ray cluster answers at {where} ({error}); {way_out} to run on this machine alone, or start "
            "the cluster"
        ) from None


def _address_of_auto() -> str:
    """The cluster that Ray would look for by itself, which may be the trace of one that is gone; else ``auto``."""
    with suppress(ImportError, AttributeError, ConnectionError):
        from ray._private.services import get_ray_address_from_environment

        return str(get_ray_address_from_environment("auto", None))
    return "auto"


def _ask_ray(address: str) -> None:
    """Ask at an address whether Ray listens there; whatever else listens does not know the question.

    Raises:
        OSError: nobody listens, or no Ray.
        ValueError: it is not an address.
        OverflowError: it is not a port.
    """
    scheme, _, rest = address.rpartition("://")
    host, _, port = rest.split(",")[0].rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=ADDRESS_TIMEOUT_S):
        pass
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return  # only Ray knows how to greet it
    import grpc

    question = "/ray.rpc.RayletDriver/ClusterInfo" if scheme == "ray" else "/ray.rpc.NodeInfoGcsService/CheckAlive"
    strangers = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    # As Ray does, past any proxy.
    with grpc.insecure_channel(f"{host}:{port}", options=(("grpc.enable_http_proxy", 0),)) as channel:
        try:
            channel.unary_unary(question)(b"", timeout=ADDRESS_TIMEOUT_S, wait_for_ready=True)
        except grpc.RpcError as error:
            if error.code() in strangers:
                raise OSError("something else than Ray listens there") from None


class RunOverError(RuntimeError):
    """The run was interrupted, or its engine broke down: nobody will answer the ServerApp any more."""


def _run_ray(server_app: ServerApp, client_app: ClientApp, *, num_nodes: int, engine: Engine) -> None:
    # Ray and Flower read many variables; one that is left over from other work is hard to think of.
    others = sorted(name for name in set(os.environ) - _SET_BY_RAY if name.startswith(("RAY_", "FLWR_")))
    with _environment(offline_environment(engine.address)):
        import ray
        from flwr.simulation import run_simulation

        _check_pickling(client_app)
        is_over = threading.Event()
        failures: list[BaseException] = []
        init_args: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
        if os.environ["RAY_ADDRESS"] == "local":
            init_args["num_cpus"] = min(engine.workers or _num_cores(), num_nodes)
        try:
            with _quiet_flower(), _repaired_flower(is_over, engine):
                run_simulation(
                    server_app=_watched(server_app, num_nodes=num_nodes, is_over=is_over, failures=failures),
                    client_app=GuardedApp(client_app),
                    num_supernodes=num_nodes,
                    # `_sturdy_backend` gives workers their share of a GPU: only a Ray that runs knows its GPUs.
                    backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": init_args},
                )
        except RuntimeError as error:
            cause = _first_cause(error)
            hint = f" (the environment has {', '.join(others)}; unset what is left over)" if others else ""
            raise RuntimeError(f"engine.name=ray: {type(cause).__name__}: {cause}{hint}") from error
        finally:
            is_over.set()
            with _kept_handler(signal.SIGTERM):
                ray.shutdown()
    if failures:
        raise failures[0]


def _watched(
    server_app: ServerApp, *, num_nodes: int, is_over: threading.Event, failures: list[BaseException]
) -> ServerApp:
    """A ServerApp that starts when all nodes are there and says when it is over, and why."""
    watched = ServerApp()

    @watched.main()
    def main(grid: Grid, context: Context) -> None:
        try:
            while len(list(grid.get_node_ids())) < num_nodes:  # Flower registers them after it has called main
                time.sleep(0.01)
            server_app(grid, context)
        except BaseException as error:  # a SystemExit would end this thread, and the run, without a word
            failures.append(error)
        finally:
            is_over.set()

    return watched


@contextmanager
def _repaired_flower(is_over: threading.Event, engine: Engine) -> Iterator[None]:
    """Repair faults of Flower's simulation runtime, and keep the handlers of signals, while a run lasts.

    Stock Flower hands messages to a dead worker again and again, serves at most ``cores + 4`` or 32 clients at a
    time, waits for a client that will never answer, looks through all messages for each node ten times a second, and
    leaves the ServerApp behind when it breaks down.
    """
    pushed: SimpleQueue[str] = SimpleQueue()
    replacements: list[tuple[str, str, object]] = [
        ("flwr.supercore.telemetry", "FLWR_TELEMETRY_ENABLED", "0"),  # the variable was read when flwr was imported
        (f"{FLEET}.vce_api", "ThreadPoolExecutor", partial(ThreadPoolExecutor, max_workers=MAX_WORKERS)),
        (RAY_BACKEND, "RayBackend", _sturdy_backend(is_over, engine)),
        # Ray would end this process at SIGTERM without a word, already while it starts.
        ("ray._private.utils", "set_sigterm_handler", _keeping(signal.SIGTERM)),
        ("flwr.simulation.run_simulation", "InMemoryGrid", _closing_grid(is_over, pushed)),
        (f"{FLEET}.vce_api", "add_messages_to_queue", _handing_over(pushed)),
    ]
    with ExitStack() as repairs:
        for module, name, replacement in replacements:
            owner = import_module(module)
            if not hasattr(owner, name):
                continue  # `_check_flower` refuses a Flower without; Ray may do without
            repairs.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, replacement)
        yield


def _closing_grid(is_over: threading.Event, pushed: SimpleQueue[str]) -> type[Grid]:
    """The grid of Flower, changed: it notes the ids of what is pushed, and who waits learns that the run is over."""
    from flwr.superlink.grid import InMemoryGrid

    class ClosingGrid(InMemoryGrid):
        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            message_ids = list(super().push_messages(messages))
            for message_id in message_ids:
                pushed.put(message_id)
            return message_ids

        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            if is_over.is_set():
                raise RunOverError("engine.name=ray: Ray has stopped; softbeam resume goes on from the last round")
            return super().pull_messages(message_ids)

    return ClosingGrid


def _handing_over(pushed: SimpleQueue[str]) -> Callable[[Any, Queue[Message], object, threading.Event], None]:
    """Flower's thread that hands messages to whoever serves nodes, changed: it takes those that were pushed, in order.

    That of Flower asks for the messages of each node, and each time looks through those of all nodes: with a thousand
    nodes this takes longer than their work, and its share grows with the square of their number.
    """

    def add_messages_to_queue(state: Any, queue: Queue[Message], nodes: object, is_over: threading.Event) -> None:
        while not is_over.is_set():
            with suppress(Empty):
                message = state.message_ins_store.get(pushed.get(timeout=HANDING_POLL_S))
                if message is not None:  # The ServerApp may have given it up.
                    message.metadata.delivered_at = datetime.now(UTC).isoformat()
                    queue.put(message)

    return add_messages_to_queue


def _sturdy_backend(is_over: threading.Event, engine: Engine) -> type[Backend]:
    """The Ray backend of Flower, changed: a dead worker is replaced, and no client can delay the end of the run."""
    import ray
    from flwr.server.superlink.fleet.vce.backend.raybackend import RayBackend

    class SturdyBackend(RayBackend):
        def init_ray(self, backend_config: BackendConfig) -> None:
            # Flower passes PYTHONPATH by a runtime environment, with which Ray cannot use the workers it prestarted.
            with _kept_handler(signal.SIGTERM):
                ray.init(**cast(dict[str, Any], backend_config["init_args"]))
            resources = cast(dict[str, float], backend_config["client_resources"])
            has: Callable[[], dict[str, float]] = ray.cluster_resources
            resources["num_gpus"] = gpu_share(engine, num_gpus=has().get("GPU", 0.0))

        def build(self, app_fn: Callable[[], ClientApp]) -> None:
            self.actor_kwargs = {"on_actor_init_fn": _start_of_worker(pickled(app_fn))}
            super().build(app_fn)
            self.workers = RayWorkers(self.pool, is_over)

        def process_message(self, message: Message, context: Context) -> tuple[Message, Context]:
            return self.workers.process(self.app_fn, message, context)  # type: ignore[arg-type]

        def terminate(self) -> None:
            is_over.set()
            if self.pool:
                self.workers.wait_until_free(5 * POLL_S)  # Ray that ends under a waiting thread can abort the process
            ray.shutdown()

    return SturdyBackend


def gpu_share(engine: Engine, *, num_gpus: float) -> float:
    """The share of a GPU that Ray sets aside for each worker, in [0, 1].

    Args:
        engine: the engine.
        num_gpus: the number of GPUs of all machines of the Ray that runs.

    Raises:
        ValueError: the engine has to have GPUs, and Ray has none.

    Example:
        >>> gpu_share(Engine(device="auto", gpu_per_worker=0.25), num_gpus=1)
        0.25
        >>> gpu_share(Engine(device="auto", gpu_per_worker=0.25), num_gpus=0)
        0.0
    """
    share = engine.gpu_per_worker
    if share <= num_gpus:
        return share
    if engine.device == "auto":
        return 0.0
    raise ValueError(
        f"engine.gpu_per_worker: each worker is to get {share:g} of a GPU, but Ray has {num_gpus:g} GPUs; set "
        "engine.device=auto to go on without one, leave the share out, or start Ray where there is one (ray start "
        "--num-gpus)"
    )


def _keeping(number: int) -> Callable[[object], None]:
    """A function that puts the handler which a signal has now in the place of any other."""
    before = signal.getsignal(number)

    def keep(other: object) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(number, before)

    return keep


@contextmanager
def _kept_handler(number: int) -> Iterator[None]:
    """Keep the handler of a signal, which Ray takes over to end the process with a stack instead of our own line."""
    before = signal.getsignal(number)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(number, before)


def _start_of_worker(app: bytes) -> Callable[[], None]:
    """The first work of a worker: it imports as this process does, this checkout first, and loads the pickled ``app``.

    By default, a worker searches the folder where the run was started before any other, and would import another
    ``clients`` from there.
    """
    paths = list(dict.fromkeys([str(CHECKOUT), *sys.path]))

    def start() -> None:
        sys.path[:] = [*paths, *(path for path in sys.path if path not in paths)]
        with suppress(Exception):  # the first message meets the same error and reports it
            pickle.loads(app)  # takes seconds where it imports torch; the server pretrains meanwhile

    return start


@dataclass(frozen=True)
class PrivateName:
    """A name inside Flower that a run on Ray replaces, extends or calls; it may move with any release.

    Attributes:
        module: where it is looked up.
        path: the name there, dotted for what a class holds.
        parameters: all that it takes by position, because we call it or Flower calls ours instead; None if neither.
        mentions: what its code has to name, because we pass it, replace it or read it afterwards.
    """

    module: str
    path: str
    parameters: tuple[str, ...] | None = None
    mentions: tuple[str, ...] = ()

    def missing(self) -> str | None:
        """What the installed Flower lacks of it; None if nothing."""
        name = f"{self.module}.{self.path}"
        try:
            found = attrgetter(self.path)(import_module(self.module))
            if self.parameters is not None and _positional_parameters(found) != self.parameters:
                return f"{name}({', '.join(self.parameters)})"
            absent = [part for part in self.mentions if part not in _names_in(unwrap(found).__code__)]
        except (ImportError, AttributeError, TypeError, ValueError):
            return name
        return f"{' and '.join(absent)} in {name}" if absent else None


PRIVATE_NAMES = (
    PrivateName(
        "flwr.simulation", "run_simulation", mentions=("server_app", "client_app", "num_supernodes", "backend_config")
    ),
    PrivateName("flwr.simulation.run_simulation", "InMemoryGrid"),
    PrivateName("flwr.superlink.grid", "InMemoryGrid.pull_messages", ("message_ids",)),
    PrivateName("flwr.superlink.grid", "InMemoryGrid.push_messages", ("messages",)),
    PrivateName("flwr.superlink.grid", "InMemoryGrid.send_and_receive", mentions=("push_messages",)),
    PrivateName(f"{FLEET}.vce_api", "run_api", mentions=("add_messages_to_queue",)),
    PrivateName(f"{FLEET}.vce_api", "add_messages_to_queue", ("state", "queue", "nodes_mapping", "f_stop")),
    PrivateName(LINK_STATE, "InMemoryLinkState.get_message_ins", mentions=("message_ins_store", "delivered_at")),
    PrivateName("flwr.supercore.telemetry", "FLWR_TELEMETRY_ENABLED"),
    PrivateName(f"{FLEET}.vce_api", "ThreadPoolExecutor"),
    # It has to import the backend when a run starts: one that it had imported before, we could not replace there.
    PrivateName(f"{FLEET}.vce_api", "start_vce", mentions=("backend.raybackend", "RayBackend")),
    PrivateName(RAY_BACKEND, "RayBackend.__init__", ("backend_config",), mentions=("init_ray",)),
    PrivateName(RAY_BACKEND, "RayBackend.init_ray", ("backend_config",)),
    PrivateName(RAY_BACKEND, "RayBackend.build", ("app_fn",), mentions=("actor_kwargs", "app_fn", "pool")),
    PrivateName(RAY_BACKEND, "RayBackend.process_message", ("message", "context")),
    PrivateName(RAY_BACKEND, "RayBackend.terminate", ()),
    PrivateName(ACTORS, "BasicActorPool.__init__", mentions=("create_actor_fn", "num_actors", "pool")),
    PrivateName(ACTORS, "ClientAppActor.run", ("client_app_fn", "message", "cid", "context")),
    PrivateName(ACTORS, "ClientAppActor.__ray_actor_class__", ("on_actor_init_fn",)),
)


def _positional_parameters(function: Callable[..., object]) -> tuple[str, ...]:
    parameters = signature(function).parameters.values()
    return tuple(one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD and one.name != "self")


def _names_in(code: CodeType) -> set[str]:
    """Names that a function's code looks up, imports, sets or takes, and those of the functions in it."""
    return {*code.co_names, *code.co_varnames}.union(
        *(_names_in(inner) for inner in code.co_consts if isinstance(inner, CodeType))
    )


def _check_flower() -> None:
    missing = [what for name in PRIVATE_NAMES if (what := name.missing()) is not None]
    if missing:
        raise ValueError(
            f"engine.name: ray needs what flwr {version('flwr')} lacks: {', '.join(missing)}; take engine.name=inline "
            "(--engine inline), which works without it, or install Softbeam with its constraints file"
        )


def _check_pickling(client_app: ClientApp) -> None:
    try:
        pickled(client_app)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise ValueError(f"client_app: cannot be pickled, so no Ray worker can run it: {error}") from error


def pickled(value: object) -> bytes:
    """A value as bytes that another process can load; what it cannot import, such as a class of a notebook, is in them.

    Raises:
        Exception: the value cannot be pickled; each kind of value has an error of its own.
    """
    from ray.cloudpickle import dumps

    content: bytes = dumps(value)  # type: ignore[no-untyped-call]
    return content


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _quiet_flower() -> Iterator[None]:
    """Let the logger of Flower show errors only, unless the user has chosen a level."""
    logger = logging.getLogger("flwr")
    before = logger.level
    if "FLWR_LOG_LEVEL" not in os.environ:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
