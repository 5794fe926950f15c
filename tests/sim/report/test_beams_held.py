"""Who holds what: the rows and their order, the skew that is named, and groups instead of a hundred names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clients.data.recording import Recording
from sim.data.inspection import RecordingPart, open_parts
from sim.report.beams_held import MAX_NAMED, beams_held, beams_held_caption, draw_beams_held
from sim.report.summaries import federation_of


def part(name: str, beams: list[int], num_beams: int = 8) -> RecordingPart:
    power = np.eye(num_beams, dtype=np.float32)[beams]
    return RecordingPart(name, Recording(Path(), np.zeros(len(beams), np.int32), {}, power, {}))


def test_rows_are_server_test_all_clients_and_then_each_client() -> None:
    parts = [part("clients/000-gps", [0, 0, 1]), part("clients/001-gps", [7]), part("server", [3]), part("test", [4])]
    held = beams_held(parts, {"000-gps": "gps", "001-gps": "gps"})
    assert [one.name for one in held] == ["server", "common test set", "all clients", "000-gps", "001-gps"]
    assert held[2].counts.tolist() == [2, 1, 0, 0, 0, 0, 0, 1]
    assert held[0].skew_bits is None
    # Two histograms that share no beam with the others differ most; the first has three of all four frames.
    assert held[3].skew_bits is not None and held[4].skew_bits is not None
    assert 0 < held[3].skew_bits < held[4].skew_bits < 1
    text = beams_held_caption(held)
    assert "000-gps is the most like them" in text and "001-gps the least" in text
    assert "never seen 6 to 7 of 8 beams" in text


def test_a_row_is_as_strong_as_its_share_of_each_beam() -> None:
    held = beams_held([part("clients/000-gps", [0, 0, 0, 5])], {"000-gps": "gps"})
    left, right = draw_beams_held(held).axes
    strength = np.asarray(left.images[-1].get_array())[0, :, 3]
    np.testing.assert_allclose(strength**2, [1, 0, 0, 0, 0, 1 / 3, 0, 0], atol=1e-6)
    assert [label.get_text() for label in left.get_yticklabels()] == ["all clients", "000-gps"]
    assert [bar.get_width() for bar in right.patches] == pytest.approx([0.0])


def test_many_clients_are_groups_in_which_beams_rise() -> None:
    count = MAX_NAMED + 6
    parts = [part(f"clients/{i:03d}-x", [7 * i % count % 8]) for i in range(count)]
    groups = {f"{i:03d}-x": "gps" if i % 2 else "radar" for i in range(count)}
    held = beams_held([part("test", [1]), *parts], groups)
    figure = draw_beams_held(held)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "common test set",
        "all clients",
        f"radar ({count // 2})",
        f"gps ({count // 2})",
    ]
    of_radar = [one.middle for one in held if one.group == "radar"]
    assert of_radar == sorted(of_radar)
    assert f"Of {count} clients only the groups have names" in beams_held_caption(held)
    assert figure.get_size_inches()[1] < 8


def test_data_without_labels_hold_nothing() -> None:
    assert beams_held([part("test", [1])], {}) == []


def test_a_federation_is_read_as_it_lies(sensed_run: Path) -> None:
    folder = federation_of(sensed_run)
    assert folder is not None
    held = beams_held(open_parts(folder), {"000-camera": "camera"})
    clients = [one for one in held if one.skew_bits is not None]
    assert [one.name for one in clients] == ["000-camera", "001-radar", "002-lidar", "003-gps"]
    assert sum(one.counts.sum() for one in clients) == held[2].counts.sum()
