"""A client answers every message, whatever happens, and tells nothing but what went wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict

import clients.app
import clients.exchanges.base
from clients.app import MAX_ERROR_LENGTH, build_app, describe
from clients.profile import client_folders
from configs.loading import experiment_digest, source_digest
from configs.placement import Placement
from sim.inline import InlineGrid
from strategies.codecs.encoding import Encoding
from strategies.messages.wire import HELLO, ROUND, Header, Reply, Request, pack_requests, unpack_replies
from tests.conftest import tiny_experiment
from tests.federations import place

SECRET = "the-password-is-swordfish"


class RustPanic(BaseException):
    """What libraries in other languages raise."""


@pytest.fixture
def placement(tmp_path: Path) -> Placement:
    return place(tiny_experiment(), tmp_path / "run")


@pytest.fixture(autouse=True)
def _messages_belong_to_a_run(placement: Placement) -> None:
    InlineGrid(build_app(placement), num_nodes=1)


def header(placement: Placement, **changes: Any) -> Header:
    digests = experiment_digest(placement.experiment), source_digest()
    return replace(Header("run", *digests, 1, "public"), **changes)


def node_config(placement: Placement, **changes: str) -> dict[str, Any]:
    """A real machine with the first client's recording."""
    folder = client_folders(placement.federation)[0]
    config = {
        "client-id": "roof-1",
        "modality": "gps",
        "recording": str(folder),
        "public": str(placement.federation / "public"),
        "test": str(placement.federation / "test"),
        "memory": str(placement.run / "state"),
    }
    return {name: value for name, value in {**config, **changes}.items() if value}


def ask(
    placement: Placement,
    kind: str = HELLO,
    requests: dict[str, Request] | None = None,
    said: Header | None = None,
    **changes: str,
) -> Message:
    """The reply of a real machine to one message."""
    content = pack_requests(said or header(placement), requests or {})
    message = Message(content, dst_node_id=7, message_type=kind)
    message.metadata.__dict__["_message_id"] = "1"
    context = Context(1, 7, node_config(placement, **changes), RecordDict(), {})
    return build_app(placement)(message, context)


def reply_of(message: Message, placement: Placement, said: Header | None = None) -> Reply:
    (reply,) = unpack_replies(message.content, said or header(placement)).values()
    assert isinstance(reply, Reply)
    return reply


