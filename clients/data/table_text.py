"""The text of a table as it was saved: its encoding, what stands between its cells, how its columns are called.

Spreadsheets save a CSV with semicolons or tabs, with decimal commas, as UTF-16 or with a byte order mark. All this says
nothing about the measurements, so it is read, and the reader says so; a table that may be read in two ways is refused.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.files import read_plain

# The longest mark comes first: that of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# The first bytes of files that are no text, and what to do with such a file.
_OTHER_FILES = (
    (b"PK\x03\x04", "is a zip archive or an Excel workbook; save the sheet as CSV, or unpack the archive"),
    (b"\xd0\xcf\x11\xe0", "is an old Excel workbook; save the sheet as CSV"),
    (b"\x1f\x8b", "is compressed by gzip; unpack it"),
    (b"version https://git-lfs", "is a pointer of Git LFS and not the file itself; fetch it with git lfs pull"),
    (b"<!DOCTYPE", "is a web page and no table; download it again"),
    (b"<html", "is a web page and no table; download it again"),
)
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
DECIMAL_COMMA = re.compile(r"[-+]?\d*,\d+([eE][-+]?\d+)?")


@dataclass(frozen=True)
class TableText:
    """The cells of one CSV file.

    Attributes:
        rows: the line of each row, and column -> cell.
        notes: what was unusual about the file and how it was read, one sentence each, without the name of the file.
        too_long: the lines with more cells than there are columns.
        too_short: the lines with fewer cells; what is not there is blank.
    """

    rows: Sequence[tuple[int, Mapping[str, str]]]
    notes: tuple[str, ...]
    too_long: frozenset[int]
    too_short: frozenset[int]


def decode_text(data: bytes) -> str:
    """Text in UTF-8, or in UTF-16 or UTF-32 with or without a byte order mark.

    Raises:
        UnicodeDecodeError: it is none of them.
    """
    for mark, name in _MARKS:
        if data.startswith(mark):
            return data.decode(name)
    # Without a mark, every second byte of plain text in UTF-16 is zero.
    for name, zeros in (("utf-16-le", data[1:400:2]), ("utf-16-be", data[0:400:2])):
        if len(zeros) > 1 and not any(zeros):
            return data.decode(name)
    return data.decode("utf-8")


def read_table_text(file: Path, known: Collection[str]) -> TableText:
    """Read the cells of a CSV file.

    Args:
        file: the path of the file.
        known: the names of columns that mean something; they are found in any case, and with blanks or hyphens.

    Raises:
        ValueError: the file is no table, has no names of columns, or has one of them twice with other cells.
    """
    text = _text_of(file)
    notes = []
    first, _, rest = text.partition("\n")
    if told := re.fullmatch(r"\"?sep=(.)\"?\s*", first):
        text = rest
    separator = told[1] if told else _separator(text, known)
    if separator != ",":
        name = _SEPARATORS.get(separator, repr(separator))
        notes.append(f"{name} stand between its cells and not commas; it was read so, with decimal commas as points")
    stream = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        lines = [(stream.line_num + bool(told), line) for line in stream if any(cell.strip() for cell in line)]
    except csv.Error as error:
        raise ValueError(f"{file}: is not a readable CSV ({error}); download it again") from None
    if not lines:
        raise ValueError(f"{file}: the file is empty; download it again")
    header, renamed = _columns(lines[0][1], known)
    notes += renamed
    body = lines[1:]
    if not set(header) & set(known) and any(cell.startswith(("./", ".\\")) or _is_number(cell) for cell in header):
        raise ValueError(
            f"{file}: its first line is data ({', '.join(header[:4])}); the first line must name the columns"
        )
    _check_twice(file, header, body, known)
    rows = [(number, _row(header, line, has_commas=separator != ",")) for number, line in body]
    too_long = frozenset(number for number, line in body if any(cell.strip() for cell in line[len(header) :]))
    too_short = frozenset(number for number, line in body if len(line) < len(header))
    return TableText(rows, tuple(notes), too_long, too_short)


def _text_of(file: Path) -> str:
    try:
        data = read_plain(file)
    except OSError as error:
        raise ValueError(f"{file}: cannot be read ({error.strerror or error})") from None
    for beginning, advice in _OTHER_FILES:
        if data[:64].lstrip().lower().startswith(beginning.lower()):
            raise ValueError(f"{file}: {advice}")
    try:
        text = decode_text(data)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file}: is not a readable CSV ({error.reason} at byte {error.start}); save it as UTF-8, or download it "
            "again"
        ) from None
    if "\0" in text:
        raise ValueError(f"{file}: is not a readable CSV (it holds zero bytes); download it again")
    return text


def _separator(text: str, known: Collection[str]) -> str:
    """What separates the names of columns: whatever finds most of the known names, and a comma if all find none."""
    first = next((line for line in text.splitlines() if line.strip()), "")

    def num_found(separator: str) -> int:
        names = next(csv.reader([first], delimiter=separator), [])
        return len({_folded(name) for name in names} & {_folded(name) for name in known})

    return max(_SEPARATORS, key=num_found)


def _folded(name: str) -> str:
    return re.sub(r"[\s\-_]+", "_", name.strip().casefold())


def _columns(names: Sequence[str], known: Collection[str]) -> tuple[list[str], list[str]]:
    """The names of the columns, the known ones as they are known; and a note for each that was written otherwise."""
    header = [name.strip() for name in names]
    meant = {_folded(name): name for name in known}
    notes = []
    for at, name in enumerate(header):
        wanted = meant.get(_folded(name), name)
        if wanted != name and wanted not in header:
            notes.append(f"its column {name!r} is read as {wanted}")
            header[at] = wanted
    return header, notes


def _check_twice(
    file: Path, header: Sequence[str], body: Sequence[tuple[int, Sequence[str]]], known: Collection[str]
) -> None:
    for name in known:
        places = [at for at, found in enumerate(header) if found == name]
        for place in places[1:]:
            for number, line in body:
                one, other = (line[at].strip() if at < len(line) else "" for at in (places[0], place))
                if one != other:
                    raise ValueError(
                        f"{file}: it has two columns {name}, and line {number} says {one or 'nothing'} in the one and "
                        f"{other or 'nothing'} in the other; remove or rename one of them"
                    )


def _row(header: Sequence[str], line: Sequence[str], *, has_commas: bool) -> dict[str, str]:
    cells = [cell.replace(",", ".") if has_commas and DECIMAL_COMMA.fullmatch(cell.strip()) else cell for cell in line]
    return dict(zip(header, [*cells, *[""] * len(header)], strict=False))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
