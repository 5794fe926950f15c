"""What crosses the wire, and how it is checked on arrival.

One message may carry several clients of a node (a cohort). A message is a Flower RecordDict:

    "header"            ConfigRecord: run, experiment and source digest, round, kind-specific scalars, "clients"
    "<client>/targets"  ArrayRecord {"ids", "values"}: encoded soft labels that the client lacks   (down)
    "<client>/ask"      ArrayRecord {"ids"}: public samples to answer                                (down)
    "<client>/labels"   ArrayRecord {"ids", "values"}: the client's encoded answer                   (up)
    "<client>/metrics"  MetricRecord: name -> number or one number per horizon                       (up)
    "<client>/facts"    ConfigRecord: modality, counts; "error" where the client failed               (up)

Neither weights nor frames have a place here. N samples, H horizons, B beams.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from strategies.codecs import CODECS
from strategies.labels import SoftLabels

HELLO = "query.hello"
BASELINES = "train.baselines"
ROUND = "train.round"

# The newest targets of a client that holds none; those of round 0 are published before anyone has answered.
NO_TARGETS = -1


class WireError(ValueError):
    """A message that is not what the protocol says; the text says what is wrong."""


@dataclass(frozen=True)
class Header:
    """What every request says first.

    Attributes:
        run: names the run; a client keeps its memory under it.
        experiment: digest of the experiment.
        source: digest of the source that both sides must share.
        round: 0 before the first.
        codec: of all soft labels in the message and in its reply.
        temperature: of all soft labels.
    """

    run: str
    experiment: str
    source: str
    round: int
    codec: str
    temperature: float


@dataclass(frozen=True)
class Request:
    """What the server wants of one client.

    Attributes:
        targets: soft labels that the client lacks; None for none.
        ask: (N,) public samples to answer, strictly increasing; empty for none.
        known_round: the client is expected to hold the targets up to this round; a client that does not says so.
    """

    targets: SoftLabels | None
    ask: NDArray[np.int64]
    known_round: int = NO_TARGETS


@dataclass(frozen=True)
class Reply:
    """What one client answered.

    Attributes:
        labels: its soft labels; None where none were asked for.
        metrics: name -> one number, or one per horizon.
        facts: plain values, such as ``modality`` and ``num_examples``.
        error: why the client could not; empty if it could.
        num_bytes: of the encoded arrays of its answer.
    """

    labels: SoftLabels | None = None
    metrics: Mapping[str, float | list[float]] = field(default_factory=dict)
    facts: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    error: str = ""
    num_bytes: int = 0


def pack_requests(header: Header, requests: Mapping[str, Request]) -> RecordDict:
    """One message for the clients of a node."""
    content = RecordDict({"header": ConfigRecord({**asdict(header), "clients": list(requests)})})
    for client, request in requests.items():
        content[f"{client}/facts"] = ConfigRecord({"known_round": request.known_round})
        if request.targets is not None:
            content[f"{client}/targets"] = pack_labels(request.targets, header.codec)
        if len(request.ask):
            content[f"{client}/ask"] = ArrayRecord({"ids": Array(request.ask.astype(np.uint32))})
    return content


def unpack_header(content: RecordDict) -> Header:
    """The header of a request.

    Raises:
        WireError: it is missing or incomplete.
    """
    header = content.config_records.get("header")
    if header is None:
        raise WireError("the message has no header; server and client differ in version")
    try:
        return Header(
            run=str(header["run"]),
            experiment=str(header["experiment"]),
            source=str(header["source"]),
            round=int(header["round"]),  # type: ignore[arg-type]
            codec=str(header["codec"]),
            temperature=float(header["temperature"]),  # type: ignore[arg-type]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise WireError(f"the header is incomplete ({error!r}); server and client differ in version") from None


def unpack_requests(content: RecordDict, *, num_horizons: int, num_beams: int) -> dict[str, Request]:
    """The requests in a message, by client.

    Raises:
        WireError: the message is malformed.
    """
    header = unpack_header(content)
    requests = {}
    for client in _clients(content):
        targets = content.array_records.get(f"{client}/targets")
        ask = content.array_records.get(f"{client}/ask")
        facts = content.config_records.get(f"{client}/facts", ConfigRecord())
        known_round = facts.get("known_round", NO_TARGETS)
        if not isinstance(known_round, int):
            raise WireError(f"known_round must be a round, got {known_round!r}")
        requests[client] = Request(
            targets=None if targets is None else unpack_labels(targets, header, num_horizons, num_beams),
            ask=np.empty(0, np.int64) if ask is None else _ids(ask),
            known_round=known_round,
        )
    return requests


def pack_replies(header: Header, replies: Mapping[str, Reply]) -> RecordDict:
    """One message with the answers of a node's clients."""
    content = RecordDict({"header": ConfigRecord({**asdict(header), "clients": list(replies)})})
    for client, reply in replies.items():
        content[f"{client}/facts"] = ConfigRecord({**reply.facts, "error": reply.error})
        content[f"{client}/metrics"] = MetricRecord(dict(reply.metrics))
        if reply.labels is not None:
            content[f"{client}/labels"] = pack_labels(reply.labels, header.codec)
    return content


