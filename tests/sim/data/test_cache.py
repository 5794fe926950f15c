"""The cache is listed and cleaned, and what a running process uses stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from configs.files import waited_for
from configs.home import hold, in_use_file
from sim.data.cache import cache_entries, choose_entries, seconds_of
from sim.data.federation import ensure_federation
from tests.conftest import CHECKOUT, tiny_experiment
from tests.sim.cli.test_main import softbeam


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with a federation, a conversion, a benchmark's file, a draft, and what a desktop left."""
    monkeypatch.setenv("SOFTBEAM_HOME", str(tmp_path / "home"))
    home = tmp_path / "home"
    made = {
        "data/street-1/federation.json": {"source": "street", "seed": 3, "clients": [{}, {}]},
        "data/scenes-2/federation.json": {"source": "deepsense", "scenario": "scenario9", "seed": 0, "clients": [{}]},
        "converted/scenario9-3/conversion.json": {"scenario": "scenario9"},
        "data/.street-4.99999/federation.json": {},
        "runs/street-7/summary.json": {},
    }
    for name, values in made.items():
        (home / name).parent.mkdir(parents=True)
        (home / name).write_text(json.dumps(values))
    (home / "bench").mkdir()
    (home / "bench" / "voters-5.npz").write_bytes(bytes(2000))
    (home / "data" / ".DS_Store").write_bytes(b"1")
    (home / "data" / "._street-1").write_bytes(b"1")
    return home


@contextmanager
def used_by_another_process(entry: Path) -> Iterator[None]:
    program = "import sys\nfrom pathlib import Path\nfrom configs.home import hold\nhold(Path(sys.argv[1]))\n"
    program += "print('held', flush=True)\nsys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(entry)],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield
        process.stdin.close()


def test_the_list_says_what_made_each_entry_its_size_and_its_last_use(home: Path) -> None:
    os.utime(home / "data" / "scenes-2", (0, 86400))
    entries = {entry.name: entry for entry in cache_entries()}
    assert {name: (entry.kind, entry.made_by) for name, entry in entries.items()} == {
        "street-1": ("data", "street, seed 3: street, 2 clients"),
        "scenes-2": ("data", "scenes, seed 0: scenario9, 1 clients"),
        "scenario9-3": ("converted", "conversion of scenario9"),
        "voters-5.npz": ("bench", "softbeam bench"),
        ".street-4.99999": ("draft", "a process that was stopped, for street-4"),
    }
    assert entries["voters-5.npz"].num_bytes == 2000
    assert entries["scenes-2"].used == 86400
    assert not any(entry.in_use for entry in entries.values())
    answer = softbeam("data", "list")
    assert answer.code == 0, answer.err
    assert all(word in answer.out for word in ("street-1", "voters-5.npz", "2.0 kB", str(home)))
    assert {entry["name"] for entry in json.loads(softbeam("data", "list", "--json").out)["entries"]} == set(entries)


def test_cleaning_removes_everything_but_runs_and_says_what_was_freed(home: Path) -> None:
    answer = softbeam("data", "clean", "--yes")
    assert answer.code == 0, answer.err
    assert answer.out.splitlines()[-1] == "freed 2.2 kB"
    assert "removed voters-5.npz: 2.0 kB" in answer.out
    assert cache_entries() == []
    assert sorted(path.name for path in home.rglob("*") if path.is_file()) == [
        ".DS_Store",
        "._street-1",
        "summary.json",
    ]
    assert softbeam("data", "clean", "--yes").out == "nothing was removed\n"
    assert "no data yet" in softbeam("data", "list").out


def test_one_entry_is_cleaned_by_its_name_or_path(home: Path) -> None:
    assert softbeam("data", "clean", "street-1", "--yes").code == 0
    assert softbeam("data", "clean", f"{home / 'converted' / 'scenario9-3'}/", "--yes").code == 0
    assert {entry.name for entry in cache_entries()} == {"scenes-2", "voters-5.npz", ".street-4.99999"}
    wrong = softbeam("data", "clean", "scenes-3", "--yes")
    assert wrong.code == 1
    assert "scenes-3: not in the cache; did you mean scenes-2 or scenes?; see softbeam data list" in wrong.err
    assert softbeam("data", "clean", "scenes", "--yes").code == 0
    assert {entry.name for entry in cache_entries()} == {"voters-5.npz", ".street-4.99999"}


def test_only_what_was_not_used_for_so_long_is_cleaned(home: Path) -> None:
    for at, name in enumerate(("street-1", "scenes-2")):
        os.utime(home / "data" / name, (0, time.time() - 86400 * (9 + 2 * at)))
    assert [entry.name for entry in choose_entries(cache_entries(), [], older_s=seconds_of("10d"))] == ["scenes-2"]
    hold(home / "data" / "scenes-2")
    assert choose_entries(cache_entries(), [], older_s=seconds_of("10d")) == []
    assert softbeam("data", "clean", "--older", "1w", "--yes").code == 0
    assert {entry.name for entry in cache_entries()} == {"scenes-2", "scenario9-3", "voters-5.npz", ".street-4.99999"}


@pytest.mark.parametrize("age", ["", "soon", "-1d", "1y", "1d2h"])
def test_an_age_that_is_none_is_refused(age: str) -> None:
    with pytest.raises(ValueError, match="expected a number with s, m, h, d or w, such as 30d"):
        seconds_of(age)


def test_without_a_terminal_and_yes_nothing_is_removed(home: Path) -> None:
    answer = softbeam("data", "clean")
    assert answer.code == 1
    assert "data clean would remove 5 entries (2.2 kB); give --yes to remove them" in answer.err
    assert len(cache_entries()) == 5


def test_what_a_running_process_uses_or_makes_stays(home: Path) -> None:
    used, made = home / "data" / "street-1", home / "data" / "street-4"
    with used_by_another_process(used), waited_for(made.with_name(f".{made.name}.lock")):
        assert {entry.name for entry in cache_entries() if entry.in_use} == {"street-1", ".street-4.99999"}
        answer = softbeam("data", "clean", "--yes", "--json")
        result = json.loads(answer.out)
        assert {entry["name"] for entry in result["kept"]} == {"street-1", ".street-4.99999"}
        assert used.is_dir()
    assert softbeam("data", "clean", "--yes").code == 0
    assert cache_entries() == []
    assert not in_use_file(used).exists()


MAKE = """
from pathlib import Path
from sim.data.federation import ensure_federation
from tests.conftest import tiny_experiment
print(ensure_federation(tiny_experiment())[0])
"""


def test_two_processes_that_make_the_same_data_at_once_both_succeed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOFTBEAM_HOME", str(tmp_path))
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-c", MAKE]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120)[0].splitlines()[-1] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said[0] == said[1]
    (entry,) = cache_entries()
    assert entry.path == Path(said[0])


def test_data_that_this_process_made_is_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTBEAM_HOME", str(tmp_path))
    folder, _ = ensure_federation(tiny_experiment())
    (entry,) = cache_entries()
    assert (entry.path, entry.in_use) == (folder, True)
    assert entry.made_by == "tiny, seed 3: street, 3 clients"
