"""Clients of one node are served together, and each gets its own reply or its own error."""

from __future__ import annotations

import pytest

import clients.cohort
from clients.cohort import Work, alone, serve
from clients.learning.cohort import Learning
from strategies.messages.wire import Reply


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Who learned together, in order; a learner is a name here, and its loss the length of that name."""
    together: list[list[str]] = []

    def learn(rounds: list[Learning]) -> list[float | BaseException]:
        names = [str(one.learner) for one in rounds]
        together.append(names)
        return [ValueError(name) if "bad" in name else float(len(name)) for name in names]

    monkeypatch.setattr(clients.cohort, "learn_together", learn)
    return together


def work(name: str, rounds: int, *, fails: str = "") -> Work:
    losses = []
    for number in range(rounds):
        if fails == str(number):
            raise KeyError(name)
        losses.append((yield Learning(name, None, 1, 1)))  # type: ignore[arg-type]
    return Reply(metrics={"loss": sum(losses)})


def test_clients_with_more_rounds_go_on_when_the_others_have_replied(learned: list[list[str]]) -> None:
    served = serve({"a": work("a", 1), "bb": work("bb", 3), "c": work("c", 0)})
    assert list(served) == ["a", "bb", "c"]
    assert [served[client].reply for client in served] == [
        Reply(metrics={"loss": 1.0}),
        Reply(metrics={"loss": 6.0}),
        Reply(metrics={"loss": 0}),
    ]
    assert learned == [["a", "bb"], ["bb"], ["bb"]]
    assert all(one.seconds >= 0 for one in served.values())


def test_what_a_client_raises_before_between_or_while_it_learns_is_its_own(learned: list[list[str]]) -> None:
    served = serve(
        {"x": work("x", 2, fails="0"), "y": work("y", 2, fails="1"), "bad": work("bad", 2), "z": work("z", 2)}
    )
    kinds = {client: type(one.reply) for client, one in served.items()}
    assert kinds == {"x": KeyError, "y": KeyError, "bad": ValueError, "z": Reply}
    assert learned == [["y", "bad", "z"], ["z"]]


def test_an_interruption_ends_all(learned: list[list[str]]) -> None:
    def interrupted() -> Work:
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        serve({"a": interrupted(), "b": work("b", 1)})


def test_one_alone_returns_its_reply_or_raises(learned: list[list[str]]) -> None:
    assert alone(work("abc", 2)) == Reply(metrics={"loss": 6.0})
    with pytest.raises(KeyError):
        alone(work("abc", 2, fails="1"))
