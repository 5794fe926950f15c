"""What crosses the wire, and how it is checked on arrival.

One message may carry several clients of a node (a cohort). A message is a Flower RecordDict:

    "header"            ConfigRecord: run, experiment and source digest, round, kind of knowledge, "clients"
    "<client>/targets"  ArrayRecord {"ids", "values", "rounds"}: encoded soft labels that the client lacks  (down)
    "<client>/ask"      ArrayRecord {"ids"}: public samples to answer                                       (down)
    "<client>/labels"   ArrayRecord {"ids", "values", "rounds"}: the client's encoded answer                (up)
    "<client>/arrays"   ArrayRecord: what a strategy exchanges beside soft labels                           (both)
    "<client>/metrics"  MetricRecord: name -> number, or a list of some numbers                             (up)
    "<client>/facts"    ConfigRecord: counts, rounds; "error" where the client failed                       (both)

"values" is named "delta" where it is a difference against what the receiver holds. Strategies of soft labels put
neither weights nor frames here; "arrays" is for the baselines, for prototypes, secure sums and relations.
N samples, H horizons, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from io import BytesIO
from typing import Any, Literal, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from strategies.codecs.encoding import EncodedLabels
from strategies.codecs.packing import pack_ids, unpack_ids
from strategies.messages.records import one_line, printable

T = TypeVar("T")

HELLO = "query.hello"
REVEAL = "query.reveal"
CONTROLS = "train.controls"
ROUND = "train.round"

# Rounds travel as 16 bits.
MAX_ROUND = 65_535
# The most characters of a reason that quotes what was received.
MAX_REASON = 300
# The most characters in the name of a client or of a metric.
MAX_NAME = 100
# The round of the newest targets of a client that holds none. Targets of round 0 are published before anyone answers.
NO_TARGETS = -1


class WireError(ValueError):
    """A message that is not what the protocol says.

    Args:
        text: what is wrong; it may quote what was received, and becomes one printable line.
    """

    def __init__(self, text: str) -> None:
        super().__init__(one_line(text))


@dataclass(frozen=True)
class Header:
    """The header, with which every request and every reply begins.

    Attributes:
        run: the name of the run; a client keeps its memory under this name.
        experiment: the digest of the experiment.
        source: the digest of the source that both sides must share.
        round: the number of the round; 0 before the first.
        kind: the kind of knowledge that is exchanged, such as ``public`` (see `clients.exchanges.table`).
    """

    run: str
    experiment: str
    source: str
    round: int
    kind: str


@dataclass(frozen=True)
class Request:
    """What the server asks of one client.

    Attributes:
        targets: the soft labels that the client lacks; None if it lacks none.
        ask: (N,) public samples to answer, strictly increasing; empty for none.
        known_round: the round up to which the client is expected to hold the targets; a client that does not says so.
        answered_round: the round of the newest answer of this client that the server holds; 0 if it holds none.
        arrays: knowledge beside soft labels, such as prototypes, by name.
    """

    targets: EncodedLabels | None = None
    ask: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    known_round: int = NO_TARGETS
    answered_round: int = 0
    arrays: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """What one client answered.

    Attributes:
        labels: its soft labels; None where none were asked for.
        metrics: name -> one number, or several, such as one per horizon.
        facts: plain values, such as ``modality`` and ``num_examples``, by name.
        error: why the client could not answer; empty if it could.
        num_bytes: the bytes of the encoded arrays in its answer.
        arrays: knowledge beside soft labels, such as prototypes, by name.
    """

    labels: EncodedLabels | None = None
    metrics: Mapping[str, float | list[float]] = field(default_factory=dict)
    facts: Mapping[str, str | int | float | bool | list[int]] = field(default_factory=dict)
    error: str = ""
    num_bytes: int = 0
    arrays: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Records:
    """The records of a message by their kind and name.

    Flower collects the records of a kind anew whenever it is asked for them, which takes long where many clients share
    a message.
    """

    arrays: Mapping[str, ArrayRecord]
    configs: Mapping[str, ConfigRecord]
    metrics: Mapping[str, MetricRecord]

    @classmethod
    def of(cls, content: RecordDict) -> _Records:
        """The records of a message."""
        return cls(
            {name: one for name, one in content.items() if isinstance(one, ArrayRecord)},
            {name: one for name, one in content.items() if isinstance(one, ConfigRecord)},
            {name: one for name, one in content.items() if isinstance(one, MetricRecord)},
        )


def pack_requests(header: Header, requests: Mapping[str, Request]) -> RecordDict:
    """Pack one message for the clients of a node; what several of them get is one record, which is packed once."""
    content = RecordDict({"header": ConfigRecord({**asdict(header), "clients": list(requests)})})
    # By the identity of what is packed, which the requests keep alive.
    packed: dict[int, ArrayRecord] = {}

    def once(value: T, pack: Callable[[T], ArrayRecord]) -> ArrayRecord:
        if id(value) not in packed:
            packed[id(value)] = pack(value)
        return packed[id(value)]

    for client, request in requests.items():
        content[f"{client}/facts"] = ConfigRecord(
            {"known_round": request.known_round, "answered_round": request.answered_round}
        )
        if request.targets is not None:
            content[f"{client}/targets"] = once(request.targets, encoded_record)
        if len(request.ask):
            content[f"{client}/ask"] = once(request.ask, lambda ids: ArrayRecord({"ids": Array(pack_ids(ids))}))
        if request.arrays:
            content[f"{client}/arrays"] = once(request.arrays, _array_record)
    return content


def unpack_header(content: RecordDict) -> Header:
    """The header of a request.

    Raises:
        WireError: the header is missing or incomplete.
    """
    header = content.config_records.get("header")
    if header is None:
        raise WireError("the message has no header; server and client differ in version")
    values: dict[str, Any] = {}
    for name, kind in (("run", str), ("experiment", str), ("source", str), ("round", int), ("kind", str)):
        value = header.get(name)
        # A bool is an int to Python, and 1.0 or "1" would be one after a conversion: none of them is a round.
        if type(value) is not kind:
            raise WireError(f"the header is incomplete ({name} is {value!r:.80}); server and client differ in version")
        values[name] = value
    if not 0 <= values["round"] <= MAX_ROUND:
        raise WireError(f"the header is of round {values['round']}, expected 0 to {MAX_ROUND}")
    return Header(**values)


def unpack_requests(content: RecordDict) -> dict[str, Request]:
    """The requests in a message, by client; one record of several clients is unpacked once, to one object.

    Raises:
        WireError: the message is malformed.
    """
    unpack_header(content)
    records = _Records.of(content)
    unpacked: dict[int, Any] = {}

    def once(record: ArrayRecord, unpack: Callable[[ArrayRecord], T]) -> T:
        if id(record) not in unpacked:
            unpacked[id(record)] = unpack(record)
        found: T = unpacked[id(record)]
        return found

    requests = {}
    for client in _clients(content):
        told, ask = (records.arrays.get(f"{client}/{name}") for name in ("targets", "ask"))
        facts = records.configs.get(f"{client}/facts", ConfigRecord())
        rounds = {name: facts.get(name, default) for name, default in (("known_round", -1), ("answered_round", 0))}
        for name, value in rounds.items():
            if type(value) is not int or not NO_TARGETS <= value <= MAX_ROUND:
                raise WireError(f"{name} must be a round, got {value!r:.80}")
        requests[client] = Request(
            targets=None if told is None else once(told, _encoded),
            ask=np.empty(0, np.int64) if ask is None else once(ask, _ids),
            arrays=_arrays(records.arrays.get(f"{client}/arrays")),
            **rounds,  # type: ignore[arg-type]
        )
    return requests


def pack_replies(header: Header, replies: Mapping[str, Reply]) -> RecordDict:
    """One message with the answers of a node's clients."""
    content = RecordDict({"header": ConfigRecord({**asdict(header), "clients": list(replies)})})
    for client, reply in replies.items():
        content[f"{client}/facts"] = ConfigRecord({**reply.facts, "error": reply.error})
        content[f"{client}/metrics"] = MetricRecord(dict(reply.metrics))
        if reply.labels is not None:
            content[f"{client}/labels"] = encoded_record(reply.labels)
        if reply.arrays:
            content[f"{client}/arrays"] = _array_record(reply.arrays)
    return content


