"""A table is read however a spreadsheet saved it; what may be read in two ways is refused, cause by cause."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from clients.data.deepsense import read_scenario
from clients.data.table_text import read_table_text
from tests.releases import HEADER, Release


def saved(change: Callable[[str], str | bytes]) -> Callable[[Path], None]:
    """Save the table again, changed as text."""

    def save(table: Path) -> None:
        text = change(table.read_text())
        table.write_bytes(text if isinstance(text, bytes) else text.encode())

    return save


def lines(change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    return saved(lambda text: "\n".join(change(text.splitlines())) + "\n")


# How a table was saved -> what the reader says, if anything.
READ: dict[str, tuple[Callable[[Path], None], str]] = {
    "semicolons": (saved(lambda text: text.replace(",", ";")), "semicolons stand between its cells and not commas"),
    "tabs": (saved(lambda text: text.replace(",", "\t")), "tabs stand between its cells and not commas"),
    "bars": (saved(lambda text: text.replace(",", "|")), "bars stand between its cells and not commas"),
    "semicolons and decimal commas": (
        lines(
            lambda all_: [
                all_[0].replace(",", ";"),
                *(row.replace(",", ",0;", 1).replace(",", ";").replace(";0;", ",0;", 1) for row in all_[1:]),
            ]
        ),
        "with decimal commas as points",
    ),
    "the separator in the first line": (saved(lambda text: "sep=;\n" + text.replace(",", ";")), "semicolons stand"),
    "UTF-8 with a mark": (saved(lambda text: text.encode("utf-8-sig")), ""),
    "UTF-16 with a mark": (saved(lambda text: text.encode("utf-16")), ""),
    "UTF-16 without a mark": (saved(lambda text: text.encode("utf-16-le")), ""),
    "UTF-16, the other byte first": (saved(lambda text: text.encode("utf-16-be")), ""),
    "UTF-32": (saved(lambda text: text.encode("utf-32")), ""),
    "CRLF": (saved(lambda text: text.replace("\n", "\r\n").encode()), ""),
    "CR": (saved(lambda text: text.replace("\n", "\r").encode()), ""),
    "quotes": (saved(lambda text: "\n".join('"' + '","'.join(row.split(",")) + '"' for row in text.splitlines())), ""),
    "blank lines": (lines(lambda all_: [*all_[:3], "", ",,,,,,", *all_[3:], ",,,,,,"]), ""),
    "blanks around names and cells": (saved(lambda text: text.replace(",", " , ")), ""),
    "a comma at the end of each line": (lines(lambda all_: [f"{row}," for row in all_]), ""),
    "names in capitals": (lines(lambda all_: [all_[0].upper(), *all_[1:]]), "'SEQ_INDEX' is read as seq_index"),
    "names with blanks": (
        lines(lambda all_: [all_[0].replace("seq_index", "Seq Index"), *all_[1:]]),
        "its column 'Seq Index' is read as seq_index",
    ),
    "the same column twice with the same cells": (lines(lambda all_: [f"{row},{row}" for row in all_]), ""),
}


@pytest.mark.parametrize("case", READ)
def test_a_table_is_read_however_it_was_saved_and_what_was_unusual_is_said(case: str, tmp_path: Path) -> None:
    save, words = READ[case]
    folder = Release().write(tmp_path / "scenario7")
    expected = read_scenario(folder)
    save(folder / "scenario7.csv")
    found = read_scenario(folder)
    assert found.beams.tolist() == expected.beams.tolist()
    assert found.pass_ids.tolist() == expected.pass_ids.tolist()
    assert any(words in problem for problem in found.problems) if words else found.problems == ()
    assert all(problem.startswith("scenario7.csv: ") for problem in found.problems)


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty": (saved(lambda text: ""), "the file is empty"),
    "only blank lines": (saved(lambda text: "\n\n \n"), "the file is empty"),
    "header only": (lines(lambda all_: all_[:1]), "there are no rows below the names of the columns"),
    "no header": (lines(lambda all_: all_[1:]), "its first line is data"),
    "a zip archive": (saved(lambda text: b"PK\x03\x04" + bytes(30)), "is a zip archive or an Excel workbook"),
    "an old workbook": (saved(lambda text: b"\xd0\xcf\x11\xe0" + bytes(30)), "is an old Excel workbook"),
    "gzip": (saved(lambda text: b"\x1f\x8b" + bytes(30)), "is compressed by gzip"),
    "a pointer": (saved(lambda text: "version https://git-lfs.github.com/spec/v1\n"), "is a pointer of Git LFS"),
    "a web page": (saved(lambda text: "<!doctype html><html>"), "is a web page and no table"),
    "latin-1": (saved(lambda text: text.replace("index", "ind\xe9x").encode("latin-1")), "save it as UTF-8"),
    "zero bytes": (saved(lambda text: text.encode() + b"\0\0,\0"), "it holds zero bytes"),
    "a column twice with other cells": (
        lines(lambda all_: [f"{all_[0]},seq_index", *(f"{row},7" for row in all_[1:])]),
        "it has two columns seq_index, and line 2 says 1 in the one and 7 in the other",
    ),
    "power column missing": (
        lines(lambda all_: [all_[0].replace("unit1_pwr_60ghz", "power"), *all_[1:]]),
        "there is no unit1_pwr_60ghz or unit1_pwr_1; its columns are index, power, unit1_loc",
    ),
    "label column missing": (
        lines(lambda all_: [all_[0].replace("unit1_beam_index", "label"), *all_[1:]]),
        "there is no unit1_beam_index or unit1_beam or beam_index_1; its columns are",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_is_no_such_table_is_refused_by_its_cause(case: str, tmp_path: Path) -> None:
    save, words = REFUSED[case]
    folder = Release().write(tmp_path / "scenario7")
    save(folder / "scenario7.csv")
    with pytest.raises(ValueError) as caught:
        read_scenario(folder)
    assert str(caught.value).startswith(f"{folder / 'scenario7.csv'}: ")
    assert words in str(caught.value)


def test_the_line_of_a_row_is_that_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sep=,\n\nindex,seq_index\n1,1\n\n2,1\n")
    assert [line for line, _ in read_table_text(tmp_path / "a.csv", HEADER).rows] == [4, 6]


@pytest.mark.parametrize(
    "left", ["._scenario7.csv", ".DS_Store", "Thumbs.db", "__MACOSX/scenario7.csv", ".hidden.csv", "._x_arrays.npz"]
)
def test_what_an_operating_system_leaves_in_a_release_does_not_count(left: str, tmp_path: Path) -> None:
    folder = Release().write(tmp_path / "scenario7")
    (folder / left).parent.mkdir(exist_ok=True)
    (folder / left).write_bytes(b"\0\5\x16\7")
    assert read_scenario(folder).problems == ()


def test_a_table_may_end_in_capitals(tmp_path: Path) -> None:
    folder = Release().write(tmp_path / "scenario7")
    (folder / "scenario7.csv").rename(folder / "SCENARIO7.CSV")
    assert len(read_scenario(folder).beams) == 120
