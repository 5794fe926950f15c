"""Scores on own, all and unseen sites: from a federation that runs to every table; nothing of it with one folder."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from torch import Tensor

import clients.learning.lessons
from clients.data.recording import open_recording
from clients.learning.learner import Learner
from clients.learning.lessons import JointLesson
from configs.loading import build_experiment
from configs.placement import Placement
from sim.report.exports import as_csv
from sim.report.html import write_report
from sim.report.sites import shown_parts, sites_aggregate, sites_section, sites_table
from sim.report.strategies import comparisons_of, strategy_table
from sim.report.summaries import load_summary
from sim.report.tables import compare
from tests.conftest import tiny_values
from tests.federations import outcome, place, run_apps
from tests.sim.data.test_sites import write_site

METRICS = ("top1", "top3", "top5", "dba", "dba_k3", "power_loss_db")


def tiny_run(run: Path, *, own_site_share: float = 0.0, **data: Any) -> Placement:
    values = tiny_values(rounds=2)
    values["strategy"]["own_site_share"] = own_site_share
    values["data"] = {"source": "deepsense", "nodes": [{"modality": "gps", "count": 2}], **data}
    values["students"] = {"gps": values["students"]["gps"]}
    placement = place(build_experiment(values, origin="test"), run)
    run_apps(placement)
    return placement


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("measured")
    return {name: str(write_site(root / name, 90.0 * n, seed=n)) for n, name in enumerate(("here", "there"))}


@pytest.fixture(scope="module")
def sited(tmp_path_factory: pytest.TempPathFactory, folders: dict[str, str]) -> Placement:
    """Two clients at one site, and tests at another that nobody learned from."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("sited")
        patch.setenv("SOFTBEAM_HOME", str(root / "home"))
        sites = [{"name": name, "folder": folder, "held_out": name == "there"} for name, folder in folders.items()]
        return tiny_run(root / "run", sites=sites)


def test_students_and_offline_kd_draw_batches_from_their_own_site(
    tmp_path: Path, folders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[str] = []

    class Counted(JointLesson):
        def losses(self, learner: Learner, rng: np.random.Generator) -> Iterator[Callable[[], Tensor]]:
            assert self.share == 0.5
            learned.append(learner.name)
            return super().losses(learner, rng)

    monkeypatch.setattr(clients.learning.lessons, "JointLesson", Counted)
    monkeypatch.setenv("SOFTBEAM_HOME", str(tmp_path / "home"))
    sites = [{"name": name, "folder": folder} for name, folder in folders.items()]
    tiny_run(tmp_path / "run", own_site_share=0.5, sites=sites)
    # Two rounds with the control, and two with the federation.
    assert sorted(learned) == sorted(4 * ["000-gps", "001-gps", "002-gps", "003-gps"])


def windows_of(placement: Placement) -> dict[str, int]:
    test = open_recording(placement.federation / "test")
    starts = test.window_starts(8, 3)
    return {site: len(test.windows_at(starts, [site])) for site in ("here", "there")}


def test_scores_of_the_parts_make_up_those_of_the_whole(sited: Placement) -> None:
    summary = json.loads((sited.run / "summary.json").read_text())
    counts = windows_of(sited)
    assert all(count > 0 for count in counts.values())
    learners = [(one, ("local", "offline_kd", "federated")) for one in summary["clients"]]
    for learner, arms in [*learners, (summary["teacher"], ("before", "after"))]:
        for arm in arms:
            for name in METRICS:
                own, unseen = (np.array(learner[part][arm][name]) for part in ("own_site", "unseen_site"))
                mean = (counts["here"] * own + counts["there"] * unseen) / sum(counts.values())
                np.testing.assert_allclose(mean, learner[arm][name], rtol=1e-9, atol=1e-12)
    assert [client["site"] for client in summary["clients"]] == ["here", "here"]
    assert "site" not in summary["teacher"]


def test_the_csv_has_a_row_for_each_part_of_the_tests(sited: Placement) -> None:
    with (sited.run / "summary.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {(row["id"], row["site"]) for row in rows} == {("000-gps", "here"), ("001-gps", "here"), ("teacher", "")}
    counted = [(row["arm"], row["tests"]) for row in rows if row["id"] == "000-gps" and row["horizon"] == "0"]
    trained = [(arm, tests) for tests in ("own site", "unseen site") for arm in ("local", "offline_kd", "federated")]
    assert set(counted) > set(trained) and {tests for _, tests in counted} == {"all sites", "own site", "unseen site"}
    assert len(counted) == len(set(counted))


def test_every_table_shows_the_sites(sited: Placement, tmp_path: Path) -> None:
    summary = load_summary(sited.run)
    assert list(shown_parts([summary])) == ["own_site", "all_sites", "unseen_site"]
    console = Console(width=160, color_system=None)
    with console.capture() as captured:
        console.print(sites_table([summary]))
    shown = captured.get()
    assert "here (2 clients)" in shown and "all (2 clients)" in shown and "teacher" in shown
    federated = np.mean([np.mean(client["unseen_site"]["federated"]["top5"]) for client in summary["clients"]])
    line = next(line for line in shown.splitlines() if line.strip().startswith("federated"))
    assert line.split()[-1] == f"{100 * federated:.1f}"
    write_report([sited.run], tmp_path / "report.html")
    assert "<h3>By site</h3>" in (tmp_path / "report.html").read_text()
    aggregate = compare([summary])["tiny"]["sites"]
    assert aggregate == sites_aggregate([summary])
    assert aggregate["unseen_site"]["federated"]["top5"]["mean"] == pytest.approx(federated)
    after = summary["teacher"]["own_site"]["after"]["top1"]
    assert aggregate["own_site"]["teacher"]["after"]["top1"]["mean"] == pytest.approx(np.mean(after))
    (comparison,) = comparisons_of([summary])
    with console.capture() as captured:
        console.print(strategy_table(comparison))
    assert "unseen" in captured.get() and "Own site, unseen site: the same on tests" in captured.get()
    (row,) = csv.DictReader(as_csv([comparison]).splitlines())
    assert float(row["unseen_site_federated_top5"]) == pytest.approx(federated)
    assert {"own_site_federated_top5", "own_site_local_top5", "unseen_site_offline_kd_top5"} < set(row)


def test_a_federation_of_one_site_is_that_of_its_folder_to_the_bit(
    tmp_path: Path, folders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = tiny_run(tmp_path / "folder", folder=folders["here"])
    sited = tiny_run(tmp_path / "site", sites=[{"name": "here", "folder": folders["here"], "boresight": 0}])
    one, other = outcome(alone.run), outcome(sited.run)
    for (_, expected), (_, found) in zip(one[0], other[0], strict=True):
        np.testing.assert_array_equal(expected, found)
    for line in other[1]:
        for client in line["clients"].values():
            assert client.pop("own_site") == client["common"]
    assert one[1] == other[1]
    summaries = [load_summary(placement.run) for placement in (alone, sited)]
    assert not any(key in client for client in summaries[0]["clients"] for key in ("site", "own_site", "unseen_site"))
    assert (
        shown_parts(summaries[:1]) == {} and sites_table(summaries[:1]) is None and sites_section(summaries[:1]) == ""
    )
    assert "sites" not in compare(summaries[:1])["tiny"]
    header = (alone.run / "summary.csv").read_text().splitlines()[0]
    assert "tests" not in header.split(",") and "site" not in header.split(",")
    assert list(shown_parts(summaries[1:])) == ["own_site", "all_sites"]