def raises(error: BaseException) -> Callable[..., Reply]:
    def fail(*arguments: object, **options: object) -> Reply:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("the loss is nan"), "ValueError: the loss is nan"),
        (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left on device"),
        (MemoryError("Unable to allocate 3 GiB"), "MemoryError: Unable to allocate 3 GiB"),
        (SystemExit(SECRET), "SystemExit at "),
        (RustPanic(SECRET), "RustPanic at "),
        (KeyError(SECRET), "KeyError at "),
        (RuntimeError(SECRET), "RuntimeError at "),
        (RecursionError(SECRET), "RecursionError at "),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_whatever_a_handler_raises_is_the_client_s_reply(
    placement: Placement, error: BaseException, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients.exchanges.base, "make_learner", raises(error))
    reply = reply_of(ask(placement), placement)
    assert reply.error.startswith(said)
    assert SECRET not in reply.error


@pytest.mark.parametrize("error", [SystemExit(1), MemoryError(), RustPanic()])
def test_whatever_goes_wrong_outside_a_handler_is_an_error_reply(
    placement: Placement, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients.app, "profiles_of", raises(error))
    message = ask(placement)
    assert message.has_error()
    assert message.error.reason.startswith(type(error).__name__)


def test_whoever_sits_before_the_machine_can_interrupt_it(
    placement: Placement, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients.exchanges.base, "make_learner", raises(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        ask(placement)


def test_one_client_that_fails_leaves_the_others_of_its_node_their_replies(
    placement: Placement, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = ask(placement, requests={"roof-1": Request(), "nobody": Request()})
    replies = unpack_replies(message.content, header(placement))
    assert replies["nobody"].error == "there is no such client on this node"  # type: ignore[union-attr]
    assert replies["roof-1"].error == ""  # type: ignore[union-attr]


@pytest.mark.parametrize("run", ["../../etc", "a/b", "", ".."])
def test_a_run_that_would_lead_out_of_the_memory_is_refused_and_nothing_is_written(
    placement: Placement, run: str
) -> None:
    said = header(placement, run=run)
    reply = reply_of(ask(placement, ROUND, {"roof-1": Request()}, said), placement, said)
    assert reply.error.startswith("WireError: run: must be the name of one folder")
    assert not (placement.run / "state").exists()


@pytest.mark.parametrize("what", ["experiment", "source"])
def test_another_experiment_or_source_is_refused(placement: Placement, what: str) -> None:
    message = ask(placement, said=header(placement, **{what: "other"}))
    assert message.has_error()
    assert f"the server's {what} is other" in message.error.reason


def test_a_message_that_is_none_of_ours_is_an_error_reply(placement: Placement) -> None:
    message = Message(RecordDict(), dst_node_id=7, message_type=HELLO)
    message.metadata.__dict__["_message_id"] = "1"
    reply = build_app(placement)(message, Context(1, 7, node_config(placement), RecordDict(), {}))
    assert reply.has_error()
    assert "no header" in reply.error.reason


@pytest.mark.parametrize("damage", ["header", "manifest", "text"])
def test_what_stands_in_a_broken_file_is_not_told(placement: Placement, tmp_path: Path, damage: str) -> None:
    own = tmp_path / "own"
    own.mkdir()
    for path in client_folders(placement.federation)[0].iterdir():
        (own / path.name).write_bytes(path.read_bytes())
    if damage == "header":
        whole = (own / "gps.npy").read_bytes()
        (own / "gps.npy").write_bytes(whole.replace(b"{'descr': '<f8', 'fortran_order'", f"{{{SECRET!r}: ".encode()))
    elif damage == "manifest":
        (own / "recording.json").write_text(f'{{"format": 1, {SECRET}')
    else:
        (own / "pass_ids.npy").write_text(SECRET)
    reply = reply_of(ask(placement, recording=str(own)), placement)
    assert str(own) in reply.error
    assert SECRET not in reply.error


def test_an_error_that_travels_is_one_short_line() -> None:
    assert describe(ValueError("one\n two\n")) == "ValueError: one two"
    text = describe(ValueError("x" * 1000))
    assert text == f"ValueError: {'x' * (MAX_ERROR_LENGTH - 12)}..."


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        ("ValueError('late model')", "ValueError: late model (my_models.py, line 2, in features)"),
        ("KeyError('secret')", "KeyError (my_models.py, line 2, in features); the log of this node says more"),
    ],
)
def test_an_error_of_a_user_s_class_names_the_place_in_it(raised: str, said: str, tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    exec(compile(f"def features():\n    raise {raised}\n", str(tmp_path / "my_models.py"), "exec"), names)
    with pytest.raises((ValueError, KeyError)) as caught:
        names["features"]()
    assert describe(caught.value) == said


def test_the_place_in_a_user_s_class_stands_at_the_end_of_the_longest_line(tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    exec(compile("def late():\n    raise ValueError('x' * 999)\n", str(tmp_path / "my_models.py"), "exec"), names)
    with pytest.raises(ValueError) as caught:
        names["late"]()
    assert len(describe(caught.value)) <= MAX_ERROR_LENGTH + len("...")
    assert describe(caught.value).endswith("x... (my_models.py, line 2, in late)")


def test_the_health_file_says_how_the_last_message_went(placement: Placement) -> None:
    reply = reply_of(ask(placement), placement)
    path = placement.run / "state" / "run" / "roof-1" / "health.json"
    health = json.loads(path.read_text())
    assert {name: health[name] for name in ("client", "modality", "run", "round", "ok", "error", "warning")} == {
        "client": "roof-1", "modality": "gps", "run": "run", "round": 1, "ok": True, "error": "", "warning": "",
    }  # fmt: skip
    assert (health["passes"], health["examples"]) == (reply.facts["num_passes"], reply.facts["num_examples"])
    assert health["examples"] > 0
    assert health["time"].endswith("+00:00")
    assert health["seconds"] == pytest.approx(reply.facts["seconds"], abs=1e-3)


def test_the_health_file_says_what_went_wrong(placement: Placement, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(placement)
    monkeypatch.setattr(clients.exchanges.base, "make_learner", raises(ValueError("a broken lens")))
    ask(placement)
    (path,) = placement.run.rglob("health.json")
    health = json.loads(path.read_text())
    assert (health["ok"], health["error"]) == (False, "ValueError: a broken lens")
    assert health["examples"] is None


def test_a_health_file_that_cannot_be_written_costs_no_answer(
    placement: Placement, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = placement.run / "state"
    blocked.write_text("a file where the folder should be")
    reply = reply_of(ask(placement), placement)
    assert reply.error == ""
    assert "health not written" in caplog.text


def test_a_virtual_client_writes_no_health_file(placement: Placement) -> None:
    message = Message(pack_requests(header(placement), {}), dst_node_id=7, message_type=HELLO)
    message.metadata.__dict__["_message_id"] = "1"
    context = Context(1, 7, {"partition-id": 0, "num-partitions": 3}, RecordDict(), {})
    reply = reply_of(build_app(placement)(message, context), placement)
    assert reply.error == ""
    assert not list(placement.run.rglob("health.json"))


def test_a_client_without_a_recording_has_seen_no_beam(placement: Placement) -> None:
    reply = reply_of(ask(placement, recording=""), placement)
    assert reply.error == ""
    assert (reply.facts["num_passes"], reply.facts["num_examples"]) == (0, 0)
    assert reply.facts["seen"] == [0] * 64


@pytest.mark.parametrize("strategy", [{}, {"codec": "float16"}, {"privacy": {"clip": 0.5, "noise_multiplier": 1.0}}])
def test_who_has_neither_labels_nor_targets_answers_no_soft_label(strategy: dict[str, Any], tmp_path: Path) -> None:
    placement = place(tiny_experiment(**strategy), tmp_path / "run")
    reply = reply_of(ask(placement, ROUND, {"roof-1": Request(ask=np.arange(5))}, recording=""), placement)
    assert reply.error == ""
    assert reply.labels is not None
    assert reply.facts["num_examples"] == 0
    encoding = Encoding(placement.experiment.strategy.codec, 4, 64)
    assert len(encoding.unpack(reply.labels)) == 0
