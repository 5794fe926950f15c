"""The page that follows a run as a person sees it: wide and narrow, light and dark, to the end of the run.

Needs what `make test-browser` installs; without it these tests skip.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sim.watch.page import MAX_ROWS
from sim.watch.server import WatchServer
from sim.watch.view import NodeView, RunWatcher
from tests.run_folders import write_run

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: make test-browser")
pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed: make test-browser")
# The browser, and what is looked for in any page.
pages = pytest.importorskip("tests.sim.report.test_in_browser")
browser, faults_of = pages.browser, pages.faults_of

pytestmark = pytest.mark.browser
LONG = "it answered with a message that could not be unpacked, and said nothing else about it for a long while"


@contextmanager
def opened(browser: Any, run: Path, **settings: Any) -> Iterator[tuple[Any, list[str]]]:
    """The page of a run, and what it complains of or asks others for."""
    with WatchServer(RunWatcher(run), port=0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        tab = browser.new_context(**settings).new_page()
        wrong: list[str] = []
        tab.on("console", lambda message: wrong.append(message.text))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("request", lambda one: None if one.url.startswith((server.url, "data:")) else wrong.append(one.url))
        tab.goto(server.url)
        # No string is evaluated while it waits, which the policy of the page would not let.
        sync_api.expect(tab).not_to_have_title("Softbeam")
        try:
            yield tab, wrong
        finally:
            tab.context.close()
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("scheme", pages.SCHEMES)
@pytest.mark.parametrize("width", pages.WIDTHS)
@pytest.mark.parametrize("state", ["running", "failed"])
def test_nothing_is_too_wide_or_out_of_reach(state: str, width: int, scheme: str, browser: Any, tmp_path: Path) -> None:
    scores = [[0.3, 0.4, None], [0.4, 0.5, None]]
    run = write_run(tmp_path / "run", scores=scores, problems=["", LONG, ""], state=state, error=LONG * 2, done=4)
    with opened(browser, run, viewport={"width": width, "height": 900}, color_scheme=scheme) as (tab, wrong):
        assert faults_of(tab) == []
        assert wrong == []


@pytest.mark.parametrize("scheme", pages.SCHEMES)
@pytest.mark.parametrize("width", pages.WIDTHS)
def test_machines_of_a_deployment_are_not_too_wide_or_out_of_reach_either(
    width: int, scheme: str, browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines = (NodeView("roof-1", "camera", "online", "round 2 at 12:00:00", ""), NodeView("gate", "", "", "", LONG))
    monkeypatch.setattr("sim.watch.view._deployment_of", lambda run: tmp_path)
    monkeypatch.setattr("sim.watch.view._nodes", lambda deployment: machines)
    run = write_run(tmp_path / "run", scores=[[0.3], [0.4]], done=4)
    with opened(browser, run, viewport={"width": width, "height": 900}, color_scheme=scheme) as (tab, wrong):
        sync_api.expect(tab.locator("#nodes")).to_contain_text("roof-1")
        assert tab.locator("#nodes tbody tr").count() == 2
        assert faults_of(tab) == []
        assert wrong == []


def test_it_follows_the_run_to_its_end(browser: Any, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", scores=[[0.25]], done=2)
    with opened(browser, run) as (tab, wrong):
        assert tab.locator("#clients tbody tr").all_inner_texts() == ["000-gps\t25.0 %\t\tround 1\t100 B\t1.0 kB\t"]
        assert "round\n1 of 4" in tab.locator("#facts").inner_text()
        write_run(run, scores=[[0.25], [0.5]], done=8, state="finished")
        sync_api.expect(tab).to_have_title("street, seed 4: finished")
        assert tab.locator("#state").inner_text() == "The run is finished"
        assert "50.0 %" in tab.locator("#clients tbody").inner_text()
        assert wrong == []


def test_what_a_client_says_is_shown_as_text(browser: Any, tmp_path: Path) -> None:
    nasty = "<img src=x onerror=alert(1)>"
    run = write_run(tmp_path / "run", scores=[[0.25]], problems=[nasty], error=nasty, state="failed")
    with opened(browser, run) as (tab, wrong):
        assert nasty in tab.locator("#clients").inner_text() and nasty in tab.locator("#state").inner_text()
        assert tab.locator("img").count() == 0
        assert wrong == []


def test_many_clients_are_one_row_for_each_modality(browser: Any, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", scores=[[0.2, 0.4] * MAX_ROWS])
    with opened(browser, run) as (tab, _):
        (row,) = tab.locator("#clients tbody tr").all_inner_texts()
        assert row.startswith(f"gps ({2 * MAX_ROWS})\t30.0 %\t")
