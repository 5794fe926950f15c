"""Figures of Matplotlib as they stand in a page, in its colours, and as files beside it for papers."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from configs.files import swap_in
from sim.report.page import page_svg
from sim.report.style import drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure_svg(figure: Figure, stem: str, *, alt: str) -> str:
    """A figure as SVG to stand in a page.

    Args:
        figure: the figure.
        stem: its name, which no other figure of the page has.
        alt: what is to be seen, for screen readers.
    """
    buffer = io.StringIO()
    with _laid_out(figure):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return page_svg(buffer.getvalue(), stem, alt)


def figure_html(svg: str, stem: str, caption: str) -> str:
    """A figure of a page: the SVG, which scrolls where the page is narrow, above its caption."""
    drawn = f'<div class="wide" tabindex="0" role="group" aria-label="Figure: {stem}">{svg}</div>'
    return f"<figure>{drawn}<figcaption>{escape(caption)}</figcaption></figure>"


def figures_folder(page: Path) -> Path:
    """The folder of a page's figures: beside it, under its name, so that no other page writes there."""
    return page.with_name(f"{page.stem}-figures")


def save_figures(figures: Mapping[str, Figure], folder: Path) -> None:
    """Write each figure as ``<stem>.png``, ``.svg`` and ``.pdf`` into a folder, which is made if it is missing."""
    dated: tuple[tuple[str, str], ...] = (("png", ""), ("svg", "Date"), ("pdf", "CreationDate"))
    files = [(suffix, {date: None} if date else {}) for suffix, date in dated]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for stem, figure in figures.items():
            for suffix, metadata in files:
                drawn = io.BytesIO()
                with _laid_out(figure):
                    figure.savefig(drawn, format=suffix, dpi=200, facecolor="white", metadata=metadata)
                swap_in(folder / f"{stem}.{suffix}", drawn.getvalue())
    except OSError:
        with suppress(OSError):
            folder.rmdir()  # where not a single figure was written, no folder is left
        raise


@contextmanager
def _laid_out(figure: Figure) -> Iterator[None]:
    """Draw a figure in our style; it is laid out once, and not again with each save."""
    with drawing():
        if figure.get_layout_engine() is not None:
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
        yield
