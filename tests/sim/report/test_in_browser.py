"""Report and comparison as a person sees them: in a browser, wide and narrow, light and dark, with scripts and without.

Needs Playwright, axe-core and a Chromium, which `make test-browser` and CI install; without them these tests skip.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sim.report.comparison_page import write_comparison
from sim.report.evidence import gather_evidence
from sim.report.figures import draw_all
from sim.report.html import write_report
from sim.report.strategies import comparisons_of
from sim.report.summaries import load_summary
from tests.sim.report.test_html import write_run

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: make test-browser")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed: make test-browser")

pytestmark = pytest.mark.browser
WIDTHS, SCHEMES = (1280, 400), ("light", "dark")
PAGES = ("whole", "of an old run", "of a comparison")

# Whatever reaches beyond the page, unless what holds it scrolls and shows that it does.
TOO_WIDE = """() => {
  const wide = [], page = document.documentElement.clientWidth;
  const scrolls = (one) => ["auto", "scroll"].includes(getComputedStyle(one).overflowX);
  for (const one of document.body.querySelectorAll("*")) {
    let holder = one.parentElement;
    while (holder && !scrolls(holder)) holder = holder.parentElement;
    if (one.getBoundingClientRect().right > page + 1 && !holder) wide.push(one.outerHTML.slice(0, 120));
    const isCut = scrolls(one) && one.scrollWidth > one.clientWidth + 1;
    if (isCut && !getComputedStyle(one).backgroundImage.includes("gradient"))
      wide.push("no cue: " + one.outerHTML.slice(0, 120));
  }
  return wide;
}"""
EMPTY = """() => {
  const empty = [];
  for (const one of document.querySelectorAll("figure > .wide > svg")) {
    const marks = [...one.querySelectorAll("path, use, image, rect, circle")].filter((mark) => {
      const box = mark.getBoundingClientRect();
      return box.width + box.height > 0;
    });
    const needed = one.querySelector("image") ? 10 : 20;  // a picture has many cells
    if (marks.length < needed || one.getBoundingClientRect().height < 80) empty.push(one.getAttribute("aria-label"));
  }
  for (const one of document.querySelectorAll("img")) if (!one.naturalWidth) empty.push(one.alt);
  for (const one of document.querySelectorAll(".frame"))
    if (!getComputedStyle(one).backgroundImage.startsWith("url")) empty.push(one.getAttribute("aria-label"));
  return empty;
}"""


def compared(folder: Path) -> list[Path]:
    """Runs of two data sets: one with a winner, a tie, a long label, seeds and problems, and one with one row."""
    runs = [
        write_run(folder / f"{codec}-{seed}", seed=seed, federated=level + 0.01 * seed, problem="no reply", codec=codec)
        for codec, level in {"uint8": 0.7, "float16": 0.6, "topK-uint4+delta+zlib-and-more-words": 0.698}.items()
        for seed in (0, 1)
    ]
    other = write_run(folder / "other", codec="uint8")
    values = yaml.safe_load((other / "experiment.yaml").read_text())
    (other / "experiment.yaml").write_text(yaml.safe_dump({**values, "data": {"source": "deepsense"}}))
    return [*runs, other]


@pytest.fixture(scope="module")
def pages(sensed_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The report of a run with data and models, that of an old run that has neither, and the page of a comparison."""
    folder = tmp_path_factory.mktemp("pages")
    found = {name: folder / f"{name}.html" for name in PAGES}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sim.report.html.draw_all", draw_all)
        patch.setattr("sim.report.html.gather_evidence", gather_evidence)
        write_report([sensed_run], found["whole"])
        write_report([write_run(folder / "old", problem="a problem", codec="uint8")], found["of an old run"])
    write_comparison(comparisons_of([load_summary(run) for run in compared(folder / "runs")]), found["of a comparison"])
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium: that of the distribution, or else Playwright's own."""
    installed = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_api.sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=installed, args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(f"no browser: {str(error).splitlines()[0]}")
        yield started
        started.close()


def faults_of(tab: Any) -> list[str]:
    """What is too wide, cut without a cue, empty, or seriously out of reach for some readers."""
    serious = [
        one["help"] for one in axe.Axe().run(tab).response["violations"] if one["impact"] in ("serious", "critical")
    ]
    return [*tab.evaluate(TOO_WIDE), *tab.evaluate(EMPTY), *serious]


