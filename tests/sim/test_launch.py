"""One conversation, held on both engines, and what only Ray can do wrong."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import wraps
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState
from flwr.serverapp import Grid, ServerApp

from configs.schema import Engine
from sim.inline import FIRST_NODE_ID, InlineGrid, run_inline
from sim.launch import (
    CHECKOUT,
    FLEET,
    PRIVATE_NAMES,
    RAY_BACKEND,
    PrivateName,
    check_engine,
    launch,
    offline_environment,
)

NUM_NODES = 3
ODD_ONE = 1
"""The partition whose handler misbehaves."""
SHARED_ROUNDS = ("ok", "raise", "none", "text", "exit()", "refuse", "ok")
RAY = Engine(name="ray", workers=2)


def starts_ray(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test; Ray leaves its log files and daemons to the garbage collector."""
    return pytest.mark.ray(pytest.mark.filterwarnings("ignore::ResourceWarning")(test))


Answer = tuple[str, int]
"""("rounds answered", how many) or ("error", its code)."""


@dataclass(frozen=True)
class Settings:
    """What the handlers close over, as the real client app does."""

    gain: int


def build_client_app(settings: Settings) -> ClientApp:
    app = ClientApp()

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        import clients

        facts: dict[str, int | str] = {
            "partition": int(context.node_config["partition-id"]),
            "num-partitions": int(context.node_config["num-partitions"]),
            "clients": str(clients.__file__),
            "threads": os.environ.get("OMP_NUM_THREADS", ""),
        }
        return Message(RecordDict({"facts": ConfigRecord(facts)}), reply_to=message)

    @app.train("distill")
    def distill(message: Message, context: Context) -> Message:
        memory = context.state.setdefault("memory", MetricRecord({"answered": 0}))
        memory["answered"] = int(memory["answered"]) + settings.gain
        if context.node_config["partition-id"] == ODD_ONE:
            match message.content["ask"]["mood"]:
                case "raise":
                    raise KeyError("no such pass")
                case "none":
                    return None  # type: ignore[return-value]
                case "text":
                    return "soft labels"  # type: ignore[return-value]
                case "exit()":
                    sys.exit(3)
                case "refuse":
                    return Message(Error(code=6, reason="not today"), reply_to=message)
                case "die":
                    os._exit(3)
                case "sleep":
                    time.sleep(300)
        return Message(RecordDict({"answered": MetricRecord(dict(memory))}), reply_to=message)

    return app


def ask(grid: Grid, kind: str, mood: str, *, timeout_s: float = 120) -> list[Message]:
    content = RecordDict({"ask": ConfigRecord({"mood": mood})})
    messages = [Message(content, dst_node_id=node, message_type=kind) for node in grid.get_node_ids()]
    waiting = set(grid.push_messages(messages))
    assert len(waiting) == NUM_NODES
    replies: list[Message] = []
    deadline = time.monotonic() + timeout_s
    while waiting and time.monotonic() < deadline:
        replies += grid.pull_messages(waiting)
        waiting -= {reply.metadata.reply_to_message_id for reply in replies}
        time.sleep(0.01)
    return replies


def introduce(grid: Grid) -> dict[int, ConfigRecord]:
    """Node id -> the facts that it tells about itself."""
    return {reply.metadata.src_node_id: reply.content["facts"] for reply in ask(grid, "query.hello", "")}


@dataclass(frozen=True)
class Talk:
    """Facts by partition, by round the answers by partition, and the nodes for which all messages were searched."""

    facts: dict[int, ConfigRecord]
    rounds: list[dict[int, Answer]]
    searches: list[int] = field(default_factory=list)


def hold(engine: Engine, moods: tuple[str, ...]) -> Talk:
    talk = Talk({}, [])
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        facts = introduce(grid)
        talk.facts.update({int(fact["partition"]): fact for fact in facts.values()})
        for mood in moods:
            answers = {}
            for reply in ask(grid, "train.distill", mood):
                partition = int(facts[reply.metadata.src_node_id]["partition"])
                failed = reply.has_error()
                answers[partition] = ("error", reply.error.code) if failed else ("answered", _answered(reply))
            talk.rounds.append(answers)

    launch(server_app, build_client_app(Settings(gain=1)), num_nodes=NUM_NODES, engine=engine)
    gc.collect()
    return talk


def _answered(reply: Message) -> int:
    return int(reply.content["answered"]["answered"])


