"""The map from above: whose passes are on it, in which colours, and what it says of those who are not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from clients.data.recording import Recording
from sim.data.inspection import RecordingPart
from sim.report.street_map import MAX_CLIENTS, MAX_POINTS, draw_map, is_nominal_street, map_caption, tracks_of


def part(name: str, num_frames: int = 20, *, labelled: bool = True, has_gps: bool = True) -> RecordingPart:
    """A vehicle that drives from west to east, while the best beam rises from 0 to 7."""
    east = np.linspace(-10.0, 10.0, num_frames)
    sensors = {"gps": np.stack([east, np.full(num_frames, 8.0)], axis=1)} if has_gps else {}
    power = np.eye(8, dtype=np.float32)[np.linspace(0, 7, num_frames).astype(int)] if labelled else None
    passes = np.repeat([0, 1], [num_frames // 2, num_frames - num_frames // 2]).astype(np.int32)
    return RecordingPart(name, Recording(Path(), passes, sensors, power, {}))


def test_server_test_public_and_clients_with_positions_are_on_it() -> None:
    parts = [part("clients/000-gps"), part("clients/001-radar", has_gps=False), part("server"), part("test")]
    tracks = tracks_of([*parts, part("public", labelled=False)])
    assert [one.title for one in tracks] == ["server's passes", "common test set", "public set, unlabelled", "000-gps"]
    assert [one.best is None for one in tracks] == [False, False, True, False]
    assert all(one.num_passes == 2 for one in tracks)
    text = map_caption(tracks, has_street=False, without=["radar"])
    assert "correlation 0.99 from -48 to 48" in text and "Clients of radar recorded no positions" in text
    assert "lanes" not in text


def test_a_frame_without_a_position_is_left_out() -> None:
    broken = part("test")
    gps = np.asarray(broken.recording.sensors["gps"]).copy()
    gps[3] = np.nan
    power, passes = broken.recording.power, broken.recording.pass_ids
    (track,) = tracks_of([RecordingPart("test", Recording(Path(), passes, {"gps": gps}, power, {}))])
    assert len(track.metres) == 19 and track.best is not None and len(track.best) == 19


def test_many_clients_share_a_panel() -> None:
    (track,) = tracks_of([part(f"clients/{i:03d}-gps") for i in range(MAX_CLIENTS + 1)])
    assert track.title == f"{MAX_CLIENTS + 1} clients with positions"
    assert track.num_passes == 2 * (MAX_CLIENTS + 1)


def test_points_have_the_colour_of_their_beam_and_are_not_too_many() -> None:
    tracks = tracks_of([part("server", 3 * MAX_POINTS), part("public", labelled=False)])
    figure = draw_map(tracks, num_beams=8, has_street=True)
    coloured, grey = (axis.collections[0] for axis in figure.axes[:2])
    assert len(coloured.get_offsets()) == MAX_POINTS
    assert np.asarray(coloured.get_array()).tolist()[:: MAX_POINTS - 1] == [0, 6]
    assert grey.get_array() is None
    plain = draw_map(tracks, num_beams=8, has_street=False)
    assert len(figure.axes[0].patches) == 2 and not plain.axes[0].patches  # the two lanes


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"source": "street", "world": {"sites": 1}}, True),
        ({"source": "street", "world": {"sites": 4}}, False),
        ({"source": "deepsense"}, False),
        ([], False),
        (None, False),
    ],
)
def test_lanes_are_drawn_only_where_they_are_known(facts: object, expected: bool, tmp_path: Path) -> None:
    if facts is not None:
        (tmp_path / "federation.json").write_text(json.dumps(facts))
    assert is_nominal_street(tmp_path) == expected
