"""What moves in pictures: masks by hand, of a recording and of a stream."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from clients.data.motion import MotionDetector, motion_masks, packed_masks
from clients.models.encoders import unpack_masks
from configs.seeding import rng_for


def street(*columns: int, side: int = 40) -> NDArray[np.uint8]:
    """(F, side, side, 3) a bright square of 8 pixels on black, its left edge at each of the columns."""
    images = np.zeros((len(columns), side, side, 3), np.uint8)
    for image, column in zip(images, columns, strict=True):
        image[16:24, column : column + 8] = 255
    return images


def test_a_square_that_moves_by_ten_leaves_where_it_was_and_where_it_is() -> None:
    (mask,) = motion_masks(street(5, 15))
    assert mask[20, 6:12].all()
    assert mask[20, 16:22].all()
    assert not mask[:8].any()
    assert not mask[20, 28:].any()
    # The edges are blurred by one pixel: a tenth of the change is reached between one and two pixels outside.
    assert mask[20, 4]
    assert not mask[20, 2]


def test_grey_is_weighted_as_the_eye_sees_so_that_red_moves_less_than_green() -> None:
    red, green = street(5, 15), street(5, 15)
    red[..., 1:] = 0
    green[..., [0, 2]] = 0
    both = np.concatenate([red, green], axis=2)  # the same square twice, red on the left
    (mask,) = motion_masks(both)
    assert mask[:, 40:].sum() > mask[:, :40].sum() > 0


def test_two_equal_pictures_have_nothing_on() -> None:
    assert not motion_masks(street(5, 5)).any()


def test_the_threshold_is_a_share_of_the_strongest_change_of_the_same_two_frames() -> None:
    bright, dim = street(5, 15), street(5, 15) // 8
    np.testing.assert_array_equal(motion_masks(bright), motion_masks(dim))


def test_a_stream_gives_the_masks_of_the_recording() -> None:
    images = rng_for(0, "motion").integers(0, 255, (5, 24, 32, 3), np.uint8)
    detector = MotionDetector()
    found = [detector.push(image) for image in images]
    assert not found[0].any()
    np.testing.assert_array_equal(np.stack(found[1:]), motion_masks(images))
    detector.reset()
    assert not detector.push(images[0]).any(), "a new pass has no picture before"


def test_packed_masks_are_the_masks_and_the_first_is_empty() -> None:
    images = rng_for(1, "motion").integers(0, 255, (3, 24, 32, 3), np.uint8)
    packed = packed_masks(images)
    assert packed.shape == (3, 24, 4)
    unpacked = unpack_masks(torch.from_numpy(packed)).numpy()
    assert not unpacked[0].any()
    np.testing.assert_array_equal(unpacked[1:], motion_masks(images))
    assert not packed_masks(images[:1]).any()


@pytest.mark.parametrize("shape", [(1, 8, 8, 3), (3, 8, 8), (3, 8, 8, 4)])
def test_what_are_no_pictures_of_a_pass_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        motion_masks(np.zeros(shape, np.uint8))


def test_a_stream_refuses_a_picture_of_another_size() -> None:
    detector = MotionDetector()
    detector.push(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="the one before had"):
        detector.push(np.zeros((8, 9, 3), np.uint8))
    with pytest.raises(ValueError, match="expected"):
        detector.push(np.zeros((8, 8), np.uint8))
