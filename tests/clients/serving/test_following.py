from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from clients.models.live import LiveAnswer
from clients.serving.following import FollowedModel
from clients.serving.loading import load_model
from clients.serving.model_store import ModelStore
from clients.serving.predict import predict
from clients.serving.sources import SlotFrames
from tests.clients.serving.conftest import Models

PATIENCE_S = 20.0


@pytest.fixture
def store(models: Models, tmp_path: Path) -> ModelStore:
    """A store with two versions, the first of which is current."""
    store = ModelStore(tmp_path / "store")
    with store.writing():
        store.switch_to(store.put(models.write(tmp_path / "one", seed=1)))
        store.put(models.write(tmp_path / "two", seed=2))
    return store


def switch(store: ModelStore, name: str) -> None:
    with store.writing():
        store.switch_to(name)


def until_loaded(followed: FollowedModel) -> None:
    """Wait until the version that is current now is loaded; the next slot goes over to it."""
    followed.look()
    assert followed._loading is not None
    followed._loading.join(PATIENCE_S)


def positions(count: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    return np.stack([np.linspace(0.0, 15.0, count), 12.0 + rng.random(count)], axis=1)


# What happens in each slot: the numbers of the slots whose frames come then.
IN_TIME = [[slot] for slot in range(16)]
MISSING = [[slot] if slot not in (5, 8, 9, 13) else [] for slot in range(16)]
LATE = [[0], [1], [2], [3], [], [5, 4], [6], [], [8], [9, 7], [10], [11], [12], [], [14], [15]]


@pytest.mark.parametrize("coming", [IN_TIME, MISSING, LATE], ids=["in time", "missing", "late"])
@pytest.mark.parametrize("switch_at", range(1, 15))
def test_after_a_switch_the_new_version_answers_as_if_it_had_been_there_from_the_beginning(
    coming: list[list[int]], switch_at: int, store: ModelStore
) -> None:
    seen = positions(16)
    followed = FollowedModel(store.folder)
    live = followed.live()
    alone = {name: load_model(store.version(name)).live() for name in ("0001", "0002")}
    for slot, numbers in enumerate(coming):
        if slot == switch_at:
            switch(store, "0002")
            until_loaded(followed)
        pushes: list[tuple[dict[str, np.ndarray], int]] = [({"gps": seen[number]}, number) for number in numbers]
        for frames, number in pushes or [({}, slot)]:
            answer = live.push(frames, slot=number)
            wanted = {name: one.push(frames, slot=number) for name, one in alone.items()}
            expected = wanted["0001" if slot < switch_at else "0002"]
            assert (answer is None) is (expected is None)
            if answer is not None and expected is not None:
                assert answer.slot == expected.slot and answer.held == expected.held
                np.testing.assert_allclose(answer.logits, expected.logits, atol=1e-6)
    assert live.version == "0002"


def test_a_version_that_cannot_be_read_is_told_once_and_the_old_one_goes_on(store: ModelStore) -> None:
    told: list[str] = []
    followed = FollowedModel(store.folder, tell=told.append)
    live = followed.live()
    for path in store.version("0002").glob("*.onnx"):
        path.write_bytes(b"\0" * 40)
    switch(store, "0002")
    until_loaded(followed)
    answers: list[LiveAnswer | None] = [live.push({"gps": position}) for position in positions(6)]
    assert answers[-1] is not None and live.version == "0001"
    (line,) = told
    assert line.startswith("version 0002 is not served, 0001 goes on: ") and "not a graph" in line
    switch(store, "0001")
    until_loaded(followed)
    assert live.push({"gps": positions(1)[0]}) is not None and live.version == "0001" and len(told) == 1


def test_a_pass_that_ends_takes_its_frames_with_it(store: ModelStore) -> None:
    followed = FollowedModel(store.folder)
    live = followed.live()
    for position in positions(8):
        live.push({"gps": position})
    live.reset()
    assert live.newest_slot is None
    switch(store, "0002")
    until_loaded(followed)
    answers = [live.push({"gps": position}) for position in positions(4)]
    assert [answer is None for answer in answers] == [True, True, True, False]


def test_predict_loses_no_slot_and_says_who_answered(store: ModelStore) -> None:
    told: list[str] = []
    followed, lines = FollowedModel(store.folder, tell=told.append), list[str]()

    def slots() -> Iterator[SlotFrames]:
        for number, position in enumerate(positions(40)):
            if number == 20:
                switch(store, "0002")
                until_loaded(followed)
            yield SlotFrames("here", 0, None, {"gps": position})

    tally = predict(followed, slots(), lines.append, as_json=True)
    rows = [json.loads(line) for line in lines]
    assert tally.num_slots == 40 and [row["slot"] for row in rows] == list(range(3, 40))
    assert [row["version"] for row in rows] == ["0001"] * 17 + ["0002"] * 20
    assert told == ["version 0002 is served now, after 0001"]


def test_a_switch_is_noticed_without_being_asked_for(store: ModelStore) -> None:
    followed = FollowedModel(store.folder)
    live = followed.live()
    switch(store, "0002")
    end = time.monotonic() + PATIENCE_S
    slot: Callable[[], object] = lambda: live.push({"gps": positions(1)[0]})  # noqa: E731
    while live.version == "0001":
        assert time.monotonic() < end
        slot()
        time.sleep(0.01)
    assert live.version == "0002"
