"""Scores by site: on tests of a learner's own site, of all sites, and of sites that nobody learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from rich import box
from rich.table import Table

from clients.data.recording import SITE_TESTS
from clients.learning.task import BEAM_WORDING, Metric, Wording
from server.recorder import ALL_SITES
from sim.report.page import table
from sim.report.summaries import ARM_TITLES, Spread, Summary, arms_of, comparable, score, show, spread, wording_of

SHOWN = ("top3", "top5")
"""The metrics that are shown of beam tracking; of another task it is the main one."""
NOTE = (
    "Parts of the common test set, mean over the horizons. Own site: tests of the site where a client is, and for the "
    "teacher of all sites that the server has labelled passes from. Unseen site: tests of the sites that are held out, "
    "from which nobody has learned."
)


@dataclass(frozen=True)
class SiteRow:
    """The scores of the clients of one site, of all clients, or of the teacher.

    Attributes:
        who: the name of the site with its number of clients, ``all`` or ``teacher``.
        training: how they were trained.
        scores: tests (``own_site``, ``unseen_site`` or ``all_sites``) -> metric -> mean and s.d. over runs.
        is_first: whether the row is the first of its kind.
        wording: what the metrics are called.
    """

    who: str
    training: str
    scores: Mapping[str, Mapping[str, Spread | None]]
    is_first: bool
    wording: Wording = BEAM_WORDING

    def cells(self, tests: Mapping[str, str]) -> list[str]:
        """The shown metrics as text, for each of the tests."""
        return [
            show(self.scores[part][name], name, self.wording) for part in tests for name in shown_metrics(self.wording)
        ]


def shown_parts(summaries: Sequence[Summary]) -> dict[str, str]:
    """The tests that any learner of the runs was scored on, with their titles; empty where there are no sites."""
    learners = [learner for summary in summaries for learner in (*summary["clients"], summary["teacher"])]
    found = {part: title for part, title in SITE_TESTS.items() if any(learner.get(part) for learner in learners)}
    if not found:
        return {}
    everything = {"own_site": SITE_TESTS["own_site"], "all_sites": ALL_SITES, "unseen_site": SITE_TESTS["unseen_site"]}
    return {part: title for part, title in everything.items() if part in found or part == "all_sites"}


def site_spread(
    summaries: Sequence[Summary], part: str, arm: str, name: str, *, site: str | None = None
) -> Spread | None:
    """A metric of one arm on one part of the tests, averaged over the clients and then over runs.

    Args:
        summaries: the runs.
        part: one of the keys of :func:`shown_parts`.
        arm: the arm.
        name: the metric.
        site: the site whose clients count; None for all clients.
    """
    means = []
    for summary in summaries:
        ids = {client["id"] for client in summary["clients"] if site in (None, client.get("site"))}
        means.append(spread(score(_scores(client, part).get(arm), name) for client in comparable(summary, ids)))
    return spread(found.mean for found in means if found)


def site_rows(summaries: Sequence[Summary]) -> list[SiteRow]:
    """A row for each site and arm, for all clients and each arm, and for the teacher before and after."""
    tests, rows, wording = shown_parts(summaries), [], wording_of(summaries)
    clients = [client for client in summaries[0]["clients"] if client.get("site")]
    sites = dict.fromkeys(client["site"] for client in clients)
    for site in (*sites, None):
        count = sum(site in (None, client["site"]) for client in clients)
        for number, arm in enumerate(arms_of(summaries)):
            scores = {
                part: {name: site_spread(summaries, part, arm, name, site=site) for name in wording.metrics}
                for part in tests
            }
            who = f"{site or 'all'} ({count} client{'s' if count > 1 else ''})"
            rows.append(SiteRow(who, ARM_TITLES[arm], scores, is_first=number == 0, wording=wording))
    for when in ("before", "after"):
        scores = {
            part: {name: _teacher_spread(summaries, part, when, name) for name in wording.metrics} for part in tests
        }
        rows.append(SiteRow("teacher", f"{when} federation", scores, is_first=when == "before", wording=wording))
    return rows


def sites_table(summaries: Sequence[Summary], *, number: str = "") -> Table | None:
    """The rows as a table for the terminal, with the number of the experiment; None where there are no sites."""
    tests = shown_parts(summaries)
    if not tests:
        return None
    found = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title=f"{number}By site", caption=NOTE)
    found.title_justify = found.caption_justify = "left"
    for header in ("clients at", "arm"):
        found.add_column(header, no_wrap=True)
    for title in tests.values():
        for metric in shown_metrics(wording_of(summaries)).values():
            found.add_column(f"{title}\n{metric.title} {metric.unit}", justify="right", no_wrap=True)
    rows = site_rows(summaries)
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        ends = following is None or following.is_first
        found.add_row(row.who if row.is_first else "", row.training, *row.cells(tests), end_section=ends)
    return found


def sites_section(summaries: Sequence[Summary]) -> str:
    """The rows as a part of a page; empty where there are no sites."""
    tests = shown_parts(summaries)
    if not tests:
        return ""
    header = [("Clients at", ""), ("Training", "")]
    metrics = shown_metrics(wording_of(summaries)).values()
    header += [(f"{metric.title}, {title}", metric.unit) for title in tests.values() for metric in metrics]
    lines = [
        (row.is_first, [*map(escape, (row.who if row.is_first else "", row.training)), *row.cells(tests)])
        for row in site_rows(summaries)
    ]
    numeric = set(range(2, len(header)))
    return f'<h3>By site</h3><p class="note">{escape(NOTE)}</p>' + table(header, lines, numeric=numeric)


def shown_metrics(wording: Wording) -> dict[str, Metric]:
    """The metrics that have a column for each of the tests."""
    names = SHOWN if wording.is_of_beams else (wording.main,)
    return {name: wording.metrics[name] for name in names}


def sites_aggregate(summaries: Sequence[Summary]) -> dict[str, Any]:
    """For scripts: tests -> arm, or ``teacher`` with before and after -> metric -> mean and s.d. over runs."""

    def plain(found: Spread | None) -> dict[str, float | None] | None:
        return {"mean": found.mean, "sd": found.sd} if found else None

    metrics = wording_of(summaries).metrics
    return {
        part: {
            **{
                arm: {name: plain(site_spread(summaries, part, arm, name)) for name in metrics}
                for arm in arms_of(summaries)
            },
            "teacher": {
                when: {name: plain(_teacher_spread(summaries, part, when, name)) for name in metrics}
                for when in ("before", "after")
            },
        }
        for part in shown_parts(summaries)
    }


def _scores(learner: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    """Arm -> metrics of a learner on one part of the tests."""
    found: Mapping[str, Any] = learner if part == "all_sites" else learner.get(part) or {}
    return found


def _teacher_spread(summaries: Sequence[Summary], part: str, when: str, name: str) -> Spread | None:
    return spread(score(_scores(summary["teacher"], part).get(when), name) for summary in summaries)