def unpack_replies(content: RecordDict, header: Header) -> dict[str, Reply | WireError]:
    """The answers in a message, by client; a malformed one is an error that spares the others.

    Args:
        content: the content of the reply.
        header: the header of the request; an answer to another round or run is refused.

    Raises:
        WireError: the message as a whole is malformed or answers another request.
    """
    answered = unpack_header(content)
    if answered != header:
        raise WireError(
            f"answers round {answered.round} of run {answered.run}, expected {header.round} of {header.run}"
        )
    records = _Records.of(content)
    replies: dict[str, Reply | WireError] = {}
    for client in _clients(content):
        try:
            replies[client] = _unpack_reply(records, client)
        except WireError as error:
            replies[client] = error
    return replies


def _unpack_reply(found: _Records, client: str) -> Reply:
    facts = dict(found.configs.get(f"{client}/facts", ConfigRecord()))
    metrics = dict(found.metrics.get(f"{client}/metrics", MetricRecord()))
    for name, value in metrics.items():
        if not _is_name(name):
            raise WireError(f"a metric has the name {name!r:.80}, which cannot be shown")
        if not np.all(np.isfinite(value)):
            raise WireError(f"metric {name} is not finite")
    records = [found.arrays.get(f"{client}/{name}") for name in ("labels", "arrays")]
    return Reply(
        labels=_encoded(records[0]),
        metrics=metrics,  # type: ignore[arg-type]
        error=one_line(str(facts.pop("error", ""))),
        facts=facts,  # type: ignore[arg-type]
        num_bytes=sum(count_bytes(record) for record in records if record is not None),
        arrays=_arrays(records[1]),
    )


