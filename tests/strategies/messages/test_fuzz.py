"""Mutated messages of every kind and codec, in both directions: each is a contribution or a refusal, and nothing else.

Messages are valid ones in which a seeded mutator spoils some part. A thousand run with every test, a hundred
thousand with the slow ones.
"""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from clients import app as client_app
from clients.context import ClientContext
from clients.exchanges.labels import PublicExchange
from configs.placement import Placement
from configs.schema import Experiment
from configs.seeding import rng_for
from sim.inline import InlineGrid
from strategies.codecs.encoding import Encoding
from strategies.labels import SoftLabels
from strategies.messages import mailbox
from strategies.messages.mailbox import Outcome, Sent
from strategies.messages.records import ClientRound, Member
from strategies.messages.wire import Header, Reply, Request, WireError, pack_replies, pack_requests
from strategies.methods.base import Choreography
from strategies.methods.baselines import FedAvgStrategy
from strategies.methods.classes import ClassLabelStrategy, PrototypeStrategy
from strategies.methods.distillation import DistillationStrategy
from strategies.methods.secure_sum import KEY_BYTES, Scale, SecureSumStrategy
from tests.made_up import BEAMS, HORIZONS, MadeUpTeacher, ObjectPushError, build, experiment

NUM_PUBLIC, CLIENT = 200, "000-gps"
# Of a message of some tens of kilobytes: what may be allocated at the most while it is judged.
MAX_MEMORY = 32 << 20
MEMBER = Member(CLIENT, "gps", 100, 2, 7, public_key=bytes(range(KEY_BYTES)))
OTHER = Member("001-gps", "gps", 100, 2, 7, public_key=bytes(range(1, KEY_BYTES + 1)))


