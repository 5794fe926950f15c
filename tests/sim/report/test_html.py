"""The report: one page that needs nothing else, true to its runs, whatever is missing in them."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from server.recorder import read_rounds
from sim.report.evidence import gather_evidence
from sim.report.figures import Run, bytes_curves, draw_all, draw_learning_curves, draw_score_by_bytes
from sim.report.html import write_report
from sim.report.summaries import load_summary

MODALITIES = ("camera", "radar", "gps")
VOID = {"meta", "br"}


def metrics(level: float) -> dict[str, list[float]]:
    row = [level + 0.1, level - 0.1]
    return {**dict.fromkeys(("top1", "top3", "top5", "dba", "dba_k3"), row), "power_loss_db": [10 * (1 - level)] * 2}


def write_run(
    run: Path,
    *,
    seed: int = 0,
    rounds: int = 2,
    federated: float = 0.6,
    problem: str = "",
    controls: bool = True,
    **settings: Any,
) -> Path:
    """A finished run of three clients; with a problem, the first is refused in round 1 and has no offline KD."""
    run.mkdir(parents=True)
    clients = [f"{i:03d}-{modality}" for i, modality in enumerate(MODALITIES)]
    lines = []
    for number in range(1, rounds + 1):
        entry = {"common": metrics(federated), "uplink_bytes": 2000, "downlink_bytes": 1000, "problem": ""}
        entries = dict.fromkeys(clients, entry)
        if problem and number == 1:
            entries[clients[0]] = {**entry, "common": None, "problem": problem}
        lines.append({"round": number, "teacher": {"common": metrics(0.8)}, "clients": entries})
    (run / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = {
        "experiment": "street",
        "seed": seed,
        "engine": "inline",
        "seconds": {"data": 1.0, "start": 1.0, "rounds": 2.0, "total": 4.0},
        "clients": [
            {
                "id": name,
                "modality": name.partition("-")[2],
                "parameters": 1000,
                "passes": 4,
                "local": metrics(0.5) if controls else None,
                "offline_kd": None if not controls or (problem and name == clients[0]) else metrics(0.55),
                "federated": metrics(federated) if rounds else None,
                "uplink_bytes": 2000 * rounds,
                "downlink_bytes": 1000 * rounds,
                "refused": int(bool(problem) and name == clients[0]),
            }
            for name in clients
        ],
        "teacher": {"parameters": 9000, "before": metrics(0.7), "after": metrics(0.8)},
        "break_even_samples": 325,
        "rounds": rounds,
    }
    (run / "summary.json").write_text(json.dumps(summary))
    (run / "experiment.yaml").write_text(yaml.safe_dump({"name": "street", "seed": seed, "strategy": settings}))
    digests = {"experiment_digest": "e" * 16, "source_digest": "5" * 16}
    (run / "environment.json").write_text(json.dumps({"python": "3.11.7", "versions": {"flwr": "1.41.0"}, **digests}))
    return run


class Page(HTMLParser):
    """Checks that tags are closed in order, and collects ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for name, value in attrs if name == "id"]


def visible(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text))


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    run = write_run(folder / "street-1", problem="probs <script>hold NaN</script>", codec="float16")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sim.report.html.draw_all", draw_all)
        patch.setattr("sim.report.html.gather_evidence", gather_evidence)
        write_report([run], folder / "out" / "report.html", with_files=True)
    return folder / "out" / "report.html"


def test_the_page_is_whole_and_asks_for_nothing_from_outside(one: Path) -> None:
    text = one.read_text()
    page = Page(text)
    assert page.open == []
    assert not re.search(r"""(src|href)=["'](?!#|data:)|@import|url\((?!#|data:)|<script[^>]*src|<link""", text)
    assert "default-src 'none'" in text
    assert len(page.ids) == len(set(page.ids))
    for target in re.findall(r'(?:url\(|href=")#([^")]+)', text):
        assert target in page.ids


def test_every_figure_lies_beside_the_page_as_png_svg_and_pdf_and_stands_in_it(one: Path) -> None:
    names = {path.name for path in (one.parent / f"{one.stem}-figures").iterdir()}
    stems = {"learning-curves", "final-accuracy", "gain-by-horizon", "horizons", "bytes", "score-by-bytes", "answers"}
    assert names == {f"{stem}.{suffix}" for stem in stems for suffix in ("png", "svg", "pdf")}
    assert one.read_text().count("<svg") == len(stems)
    assert [path.name for path in one.parent.iterdir() if path.name.startswith(".")] == []


def test_the_headline_says_by_how_much_the_federation_helped(one: Path) -> None:
    text = visible(one.read_text())
    assert "The federation helped the clients, more than a teacher that does not change." in text
    assert 'class="verdict helped"' in one.read_text()
    for control, gain, count in (("local only", "+10.0", 3), ("offline KD", "+5.0", 2)):
        line = (
            f"Top-5 against {control} at equal steps: {gain} points on average (95 % interval {gain} to {gain}, paired"
        )
        assert line in text
        assert f"{count} of {count} clients are better." in text
    assert "Top-5 70.0 % before, 80.0 % after" in text
    assert "This is one seed only" in text


