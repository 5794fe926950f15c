"""Every modality has all its parts: a row, a name for the YAML, an encoder, a reader, a sensor, a colour."""

from __future__ import annotations

import re
from typing import get_args

import numpy as np
import pytest
import torch

from clients.data.modalities import MODALITIES
from clients.data.sensor_files import EXTRA_KINDS, FILE_KINDS
from clients.models.encoders import ENCODERS, make_encoder
from configs.data import ModalityName, StreetModality
from configs.schema import Faults
from sim.report.style import PALETTE
from sim.world.faults import spoil
from sim.world.sensors import SENSORS

EVERY = pytest.mark.parametrize("name", MODALITIES)


def flat(names: object) -> list[str]:
    return [one for name in get_args(names) for one in (get_args(name) or (name,))]


def test_the_names_of_the_yaml_are_those_of_the_rows_and_the_street_s_are_those_of_its_sensors() -> None:
    assert sorted(flat(ModalityName)) == sorted(MODALITIES)
    of_power = [name for name, row in MODALITIES.items() if row.is_of_power]
    assert sorted(get_args(StreetModality)) == sorted([*SENSORS, *of_power])


@EVERY
def test_frames_of_a_modality_become_features_of_the_wanted_size(name: str) -> None:
    row = MODALITIES[name]
    frames = torch.from_numpy(np.ones((3, *row.frame_shape), row.dtype))
    encoder = make_encoder(name, width=2, num_features=5)
    assert type(encoder) is ENCODERS[row.encoder]
    encoder.fit_scale(frames)
    assert encoder(frames).shape == (3, 5)


@EVERY
def test_a_modality_of_files_is_read_from_one_kind_of_them_and_others_from_none(name: str) -> None:
    row = MODALITIES[name]
    kinds = EXTRA_KINDS if row.is_on_request else FILE_KINDS
    assert [kind for kind, names in kinds.items() if name in names] == ([row.file] if row.file else [])


@EVERY
def test_a_lost_frame_is_what_the_row_says(name: str) -> None:
    row = MODALITIES[name]
    frames = np.arange(1, 41).reshape(-1, *[1] * len(row.frame_shape)).astype(row.dtype)
    frames = np.broadcast_to(frames, (40, *row.frame_shape))
    spoilt = spoil(frames, Faults(dropout=0.5), name, np.random.default_rng(0))
    changed = [index for index in range(40) if not np.array_equal(spoilt[index], frames[index])]
    assert changed
    for index in changed:
        expected = np.zeros_like(frames[0]) if row.lost_frame == "zeros" else spoilt[max(index - 1, 0)]
        np.testing.assert_array_equal(spoilt[index], expected)


def test_every_modality_has_a_colour_of_its_own() -> None:
    assert set(PALETTE) == set(MODALITIES)
    assert len(set(PALETTE.values())) == len(PALETTE)
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in PALETTE.values())
