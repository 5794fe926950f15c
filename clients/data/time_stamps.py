"""Time stamps of a table as numbers that ascend with time, in each way in which they may be read.

DeepSense 6G writes the time of day in UTC (``['16-45-05-799']``), which begins again at midnight; other recorders write
seconds, dates with the day or the month first, or hours of twelve. No cell says which, so the rows decide: whoever
orders them takes the reading that agrees best with the table.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

Stamp = tuple[float, ...]

_HALF_OF_DAY = re.compile(r"\b([ap])\.?\s?m\b", re.IGNORECASE)
_FRACTION = re.compile(r"(:\d+)[.,](\d+)")
_LIMITS = (24, 60, 61)  # hours, minutes and seconds of a day; a second may be a leap second


def readings(cells: Sequence[str]) -> list[list[Stamp | None]]:
    """The ways to read a column of time stamps, the plainest one first.

    Args:
        cells: the cells, in any order.

    Returns:
        For each way, the stamp of each cell; None for a cell without a number. Stamps of one way compare as times do.

    Example:
        >>> readings(["1.5", "1.25"])
        [[(1.5,), (1.25,)]]
        >>> len(readings(["['23-59-59-999']", "['00-00-00-099']"]))
        2
    """
    numbers = [_number(cell) for cell in cells]
    if all(number is not None for number, cell in zip(numbers, cells, strict=True) if cell):
        return [[None if number is None else (number,) for number in numbers]]
    parts = [_parts(cell) for cell in cells]
    known = [part for part in parts if part]
    if all(len(part) > 3 and max(part[:2]) < 1000 <= part[2] for part in known):
        return [
            [(part[2], part[month], part[1 - month], *part[3:]) if part else None for part in parts] for month in (1, 0)
        ]
    plain = [part or None for part in parts]
    if not known or not all(_is_time_of_day(part) for part in known):
        return [plain]
    first = _after_largest_gap(known)
    return [plain, [(part[0] + 24 * (part < first), *part[1:]) if part else None for part in parts]]


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _parts(cell: str) -> Stamp:
    """The numbers in a cell in their order; digits behind the point of a second are a fraction, not a number."""
    fractions = [float(f"0.{digits}") for _, digits in _FRACTION.findall(cell)[:1]]
    found = [float(digits) for digits in re.findall(r"\d+", _FRACTION.sub(r"\1", cell))]
    if half := _HALF_OF_DAY.search(cell):
        at = 3 if len(found) > 3 else 0
        if len(found) > at:
            found[at] = found[at] % 12 + 12 * (half[1].lower() == "p")
    return (*found, *fractions)


def _is_time_of_day(part: Stamp) -> bool:
    return 3 <= len(part) <= 4 and all(number < limit for number, limit in zip(part, _LIMITS, strict=False))


def _after_largest_gap(parts: Sequence[Stamp]) -> Stamp:
    """The first time of day after the longest pause, which a recording over midnight has by day."""
    seconds = {part: 3600 * part[0] + 60 * part[1] + part[2] for part in parts}
    ordered = sorted(seconds)
    gaps = [
        (seconds[part] - seconds[before]) % 86_400
        for before, part in zip([ordered[-1], *ordered], ordered, strict=False)
    ]
    return ordered[gaps.index(max(gaps))]