class Featured(MadeUpTeacher):
    def features(self, sample_ids: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return rng_for(0, "features").normal(size=(len(sample_ids), 8)).astype(np.float32)


def labels(rng: np.random.Generator, ids: np.ndarray[Any, Any]) -> SoftLabels:
    return SoftLabels(ids, rng.dirichlet(np.full(BEAMS, 0.2), size=(len(ids), HORIZONS)).astype(np.float32), 2.0)


class Case:
    """A strategy of one kind with its plan of a round, and a valid message in either direction."""

    def __init__(self, strategy_class: type[Choreography], **settings: Any) -> None:
        self.settings: Experiment = experiment(**settings)
        self.strategy = build(strategy_class, self.settings, teacher=Featured(), num_public=NUM_PUBLIC)
        for member in (MEMBER, OTHER):
            self.strategy.mailbox.roster.update(member)
        self.plan = self.strategy.prepare(1)
        self.request: Request = self.strategy.request(CLIENT, self.plan)
        self.header = Header("r", "e", "s", 1, strategy_class.traits.exchange)

    def reply(self, rng: np.random.Generator) -> Reply:
        metrics: dict[str, Any] = {"loss": 1.0, "common.top5": [0.5] * HORIZONS}
        facts: dict[str, Any] = {"known_round": 0, "seconds": 1.5, "num_examples": 7, "seen": [1] * BEAMS}
        ask, kind = self.request.ask, self.header.kind
        if kind in ("public", "classes"):
            encoding = Encoding(self.settings.strategy.codec, HORIZONS, BEAMS)
            return Reply(encoding.pack(encoding.encode(labels(rng, ask), 1)), metrics, facts)
        arrays: dict[str, np.ndarray[Any, Any]] = {}
        if kind == "secure_sum":
            arrays = {"masked": Scale(2).quantise(labels(rng, ask).probs)}
        elif kind == "prototypes":
            arrays = {
                "classes": np.arange(5, dtype=np.uint16),
                "features": np.ones((5, 8), np.float16),
                "counts": np.ones(5, np.uint32),
            }
        elif kind == "weights":
            arrays = {"gru.weight": np.ones((8, 8), np.float32), "gru.bias": np.ones(8, np.float32)}
        return Reply(None, metrics, facts, arrays=arrays)


CASES: dict[str, Callable[[], Case]] = {
    **{
        codec: (lambda codec=codec: Case(DistillationStrategy, codec=codec))  # type: ignore[misc]
        for codec in ("top8-uint4+delta", "float32", "float16+zlib", "uint8", "uint4+delta", "top3", "argmax")
    },
    "relations": lambda: Case(DistillationStrategy, relations={"pairs": 2}),
    "classes": lambda: Case(ClassLabelStrategy),
    "secure_sum": lambda: Case(SecureSumStrategy, aggregator={"name": "mean"}),
    "prototypes": lambda: Case(PrototypeStrategy),
    "weights": lambda: Case(FedAvgStrategy),
}

VALUES: list[Any] = [
    *(float("inf"), float("-inf"), float("nan"), 1.0, 1e300, -1, 0, 1, 2**31, 2**63 - 1, -(2**63), True, False),
    *(
        "",
        "1",
        "a" * 5000,
        "\x1b[31m\u202e",
        "../..",
        b"",
        b"\xff" * 10,
        [],
        [1.5],
        [float("inf")],
        ["x", "x"],
        [2**62],
    ),
]


def spoilt_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    way = rng.integers(6)
    if way == 0 and data:
        at = int(rng.integers(len(data)))
        return data[:at] + bytes([int(rng.integers(256))]) + data[at + 1 :]
    if way == 1:
        return data[: int(rng.integers(len(data) + 1))]
    if way == 2:
        return data + bytes(int(rng.integers(1, 2000)))
    if way == 3:
        return rng.bytes(int(rng.integers(0, 300)))
    stream = io.BytesIO()
    if way == 4:  # a shape that nobody could hold
        shape = tuple(int(size) for size in rng.choice([0, 1, 3, 2**20, 2**31, 2**62], size=int(rng.integers(1, 4))))
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": shape})
        return stream.getvalue() + data[-64:]
    kind = rng.choice(["<u1", "<u4", "<f2", "<f4", "<i8", "<c16", "<U4", "<M8[s]", "|b1"])
    shape = tuple(int(size) for size in rng.choice([0, 1, 2, 7, 64, 200], size=int(rng.integers(0, 4))))
    np.save(stream, np.zeros(shape, kind))
    return stream.getvalue()


def spoil_arrays(record: ArrayRecord, rng: np.random.Generator) -> None:
    key = str(rng.choice(sorted(record)))
    array = record[key]
    way = rng.integers(6)
    if way == 0:
        del record[key]
    elif way == 1:
        record[str(rng.choice(["ids", "values", "delta", "rounds", "masked", "x"]))] = array
    elif way == 2:
        record[key] = Array("float32", (1,), str(rng.choice(["x", "numpy.ndarray", ""])), array.data)
    elif way == 3:  # a bitmap of very many ids
        record[key] = Array(np.full(int(rng.integers(1, 1 << 17)), 255, np.uint8))
    else:
        record[key] = Array(array.dtype, array.shape, array.stype, spoilt_bytes(array.data, rng))


def spoil_values(record: ConfigRecord | MetricRecord, rng: np.random.Generator) -> None:
    key = str(rng.choice([*sorted(record), "x"]))
    try:
        record[key] = VALUES[int(rng.integers(len(VALUES)))]
    except (TypeError, ValueError):  # Flower itself lets no such value into a record
        record.pop(key, None)


def spoil(content: RecordDict, rng: np.random.Generator) -> RecordDict:
    """One to three parts of a message, changed."""
    for _ in range(int(rng.integers(1, 4))):
        if not content:
            break
        name = str(rng.choice(sorted(content)))
        record = content[name]
        way = rng.integers(8)
        if way == 0:
            del content[name]
        elif way == 1:
            content[str(rng.choice(["x", "001-gps/labels", f"{CLIENT}/arrays/x", "/", "header/x"]))] = record
        elif isinstance(record, ArrayRecord) and len(record):
            spoil_arrays(record, rng)
        elif isinstance(record, (ConfigRecord, MetricRecord)):
            spoil_values(record, rng)
    return content


def copied(content: RecordDict) -> RecordDict:
    found = RecordDict()
    for name, record in content.items():
        kind: Any = type(record)
        found[name] = kind(dict(record))
    return found


def judge(case: Case, content: RecordDict) -> ClientRound:
    """What the server makes of a reply, from the moment that Flower hands it over."""
    sent = Sent(1, case.header, {CLIENT: case.request})
    reply: Any = SimpleNamespace(
        has_error=lambda: False, metadata=SimpleNamespace(src_node_id=1, reply_to_message_id="m"), content=content
    )
    found = mailbox._open(reply, sent)
    answer = found if isinstance(found, WireError) else found.get(CLIENT) or WireError("answered without it")
    outcome = Outcome(CLIENT, 1, case.request, answer)
    case.strategy.now = 1
    contribution, entry = case.strategy._judge(outcome, MEMBER, case.plan)
    assert (contribution is None) == bool(entry.problem)
    assert len(entry.problem) < 1000
    assert "\n" not in entry.problem
    return entry


def fuzz_server(name: str, count: int, *, watched: bool) -> tuple[int, int]:
    """Contributions and refusals of so many mutated replies."""
    case, counted, refused = CASES[name](), 0, 0
    for number in range(count):
        rng = rng_for(0, "fuzz", name, number)
        content = spoil(copied(pack_replies(case.header, {CLIENT: case.reply(rng)})), rng)
        if watched:
            tracemalloc.start()
        entry = judge(case, content)
        if watched:
            assert tracemalloc.get_traced_memory()[1] <= MAX_MEMORY, (number, entry.problem)
            tracemalloc.stop()
        counted, refused = counted + (not entry.problem), refused + bool(entry.problem)
        case.strategy.state.answers.clear()
    return counted, refused


@pytest.mark.parametrize("name", CASES)
def test_a_valid_reply_of_every_kind_counts(name: str) -> None:
    case = CASES[name]()
    content = pack_replies(case.header, {CLIENT: case.reply(rng_for(0, "valid"))})
    assert judge(case, copied(content)).problem == ""


@pytest.mark.parametrize("name", CASES)
def test_a_mutated_reply_is_a_contribution_or_a_refusal_within_bounded_memory(name: str) -> None:
    counted, refused = fuzz_server(name, 60, watched=True)
    assert counted and refused


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_of_a_hundred_thousand_mutated_replies_none_ends_the_process(name: str) -> None:
    counted, refused = fuzz_server(name, 100_000 // len(CASES) + 1, watched=False)
    assert counted and refused


def fuzz_client(name: str, count: int, monkeypatch: pytest.MonkeyPatch, *, watched: bool) -> tuple[int, int]:
    """Answers and errors of a client to so many mutated requests."""
    case = CASES[name]()
    placement = Placement(case.settings, Path("federation"), Path("run"), ())
    profile = SimpleNamespace(id=CLIENT, modality="gps", memory=None, is_virtual=True)
    monkeypatch.setattr(client_app, "profiles_of", lambda config, federation, experiment: [profile])
    monkeypatch.setattr(client_app, "report_health", lambda *arguments, **keywords: None)
    monkeypatch.setattr(client_app, "_check_digests", lambda header, placement: None)

    def work(context: ClientContext, request: Request) -> Reply:
        exchange: Any = PublicExchange(context, None, request, {})  # type: ignore[arg-type]
        exchange.targets()
        return Reply(facts={"known_round": 0})

    InlineGrid(ClientApp(), num_nodes=1)  # messages belong to a run
    answered, failed = 0, 0
    for number in range(count):
        rng = rng_for(0, "fuzz", name, "down", number)
        content = spoil(copied(pack_requests(case.header, {CLIENT: case.request})), rng)
        message: Any = Message(content, dst_node_id=1, message_type="train.round")
        message.metadata.__dict__["_message_id"] = "m"
        if watched:
            tracemalloc.start()
        reply = client_app._answer(message, Context(1, 1, {}, RecordDict(), {}), placement, work)
        if watched:
            assert tracemalloc.get_traced_memory()[1] <= MAX_MEMORY, number
            tracemalloc.stop()
        is_error = reply.has_error() or any(
            facts.get("error") for key, facts in reply.content.config_records.items() if key.endswith("/facts")
        )
        answered, failed = answered + (not is_error), failed + is_error
    return answered, failed


@pytest.mark.parametrize("name", ["top8-uint4+delta", "float32", "relations", "secure_sum", "weights"])
def test_a_hostile_server_gets_an_answer_or_an_error_within_bounded_memory(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered, failed = fuzz_client(name, 60, monkeypatch, watched=True)
    assert answered and failed


HEADERS = [
    *(float("inf"), float("nan"), 1.0, True, "1", -1, 2**40, None, [1], b"1"),
]


@pytest.mark.parametrize("value", HEADERS, ids=repr)
def test_a_round_that_is_no_whole_number_refuses_the_message(value: Any) -> None:
    case = CASES["float32"]()
    content = copied(pack_replies(case.header, {CLIENT: case.reply(rng_for(0, "valid"))}))
    if value is None:
        content.config_records["header"].pop("round")
    else:
        content.config_records["header"]["round"] = value
    entry = judge(case, content)
    assert "the header is " in entry.problem


def test_a_bitmap_of_more_ids_than_were_asked_for_is_refused_before_it_is_unpacked() -> None:
    case = CASES["top8-uint4+delta"]()
    reply = case.reply(rng_for(0, "valid"))
    content = copied(pack_replies(case.header, {CLIENT: reply}))
    content.array_records[f"{CLIENT}/labels"]["ids"] = Array(np.full(2_700_000, 255, np.uint8))
    tracemalloc.start()
    entry = judge(case, content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "the bitmap has 21600000" in entry.problem
    assert peak < 16 << 20


def test_a_strategy_of_a_user_s_that_raises_costs_the_client_its_round_and_nothing_else() -> None:
    class Careless(DistillationStrategy):
        def accept(self, *arguments: Any) -> Any:
            raise ZeroDivisionError("a bug")

    case = Case(Careless, codec="float32")
    content = copied(pack_replies(case.header, {CLIENT: case.reply(rng_for(0, "valid"))}))
    assert judge(case, content).problem == "ZeroDivisionError: a bug"


class HttpGrid:
    """Flower's grid over HTTP, as far as its pulls go: one reply cannot be unpacked, another has come."""

    def __init__(self, raises: Exception) -> None:
        self.raises = raises

    def pull_messages(self, message_ids: list[str]) -> list[Any]:
        if "bad" in message_ids:
            raise self.raises
        return [SimpleNamespace(metadata=SimpleNamespace(reply_to_message_id=one)) for one in message_ids]


def test_a_reply_that_flower_cannot_unpack_is_refused_and_the_others_arrive() -> None:
    grid: Any = HttpGrid(KeyError("object"))
    replies, unreadable = mailbox._pull(grid, ["good", "bad", "fine"])
    assert [reply.metadata.reply_to_message_id for reply in replies] == ["good", "fine"]
    assert str(unreadable["bad"]) == "its reply cannot be unpacked (KeyError: 'object')"


@pytest.mark.parametrize("error", [ConnectionError("gone"), RuntimeError("over")])
def test_a_connection_that_is_gone_is_no_fault_of_a_client(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox, "AGAIN_S", (0.0,))
    grid: Any = HttpGrid(error)
    with pytest.raises(type(error)):
        mailbox._pull(grid, ["bad"])


def test_messages_are_pushed_again_when_the_superlink_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox, "AGAIN_S", (0.0, 0.0, 0.0))
    failures = [ObjectPushError(), ObjectPushError()]

    class Grid:
        def push_messages(self, messages: Any) -> list[str]:
            if failures:
                raise failures.pop()
            return ["m"]

    grid: Any = Grid()
    assert mailbox._push(grid, []) == ["m"]
    failures += [ObjectPushError()] * 4
    assert mailbox._push(grid, []) == []
    failures += [ValueError("no such node")]  # type: ignore[list-item]
    with pytest.raises(ValueError):
        mailbox._push(grid, [])
