"""Google docstrings, as the project writes them, and their Markdown."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field

SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises", "Example", "Note", "Source")
_TITLES = {"Args": "Arguments", "Example": "Example"}


@dataclass(frozen=True)
class Docstring:
    """A docstring in its parts.

    Attributes:
        text: everything ahead of the first section, in Markdown.
        entries: section -> name -> its meaning in Markdown, for sections that list names.
        texts: section -> its text, for the others; that of ``Example`` is code.
    """

    text: str
    entries: dict[str, dict[str, str]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def meaning(self, name: str) -> str:
        """What the docstring says of an argument or an attribute; empty if it says nothing."""
        return next((found[name] for found in self.entries.values() if name in found), "")

    def to_markdown(self) -> str:
        """The whole docstring, with its sections as lists."""
        parts = [self.text]
        for section, entries in self.entries.items():
            rows = "\n".join(f"- `{name}`: {meaning}" for name, meaning in entries.items())
            parts.append(f"**{_TITLES.get(section, section)}**\n\n{rows}")
        for section, text in self.texts.items():
            body = f"\n\n```pycon\n{text}\n```" if section == "Example" else f": {text}"
            parts.append(f"**{_TITLES.get(section, section)}**{body}")
        return "\n\n".join(part for part in parts if part)


def parse(docstring: str | None) -> Docstring:
    r"""Read a docstring.

    Example:
        >>> parse("One line.\n\nArgs:\n    size: how large\n        it is; ``0`` is none.").meaning("size")
        'how large it is; `0` is none.'
    """
    lines = inspect.cleandoc(docstring or "").splitlines()
    ahead: list[str] = []
    blocks: dict[str, list[str]] = {}
    here, said = ahead, ahead
    for line in lines:
        title = re.fullmatch(rf"({'|'.join(SECTIONS)}):\s*(.*)", line)
        if title:
            here = blocks.setdefault(title[1], [])
            if title[2]:  # a section that begins on the line of its title goes on to the next empty line
                here.append(title[2])
                said = here
        elif line and not line.startswith(" ") and here is not ahead and not (here and here[-1] and here is said):
            here = ahead  # text that goes on after a section
            ahead += ["", line]
        else:
            here.append(line)
    entries, texts = {}, {}
    for section, block in blocks.items():
        if section == "Example":
            texts[section] = inspect.cleandoc("\n".join(block))
        elif section in ("Returns", "Yields", "Note", "Source"):
            texts[section] = markdown(" ".join(line.strip() for line in block if line.strip()))
        else:
            entries[section] = _entries(block)
    return Docstring(_paragraphs(ahead), entries, texts)


def _entries(block: list[str]) -> dict[str, str]:
    """Name -> meaning of the lines ``    name: meaning`` and what is indented below them."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in block:
        start = re.fullmatch(r" {4}(\w[\w.*]*): (.*)", line)
        if start:
            name = start[1]
            found[name] = [start[2]]
        elif line.strip() and name:
            found[name].append(line.strip())
    return {name: markdown(" ".join(texts)) for name, texts in found.items()}


def _paragraphs(lines: list[str]) -> str:
    """Prose with one line for each paragraph; indented lines are code and stay as they are."""
    parts = []
    for block in re.split(r"\n\s*\n", "\n".join(lines)):
        if block.startswith("    "):
            parts.append(block.rstrip())
        elif block.strip():
            parts.append(markdown(" ".join(line.strip() for line in block.splitlines())))
    return "\n\n".join(parts)


def markdown(text: str) -> str:
    """A docstring's text in Markdown: roles and double backticks become code, and signs of HTML stay text."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
    text = re.sub(r"``([^`]+)``", r"`\1`", text)
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(piece if piece.startswith("`") else piece.replace("<", "&lt;") for piece in pieces)


def cell(text: str) -> str:
    """A text as the cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")