def watched(tab: Any) -> list[str]:
    """What a tab complains of and asks for, which grows as it is used."""
    wrong: list[str] = []
    tab.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("request", lambda request: None if request.url.startswith("data:") else wrong.append(request.url))
    return wrong


def opened(browser: Any, page: Path, **settings: Any) -> tuple[Any, list[str]]:
    """The page in a browser of its own, and what went wrong in it."""
    tab = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings}).new_page()
    wrong = watched(tab)
    tab.goto(page.as_uri())
    assert wrong == [page.as_uri()]  # the page itself, and nothing from outside
    wrong.clear()
    return tab, wrong


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_too_wide_empty_or_out_of_reach(
    name: str, width: int, scheme: str, browser: Any, pages: dict[str, Path]
) -> None:
    tab, wrong = opened(browser, pages[name], viewport={"width": width, "height": 900}, color_scheme=scheme)
    assert faults_of(tab) == []
    assert wrong == []
    tab.context.close()


@pytest.mark.parametrize(
    ("broken", "found"),
    [
        ('<div style="width: 2000px">x</div>', "width: 2000px"),
        ('<div style="overflow-x: auto"><div style="width: 2000px">x</div></div>', "no cue"),
        ('<figure><div class="wide"><svg aria-label="nothing"></svg></div></figure>', "nothing"),
        ('<p style="color: #999; background: #fff">hardly to be read</p>', "contrast"),
        ('<img alt="a picture from outside" src="https://example.org/x.png">', "a picture from outside"),
        ("<script>missing()</script>", "missing is not defined"),
    ],
)
def test_what_is_wrong_with_a_page_is_found(
    broken: str, found: str, browser: Any, pages: dict[str, Path], tmp_path: Path
) -> None:
    text = pages["of an old run"].read_text()
    (tmp_path / "page.html").write_text(text.replace("</main>", f"{broken}</main>"))
    tab = browser.new_context(viewport={"width": 400, "height": 900}).new_page()
    wrong = watched(tab)
    tab.goto((tmp_path / "page.html").as_uri())
    assert found in " ".join([*wrong, *faults_of(tab)])
    tab.context.close()


def test_one_steps_through_a_pass(browser: Any, pages: dict[str, Path]) -> None:
    tab, wrong = opened(browser, pages["whole"])
    viewer = tab.locator("#viewer")
    assert viewer.is_visible()

    def shown() -> tuple[str, ...]:
        return (
            viewer.locator(".controls output").inner_text(),
            viewer.locator(".frame").first.evaluate("one => one.style.backgroundPosition"),
            viewer.locator(".vehicle").get_attribute("cx"),
            viewer.locator(".row output").last.inner_text(),
        )

    first = shown()
    tab.get_by_label("One moment on").click()
    then = shown()
    assert all(one != other for one, other in zip(first[:3], then[:3], strict=True))
    tab.get_by_label("One moment back").click()
    assert shown() == first
    tab.get_by_label("Moment of the pass").fill("0")
    assert shown()[0].startswith("0.0 s, frame 1 of ")
    assert viewer.locator(".row output").all_inner_texts()[1:] == ["no window ends here"] * 5
    frames = int(shown()[0].rpartition(" ")[2])
    tab.get_by_label("One moment back").click()
    assert f"frame {frames} of {frames}" in shown()[0]
    viewer.locator("select").select_option("1")
    assert shown()[0].rpartition(" of ")[2] != "" and viewer.locator(".row").count() == 6
    tab.get_by_role("button", name="Play").click()
    before = shown()[0]
    tab.wait_for_function("text => document.querySelector('#viewer output').textContent !== text", arg=before)
    tab.get_by_role("button", name="Stop").click()
    assert wrong == []
    tab.context.close()


def test_without_scripts_only_the_stepping_is_missing(browser: Any, pages: dict[str, Path]) -> None:
    with_scripts, _ = opened(browser, pages["whole"])
    without, _ = opened(browser, pages["whole"], java_script_enabled=False)
    assert not without.locator("#viewer").is_visible()
    for what in ("table.sheet", ".strips img", "figure > .wide > svg", "h2", "table"):
        assert without.locator(what).count() == with_scripts.locator(what).count() > 0
    assert without.locator("table.sheet").first.is_visible()
    for tab in (with_scripts, without):
        tab.context.close()