def unpack_replies(
    content: RecordDict, header: Header, *, num_horizons: int, num_beams: int
) -> dict[str, Reply | WireError]:
    """The answers in a message, by client; a malformed one is an error that spares the others.

    Args:
        content: of the reply.
        header: of the request; an answer to another round or run is refused.
        num_horizons: H.
        num_beams: B.

    Raises:
        WireError: the message as a whole is malformed or answers something else.
    """
    answered = unpack_header(content)
    if answered != header:
        raise WireError(
            f"answers round {answered.round} of run {answered.run}, expected {header.round} of {header.run}"
        )
    replies: dict[str, Reply | WireError] = {}
    for client in _clients(content):
        try:
            replies[client] = _unpack_reply(content, client, header, num_horizons, num_beams)
        except WireError as error:
            replies[client] = error
    return replies


def _unpack_reply(content: RecordDict, client: str, header: Header, num_horizons: int, num_beams: int) -> Reply:
    facts = dict(content.config_records.get(f"{client}/facts", ConfigRecord()))
    metrics = dict(content.metric_records.get(f"{client}/metrics", MetricRecord()))
    record = content.array_records.get(f"{client}/labels")
    labels = None if record is None else unpack_labels(record, header, num_horizons, num_beams)
    for name, value in metrics.items():
        if not np.all(np.isfinite(value)):
            raise WireError(f"metric {name} is not finite")
    return Reply(
        labels=labels,
        metrics=metrics,  # type: ignore[arg-type]
        error=str(facts.pop("error", "")),
        facts=facts,  # type: ignore[arg-type]
        num_bytes=0 if record is None else count_bytes(record),
    )


def pack_labels(labels: SoftLabels, codec: str) -> ArrayRecord:
    """Encoded soft labels and their sample ids (4 bytes each)."""
    return ArrayRecord(
        {"ids": Array(labels.sample_ids.astype(np.uint32)), "values": Array(CODECS[codec].encode(labels.probs))}
    )


def unpack_labels(record: ArrayRecord, header: Header, num_horizons: int, num_beams: int) -> SoftLabels:
    """Decode soft labels.

    Raises:
        WireError: they are not soft labels in the header's codec.
    """
    if set(record) != {"ids", "values"}:
        raise WireError(f"expected ids and values, got {sorted(record)}")
    if header.codec not in CODECS:
        raise WireError(f"unknown codec {header.codec!r}")
    ids, values = _ids(record), _read_array(record, "values")
    try:
        return SoftLabels(ids, CODECS[header.codec].decode(values, num_horizons, num_beams), header.temperature)
    except ValueError as error:
        raise WireError(str(error)) from None


def count_bytes(record: ArrayRecord) -> int:
    """Bytes of the record's arrays as they are serialised."""
    return sum(len(array.data) for array in record.values())


def bytes_by_client(content: RecordDict) -> dict[str, int]:
    """Serialised bytes of the arrays in a message, by client."""
    total = dict.fromkeys(_clients(content), 0)
    for name, record in content.array_records.items():
        total[name.rpartition("/")[0]] += count_bytes(record)
    return total


def _ids(record: ArrayRecord) -> NDArray[np.int64]:
    ids = _read_array(record, "ids")
    if ids.dtype != np.uint32 or ids.ndim != 1:
        raise WireError(f"ids must be uint32 (N,), got {ids.dtype} {ids.shape}")
    sample_ids = ids.astype(np.int64)
    if np.any(np.diff(sample_ids) <= 0):
        raise WireError("sample ids must be strictly increasing")
    return sample_ids


def _read_array(record: ArrayRecord, name: str) -> NDArray[np.generic]:
    try:
        array = record[name].numpy()
    except Exception as error:
        # Whatever bytes a stranger sent: NumPy answers them with many kinds of errors.
        raise WireError(f"{name}: not a readable array ({type(error).__name__}: {error})") from None
    if not isinstance(array, np.ndarray):
        raise WireError(f"{name}: not a plain array")
    return array


def _clients(content: RecordDict) -> list[str]:
    clients = content.config_records["header"].get("clients", [])
    if not isinstance(clients, list) or len(set(clients)) != len(clients):
        raise WireError("the header must list each client once")
    return [str(client) for client in clients]