def test_problems_are_named_and_never_run_as_markup(one: Path) -> None:
    text = one.read_text()
    assert "probs &lt;script&gt;hold NaN&lt;/script&gt;" in text
    assert "no result for offline KD" in text


def test_the_page_says_how_to_run_it_again(one: Path) -> None:
    text = visible(one.read_text())
    assert f"softbeam run {one.parents[1] / 'street-1' / 'experiment.yaml'}" in text
    assert "e" * 16 in text
    assert "flwr 1.41.0" in text
    assert "codec: float16" in text


def test_the_break_even_line_and_the_weights_are_printed(one: Path) -> None:
    text = visible(one.read_text())
    assert "more than 325 public samples" in text
    assert "camera 2.0 kB 1.0 kB 4.0 kB" in text


def test_several_seeds_give_mean_and_sd_and_one_command(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"street-{i}", seed=i, federated=0.6 + 0.1 * i) for i in range(2)]
    write_report(runs, tmp_path / "report.html")
    text = visible((tmp_path / "report.html").read_text())
    assert "+15.0 points on average (95 % interval +10.0 to +20.0" in text
    assert "--seeds 0,1" in text
    assert "mean ± standard deviation over 2 runs" in text
    assert "None: every client that was asked answered" in text


@pytest.mark.usefixtures("figures")
def test_a_run_without_rounds_still_has_a_report(tmp_path: Path) -> None:
    write_report([write_run(tmp_path / "run", rounds=0)], tmp_path / "report.html", with_files=True)
    text = visible((tmp_path / "report.html").read_text())
    assert "cannot be compared" in text
    assert "no figure of learning curves" in text
    assert not (tmp_path / "report-figures" / "bytes.png").exists()
    assert (tmp_path / "report-figures" / "horizons.png").exists()


@pytest.mark.usefixtures("figures")
def test_a_page_without_files_has_the_same_figures(one: Path, tmp_path: Path) -> None:
    write_report([one.parents[1] / "street-1"], tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == one.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def amend(run: Path, number: int, client: str, **entry: Any) -> None:
    """Change what is recorded of a client in a round."""
    lines = read_rounds(run)
    lines[number - 1]["clients"][client] |= entry
    (run / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_report_says_of_each_client_what_was_wrong_how_often_and_why(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rounds=3)
    for number in (1, 2, 3):
        amend(run, number, "000-camera", problem=f"not on the simplex in {number}", fault="refused")
    amend(run, 2, "001-radar", problem="no answer in time", fault="missing")
    amend(run, 3, "001-radar", rounds_late=1, seconds_late=2.5)
    amend(run, 3, "002-gps", problem="its node was not connected", fault="away", warning="disk <full>")
    write_report([run], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    for words in (
        "0 000-camera answer refused 3 of 3 1 to 3 not on the simplex in 3",
        "0 001-radar answer came late, and counted 1 of 3 3 1 round, 2.5 s after its own had gone on",
        "0 001-radar no answer in time 1 of 3 2 no answer in time",
        "0 002-gps its node was not connected 1 of 3 3 its node was not connected",
        "0 002-gps warned 1 of 3 3 disk &lt;full&gt;",
        "Round by round (5)",
    ):
        assert words in visible(text)
    assert "Other events" not in text


def test_what_happened_beside_the_answers_is_told_and_never_run_as_markup(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    summary = json.loads((run / "summary.json").read_text())
    event = {"time": "2026-01-01T00:00:00+00:00", "round": 1, "kind": "refused", "who": "node <b>7", "text": "its key"}
    (run / "summary.json").write_text(json.dumps({**summary, "faults": [], "events": [event] * 101}))
    write_report([run], tmp_path / "report.html")
    text = visible((tmp_path / "report.html").read_text())
    assert "None: every client that was asked answered" in text
    assert "Other events" in text
    assert "0 1 node &lt;b&gt;7 refused its key" in text
    assert "And 1 more." in text


def test_a_federation_that_hurts_is_said_to_hurt(tmp_path: Path) -> None:
    write_report([write_run(tmp_path / "run", federated=0.4)], tmp_path / "report.html")
    assert "The federation hurt the clients." in (tmp_path / "report.html").read_text()


def test_a_gain_smaller_than_its_sd_over_the_seeds_is_no_clear_difference(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / str(i), seed=i, federated=level) for i, level in enumerate((0.4, 0.7))]
    write_report(runs, tmp_path / "report.html")
    assert "The federation made no clear difference" in (tmp_path / "report.html").read_text()


def test_a_curve_breaks_at_a_round_without_a_score_and_several_seeds_have_a_band(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / str(i), seed=i, federated=0.5 + 0.2 * i, problem="late") for i in range(2)]
    figure = draw_learning_curves([Run(load_summary(run), read_rounds(run)) for run in runs])
    camera, radar = figure.axes[:2]
    np.testing.assert_allclose(camera.lines[0].get_ydata(), [np.nan, 60.0])
    np.testing.assert_allclose(radar.lines[0].get_ydata(), [60.0, 60.0])
    (band,) = radar.collections
    heights = band.get_paths()[0].vertices[:, 1]
    sd = 20.0 / 2**0.5
    assert (heights.min(), heights.max()) == pytest.approx((60 - sd, 60 + sd))


def test_runs_of_different_experiments_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / codec, codec=codec) for codec in ("float16", "uint8")]
    with pytest.raises(ValueError, match=r"street codec=float16; street codec=uint8"):
        write_report(runs, tmp_path / "out" / "report.html")
    assert not (tmp_path / "out").exists()


