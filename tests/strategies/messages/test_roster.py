"""Who may take part, and as whom: the node's key decides, and a client may move but never be in two places."""

from __future__ import annotations

import re
from typing import Any

import pytest

from strategies.messages.records import MAX_TEXT, Event, Member, RegisteredNode, one_line
from strategies.messages.roster import Roster, check_metrics, introduced_member, warning_of, with_counts, worked_seconds
from strategies.messages.wire import Reply, WireError

ROOF, GATE = 11, 22
REGISTRY = {
    ROOF: RegisteredNode("roof-1", "000-camera", "camera"),
    GATE: RegisteredNode("gate-2", "001-radar", "radar"),
}


def hello(modality: str = "camera", **facts: Any) -> Reply:
    counts = {"num_examples": 7, "num_passes": 2, "num_parameters": 100}
    return Reply(facts={"modality": modality, **counts, **facts})


def roster(**arguments: Any) -> Roster:
    return Roster(4, **arguments)


def test_a_node_holds_whom_its_key_was_registered_for() -> None:
    met = roster(registry=REGISTRY)
    assert met.note_present({ROOF, GATE}) == []
    assert met.strangers() == [ROOF, GATE]
    assert met.introduce(ROOF, {"000-camera": hello()}) == [Event("joined", "000-camera", "on node roof-1")]
    assert list(met.members) == ["000-camera"]
    assert met.strangers() == [GATE]


@pytest.mark.parametrize(
    ("node", "client", "modality", "text"),
    [
        (ROOF, "001-radar", "radar", r"says that it is 001-radar \(radar\), but node roof-1 has the key of 000-camera"),
        (ROOF, "000-camera", "radar", r"says that it is 000-camera \(radar\), but node roof-1 .* \(camera\)"),
        (GATE, "000-camera", "camera", r"but node gate-2 has the key of 001-radar \(radar\)"),
    ],
)
def test_a_node_that_claims_another_client_or_modality_is_refused(
    node: int, client: str, modality: str, text: str
) -> None:
    met = roster(registry=REGISTRY)
    met.note_present({ROOF, GATE})
    (event,) = met.introduce(node, {client: hello(modality)})
    assert (event.kind, event.who) == ("refused", f"client {client}")
    assert re.search(text, event.text)
    assert met.members == {}
    assert node in met.strangers()


def test_a_node_that_is_not_registered_is_refused_unheard() -> None:
    met = roster(registry=REGISTRY)
    assert met.note_present({ROOF, 33}) == [Event("refused", "node 33", "its key is not in the register of nodes")]
    assert met.strangers() == [ROOF]
    assert met.may_come({ROOF, 33}) == {ROOF}


def test_without_a_register_every_node_may_come() -> None:
    met = roster()
    assert met.note_present({33}) == []
    assert met.strangers() == [33]


def test_the_same_refusal_is_told_once_and_another_one_again() -> None:
    met = roster()
    met.note_present({33})
    tell = [met.introduce(33, WireError(text)) for text in ("no data", "no data", "no public set")]
    assert [len(events) for events in tell] == [1, 0, 1]


def test_a_client_whose_node_is_away_stays_a_member_and_is_back_when_it_is() -> None:
    met = roster()
    met.note_present({1, 2})
    met.introduce(1, {"a": hello()})
    met.introduce(2, {"b": hello()})
    assert met.here == {"a", "b"}
    assert met.note_present({2}) == [Event("left", "a", "node 1 left")]
    assert met.here == {"b"}
    assert list(met.members) == ["a", "b"]
    assert met.note_present({1, 2}) == [Event("back", "a", "node 1 is back")]
    assert met.here == {"a", "b"}
    assert met.strangers() == []


def test_a_client_moves_from_a_node_that_is_away_to_a_new_one() -> None:
    met = roster()
    met.note_present({1})
    met.introduce(1, {"a": hello()})
    met.note_present({9})
    assert met.introduce(9, {"a": hello(num_examples=8)}) == [Event("moved", "a", "from node 1 to node 9")]
    assert met.nodes == {9: {"a"}}
    assert met.members["a"].num_examples == 8
    # The old node is nobody now: when it comes back, it is asked, and is too late.
    met.note_present({1, 9})
    assert met.strangers() == [1]
    (event,) = met.introduce(1, {"a": hello()})
    assert "on another node already" in event.text


def test_a_client_does_not_move_while_its_node_is_there() -> None:
    met = roster()
    met.note_present({1, 9})
    met.introduce(1, {"a": hello()})
    (event,) = met.introduce(9, {"a": hello()})
    assert (event.kind, event.who) == ("refused", "client a")
    assert list(met.nodes) == [1]
    met.note_present({9})
    assert [event.kind for event in met.introduce(9, {"a": hello()})] == ["moved"]