@pytest.fixture(scope="module")
def inline_talk() -> Talk:
    return hold(Engine(name="inline"), SHARED_ROUNDS)


@pytest.fixture(scope="module")
def ray_talk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Talk]:
    """Held from a folder in which another ``clients`` lies."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "clients").mkdir()
    (folder / "clients" / "__init__.py").write_text("")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        searches, search = list[int](), InMemoryLinkState.get_message_ins

        @wraps(search)
        def counted(self: InMemoryLinkState, node_id: int, *others: Any, **named: Any) -> list[Message]:
            searches.append(node_id)
            return search(self, node_id, *others, **named)

        patch.setattr(InMemoryLinkState, "get_message_ins", counted)
        talk = hold(RAY, (*SHARED_ROUNDS, "die", "ok"))
        talk.searches.extend(searches)
        yield talk


def test_a_handler_that_fails_in_any_way_is_an_error_reply_and_the_others_go_on(inline_talk: Talk) -> None:
    for number, answers in enumerate(inline_talk.rounds[1:6], start=2):
        code = 6 if SHARED_ROUNDS[number - 1] == "refuse" else 2
        assert answers == {0: ("answered", number), 1: ("error", code), 2: ("answered", number)}


def test_state_lives_between_rounds_and_an_error_reply_leaves_it_as_it_was(inline_talk: Talk) -> None:
    assert inline_talk.rounds[0] == dict.fromkeys(range(3), ("answered", 1))
    assert inline_talk.rounds[-1] == {0: ("answered", 7), 1: ("answered", 2), 2: ("answered", 7)}


def test_each_node_holds_its_own_partition(inline_talk: Talk) -> None:
    assert sorted(inline_talk.facts) == [0, 1, 2]
    assert {fact["num-partitions"] for fact in inline_talk.facts.values()} == {NUM_NODES}


@starts_ray
def test_both_engines_give_the_same_replies(inline_talk: Talk, ray_talk: Talk) -> None:
    assert ray_talk.rounds[: len(SHARED_ROUNDS)] == inline_talk.rounds
    assert sorted(ray_talk.facts) == sorted(inline_talk.facts)


@starts_ray
def test_nobody_looks_through_the_messages_of_all_nodes_for_those_of_one(ray_talk: Talk) -> None:
    assert ray_talk.searches == []


@starts_ray
def test_a_worker_that_dies_costs_one_reply_and_the_next_round_is_whole(ray_talk: Talk) -> None:
    died, after = ray_talk.rounds[-2:]
    assert died == {0: ("answered", 8), 1: ("error", 8), 2: ("answered", 8)}
    assert after == {0: ("answered", 9), 1: ("answered", 3), 2: ("answered", 9)}


@starts_ray
def test_workers_import_this_checkout_and_run_one_thread_wherever_the_run_starts(ray_talk: Talk) -> None:
    assert {fact["clients"] for fact in ray_talk.facts.values()} == {str(CHECKOUT / "clients" / "__init__.py")}
    assert {fact["threads"] for fact in ray_talk.facts.values()} == {"1"}


@starts_ray
def test_after_a_run_on_ray_this_process_is_as_it_was(ray_talk: Talk) -> None:
    import ray
    from flwr.server.superlink.fleet.vce.backend.raybackend import RayBackend
    from flwr.superlink.grid import InMemoryGrid

    assert not ray.is_initialized()
    assert (RayBackend.__name__, InMemoryGrid.__name__) == ("RayBackend", "InMemoryGrid")
    assert "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO" not in os.environ


@starts_ray
@pytest.mark.usefixtures("running_ray")
def test_the_serverapps_exception_reaches_the_caller_at_once_although_a_client_still_works() -> None:
    raised_at: list[float] = []

    def fail(grid: Grid) -> None:
        assert len(ask(grid, "train.distill", "ok")) == NUM_NODES
        assert len(ask(grid, "train.distill", "sleep", timeout_s=1)) == NUM_NODES - 1
        raised_at.append(time.monotonic())
        raise ZeroDivisionError("the teacher broke")

    with pytest.raises(ZeroDivisionError, match="the teacher broke"):
        launch(server_app_of(fail), build_client_app(Settings(gain=1)), num_nodes=NUM_NODES, engine=RAY)
    assert time.monotonic() - raised_at[0] < 30
    gc.collect()


@starts_ray
def test_an_interrupt_stops_ray_and_the_serverapp() -> None:
    ended = threading.Event()

    def interrupted(grid: Grid) -> None:
        ask(grid, "query.hello", "")
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        try:
            ask(grid, "train.distill", "sleep")
        finally:
            ended.set()

    # Whoever is started in the background ignores interrupts, and then this test would wait for ever.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            launch(server_app_of(interrupted), build_client_app(Settings(gain=1)), num_nodes=NUM_NODES, engine=RAY)
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.wait(5)
    gc.collect()


@starts_ray
def test_a_client_app_that_cannot_be_pickled_is_refused_before_ray_starts() -> None:
    app = ClientApp()
    lock = threading.Lock()

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        with lock:
            return Message(RecordDict(), reply_to=message)

    with pytest.raises(ValueError, match=r"^client_app: cannot be pickled.*lock"):
        launch(server_app_of(introduce), app, num_nodes=1, engine=RAY)


def refusal() -> str:
    """Why a run on Ray is refused."""
    with pytest.raises(ValueError, match=r"^engine.name: ray needs what flwr ") as refused:
        launch(server_app_of(introduce), build_client_app(Settings(gain=1)), num_nodes=1, engine=RAY)
    return str(refused.value)


def test_the_installed_flower_has_every_name_that_ray_needs() -> None:
    assert [name.missing() for name in PRIVATE_NAMES] == [None] * len(PRIVATE_NAMES)
    check_engine(RAY)


@pytest.mark.parametrize("name", PRIVATE_NAMES, ids=lambda name: name.path)
def test_a_flower_without_a_name_that_ray_needs_is_refused_by_that_name(
    name: PrivateName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(import_module(name.module), name.path.partition(".")[0])
    reason = refusal()
    assert f"{name.module}.{name.path}" in reason
    assert f"flwr {version('flwr')} lacks" in reason
    assert "engine.name=inline (--engine inline)" in reason


def test_a_flower_without_a_module_that_ray_needs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_engine(RAY)  # imports what imports it
    monkeypatch.setitem(sys.modules, f"{FLEET}.vce_api", None)
    needed = [f"{FLEET}.vce_api.{name.path}" for name in PRIVATE_NAMES if name.module == f"{FLEET}.vce_api"]
    assert len(needed) > 1
    assert f" lacks: {', '.join(needed)}; " in refusal()


def test_a_flower_that_would_call_ours_with_other_arguments_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = import_module(RAY_BACKEND).RayBackend
    monkeypatch.setattr(backend, "process_message", lambda self, message, context, deadline: None)
    assert f" lacks: {RAY_BACKEND}.RayBackend.process_message(message, context); " in refusal()


def test_a_flower_that_would_not_take_our_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module(f"{FLEET}.vce_api"), "start_vce", lambda: RAY_BACKEND)
    assert f" lacks: backend.raybackend and RayBackend in {FLEET}.vce_api.start_vce; " in refusal()


def test_the_inline_engine_runs_with_a_flower_that_ray_cannot_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, RAY_BACKEND, None)
    assert hold(Engine(name="inline"), ("ok",)).rounds == [dict.fromkeys(range(3), ("answered", 1))]


def server_app_of(main: Callable[[Grid], object]) -> ServerApp:
    server_app = ServerApp()

    @server_app.main()
    def run(grid: Grid, context: Context) -> None:
        main(grid)

    return server_app


def test_the_inline_engine_raises_what_the_serverapp_raises() -> None:
    def fail(grid: Grid) -> None:
        raise ZeroDivisionError("the teacher broke")

    with pytest.raises(ZeroDivisionError, match="the teacher broke"):
        launch(server_app_of(fail), ClientApp(), num_nodes=1, engine=Engine(name="inline"))


def test_a_run_needs_a_node() -> None:
    with pytest.raises(ValueError, match="at least one node, got 0"):
        launch(ServerApp(), ClientApp(), num_nodes=0, engine=RAY)


def shuffled_orders(seed: int | None) -> tuple[list[int], list[int]]:
    """The partitions in the order of node ids, and in the order of replies."""
    orders: list[list[int]] = []

    def main(grid: Grid) -> None:
        nodes = list(grid.get_node_ids())
        orders.append([node - FIRST_NODE_ID for node in nodes])
        messages = [Message(RecordDict(), dst_node_id=node, message_type="query.hello") for node in sorted(nodes)]
        replies = grid.send_and_receive(messages)
        orders.append([int(reply.content["facts"]["partition"]) for reply in replies])

    run_inline(server_app_of(main), build_client_app(Settings(gain=1)), num_nodes=20, shuffle_seed=seed)
    return orders[0], orders[1]


def test_a_shuffle_seed_changes_the_order_of_nodes_and_replies_but_not_their_set() -> None:
    in_order = list(range(20))
    assert shuffled_orders(None) == (in_order, in_order)
    nodes, replies = shuffled_orders(7)
    assert sorted(nodes) == sorted(replies) == in_order
    assert nodes != in_order and replies != in_order and nodes != replies
    assert shuffled_orders(7) == (nodes, replies)
    assert shuffled_orders(8) != (nodes, replies)


def test_inline_server_and_client_share_no_object() -> None:
    app = ClientApp()

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        message.content["ask"]["mood"] = "changed by the client"
        context.state["kept"] = message.content["ask"]
        return Message(message.content, reply_to=message)

    @app.query("recall")
    def recall(message: Message, context: Context) -> Message:
        return Message(context.state, reply_to=message)

    def main(grid: Grid) -> None:
        (node,) = grid.get_node_ids()
        content = RecordDict({"ask": ConfigRecord({"mood": "as sent"})})
        (reply,) = grid.send_and_receive([Message(content, dst_node_id=node, message_type="query.hello")])
        reply.content["ask"]["mood"] = "changed by the server"
        (recalled,) = grid.send_and_receive([Message(RecordDict(), dst_node_id=node, message_type="query.recall")])
        assert content["ask"]["mood"] == "as sent"
        assert recalled.content["kept"]["mood"] == "changed by the client"

    run_inline(server_app_of(main), app, num_nodes=1)


def test_inline_a_reply_to_another_message_is_an_error_reply() -> None:
    app = ClientApp()

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        return message

    def main(grid: Grid) -> None:
        (node,) = grid.get_node_ids()
        (reply,) = grid.send_and_receive([Message(RecordDict(), dst_node_id=node, message_type="query.hello")])
        assert "reply_to=message" in reply.error.reason

    run_inline(server_app_of(main), app, num_nodes=1)


def test_inline_an_unpicklable_state_is_an_error_reply() -> None:
    app = ClientApp()

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        context.state.lock = threading.Lock()  # type: ignore[attr-defined]
        return Message(RecordDict(), reply_to=message)

    def main(grid: Grid) -> None:
        (node,) = grid.get_node_ids()
        (reply,) = grid.send_and_receive([Message(RecordDict(), dst_node_id=node, message_type="query.hello")])
        assert "cannot be pickled" in reply.error.reason

    run_inline(server_app_of(main), app, num_nodes=1)


def test_inline_a_message_to_nobody_is_refused() -> None:
    grid = InlineGrid(ClientApp(), num_nodes=2)
    with pytest.raises(ValueError, match="message to node 7: no such node"):
        grid.push_messages([Message(RecordDict(), dst_node_id=7, message_type="query.hello")])


def test_inline_an_error_names_the_line_that_raised() -> None:
    app = ClientApp()

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        raise KeyError("no such pass")

    grid = InlineGrid(app, num_nodes=1)
    (reply,) = grid.send_and_receive([Message(RecordDict(), dst_node_id=FIRST_NODE_ID, message_type="query.hello")])
    assert reply.error.reason.startswith("KeyError: 'no such pass' (") and Path(__file__).name in reply.error.reason


def test_a_ray_address_of_the_user_is_kept_and_otherwise_ray_starts_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert offline_environment()["RAY_ADDRESS"] == "local"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert offline_environment()["RAY_ADDRESS"] == "10.0.0.1:6379"
    assert offline_environment("local")["RAY_ADDRESS"] == "local"
    monkeypatch.setenv("RAY_ADDRESS", "")
    assert offline_environment()["RAY_ADDRESS"] == "local"


@pytest.mark.usefixtures("running_ray")
@pytest.mark.ray
def test_a_variable_that_is_left_over_is_named_where_ray_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_RUNTIME_ENV_HOOK", "nothing.there")
    with pytest.raises(RuntimeError, match=r"nothing.* \(the environment has RAY_ADDRESS, RAY_RUNTIME_ENV_HOOK; unset"):
        launch(ServerApp(), ClientApp(), num_nodes=1, engine=Engine(name="ray"))


def test_importing_the_launcher_does_not_import_ray() -> None:
    code = "import sys, sim.launch; sys.exit('ray' in sys.modules or 'torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, check=True)
