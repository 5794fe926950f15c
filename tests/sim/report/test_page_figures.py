"""Figures in a page and beside it: they say what is to be seen, never as markup, and no folder is left for nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim.report.page_figures import figure_html, figure_svg, figures_folder, save_figures
from sim.report.style import INK, drawing, panels


def test_a_figure_of_a_page_has_its_colours_ids_of_its_own_and_a_text() -> None:
    with drawing():
        figure, (axis,) = panels(1, 1, height=1.0)
        axis.plot([0, 1], [0, 1], color=INK)
    svg = figure_svg(figure, "curve", alt='rises, "as" <ever>')
    assert svg.startswith("<svg") and 'aria-label="rises, &quot;as&quot; &lt;ever&gt;"' in svg
    assert "var(--ink)" in svg and INK not in svg
    assert 'id="curve-' in svg and "<metadata>" not in svg
    shown = figure_html(svg, "curve", "a < b")
    assert svg in shown and "<figcaption>a &lt; b</figcaption>" in shown


def test_each_figure_is_saved_in_three_formats_beside_the_page(tmp_path: Path) -> None:
    folder = figures_folder(tmp_path / "page.html")
    with drawing():
        figure, _ = panels(1, 1, height=1.0)
    save_figures({"curve": figure}, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["curve.pdf", "curve.png", "curve.svg"]
    assert folder == tmp_path / "page-figures"


def test_no_folder_is_left_where_no_figure_could_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sim.report.page_figures.swap_in", full)
    with drawing():
        figure, _ = panels(1, 1, height=1.0)
    with pytest.raises(OSError, match="No space left"):
        save_figures({"curve": figure}, tmp_path / "figures")
    assert not (tmp_path / "figures").exists()
