"""Data that is kept from run to run is made again once the code that makes it has changed."""

from __future__ import annotations

from pathlib import Path

from configs.loading import DATA_SOURCES
from tests.test_architecture import imports_of

CHECKOUT = Path(__file__).parents[2]


def ours(name: str) -> Path | None:
    """The file of a dotted name of `sim` or `clients.data`, which may end with something that the file defines."""
    for stem in (name, name.rpartition(".")[0]):
        path = CHECKOUT / (stem.replace(".", "/") + ".py")
        if stem.startswith(("sim.", "clients.data.")) and path.is_file():
            return path
    return None


def reached_from(*names: str) -> set[Path]:
    """Files of these modules and of all that they import, directly or not, at the top or within a function."""
    left, found = [ours(name) for name in names], set[Path]()
    while left:
        path = left.pop()
        if path is not None and path not in found:
            found.add(path)
            left += [ours(name) for name in imports_of(path.read_text())]
    return found


def test_every_module_that_makes_data_counts_in_the_datas_digest() -> None:
    makers = reached_from("sim.data.generate", "sim.data.sites")
    counted = {path for pattern in DATA_SOURCES for path in CHECKOUT.glob(pattern)}
    assert {path.name for path in makers} >= {"camera.py", "radar_maps.py", "deepsense.py"}
    assert sorted(path.relative_to(CHECKOUT).as_posix() for path in makers - counted) == []


def test_every_entry_of_the_datas_digest_is_a_file() -> None:
    assert [pattern for pattern in DATA_SOURCES if not any(CHECKOUT.glob(pattern))] == []
