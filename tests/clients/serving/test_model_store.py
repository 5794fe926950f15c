from __future__ import annotations

import json
from pathlib import Path

import pytest

from clients.serving.loading import load_model
from clients.serving.model_store import ModelStore, digest_of
from tests.clients.serving.conftest import Models


@pytest.fixture
def store(models: Models, tmp_path: Path) -> ModelStore:
    """A store with three versions, the last of which is current."""
    store = ModelStore(tmp_path / "store")
    with store.writing():
        for number in (1, 2, 3):
            store.switch_to(store.put(models.write(tmp_path / f"model-{number}", temperature=float(number))))
    return store


def test_one_version_is_current_and_the_store_loads_as_it(store: ModelStore) -> None:
    assert store.state().current == "0003" and store.state().before == ("0001", "0002")
    assert load_model(store.folder).manifest.temperatures == (3.0,)


def test_a_version_is_known_by_what_it_answers_whatever_it_is_called(models: Models, tmp_path: Path) -> None:
    one, same = (models.write(tmp_path / name, temperature=2.0) for name in ("one", "same"))
    other = models.write(tmp_path / "other", temperature=2.5)
    assert digest_of(one) == digest_of(same) != digest_of(other)


def test_a_rollback_goes_back_and_bans_what_was_current(store: ModelStore) -> None:
    digest = digest_of(store.version("0003"))
    with store.writing():
        assert store.roll_back("it misses trucks") == ("0003", "0002")
        assert store.state().banned == {digest: "version 0003: it misses trucks"}
        assert store.roll_back() == ("0002", "0001")
        with pytest.raises(ValueError, match="no version was current before"):
            store.roll_back()
    assert store.state().current == "0001"


def test_who_chooses_a_banned_version_by_name_gets_it(store: ModelStore) -> None:
    with store.writing():
        store.roll_back()
        store.switch_to("0003")
    assert store.state().current == "0003" and store.state().banned == {}
    assert store.state().before == ("0001", "0002")


def test_old_versions_are_removed_but_never_those_that_a_rollback_needs(
    store: ModelStore, models: Models, tmp_path: Path
) -> None:
    with store.writing():
        for number in range(4, 12):
            name = store.put(models.write(tmp_path / f"model-{number}", temperature=float(number)))
            if number % 2:
                store.switch_to(name)
            else:
                store.ban(name, "worse")
    assert store.state().current == "0011" and store.state().before == ("0005", "0007", "0009")
    assert store.versions() == ["0005", "0006", "0007", "0008", "0009", "0010", "0011"]


def test_numbers_are_not_given_twice(store: ModelStore, models: Models, tmp_path: Path) -> None:
    with store.writing():
        store.note_canary("0007", {})
        assert store.put(models.write(tmp_path / "next", temperature=9.0)) == "0008"


def test_another_form_does_not_take_the_place_of_the_current_one(
    store: ModelStore, models: Models, tmp_path: Path
) -> None:
    with store.writing():
        name = store.put(models.write(tmp_path / "wide", beams=16))
        with pytest.raises(ValueError, match=r"its number of beams: 16, and 8 in .*; use another store"):
            store.switch_to(name)
    assert store.state().current == "0003"


def test_one_writer_at_a_time(store: ModelStore) -> None:
    with store.writing(), pytest.raises(ValueError, match="another process writes to this store"), store.writing():
        pass


def test_a_reader_finds_the_old_file_or_the_new_one(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    def dies(*given: object) -> None:
        raise OSError("the power is cut")

    with store.writing():
        monkeypatch.setattr(os, "replace", dies)
        with pytest.raises(OSError, match="the power is cut"):
            store.roll_back()
    assert store.state().current == "0003"


@pytest.mark.parametrize("text", ["", "{}", '{"format": 9, "current": "0001", "before": [], "banned": {}}', "[1]"])
def test_a_damaged_store_is_one_line(store: ModelStore, text: str) -> None:
    store.file.write_text(text)
    with pytest.raises(ValueError, match=r"store\.json: not the file of a store of models"):
        store.state()


def test_what_is_not_there_is_named(store: ModelStore, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no version 0009; there are 0001, 0002, 0003"):
        store.version("0009")
    with pytest.raises(ValueError, match="no version is current"):
        ModelStore(tmp_path / "none").current()
    assert json.loads(store.file.read_text())["format"] == 1