def encoded_record(encoded: EncodedLabels) -> ArrayRecord:
    """The arrays of encoded labels; the name of their values says whether they are a difference."""
    values = "delta" if encoded.is_delta else "values"
    return ArrayRecord({"ids": Array(encoded.ids), values: Array(encoded.values), "rounds": Array(encoded.rounds)})


def _encoded(record: ArrayRecord | None) -> EncodedLabels | None:
    if record is None:
        return None
    values = "delta" if "delta" in record else "values"
    if set(record) != {"ids", values, "rounds"}:
        raise WireError(f"expected ids, {values} and rounds, got {sorted(record)}")
    ids, payload, rounds = (_read_array(record, name) for name in ("ids", values, "rounds"))
    return EncodedLabels(ids, payload, rounds, is_delta=values == "delta")


def _array_record(arrays: Mapping[str, NDArray[np.generic]]) -> ArrayRecord:
    return ArrayRecord({name: Array(array) for name, array in arrays.items()})


def _arrays(record: ArrayRecord | None) -> dict[str, NDArray[np.generic]]:
    return {} if record is None else {name: _read_array(record, name) for name in record}


def count_bytes(record: ArrayRecord) -> int:
    """The bytes of a record's arrays as they are serialised."""
    return sum(len(array.data) for array in record.values())


def bytes_by_client(content: RecordDict) -> dict[str, int]:
    """The serialised bytes of the arrays in a message, by client."""
    total = dict.fromkeys(_clients(content), 0)
    for name, record in content.array_records.items():
        if (client := name.rpartition("/")[0]) in total:
            total[client] += count_bytes(record)
    return total


def _ids(record: ArrayRecord) -> NDArray[np.int64]:
    try:
        return unpack_ids(_read_array(record, "ids"))
    except ValueError as error:
        raise WireError(str(error)) from None


def _read_array(record: ArrayRecord, name: str) -> NDArray[np.generic]:
    """An array of plain numbers, made of the received bytes and of no more, whatever shape they claim."""
    try:
        array = record[name]
        if array.stype != "numpy.ndarray":
            raise ValueError(f"serialised as {array.stype!r:.80}")
        data = array.data
        stream = BytesIO(data)
        version = np.lib.format.read_magic(stream)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, is_fortran, dtype = read_header[version](stream)
    except Exception as error:
        # A sender may send any bytes, for which NumPy raises many kinds of errors.
        raise WireError(f"{name}: not a readable array ({type(error).__name__}: {error})"[:MAX_REASON]) from None
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise WireError(f"{name}: must hold plain numbers, got {dtype}"[:MAX_REASON])
    if math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
        raise WireError(f"{name}: claims shape {shape} of {dtype}, which is not what came"[:MAX_REASON])
    order: Literal["F", "C"] = "F" if is_fortran else "C"
    return np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape, order=order).copy()


def _clients(content: RecordDict) -> list[str]:
    clients = content.config_records["header"].get("clients", [])
    if not isinstance(clients, list) or not all(isinstance(client, str) for client in clients):
        raise WireError("the header must list each client once, by its name")
    if len(set(clients)) != len(clients):
        raise WireError("the header must list each client once")
    names = [str(client) for client in clients]
    for name in names:
        if not _is_name(name):
            raise WireError(f"the header lists a client {name!r:.80}, whose name cannot be shown")
    return names


def _is_name(text: str) -> bool:
    """Whether a received name can be shown as it is: in records, tables and the report."""
    return 0 < len(text) <= MAX_NAME and printable(text) == text