def test_a_client_that_is_known_from_before_a_stop_keeps_its_place_and_its_modality() -> None:
    before = Member("a", "camera", 100, 2, 7)
    met = roster(members={"a": before})
    assert met.members == {"a": before}
    assert met.here == frozenset()
    met.note_present({1})
    (event,) = met.introduce(1, {"a": hello("radar")})
    assert event.text == "was a camera before, and says that it is a radar now"
    met.introduce(1, {"a": hello(num_examples=9)})
    assert met.here == {"a"}
    assert met.members["a"].num_examples == 9


def test_one_bad_client_of_a_node_spares_the_others() -> None:
    met = roster()
    met.note_present({1})
    events = met.introduce(1, {"a": hello(num_examples=-1), "b": hello(), "teacher": hello()})
    assert [(event.kind, event.who) for event in events] == [
        ("refused", "client a"), ("joined", "b"), ("refused", "client teacher"),
    ]  # fmt: skip


def test_a_member_is_updated_wherever_it_is_known() -> None:
    met = roster(members={"z": Member("z", "gps", 1, 1, 1)})
    met.note_present({1})
    met.introduce(1, {"a": hello()})
    for client in ("a", "z"):
        met.update(with_counts(met.members[client], Reply(facts={"num_examples": 0}), 4))
        assert met.members[client].num_examples == 0
    assert met.here == {"a"}


@pytest.mark.parametrize("value", [-1, 1.0, "7", True])
def test_a_number_of_examples_that_is_no_count_is_refused(value: Any) -> None:
    with pytest.raises(WireError, match="num_examples must be a count"):
        with_counts(Member("a", "gps", 1, 1, 5), Reply(facts={"num_examples": value}), 4)


def test_a_reply_that_tells_no_number_of_examples_leaves_it() -> None:
    assert with_counts(Member("a", "gps", 1, 1, 5), Reply(), 4).num_examples == 5


def test_a_reply_tells_of_passes_that_were_recorded_since() -> None:
    facts = {"num_passes": 3, "num_examples": 9, "seen": [0, 1, 1, 0]}
    now = with_counts(Member("a", "gps", 1, 1, 5, seen=(0, 1, 0, 0)), Reply(facts=facts), 4)
    assert (now.num_passes, now.num_examples, now.seen) == (3, 9, (0, 1, 1, 0))


@pytest.mark.parametrize("seen", [[0, 1], [0, 1, 2, 0], "0110", 7])
def test_seen_beams_that_cannot_be_are_refused(seen: Any) -> None:
    with pytest.raises(WireError, match="seen must be a 0 or 1 for each of 4 classes"):
        with_counts(Member("a", "gps", 1, 1, 5), Reply(facts={"seen": seen}), 4)


def test_seconds_and_warnings_are_what_they_say() -> None:
    assert (worked_seconds(Reply()), worked_seconds(Reply(facts={"seconds": 2}))) == (0.0, 2.0)
    assert (warning_of(Reply()), warning_of(Reply(facts={"warning": "lens\n dirty"}))) == ("", "lens dirty")
    for facts in ({"seconds": float("nan")}, {"seconds": float("inf")}, {"seconds": -1}, {"warning": 3}):
        with pytest.raises(WireError):
            worked_seconds(Reply(facts=facts)), warning_of(Reply(facts=facts))


def test_a_strangers_text_is_one_short_line() -> None:
    assert one_line(" a\tb\n\nc ") == "a b c"
    assert one_line("x" * MAX_TEXT) == "x" * MAX_TEXT
    assert one_line("x" * (MAX_TEXT + 1)) == "x" * (MAX_TEXT - 3) + "..."


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("common.top5", []),
        ("common.top5", [0.5]),
        ("common.top5", [0.5] * 3),
        ("common.top5", [0.5] * 5),
        ("common.top5", 0.5),
        ("own.power_loss_db", [1.0]),
        ("local.common.top1", [1.0]),
        ("validation", [0.5]),
        ("local.validation", [0.5, 0.5]),
        ("loss", [1.0, 2.0]),
        ("epsilon", []),
        ("window_delta", [0.1]),
        ("passes.top5", 0.5),
        ("passes.top5", [0.5] * 10_001),
        ("local.passes.top5", [0.5, 1.5]),
    ],
)
def test_a_metric_that_nobody_could_show_is_refused(name: str, value: float | list[float]) -> None:
    with pytest.raises(WireError, match=f"metric {name} must be "):
        check_metrics(Reply(metrics={name: value}), 4)


def test_metrics_of_the_right_form_are_taken() -> None:
    scores = {"common.top5": [0.5] * 4, "own.dba": [0.5] * 4, "validation": 0.5, "local.validation": 0.5, "loss": 1.0}
    scores |= {"passes.top5": [0.0, 1.0], "local.passes.top5": [0.5] * 30}
    check_metrics(Reply(metrics=scores), 4)


def test_a_client_says_of_which_site_it_is_and_a_site_that_is_no_name_is_refused() -> None:
    assert introduced_member("a", hello(), 4).site == ""
    assert introduced_member("a", hello(site="north"), 4).site == "north"
    for site in ("two\nlines", 3):
        with pytest.raises(WireError, match="site must be a name"):
            introduced_member("a", hello(site=site), 4)
