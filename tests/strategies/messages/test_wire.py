"""What crosses the wire arrives as it was sent, and what is malformed is refused for its sender alone."""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from configs.seeding import rng_for
from strategies.codecs.encoding import EncodedLabels, Encoding
from strategies.codecs.table import CODECS
from strategies.labels import SoftLabels
from strategies.messages.wire import (
    Header,
    Reply,
    Request,
    WireError,
    bytes_by_client,
    pack_replies,
    pack_requests,
    unpack_header,
    unpack_replies,
    unpack_requests,
)

HEADER = Header(run="r", experiment="e", source="s", round=3, kind="public")
Answers = dict[str, Reply | WireError]


def labels(*ids: int) -> SoftLabels:
    probs = rng_for(0, "wire", *ids).dirichlet(np.full(8, 0.5), size=(len(ids), 2)).astype(np.float32)
    return SoftLabels(np.array(ids, np.int64), probs, 2.0)


def encoded(*ids: int, codec: str = "float32") -> EncodedLabels:
    encoding = Encoding(codec, 2, 8)
    return encoding.pack(encoding.encode(labels(*ids), 3))


def opened(one: EncodedLabels | None, codec: str = "float32") -> SoftLabels:
    assert one is not None
    encoding = Encoding(codec, 2, 8)
    return encoding.decode(encoding.unpack(one), 2.0)


def replies(codec: str = "float32") -> dict[str, Reply]:
    """A cohort of three, of which one answered nothing and one failed."""
    return {
        "000-gps": Reply(
            encoded(0, 4, 7, codec=codec),
            {"loss": 1.5, "common.top5": [0.25, 0.5]},
            {"seconds": 0.5, "modality": "gps", "n": 3},
        ),
        "001-gps": Reply(None, {"loss": 2.0}, {"known_round": 2}),
        "002-gps": Reply(error="ValueError: no camera"),
    }


def unpack(content: RecordDict, header: Header = HEADER) -> Answers:
    return unpack_replies(content, header)


