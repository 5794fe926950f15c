"""Power of past slots: no frame of a window knows anything of the slot that is decided, or of later ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from clients.data.past_power import NAME, RANGE_DB, past_power
from clients.data.recording import Recording, open_recording
from clients.learning.speed import can_be_perturbed
from clients.models.tracker import read_windows
from configs.loading import load_experiment
from configs.schema import DeepSenseData, Passes, StreetData, Task
from sim.data.generate import write_street
from sim.data.sites import write_deepsense
from tests.sim.data.test_sites import write_site

TASK = Task()
NODES = ({"modality": "gps"}, {"modality": NAME, "count": 2})


def sweeps(num_slots: int) -> NDArray[np.float64]:
    return np.random.default_rng(num_slots).uniform(1e-4, 1.0, (num_slots, 64))


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("past") / "street"
    passes = Passes(server=2, public=2, test=2, client=3)
    write_street(
        StreetData.model_validate({"source": "street", "passes": passes, "nodes": NODES}), folder, seed=0, workers=1
    )
    return folder


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("past")
    release = write_site(root / "release", 80.0)
    data = DeepSenseData.model_validate({"source": "deepsense", "folder": str(release), "nodes": NODES})
    write_deepsense(data, root / "federation", seed=0)
    return root / "federation"


@pytest.fixture(params=["street", "scenario"])
def federation(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(request.param)
    return folder


def frames_of_windows(recording: Recording, starts: NDArray[np.int64]) -> NDArray[np.float16]:
    """(N, T, 64) the frames that a tracker gets."""
    windows = read_windows(recording, starts, modalities=(NAME,), num_frames=TASK.num_frames)
    found: NDArray[np.float16] = windows.frames[NAME][windows.rows].numpy()
    return found


def test_a_frame_is_the_sweep_of_the_slot_before_in_db_and_the_first_of_a_pass_is_zeros() -> None:
    power, passes = np.full((4, 64), 1e-5), np.array([3, 3, 3, 8])
    power[:, 2] = [2.0, 1.0, 4.0, 1.0]
    power[1, 9] = 0.1
    frames = past_power(power, passes)
    assert not frames[0].any()
    assert not frames[3].any()
    assert frames[1, [2, 9]].tolist() == [RANGE_DB, 0.0]
    assert frames[2, [2, 9, 10]].tolist() == [RANGE_DB, RANGE_DB - 10.0, 0.0]


def test_a_sweep_without_any_power_is_none_and_other_numbers_of_beams_are_refused() -> None:
    power = sweeps(3)
    power[0] = 0.0
    frames = past_power(power, np.zeros(3, np.int32))
    assert not frames[1].any()
    assert frames[2].max() == RANGE_DB
    with pytest.raises(ValueError, match="past_power: its frames have 64 beams, and this power has 16"):
        past_power(power[:, :16], np.zeros(3, np.int32))


def test_whatever_is_measured_from_a_slot_on_changes_nothing_that_is_known_in_it() -> None:
    passes = np.repeat(np.arange(3), 7)
    power = sweeps(len(passes))
    known = past_power(power, passes)
    for slot in range(len(passes)):
        changed = power.copy()
        changed[slot:] = sweeps(100)[: len(passes) - slot]
        np.testing.assert_array_equal(past_power(changed, passes)[: slot + 1], known[: slot + 1])


def test_no_window_of_a_federation_sees_the_power_of_its_slot_or_of_later_ones(federation: Path) -> None:
    parts = [path.parent for path in federation.rglob("recording.json")]
    recordings = [one for one in map(open_recording, parts) if NAME in one.sensors and one.power is not None]
    assert len(recordings) == 4  # server, test and two clients
    for recording in recordings:
        starts = recording.window_starts(TASK.num_frames, TASK.num_future)
        seen = frames_of_windows(recording, starts)
        for start, frames in zip(starts, seen, strict=True):
            now = start + TASK.num_frames - 1
            poisoned = np.array(recording.power)
            poisoned[now:] = 1.0 - poisoned[now:] / (1.0 + poisoned[now:].max())
            sensors = {NAME: past_power(poisoned, recording.pass_ids)}
            again = frames_of_windows(replace(recording, sensors=sensors), np.array([start]))[0]
            np.testing.assert_array_equal(again, frames)
            # It does see the slot before, so the test would notice a frame too late.
            assert frames[-1][np.argmax(recording.power_at(np.array(now - 1)))] == RANGE_DB


def test_the_public_set_has_frames_of_the_sweeps_that_only_the_server_knows(federation: Path) -> None:
    public = open_recording(federation / "public")
    power = np.load(federation / "server" / "public-power.npy")
    np.testing.assert_array_equal(public.sensors[NAME], past_power(power, public.pass_ids))
    assert public.power is None


def test_other_sensors_record_the_same_with_and_without_it(street: Path, tmp_path: Path) -> None:
    data = {"source": "street", "passes": Passes(server=2, public=2, test=2, client=3), "nodes": NODES[:1]}
    write_street(StreetData.model_validate(data), tmp_path / "alone", seed=0, workers=1)
    for part in ("server", "public", "test", "clients/000-gps"):
        with_it, alone = (open_recording(root / part) for root in (street, tmp_path / "alone"))
        np.testing.assert_array_equal(with_it.sensors["gps"], alone.sensors["gps"])


def test_its_windows_are_not_played_at_other_speeds() -> None:
    assert not can_be_perturbed((NAME,))


def test_a_street_of_other_beams_says_that_it_has_no_such_sensor() -> None:
    with pytest.raises(ValueError, match="a sweep of past_power has 64 beams, and here there are 16"):
        load_experiment("quickstart", [f"data.nodes=[{{modality: {NAME}}}]", "data.world.num_beams=16"])
