"""What README, guides and decisions name is there, and each decision says what was chosen and what was not."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from configs.schema import Engine
from tests.conftest import CHECKOUT

DECISIONS = CHECKOUT / "docs" / "decisions"
PAGES = [
    path
    for folder in (".", "docs", "examples")
    for path in sorted((CHECKOUT / folder).glob("*.md" if folder == "." else "**/*.md"))
]
PICTURES = sorted((CHECKOUT / "docs").glob("*.svg"))
NUMBERED = sorted(DECISIONS.glob("[0-9]*.md"))
# In the order in which a page has them.
PARTS = ("Choice", "Reason", "What was not chosen", "Where it lives")
# What the page of architecture had when it still had the decisions.
FIRST_DECISIONS = 38
HISTORY = {"CHANGELOG.md"}


def named(path: Path) -> str:
    return path.relative_to(CHECKOUT).as_posix()


def without_code(text: str) -> str:
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def anchors(text: str) -> set[str]:
    """What GitHub makes of the titles of a page."""
    titles = re.findall(r"^#+ (.*)$", without_code(text.replace("`", "")), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, title = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), f"{named(page)}: {link} leads nowhere"
        if title:
            assert title in anchors(target.read_text()), f"{named(page)}: {link}: no such title"


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in HISTORY], ids=named)
def test_every_source_file_that_a_page_names_is_there(page: Path) -> None:
    """Of the checkout, whether in backticks, in a picture or in code."""
    missing = sorted(file for file in sources_named_in(page.read_text()) if not (CHECKOUT / file).is_file())
    assert not missing, f"{named(page)} names {', '.join(missing)}"


def sources_named_in(text: str) -> set[str]:
    return set(re.findall(r"\b(?:configs|strategies|clients|server|sim|tests)/[\w/.-]*\.(?:py|yaml)\b", text))


@pytest.mark.parametrize("picture", PICTURES, ids=named)
def test_a_picture_says_what_it_shows_and_names_files_and_keys_that_are_there(picture: Path) -> None:
    root = ElementTree.parse(picture).getroot()
    told = [root.findtext(f"{{http://www.w3.org/2000/svg}}{part}", "") for part in ("title", "desc")]
    assert all(told), f"{named(picture)}: title and desc are for those who cannot see it"
    written = " ".join(root.itertext())
    assert not [file for file in sources_named_in(written) if not (CHECKOUT / file).is_file()]
    assert set(re.findall(r"\bengine\.(\w+)", written)) <= Engine.model_fields.keys()
    outside = [value for one in root.iter() for name, value in one.attrib.items() if name.endswith(("href", "src"))]
    assert not outside, f"{named(picture)}: loads {', '.join(outside)}"


@pytest.mark.parametrize("page", [CHECKOUT / "ARCHITECTURE.md", CHECKOUT / "CONTRIBUTING.md", *NUMBERED], ids=named)
def test_every_source_folder_that_a_page_names_is_there(page: Path) -> None:
    folders = re.findall(r"`((?:configs|strategies|clients|server|sim|tests)/[\w/]*)`", page.read_text())
    missing = sorted({folder for folder in folders if not (CHECKOUT / folder).is_dir()})
    assert not missing, f"{named(page)} names {', '.join(missing)}"


def test_there_are_decisions_with_numbers_that_leave_none_out() -> None:
    numbers = [int(page.name[:4]) for page in NUMBERED]
    assert numbers == list(range(1, len(NUMBERED) + 1))
    assert len(numbers) >= FIRST_DECISIONS


@pytest.mark.parametrize("page", NUMBERED, ids=lambda page: page.stem)
def test_a_decision_has_a_date_a_choice_a_reason_what_was_not_chosen_and_its_files(page: Path) -> None:
    assert re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", page.name)
    title, date, *rest = (part.strip() for part in page.read_text().split("\n\n"))
    assert re.fullmatch(r"# \S.*", title)
    assert re.fullmatch(r"\*\*Date:\*\* \d{4}-\d{2}-\d{2}", date)
    body = "\n\n".join(rest)
    assert re.findall(r"^## (.*)$", body, flags=re.MULTILINE) == list(PARTS)
    for part, text in zip(PARTS, re.split(r"^## .*$", body, flags=re.MULTILINE)[1:], strict=True):
        assert text.strip().endswith("."), f"{part}: say it in whole sentences"
    assert re.search(r"^- .*`[\w/.]+\.\w+`", body, flags=re.MULTILINE), "name the files that carry it"


def test_the_index_lists_every_decision_under_its_title_and_date() -> None:
    rows = re.findall(
        r"^\| \[(\d{4})\]\((\S+)\) \| (.*) \| (\S+) \|$", (DECISIONS / "README.md").read_text(), re.MULTILINE
    )
    expected = []
    for page in NUMBERED:
        title, date = page.read_text().split("\n\n")[:2]
        expected.append((page.name[:4], page.name, title.removeprefix("# "), date.removeprefix("**Date:** ")))
    assert rows == expected


def test_each_result_table_stands_in_one_place() -> None:
    """No row with numbers is in two pages, or twice in one."""
    places: dict[str, list[str]] = {}
    for page in PAGES:
        for row in re.findall(r"^\|.*\d\.\d.*\|.*\d\.\d.*\|$", page.read_text(), flags=re.MULTILINE):
            if "*published" not in row:  # stands beneath ours in more than one table
                places.setdefault(row, []).append(named(page))
    assert places
    assert not {row: pages for row, pages in places.items() if len(pages) > 1}


def test_pre_commit_runs_what_make_check_runs() -> None:
    (repository,) = yaml.safe_load((CHECKOUT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        assert hook["language"] == "system" and hook["always_run"] and not hook["pass_filenames"]
    recipe = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "--old-file=.venv/installed", "check"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [hook["entry"] for hook in repository["hooks"]] == recipe.stdout.splitlines()
    assert "make check" in (CHECKOUT / ".ci/run").read_text()


def test_version_changelog_and_citation_name_the_same_release() -> None:
    version = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"]
    citation = yaml.safe_load((CHECKOUT / "CITATION.cff").read_text())
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (\S+)$", (CHECKOUT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released[0] == (version, str(citation["date-released"]))
    assert citation["version"] == version and citation["license"] == "Apache-2.0"
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
