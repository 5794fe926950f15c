"""The pages of the site are gathered whole, every link leads somewhere, and nothing is loaded from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from sim.reference.site import OTHER_PAGES, gather, outside_loads
from tests.conftest import CHECKOUT

SETTINGS = yaml.safe_load((CHECKOUT / "mkdocs.yml").read_text())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gathered pages."""
    folder = tmp_path_factory.mktemp("site") / "pages"
    gather(CHECKOUT, folder)
    return folder


def links(page: Path) -> list[str]:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    found = re.findall(r"\]\(([^)\s]+)\)", text)
    return [link for link in found if not link.startswith(("http://", "https://", "mailto:"))]


def test_every_page_is_gathered_and_every_link_stays_inside(site: Path) -> None:
    guides = {path.relative_to(CHECKOUT / "docs").as_posix() for path in (CHECKOUT / "docs").rglob("*.md")}
    pages = {path.relative_to(site).as_posix() for path in site.rglob("*.md")}
    assert pages == guides | set(OTHER_PAGES.values())
    count = 0
    for page in site.rglob("*.md"):
        for link in links(page):
            target = (page.parent / link.partition("#")[0]).resolve() if not link.startswith("#") else page
            assert target.is_relative_to(site) and target.is_file(), f"{page.relative_to(site)}: {link}"
            count += 1
    assert count > 200


def test_links_between_guides_and_pages_at_the_top_mean_the_same(site: Path) -> None:
    assert "](about.md#is-the-federation-worth-it)" in (site / "results.md").read_text()
    assert "](security.md)" in (site / "deploy.md").read_text()
    assert "](docs/" not in re.sub(r"```.*?```", "", (site / "about.md").read_text(), flags=re.DOTALL)
    assert "](commands.md)" in (site / "about.md").read_text()
    # What is no page is taken along.
    assert (site / "files/examples/quickstart.ipynb").is_file()


def written(folder: Path, **pages: str) -> Path:
    (folder / "docs").mkdir()
    for name in OTHER_PAGES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    for name, text in pages.items():
        (folder / "docs" / f"{name}.md").write_text(text)
    return folder


def test_code_is_left_as_it_is(tmp_path: Path) -> None:
    text = "[a](../README.md)\n```\n[b](../README.md)\n```\n`[c](../README.md)`\n"
    gather(written(tmp_path, page=text), tmp_path / "out")
    assert (tmp_path / "out/page.md").read_text() == text.replace("[a](../README.md)", "[a](about.md)")


def test_a_link_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"page\.md: missing\.md leads nowhere"):
        gather(written(tmp_path, page="[a](missing.md#part)"), tmp_path / "out")


def test_what_was_gathered_before_is_gone(tmp_path: Path) -> None:
    checkout, out = written(tmp_path, page="one"), tmp_path / "out"
    gather(checkout, out)
    (checkout / "docs/page.md").rename(checkout / "docs/other.md")
    gather(checkout, out)
    assert not (out / "page.md").exists() and (out / "other.md").is_file()


def named(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [page for entry in (nav.values() if isinstance(nav, dict) else nav) for page in named(entry)]


def test_the_navigation_names_every_page_once(site: Path) -> None:
    pages = {path.relative_to(site).as_posix() for path in site.rglob("*.md")}
    expected = sorted(page for page in pages if not re.match(r"decisions/\d", page))
    assert sorted(named(SETTINGS["nav"])) == expected


def test_the_build_is_strict_and_needs_no_font_or_script_of_others() -> None:
    assert SETTINGS["strict"] is True
    assert SETTINGS["theme"]["font"] is False
    assert not {"extra_css", "extra_javascript", "repo_url"} & set(SETTINGS)
    assert "analytics" not in SETTINGS.get("extra", {})
    assert set(SETTINGS["validation"]["links"].values()) == {"warn"}
    recipe = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "--old-file=.venv/docs", "docs"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    # Quiet, it would not count its warnings.
    assert "mkdocs build --strict\n" in recipe and "quiet" not in recipe
    assert "site check build/site" in recipe
    assert "make docs" in (CHECKOUT / ".ci/run").read_text()


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ('<script src="https://cdn.example/a.js"></script>', 1),
        ('<link rel="stylesheet" href="//fonts.example/css">', 1),
        ('<link href="https://fonts.example" rel="preconnect" crossorigin>', 1),
        ("<img alt=x src=http://elsewhere.example/x.png>", 1),
        ("<style>@import 'https://x.example/y.css'; a { background: url(https://x.example/z) }</style>", 2),
        ('<a href="https://flower.ai">Flower</a> <script src="assets/a.js"></script> <img src="a.png">', 0),
        ('<link rel="canonical" href="https://x.example/">', 0),
    ],
)
def test_what_a_browser_would_fetch_from_elsewhere_is_found(text: str, count: int, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(text)
    assert len(outside_loads(tmp_path)) == count


def test_the_command_tells_what_is_wrong_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<script src="https://cdn.example/a.js"></script>')
    for words, expected in (
        (["check", str(tmp_path)], "error: the site loads from elsewhere: a.html: "),
        (["build", str(tmp_path)], "error: give gather or check, and a folder"),
    ):
        command = [sys.executable, "-m", "sim.reference.site", *words]
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
        assert done.returncode == 1 and done.stderr.startswith(expected)
