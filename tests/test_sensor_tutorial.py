"""What the tutorial on one's own sensor shows works, as it stands there: a fifth modality, in one file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT
from tests.tutorials import answer_here, follow, snippet, softbeam

TUTORIAL = (CHECKOUT / "docs/tutorials/sensor.md").read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the lines of the tutorial were run."""
    made = tmp_path_factory.mktemp("tutorial")
    follow(made, TUTORIAL, "my_sensors.py", "mine.yaml", first="python my_sensors", count=3)
    return made


def run_of(folder: Path, out: str) -> Path:
    (run,) = (folder / out).glob("own-sensor-*")
    return run


def test_the_file_of_the_sensor_is_one_of_less_than_100_lines() -> None:
    assert len(snippet(TUTORIAL, "my_sensors.py").splitlines()) + len(snippet(TUTORIAL, "mine.yaml").splitlines()) < 100


def test_clients_of_the_sensor_take_part_to_the_end_and_the_report_has_its_colour(folder: Path) -> None:
    run = run_of(folder, "runs")
    clients = json.loads((run / "summary.json").read_text())["clients"]
    assert [client["modality"] for client in clients] == ["gps", "imu"] * 2
    assert all(client["federated"] is not None for client in clients)
    assert "#332288" in (run / "report.html").read_text()


def test_what_is_done_with_a_run_later_finds_the_sensor_again(folder: Path, tmp_path: Path) -> None:
    run = run_of(folder, "runs")
    softbeam(folder, "report", str(run), "--out", str(tmp_path / "again.html"))
    assert "#332288" in (tmp_path / "again.html").read_text()
    words = ("export", str(run), "--client", "001-imu", "--format", "torch", "--out", str(tmp_path / "model"))
    softbeam(folder, *words)
    assert (tmp_path / "model").is_dir()


# The digits example holds own sensors and tasks on Ray to the bit; here the commands of the page start a Ray of theirs.
@pytest.mark.slow
def test_ray_gives_the_same_results(folder: Path) -> None:
    words = ("run", "mine.yaml", "--engine", "ray", "--out", "on-ray", "--set", "engine.workers=1")
    softbeam(folder, *words)
    inline, ray = (
        json.loads((run_of(folder, out) / "summary.json").read_text())["clients"] for out in ("runs", "on-ray")
    )
    assert [one["federated"] for one in inline] == [one["federated"] for one in ray]


def test_what_is_wrong_with_the_row_is_said_as_the_page_says_it(folder: Path) -> None:
    (block,) = re.findall(r"```\n(data\.sensors\.imu: .*?)```", TUTORIAL, flags=re.DOTALL)
    by_change = {
        'name="imu"': 'name="imus"',
        "frame_shape=(6,)": "frame_shape=6",
        "IMU = ": "IMO = ",
    }
    said = block.strip().splitlines()
    for number, (line, (old, new)) in enumerate(zip(said[:2], by_change.items(), strict=False)):
        module = f"wrong_sensor_{number}"
        (folder / f"{module}.py").write_text(snippet(TUTORIAL, "my_sensors.py").replace(old, new))
        assert line.replace("my_sensors", module) in refusal(folder, f"imu: '{module}:IMU'")
    assert said[2] in refusal(folder, "imu: 'my_sensors:IMO'")
    assert said[3] in refusal(folder, "radar: 'my_sensors:IMU'")


def refusal(folder: Path, sensor: str) -> str:
    """The error of a run whose sensors are another one."""
    answer = answer_here(folder, "run", "mine.yaml", "--set", f"data.sensors={{{sensor}}}")
    assert answer.code == 1
    return answer.err
