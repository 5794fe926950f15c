"""The contact sheet: which passes it shows, that it shows something, and what it does without a sensor."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from typer.testing import CliRunner

from clients.data.recording import Recording, open_recording, write_recording
from configs.schema import World
from sim.cli.main import cli
from sim.data.generate import simulate_pass
from sim.data.inspection import RecordingPart, open_parts
from sim.report.contact_sheet import caption_of, choose_passes, write_contact_sheet

MODALITIES = ("camera", "radar", "lidar", "gps")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four passes of s9, the second by night."""
    folder = tmp_path_factory.mktemp("recorded")
    nights = (0.0, 1.0, 0.0, 0.0)
    passes = [
        simulate_pass(
            World(preset="s9", night_probability=night), seed=1, stream="sheet", index=index, modalities=MODALITIES
        )
        for index, night in enumerate(nights)
    ]
    write_recording(
        folder / "server",
        pass_ids=np.repeat(np.arange(4, dtype=np.int32), [len(one["power"]) for one in passes]),
        sensors={name: np.concatenate([one[name] for one in passes]) for name in MODALITIES},
        power=np.concatenate([one["power"] for one in passes]).astype(np.float32),
        splits={"train": [0, 1, 2, 3]},
    )
    return folder


def without(recording: Recording, *names: str, labelled: bool = True) -> Recording:
    sensors = {name: array for name, array in recording.sensors.items() if name not in names}
    return Recording(recording.folder, recording.pass_ids, sensors, recording.power if labelled else None, {})


def test_the_sheet_is_1600_pixels_wide_and_full_of_colours(recorded: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "new" / "sheet.png"
    answer = CliRunner().invoke(cli, ["data", "inspect", str(recorded), "--sheet", str(sheet), "--json"])
    assert answer.exit_code == 0
    image = matplotlib.image.imread(sheet)[..., :3]
    assert image.shape[1] == 1600 and image.shape[0] > 1000
    is_white = np.all(image > 0.99, axis=-1)
    assert 0.2 < is_white.mean() < 0.8
    colours = (image * 255).astype(np.int32) @ [1 << 16, 1 << 8, 1]
    assert len(np.unique(colours)) > 1000


def test_night_is_shown_where_there_is_one(recorded: Path) -> None:
    recording = open_recording(recorded / "server")
    shown = [int(recording.pass_ids[frames.start]) for frames in choose_passes(recording)]
    assert len(shown) == 3 and shown[-1] == 1


def test_without_a_camera_the_passes_are_spread_over_the_recording(recorded: Path) -> None:
    recording = without(open_recording(recorded / "server"), "camera")
    assert [int(recording.pass_ids[frames.start]) for frames in choose_passes(recording)] == [0, 2, 3]


@pytest.mark.parametrize("missing", [("camera", "radar", "lidar"), ("gps",), ("radar", "gps")])
@pytest.mark.parametrize("labelled", [True, False])
def test_what_is_not_there_is_left_out(
    recorded: Path, tmp_path: Path, missing: tuple[str, ...], labelled: bool
) -> None:
    recording = without(open_recording(recorded / "server"), *missing, labelled=labelled)
    write_contact_sheet([RecordingPart("server", recording)], tmp_path / "sheet.png")
    image = matplotlib.image.imread(tmp_path / "sheet.png")
    assert image.shape[1] == 1600 and image.std() > 0.02


def test_the_recording_with_most_modalities_is_drawn(recorded: Path, tmp_path: Path) -> None:
    whole = open_parts(recorded)[0]
    poor = RecordingPart("clients/000-gps", without(whole.recording, "camera", "radar", "lidar"))
    write_contact_sheet([poor, whole], tmp_path / "two.svg")
    text = (tmp_path / "two.svg").read_text()
    assert "server: camera, gps, lidar, radar" in text and "000-gps" not in text


def test_a_sheet_needs_a_known_format_and_a_frame(recorded: Path, tmp_path: Path) -> None:
    parts = open_parts(recorded)
    with pytest.raises(ValueError, match=r"sheet.docx: expected a file that ends in .png, .svg, .pdf"):
        write_contact_sheet(parts, tmp_path / "sheet.docx")
    empty = Recording(recorded, np.empty(0, np.int32), {}, None, {})
    with pytest.raises(ValueError, match="nothing to draw"):
        write_contact_sheet([RecordingPart("empty", empty)], tmp_path / "sheet.png")


@pytest.mark.parametrize(
    ("rows", "said"),
    [(["camera"], ""), (["camera", "doppler"], "Radar"), (["lidar"], "LiDAR"), (["radar", "lidar"], "Radar LiDAR")],
)
def test_the_caption_speaks_of_the_sensors_that_are_there(rows: list[str], said: str) -> None:
    assert " ".join(name for name in ("Radar", "LiDAR") if name in caption_of(rows)) == said
