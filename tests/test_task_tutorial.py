"""What the tutorial on one's own task shows works, as it stands there: classes that are no beams, in one file."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT
from tests.tutorials import answer_here, follow, snippet, softbeam

TUTORIAL = (CHECKOUT / "docs/tutorials/task.md").read_text()
# What belongs to beam tracking, in tables, reports and files of results.
OF_BEAMS = r"beam|\bdB\b|Top-\d|\bDBA\b|power|roadside|vehicle|position|\btop\d\b"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the lines of the tutorial were run; ``said`` has what the last one printed."""
    made = tmp_path_factory.mktemp("tutorial")
    said = follow(made, TUTORIAL, "my_task.py", "mine.yaml", first="python my_task", count=3)
    (made / "said").write_text(said)
    return made


def run_of(folder: Path, out: str = "runs") -> Path:
    (run,) = (folder / out).glob("own-task-*")
    return run


def test_the_task_is_one_file_of_less_than_150_lines() -> None:
    assert len(snippet(TUTORIAL, "my_task.py").splitlines()) + len(snippet(TUTORIAL, "mine.yaml").splitlines()) < 150


def test_clients_take_part_to_the_end_and_have_a_global_and_a_personalised_score(folder: Path) -> None:
    summary = json.loads((run_of(folder) / "summary.json").read_text())
    assert len(summary["clients"]) == 4 and summary["task"]["title"] == "activity recognition"
    for client in summary["clients"]:
        assert list(client["federated"]) == ["accuracy", "hardest", "log_loss"]
        assert all(len(values) == 1 for values in client["federated"].values())
        assert client["uplink_bytes"] > 0 and client["downlink_bytes"] > 0
    assert any(client["own"]["federated"] for client in summary["clients"])
    with (run_of(folder) / "summary.csv").open(newline="") as file:
        header, *_ = csv.reader(file)
    assert header[10:13] == ["accuracy", "hardest", "log_loss"]


def test_neither_the_report_nor_the_tables_nor_the_files_speak_of_beams(folder: Path) -> None:
    run = run_of(folder)
    page = (run / "report.html").read_text()
    assert "federated activity recognition" in page and "Accuracy against local only at equal steps" in page
    assert "their activities differ from those of all clients" in page
    texts = {
        "report": re.sub(r"(?s)<style>.*?</style>|<pre[^>]*>.*?</pre>|Softbeam|softbeam", "", page),
        "tables": (folder / "said").read_text().replace(str(folder), ""),
        "summary": (run / "summary.json").read_text(),
        "rounds": (run / "rounds.jsonl").read_text(),
        # The default codec is called after its eight classes.
        "csv": (run / "summary.csv").read_text().replace("top8-", ""),
        "experiment": "".join(re.findall(r"(?m)^task:\n(?: .*\n)+", (run / "experiment.yaml").read_text())),
    }
    assert {name: re.findall(OF_BEAMS, text) for name, text in texts.items()} == {name: [] for name in texts}
    assert not (run / "passes.json").exists()


def test_reports_of_the_run_need_the_file_of_the_task_no_more(folder: Path, tmp_path: Path) -> None:
    held = (folder / "my_task.py").rename(tmp_path / "my_task.py")
    try:
        softbeam(folder, "report", str(run_of(folder)), "--out", "again.html")
    finally:
        held.rename(folder / "my_task.py")
    assert "federated activity recognition" in (folder / "again.html").read_text()


# The digits example holds own sensors and tasks on Ray to the bit; here the commands of the page start a Ray of theirs.
@pytest.mark.slow
def test_ray_gives_the_same_results(folder: Path) -> None:
    words = ("run", "mine.yaml", "--engine", "ray", "--out", "on-ray", "--set", "engine.workers=1")
    softbeam(folder, *words)
    inline, ray = (json.loads((run_of(folder, out) / "summary.json").read_text()) for out in ("runs", "on-ray"))
    for key in ("clients", "teacher"):
        assert inline[key] == ray[key]


def test_what_is_about_beams_alone_says_so(folder: Path) -> None:
    for words in (("export", str(run_of(folder)), "--client", "all"), ("bench", "sets", str(run_of(folder)))):
        answer = answer_here(folder, *words)
        assert answer.code == 1
        assert re.search(r"this is about beams, and own-task-.* is a run of my_task:Activity", answer.err)


def test_what_is_wrong_with_the_task_is_said_as_the_page_says_it(folder: Path) -> None:
    (block,) = re.findall(r"```\n(task\.name: .*?)```", TUTORIAL, flags=re.DOTALL)
    changes = {
        "functional.cross_entropy(logits, labels,": 'functional.cross_entropy(logits, labels, reduction="none",',
        "is_right.mean(),": "np.nan,",
        "num_classes = len(NAMES)": "num_classes = 4",
        "    def loss(": "    def read(self, stored):\n        return stored * 0 + 3\n\n    def loss(",
    }
    for number, (line, (old, new)) in enumerate(zip(block.strip().splitlines(), changes.items(), strict=True)):
        assert old in snippet(TUTORIAL, "my_task.py")
        (folder / f"wrong_task_{number}.py").write_text(snippet(TUTORIAL, "my_task.py").replace(old, new, 1))
        answer = answer_here(folder, "run", "mine.yaml", "--set", f"task.name=wrong_task_{number}:Activity")
        assert answer.code == 1
        assert line.replace("activities/server", str(folder / "activities/server")) in answer.err
