"""What an encoder sees of a frame."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from clients.data.modalities import MODALITIES
from clients.models.encoders import (
    LIDAR_RANGE_M,
    BoxEncoder,
    GpsEncoder,
    LidarEncoder,
    PatchStem,
    Standardise,
    make_encoder,
    mask_shares,
    unpack_masks,
    without_outliers,
)
from configs.seeding import rng_for


def frames(modality: str, num: int = 6) -> Tensor:
    """(num, *frame_shape) legal frames, as they lie on disk."""
    kind = MODALITIES[modality]
    largest = {
        **{"camera": 255, "radar": 8, "doppler": 8, "lidar": 16, "gps": 30, "box": 1},
        **{"motion": 256, "maps": 2, "past_power": 30},
    }[modality]
    values = rng_for(0, "frames", modality).uniform(0, largest, (num, *kind.frame_shape))
    return torch.from_numpy(values.astype(kind.dtype))


def encoder_of(modality: str) -> torch.nn.Module:
    torch.manual_seed(0)
    encoder = make_encoder(modality, width=2, num_features=8)
    encoder.fit_scale(frames(modality, 20))
    return encoder.eval()


@pytest.mark.parametrize("modality", MODALITIES)
def test_frames_become_features_as_they_lie_on_disk(modality: str) -> None:
    features = encoder_of(modality)(frames(modality))
    assert features.shape == (6, 8)
    assert features.dtype == torch.float32
    assert torch.isfinite(features).all()
    assert features.std(dim=0).max() > 0, "every frame gives the same features"


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_feature_does_not_depend_on_the_rest_of_the_batch(modality: str) -> None:
    encoder, batch = encoder_of(modality), frames(modality)
    alone = torch.cat([encoder(batch[i : i + 1]) for i in range(len(batch))])
    torch.testing.assert_close(encoder(batch), alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("modality", MODALITIES)
def test_every_weight_learns(modality: str) -> None:
    encoder = encoder_of(modality)
    encoder(frames(modality, 64)).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("modality", ["gps", "lidar", "camera", "radar"])
def test_scaled_training_frames_have_mean_zero_and_spread_one(modality: str) -> None:
    encoder = make_encoder(modality, width=2, num_features=8)
    encoder.fit_scale(frames(modality, 50))
    scaled = encoder.standardise(encoder.inputs(frames(modality, 50)))
    rows = scaled.reshape(-1, len(encoder.standardise.mean))
    torch.testing.assert_close(rows.mean(dim=0), torch.zeros(rows.shape[1]), atol=1e-3, rtol=0)
    torch.testing.assert_close(rows.std(dim=0, correction=0), torch.ones(rows.shape[1]), atol=1e-3, rtol=0)


def test_standardise_by_hand() -> None:
    standardise = Standardise((0.5, 25.0))
    standardise.fit(torch.tensor([[1.0, 10.0], [3.0, 30.0]]))
    # The spread of the second channel, 10, is less than what counts.
    torch.testing.assert_close(standardise(torch.tensor([[2.0, 45.0]])), torch.tensor([[0.0, 1.0]]))


@pytest.mark.parametrize("spread", [(0.0,), (1.0, -1.0), (math.nan,)])
def test_a_spread_that_is_not_positive_is_refused(spread: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="least_spread: must be > 0"):
        Standardise(spread)


@pytest.mark.parametrize("modality", MODALITIES)
def test_no_modality_is_scaled_by_less_than_what_its_row_counts_as_a_spread(modality: str) -> None:
    # A parked vehicle and an empty street: whatever comes later must not be a thousand deviations away.
    encoder = make_encoder(modality, width=2, num_features=8)
    encoder.fit_scale(frames(modality, 1).expand(20, *MODALITIES[modality].frame_shape))
    assert (encoder.standardise.scale >= torch.tensor(MODALITIES[modality].least_spread)).all()


def test_a_metre_beside_the_street_of_a_single_pass_is_a_deviation_and_not_ten() -> None:
    along = torch.linspace(-30.0, 30.0, 60, dtype=torch.float64)
    encoder = make_encoder("gps", width=2, num_features=8)
    encoder.fit_scale(torch.stack([along, torch.full_like(along, 12.0)], dim=1))
    beside = encoder.standardise(encoder.inputs(torch.tensor([[0.0, 13.0]])))
    assert beside[0, 1] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("share", [0.01, 0.04])
def test_positions_of_a_receiver_that_lost_its_satellites_hardly_move_the_scale(share: float) -> None:
    rng = rng_for(0, "lost")
    positions = torch.from_numpy(rng.normal([0.0, 12.0], [10.0, 2.0], (500, 2)))
    spoilt = positions.clone()
    spoilt[: int(500 * share)] = torch.tensor([1e5, -1e5], dtype=torch.float64)
    clean, robust = make_encoder("gps", width=2, num_features=8), make_encoder("gps", width=2, num_features=8)
    clean.fit_scale(positions)
    robust.fit_scale(spoilt)
    ratio = robust.standardise.scale / clean.standardise.scale
    assert ratio.max() < 2.0
    assert ratio.min() > 0.9


def test_without_outliers_by_hand() -> None:
    # The ordinary range of 0 .. 100 is 5 to 95, so what lies beyond -85 and 185 is moved there.
    rows = torch.arange(101.0)[:, None].repeat(1, 2)
    torch.testing.assert_close(without_outliers(rows, torch.ones(2)), rows)
    rows[100, 1], rows[0, 1] = 1e6, -1e6
    found = without_outliers(rows, torch.ones(2))
    torch.testing.assert_close(found[:, 0], rows[:, 0])
    torch.testing.assert_close(found[[0, 100], 1], torch.tensor([-85.0, 185.0]))
    torch.testing.assert_close(found[1:100, 1], rows[1:100, 1])


def test_scales_travel_with_the_weights_but_are_not_learned() -> None:
    encoder = encoder_of("gps")
    assert "standardise.mean" in encoder.state_dict()
    assert "standardise.mean" not in dict(encoder.named_parameters())


def test_gps_inputs_by_hand() -> None:
    inputs = GpsEncoder(Standardise([1.0] * 5), torch.nn.Identity()).inputs(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    torch.testing.assert_close(inputs[0], torch.tensor([3.0, 4.0, 0.6, 0.8, math.log(6)]))
    torch.testing.assert_close(inputs[1], torch.zeros(5))


def test_lidar_is_1_at_the_sensor_0_at_its_range_and_0_where_nothing_returned() -> None:
    ranges = torch.tensor([[1e-6, LIDAR_RANGE_M, 0.0, LIDAR_RANGE_M / 2]])
    inputs = LidarEncoder(Standardise([1.0]), torch.nn.Identity()).inputs(ranges)
    torch.testing.assert_close(inputs[0, :, 0], torch.tensor([1.0, 0.0, 0.0, 0.5]), atol=1e-6, rtol=0)


def test_a_box_that_was_not_found_is_zeros_and_says_so() -> None:
    boxes = torch.tensor([[0.5, 0.4, 0.1, 0.2], [math.nan] * 4])
    inputs = BoxEncoder(Standardise([1.0] * 5), torch.nn.Identity()).inputs(boxes)
    torch.testing.assert_close(inputs, torch.tensor([[0.5, 0.4, 0.1, 0.2, 1.0], [0.0, 0.0, 0.0, 0.0, 0.0]]))


def test_boxes_that_were_not_found_neither_shift_the_scale_nor_break_the_features() -> None:
    found = frames("box", 20)
    with_gaps = torch.cat([found, torch.full((30, 4), math.nan)])
    plain, gappy = (make_encoder("box", width=2, num_features=8) for _ in range(2))
    plain.fit_scale(found)
    gappy.fit_scale(with_gaps)
    torch.testing.assert_close(gappy.standardise.mean, plain.standardise.mean)
    torch.testing.assert_close(gappy.standardise.scale, plain.standardise.scale)
    assert torch.isfinite(gappy(with_gaps)).all()


def test_a_first_box_after_training_without_any_does_not_explode() -> None:
    encoder = make_encoder("box", width=2, num_features=8)
    encoder.fit_scale(torch.full((10, 4), math.nan))
    assert encoder.standardise(encoder.inputs(frames("box"))).abs().max() < 100


def test_a_patch_stem_is_a_strided_convolution() -> None:
    torch.manual_seed(0)
    stem = PatchStem(3, 5)
    kernel = stem.linear.weight.view(5, 4, 4, 3).permute(0, 3, 1, 2)
    images = torch.randn(2, 16, 8, 3)
    expected = torch.nn.functional.conv2d(images.permute(0, 3, 1, 2), kernel, stem.linear.bias, stride=4)
    torch.testing.assert_close(stem(images), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("modality", MODALITIES)
def test_the_position_of_what_is_seen_matters(modality: str) -> None:
    batch = frames(modality)
    if modality in ("camera", "radar", "lidar"):
        batch = torch.from_numpy(np.sort(batch.numpy(), axis=1))
    assert not torch.allclose(encoder_of(modality)(batch), encoder_of(modality)(batch.flip(1)))


@pytest.mark.parametrize("side", [1, 2, 4])
def test_shares_of_packed_masks_are_means_over_squares_of_their_pixels(side: int) -> None:
    packed = frames("motion", 3)
    expected = torch.nn.functional.avg_pool2d(unpack_masks(packed).unsqueeze(1), side).squeeze(1)
    assert torch.equal(mask_shares(packed, side), expected)


def test_a_packed_byte_is_eight_pixels_from_left_to_right() -> None:
    assert unpack_masks(torch.tensor([[0b1000_0001, 0b0100_0000]], dtype=torch.uint8)).tolist() == [
        [1, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0]
    ]
