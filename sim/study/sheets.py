"""A table as text, for the terminal, for Markdown and for LaTeX."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from rich import box
from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


@dataclass(frozen=True)
class Line:
    """One line of a sheet.

    Attributes:
        cells: one text per column; a text may be empty.
        is_published: whether it is from a paper, not from this study.
        ends_group: whether a rule is drawn below it.
    """

    cells: tuple[str, ...]
    is_published: bool = False
    ends_group: bool = False


@dataclass(frozen=True)
class Sheet:
    """The content of a table, without a format.

    Attributes:
        name: a short word for references.
        title: a sentence without its full stop.
        headers: the headers, one per column.
        num_labels: the number of label columns, which are aligned left; the others hold numbers and are aligned right.
        lines: the lines, at least one.
        notes: what a reader must know about the numbers, one sentence each.
    """

    name: str
    title: str
    headers: tuple[str, ...]
    num_labels: int
    lines: tuple[Line, ...]
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.lines:
            raise ValueError(f"{self.name}: the sheet has no line; leave it out")
        if any(len(line.cells) != len(self.headers) for line in self.lines):
            raise ValueError(f"{self.name}: every line needs {len(self.headers)} cells")


def as_rich(sheet: Sheet) -> Table:
    """The table for the terminal; published lines are dim. In a narrow terminal, cells continue in another line."""
    notes = Text("\n".join(sheet.notes))
    table = Table(box=box.SIMPLE_HEAD, padding=0, title=Text(sheet.title), caption=notes)
    table.title_justify = table.caption_justify = "left"
    for column, header in enumerate(sheet.headers):
        justify: JustifyMethod = "left" if column < sheet.num_labels else "right"
        table.add_column(Text(header.replace(" ", "\n")), justify=justify, overflow="fold")
    for line in sheet.lines:
        style = "dim italic" if line.is_published else ""
        table.add_row(*(Text(cell, style=style) for cell in line.cells), end_section=line.ends_group)
    return table


def as_markdown(sheet: Sheet) -> str:
    """The heading, the table and its notes in Markdown; the name of a published line is in italics."""
    ways = [":--" if column < sheet.num_labels else "--:" for column in range(len(sheet.headers))]
    rows = [sheet.headers, ways]
    rows += [(f"*{line.cells[0]}*" if line.is_published else line.cells[0], *line.cells[1:]) for line in sheet.lines]
    body = "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows)
    notes = "\n".join(f"- {note}" for note in sheet.notes)
    return f"## {sheet.title}\n\n{body}\n\n{notes}\n"


def as_latex(sheet: Sheet) -> str:
    """Table environments for a document that loads booktabs, one for each group of lines, so that each fits on a page.

    They span both columns of a page. A header of two words takes two lines; the name of a published line is emphasised.
    """
    ends = [place for place, line in enumerate(sheet.lines, start=1) if line.ends_group or line is sheet.lines[-1]]
    groups = [sheet.lines[begin:end] for begin, end in pairwise([0, *ends])]
    return "\n".join(_latex_table(sheet, group, number) for number, group in enumerate(groups, start=1))


def _latex_table(sheet: Sheet, lines: Sequence[Line], number: int) -> str:
    columns = "l" * sheet.num_labels + "r" * (len(sheet.headers) - sheet.num_labels)
    # The notes are the same for all groups.
    caption = " ".join(f"{sentence}." for sentence in (sheet.title, *(sheet.notes if number == 1 else ())))
    body = []
    for line in lines:
        cells = [escape_latex(cell) for cell in line.cells]
        body.append(_row([rf"\emph{{{cells[0]}}}" if line.is_published else cells[0], *cells[1:]]))
    text = [
        r"\begin{table*}",
        r"\centering",
        rf"\caption{{{escape_latex(caption)}}}",
        rf"\label{{tab:{sheet.name}-{number}}}",
        r"\scriptsize",
        r"\setlength{\tabcolsep}{2pt}",
        rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
        r"\toprule",
        *(_row([escape_latex(header.rpartition(" ")[part]) for header in sheet.headers]) for part in (0, 2)),
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table*}",
    ]
    return "\n".join(text) + "\n"


def escape_latex(text: str) -> str:
    """Text as LaTeX prints it, with a minus sign before a number."""
    escaped = "".join(_LATEX.get(sign, sign) for sign in text)
    return re.sub(r"(?<!\w)-(?=\d)", "$-$", escaped)


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
