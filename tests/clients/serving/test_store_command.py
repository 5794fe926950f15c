from __future__ import annotations

import json
from pathlib import Path

import pytest

from clients.serving import store_command
from clients.serving.margins import Margins
from sim.cli.command_tree import run_command
from sim.cli.store import store_cli
from tests.clients.serving.conftest import Models, write_passes
from tests.sim.cli.test_main import softbeam
from tests.sim.take_home.test_serving import on_a_node


def test_a_store_is_filled_shown_and_rolled_back(models: Models, tmp_path: Path) -> None:
    good, better, bad = (
        models.write(tmp_path / name, seed=seed, shift=shift)
        for name, seed, shift in (("good", 1, 0), ("better", 2, 0), ("bad", 1, 4))
    )
    write_passes(tmp_path / "passes")
    store = tmp_path / "store"
    assert softbeam("store", "add", store, good).out == "0001 is current: is the first version\n"
    assert "0002 is current: is taken" in softbeam("store", "add", store, better, "--passes", tmp_path / "passes").out
    refused = softbeam("store", "add", store, bad, "--passes", tmp_path / "passes")
    assert refused.code == 1 and "0003 is not served: is worse" in refused.out
    rows = json.loads(softbeam("store", "list", store, "--json").out)
    assert [row["state"] for row in rows] == ["before", "current", "refused"]
    assert rows[1]["run"] == "here" and rows[1]["round"] == 2
    assert "0003" in softbeam("store", "list", store).out
    assert softbeam("store", "rollback", store).out == "0001 is current again; 0002 never comes back\n"
    assert "nothing to go back to" in softbeam("store", "rollback", store).err
    assert softbeam("store", "use", store, "0002").out == "0002 is current, after 0001\n"
    loud = softbeam("store", "add", store, bad, "--unchecked", "--json")
    assert json.loads(loud.out) == {
        "version": "0004",
        "is_current": True,
        "reason": "was chosen without a comparison",
    }


def test_errors_are_one_line(models: Models, tmp_path: Path) -> None:
    assert "not a store of models; softbeam store add makes one" in softbeam("store", "list", tmp_path).err
    assert "name the folder of a model" in softbeam("store", "add", tmp_path / "store", tmp_path).err
    assert not (tmp_path / "store").exists()


def test_a_node_without_the_command_line_has_the_same(models: Models, tmp_path: Path) -> None:
    write_passes(tmp_path / "passes")
    good, bad = models.write(tmp_path / "good"), models.write(tmp_path / "bad", shift=4)
    store = tmp_path / "store"
    assert on_a_node("store", "add", store, good).stdout == "0001 is current: is the first version\n"
    refused = on_a_node("store", "add", store, bad, "--passes", tmp_path / "passes")
    assert refused.returncode == 1 and "0002 is not served: is worse" in refused.stdout, refused.stderr
    done = on_a_node("predict", store, tmp_path / "passes", "--json")
    assert json.loads(done.stdout.splitlines()[0])["version"] == "0001", done.stderr


def test_its_own_command_line_does_the_same(models: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = str(tmp_path / "store")
    assert store_command.main(["add", store, str(models.write(tmp_path / "good"))]) == 0
    assert store_command.main(["add", store, str(models.write(tmp_path / "other", seed=2)), "--unchecked"]) == 0
    assert store_command.main(["rollback", store, "--why", "it is worse at night"]) == 0
    assert store_command.main(["list", store, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out.partition("\n[")[2].join(["[", ""]))
    assert [row["state"] for row in rows] == ["current", "refused"]
    assert store_command.main(["use", store, "0002"]) == 0
    assert store_command.main(["list", store]) == 0
    assert "0002  current" in capsys.readouterr().out
    assert store_command.main(["use", store, "0009"]) == 1
    assert "error: " in capsys.readouterr().err


def test_both_command_lines_have_the_same_margins() -> None:
    command = run_command(store_cli).commands["add"]  # type: ignore[attr-defined]
    defaults = {one.name: one.default for one in command.params}
    found = Margins(defaults["top5_margin"], defaults["power_margin"], defaults["last"])
    assert found == Margins()