def test_no_run_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name at least one"):
        write_report([], tmp_path / "report.html")


def test_a_run_without_controls_has_no_row_and_no_word_of_them(tmp_path: Path) -> None:
    write_report([write_run(tmp_path / "run", controls=False)], tmp_path / "report.html")
    body = (tmp_path / "report.html").read_text().partition("<h2>How to run it again")[0]
    text = visible(body).lower()
    assert "offline kd" not in text and "trained for the same number of steps" not in text
    assert ">-<" not in body
    assert "no controls" in text  # why there is no comparison


@pytest.mark.parametrize("has_now", [True, False])
def test_the_curves_show_the_state_that_is_kept_and_the_state_now_if_it_was_recorded(
    tmp_path: Path, has_now: bool
) -> None:
    run = write_run(tmp_path / "run")
    lines = read_rounds(run)
    if has_now:
        for line in lines:
            for entry in (line["teacher"], *line["clients"].values()):
                entry |= {"common_now": metrics(0.1 * line["round"]), "kept": False}
    axes = draw_learning_curves([Run(load_summary(run), lines)]).axes
    for axis, kept in ((axes[0], 60.0), (axes[-1], 80.0)):
        shown = {str(line.get_label()).rpartition(" ")[2]: line.get_ydata() for line in axis.lines}
        np.testing.assert_allclose(shown["kept"], [kept, kept])
        assert ("now" in shown) == has_now
        if has_now:
            np.testing.assert_allclose(shown["now"], [10.0, 20.0])


@pytest.mark.usefixtures("figures")
def test_what_needs_no_learning_stands_in_a_table_of_its_own_with_what_it_measures(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    write_report([run], tmp_path / "without.html")
    assert "Without learning" not in (tmp_path / "without.html").read_text()
    summary = json.loads((run / "summary.json").read_text())
    summary["clients"][0]["baselines"] = {"last_beam": metrics(0.35)}
    (run / "summary.json").write_text(json.dumps(summary))
    write_report([run], tmp_path / "with.html")
    text = visible((tmp_path / "with.html").read_text())
    modality = summary["clients"][0]["modality"]
    assert f"a full sweep in the slot before {modality} 35.0 35.0 35.0" in text


def test_scores_stand_over_the_bytes_that_were_spent_until_each_round(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rounds=3, problem="no reply")
    found = [Run(load_summary(run), read_rounds(run))]
    curves = bytes_curves(found)
    assert list(curves) == list(MODALITIES)
    assert curves["radar"] == [(3.0, pytest.approx(60.0)), (6.0, pytest.approx(60.0)), (9.0, pytest.approx(60.0))]
    assert [spent for spent, _ in curves["camera"]] == [6.0, 9.0]  # it has no score in round 1, but has spent bytes
    figure = draw_score_by_bytes(found)
    assert figure is not None
    (axis,) = figure.axes
    diamonds = [line for line in axis.lines if line.get_marker() == "D"]
    assert [list(line.get_ydata()) for line in diamonds] == [[pytest.approx(50.0)]] * 3
    triangles = [line for line in axis.lines if line.get_marker() == "v"]
    assert {float(line.get_xdata()[0]) for line in triangles} == {4.0}  # 1000 parameters of 4 bytes
    assert axis.get_xlabel() == "Bytes of a client so far, up and down (kB)"


@pytest.mark.usefixtures("figures")
def test_a_strategy_that_sends_nothing_has_no_scores_over_bytes_and_the_page_says_why(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    silent = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    for line in silent:
        line["clients"] = {name: {**e, "uplink_bytes": 0, "downlink_bytes": 0} for name, e in line["clients"].items()}
    (run / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in silent))
    write_report([run], tmp_path / "report.html")
    assert "Nothing was sent, so there is no figure of scores against bytes." in (tmp_path / "report.html").read_text()