def assert_equal(one: EncodedLabels | None, other: EncodedLabels | None) -> None:
    assert one is not None and other is not None
    for name in ("ids", "values", "rounds"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.is_delta == other.is_delta


def test_a_header_arrives_as_it_was_sent() -> None:
    assert unpack_header(pack_requests(HEADER, {})) == HEADER


def test_the_requests_of_a_cohort_arrive_as_they_were_sent() -> None:
    sent = {
        "000-gps": Request(encoded(1, 2, 5), np.array([0, 3]), known_round=2, answered_round=1),
        "001-gps": Request(None, np.array([0, 3]), known_round=1),
        "002-gps": Request(
            replace(encoded(9), is_delta=True), arrays={"a": np.arange(3), "b": np.ones((2, 2), np.float16)}
        ),
    }
    arrived = unpack_requests(pack_requests(HEADER, sent))
    assert list(arrived) == list(sent)
    for client, request in sent.items():
        np.testing.assert_array_equal(arrived[client].ask, request.ask)
        assert arrived[client].ask.dtype == np.int64
        assert arrived[client].known_round == request.known_round
        assert arrived[client].answered_round == request.answered_round
        assert arrived[client].arrays.keys() == request.arrays.keys()
        for name, array in request.arrays.items():
            np.testing.assert_array_equal(arrived[client].arrays[name], array)
    assert_equal(arrived["000-gps"].targets, sent["000-gps"].targets)
    assert arrived["001-gps"].targets is None
    assert_equal(arrived["002-gps"].targets, sent["002-gps"].targets)


def test_what_all_clients_of_a_message_get_travels_once_and_counts_for_each_of_them() -> None:
    told, ask = encoded(1, 2, 5), np.array([0, 3])
    shared = pack_requests(HEADER, {name: Request(told, ask) for name in "abc"})
    single = pack_requests(HEADER, {"a": Request(told, ask)})
    assert len(pickle.dumps(shared)) < len(pickle.dumps(single)) + 2_000
    assert bytes_by_client(shared) == dict.fromkeys("abc", bytes_by_client(single)["a"])
    arrived = unpack_requests(pickle.loads(pickle.dumps(shared)))
    assert arrived["a"].targets is arrived["b"].targets is arrived["c"].targets
    for request in arrived.values():
        assert_equal(request.targets, told)
        np.testing.assert_array_equal(request.ask, ask)
    # Of equal content, only what is the same object travels once.
    assert "b" in unpack_requests(pack_requests(HEADER, {"a": Request(told, ask), "b": Request(encoded(7), ask)}))


def test_a_message_for_no_client_in_particular_holds_no_request() -> None:
    assert unpack_requests(pack_requests(HEADER, {})) == {}


def test_the_replies_of_a_cohort_arrive_as_they_were_sent() -> None:
    arrived = unpack(pack_replies(HEADER, replies()))
    assert list(arrived) == ["000-gps", "001-gps", "002-gps"]
    for client, sent in replies().items():
        reply = arrived[client]
        assert isinstance(reply, Reply)
        assert dict(reply.metrics) == dict(sent.metrics)
        assert dict(reply.facts) == dict(sent.facts)
        assert reply.error == sent.error
        assert (reply.labels is None) == (sent.labels is None)
    first = arrived["000-gps"]
    assert isinstance(first, Reply)
    assert_equal(first.labels, replies()["000-gps"].labels)


@pytest.mark.parametrize("codec", [*sorted(CODECS), "uint8+zlib", "uint8+delta"])
def test_every_codec_arrives_as_it_was_encoded(codec: str) -> None:
    arrived = unpack(pack_replies(HEADER, replies(codec)))["000-gps"]
    assert isinstance(arrived, Reply)
    sent = opened(replies(codec)["000-gps"].labels, codec)
    found = opened(arrived.labels, codec)
    np.testing.assert_array_equal(found.sample_ids, [0, 4, 7])
    np.testing.assert_array_equal(found.probs, sent.probs)


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_bytes_are_those_of_the_serialised_arrays(codec: str) -> None:
    content = pack_requests(HEADER, {"a": Request(encoded(1, 2, 5, codec=codec), np.array([0, 3])), "b": Request()})
    serialised = [
        len(array.data)
        for name, record in content.array_records.items()
        if name.startswith("a/")
        for array in record.values()
    ]
    assert len(serialised) == 4  # ids, values and rounds of the targets, ids to answer
    assert bytes_by_client(content) == {"a": sum(serialised), "b": 0}
    payload = CODECS[codec].encode(labels(1, 2, 5).probs).nbytes + 1 + 2 + 1  # bitmaps of 6 and 4 ids, one round
    assert payload < sum(serialised) <= payload + 4 * 128  # each array has a header of 128 bytes


def test_the_bytes_of_an_answer_are_those_of_its_arrays() -> None:
    content = pack_replies(HEADER, replies())
    arrived = unpack(content)
    for client, size in bytes_by_client(content).items():
        reply = arrived[client]
        assert isinstance(reply, Reply)
        assert reply.num_bytes == size
    assert bytes_by_client(content)["001-gps"] == 0


@pytest.mark.parametrize(
    "changed",
    [{"round": 2}, {"run": "other"}, {"experiment": "x"}, {"source": "x"}, {"kind": "beams"}],
)
def test_an_answer_to_something_else_is_refused_whole(changed: dict[str, Any]) -> None:
    with pytest.raises(WireError, match="answers round"):
        unpack(pack_replies(replace(HEADER, **changed), replies()))


def test_a_message_without_a_header_is_refused_whole() -> None:
    for read in (lambda: unpack(RecordDict()), lambda: unpack_requests(RecordDict())):
        with pytest.raises(WireError, match="no header"):
            read()


@pytest.mark.parametrize("key", ["run", "experiment", "source", "round", "kind"])
def test_an_incomplete_header_is_refused_whole(key: str) -> None:
    content = pack_replies(HEADER, replies())
    del content.config_records["header"][key]
    with pytest.raises(WireError, match=key):
        unpack(content)


@pytest.mark.parametrize(("key", "value"), [("round", "three"), ("round", [3])])
def test_a_header_of_other_types_is_refused_whole(key: str, value: Any) -> None:
    content = pack_replies(HEADER, replies())
    content.config_records["header"][key] = value
    with pytest.raises(WireError, match="header"):
        unpack(content)


@pytest.mark.parametrize("clients", [["000-gps", "000-gps"], "000-gps", 3])
def test_a_header_that_does_not_list_each_client_once_is_refused_whole(clients: Any) -> None:
    content = pack_replies(HEADER, replies())
    content.config_records["header"]["clients"] = clients
    with pytest.raises(WireError, match="each client once"):
        unpack(content)


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _raw(data: bytes, stype: str = "numpy.ndarray") -> Array:
    return Array(dtype="float32", shape=(1, 2, 8), stype=stype, data=data)


def _zip_of(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, b"x")
    return buffer.getvalue()


def _claims(shape: tuple[int, ...]) -> bytes:
    """The bytes of an array that claims another shape than it has."""
    data = _npy(np.zeros((1, 2, 8), np.float32))
    old = b"'shape': (1, 2, 8), }"
    new = f"'shape': {shape}, }}".encode()
    return data.replace(old + b" " * (len(new) - len(old)), new)


def _probs(value: float, *, num: int = 1) -> NDArray[np.float32]:
    probs = np.full((num, 2, 8), 1 / 8, np.float32)
    probs[0, 1, 2] = value
    return probs


GOOD_IDS, GOOD_PROBS = Array(np.array([4], np.uint32)), Array(_probs(1 / 8))
ROUNDS = Array(np.array([3], np.uint16))
_WITHOUT_ROUNDS: dict[str, dict[str, Array]] = {
    "ids missing": {"values": GOOD_PROBS},
    "values missing": {"ids": GOOD_IDS},
    "something beside them": {"ids": GOOD_IDS, "values": GOOD_PROBS, "weights": GOOD_PROBS},
    "ids of another dtype": {"ids": Array(np.array([4])), "values": GOOD_PROBS},
    "ids of another shape": {"ids": Array(np.array([[4]], np.uint32)), "values": GOOD_PROBS},
    "more ids than rows": {"ids": Array(np.array([4, 5], np.uint32)), "values": GOOD_PROBS},
    "unsorted ids": {"ids": Array(np.array([5, 4], np.uint32)), "values": Array(_probs(1 / 8, num=2))},
    "repeated ids": {"ids": Array(np.array([4, 4], np.uint32)), "values": Array(_probs(1 / 8, num=2))},
    "ids that are no array": {"ids": _raw(b"no array"), "values": GOOD_PROBS},
    "NaN": {"ids": GOOD_IDS, "values": Array(_probs(math.nan))},
    "infinity": {"ids": GOOD_IDS, "values": Array(_probs(math.inf))},
    "a negative value": {"ids": GOOD_IDS, "values": Array(_probs(-1 / 8))},
    "a row that sums to 1.01": {"ids": GOOD_IDS, "values": Array(_probs(1 / 8 + 0.01))},
    "a row of zeros": {"ids": GOOD_IDS, "values": Array(np.zeros((1, 2, 8), np.float32))},
    "another codec": {"ids": GOOD_IDS, "values": Array(_probs(1 / 8).astype(np.float16))},
    "other horizons": {"ids": GOOD_IDS, "values": Array(np.full((1, 3, 8), 1 / 8, np.float32))},
    "other beams": {"ids": GOOD_IDS, "values": Array(np.full((1, 2, 4), 1 / 4, np.float32))},
    "no bytes": {"ids": GOOD_IDS, "values": _raw(b"")},
    "half of the bytes": {"ids": GOOD_IDS, "values": _raw(_npy(_probs(1 / 8))[:-20])},
    "objects": {"ids": GOOD_IDS, "values": _raw(_npy(np.array([{}], object)))},
    "another serialisation": {"ids": GOOD_IDS, "values": _raw(_npy(_probs(1 / 8)), stype="torch.tensor")},
    "a broken zip": {"ids": GOOD_IDS, "values": _raw(b"PK\x03\x04 and no more")},
    "a zip of arrays": {"ids": GOOD_IDS, "values": _raw(_zip_of("a.npy"))},
    "a size that no machine has": {"ids": GOOD_IDS, "values": _raw(_claims((10**12, 2, 8)))},
}
MALFORMED = {name: {**arrays, "rounds": ROUNDS} for name, arrays in _WITHOUT_ROUNDS.items()} | {
    "rounds missing": {"ids": GOOD_IDS, "values": GOOD_PROBS},
    "rounds of another dtype": {"ids": GOOD_IDS, "values": GOOD_PROBS, "rounds": Array(np.array([3]))},
    "rounds of others": {"ids": GOOD_IDS, "values": GOOD_PROBS, "rounds": Array(np.array([3, 3], np.uint16))},
    "a difference": {"ids": GOOD_IDS, "delta": GOOD_PROBS, "rounds": ROUNDS},
    "values and a difference": {"ids": GOOD_IDS, "values": GOOD_PROBS, "delta": GOOD_PROBS, "rounds": ROUNDS},
}


@pytest.mark.parametrize("malformed", MALFORMED)
def test_malformed_labels_are_refused_for_their_client_only(malformed: str) -> None:
    content = pack_replies(HEADER, replies())
    content["000-gps/labels"] = ArrayRecord(MALFORMED[malformed])
    arrived = unpack(content)
    with pytest.raises(ValueError):
        answer = arrived["000-gps"]
        if isinstance(answer, WireError):
            raise answer
        opened(answer.labels)
    assert isinstance(arrived["001-gps"], Reply)
    assert isinstance(arrived["002-gps"], Reply)


@pytest.mark.parametrize("malformed", MALFORMED)
def test_malformed_targets_are_refused(malformed: str) -> None:
    content = pack_requests(HEADER, {"000-gps": Request(None, np.array([1]))})
    content["000-gps/targets"] = ArrayRecord(MALFORMED[malformed])
    with pytest.raises(ValueError):
        opened(unpack_requests(content)["000-gps"].targets)


@pytest.mark.parametrize("value", [math.nan, math.inf, [0.5, math.nan]])
def test_a_metric_that_is_not_finite_is_refused_for_its_client_only(value: Any) -> None:
    content = pack_replies(HEADER, replies())
    content["001-gps/metrics"] = MetricRecord({"loss": value})
    arrived = unpack(content)
    assert isinstance(arrived["001-gps"], WireError)
    assert "metric loss is not finite" in str(arrived["001-gps"])
    assert isinstance(arrived["000-gps"], Reply)


@pytest.mark.parametrize(
    "ids",
    [
        np.array([3, 1], np.uint32),
        np.array([1, 1], np.uint32),
        np.array([1], np.int64),
        np.array([[1]], np.uint32),
        np.array([0.5], np.float32),
    ],
    ids=["unsorted", "repeated", "int64", "two axes", "fractions"],
)
def test_malformed_ids_to_answer_are_refused(ids: NDArray[Any]) -> None:
    content = pack_requests(HEADER, {"000-gps": Request(None, np.array([1]))})
    content["000-gps/ask"] = ArrayRecord({"ids": Array(ids)})
    with pytest.raises(WireError):
        unpack_requests(content)


def test_a_known_round_that_is_no_round_is_refused() -> None:
    content = pack_requests(HEADER, {"000-gps": Request(None, np.array([1]))})
    content["000-gps/facts"] = ConfigRecord({"known_round": "third"})
    with pytest.raises(WireError):
        unpack_requests(content)


def test_a_client_that_the_header_does_not_list_is_not_heard() -> None:
    content = pack_replies(HEADER, {"000-gps": Reply()})
    content["001-gps/labels"] = ArrayRecord({"ids": GOOD_IDS, "values": GOOD_PROBS, "rounds": ROUNDS})
    assert list(unpack(content)) == ["000-gps"]


def test_a_listed_client_without_records_answered_nothing() -> None:
    content = pack_replies(HEADER, {})
    content.config_records["header"]["clients"] = ["000-gps"]
    assert unpack(content) == {"000-gps": Reply()}
