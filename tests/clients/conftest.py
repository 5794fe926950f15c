"""A street on which the best beam follows from the position, for everything that learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from clients.data.recording import Recording, open_recording, write_recording
from configs.seeding import rng_for

NUM_BEAMS = 4
PASS_LENGTH = 12


def east_and_power(num_passes: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """(F, 2) positions from -20 m to 20 m and (F, 4) power whose best beam is the quarter of the street."""
    rng = rng_for(seed, "street")
    begin = rng.uniform(-20, 8, num_passes)
    east = (begin[:, None] + np.arange(PASS_LENGTH)).ravel()
    beam = np.clip((east + 20) // 10, 0, NUM_BEAMS - 1).astype(int)
    power = rng.uniform(0.1, 0.3, (len(east), NUM_BEAMS))
    power[np.arange(len(east)), beam] = 1.0
    return np.stack([east, np.full_like(east, 12.0) + rng.normal(0, 0.1, len(east))], axis=1), power.astype(np.float32)


def write_street(folder: Path, *, num_passes: int = 8, seed: int = 0, labelled: bool = True) -> Recording:
    """A GPS and LiDAR recording; the last quarter of the passes is for validation."""
    gps, power = east_and_power(num_passes, seed)
    lidar = np.abs(gps[:, :1] - np.linspace(-20, 20, 216)).clip(1, 16)
    cut = num_passes - num_passes // 4
    write_recording(
        folder,
        pass_ids=np.repeat(np.arange(num_passes), PASS_LENGTH).astype(np.int32),
        sensors={"gps": gps, "lidar": lidar},
        power=power if labelled else None,
        splits={"train": range(cut), "validation": range(cut, num_passes)},
    )
    return open_recording(folder)


@pytest.fixture(scope="session")
def street(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Eight labelled passes."""
    return write_street(tmp_path_factory.mktemp("street") / "own")


@pytest.fixture(scope="session")
def public(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Six unlabelled passes."""
    return write_street(tmp_path_factory.mktemp("public") / "public", num_passes=6, seed=1, labelled=False)
