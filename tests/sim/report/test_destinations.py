"""Names of files that could not be written are refused before any work, whatever the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim.report.destinations import check_destination
from sim.report.exports import ENDINGS
from sim.report.strategies import FORMATS

OPTIONS = [("--out", ENDINGS), ("--figure", FORMATS)]


@pytest.mark.parametrize(("option", "endings"), OPTIONS)
def test_every_ending_is_taken_in_either_case(option: str, endings: tuple[str, ...], tmp_path: Path) -> None:
    for ending in endings:
        check_destination(option, tmp_path / f"name{ending}", endings)
        check_destination(option, tmp_path / f"name{ending.upper()}", endings)


@pytest.mark.parametrize(("option", "endings"), OPTIONS)
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("name.xlsx", "expected a name that ends in"),
        ("name", "expected a name that ends in"),
        ("folder{}", "is a folder; name a file in a folder that is there"),
        ("nowhere/name{}", "there is no folder .*nowhere; name a file in a folder that is there"),
    ],
)
def test_a_name_that_could_not_be_written_is_refused_with_its_option(
    option: str, endings: tuple[str, ...], name: str, why: str, tmp_path: Path
) -> None:
    (tmp_path / f"folder{endings[0]}").mkdir()
    with pytest.raises(ValueError, match=f"^{option} .*{why}"):
        check_destination(option, tmp_path / name.format(endings[0]), endings)
