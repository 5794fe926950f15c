"""The encoders, which turn one sensor frame into a feature vector. U frames, D features.

Every encoder takes frames in the form that is stored on disk and scales them itself, so that a live stream and a
recording are treated alike. Encoders use no batch statistics: the features of a frame do not depend on its batch, so
overlapping windows can share them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from clients.data.modalities import MODALITIES, Modality

# The range of the scenario 9 LiDAR in metres; source: DeepSense 6G scenario 9 page.
LIDAR_RANGE_M = 16.392
# Of the values of a channel, this share may lie below and as many above the range that is taken for ordinary.
TAIL = 0.05


class Standardise(nn.Module):
    """Scales inputs to about zero mean and unit variance, which are measured once.

    Args:
        least_spread: (C,) for each channel, the smallest spread that counts; inputs are never scaled by less.

    Raises:
        ValueError: a spread is not positive.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, least_spread: Sequence[float]) -> None:
        super().__init__()
        self.least_spread = torch.tensor(tuple(least_spread))
        if not (self.least_spread > 0).all():
            raise ValueError(f"least_spread: must be > 0 in every channel, got {tuple(least_spread)}")
        self.register_buffer("mean", torch.zeros(len(self.least_spread)))
        self.register_buffer("scale", torch.ones(len(self.least_spread)))

    def fit(self, values: Tensor) -> None:
        """Measure the mean and the spread over all axes but the last; a channel counts with its ``least_spread``."""
        rows = values.reshape(-1, len(self.mean))
        self.mean.copy_(rows.mean(dim=0))
        self.scale.copy_(torch.maximum(rows.std(dim=0, correction=0), self.least_spread))

    def forward(self, values: Tensor) -> Tensor:
        """Values (..., C) to scaled values of the same shape."""
        return torch.addcmul(-self.mean / self.scale, values, 1.0 / self.scale)


def without_outliers(rows: Tensor, least_spread: Tensor) -> Tensor:
    """Rows (N, C) with every value moved to the nearest one that is not an outlier of its channel.

    The ordinary range of a channel holds all values but the share `TAIL` on either side. What lies farther outside than
    this range is wide is an outlier, such as a position of a receiver that has lost the satellites. For a normal
    distribution this is beyond 4.9 deviations, so that ordinary values stay as they are.

    Source: the fences of J. W. Tukey, "Exploratory Data Analysis", 1977, with other quantiles.

    Args:
        rows: the values, at least one row.
        least_spread: (C,) the smallest width of the ordinary range of each channel.
    """
    low, high = torch.quantile(rows, torch.tensor([TAIL, 1.0 - TAIL], dtype=rows.dtype), dim=0)
    width = torch.maximum(high - low, least_spread.to(rows.dtype))
    return torch.minimum(torch.maximum(rows, low - width), high + width)


class Encoder(nn.Module):
    """The base of all encoders: it scales the inputs and then applies a network. By itself it encodes vectors.

    Args:
        standardise: the scale of the inputs, which is fitted before training.
        network: a network from scaled inputs to features (U, D).

    Attributes:
        num_channels: the number of channels that :meth:`inputs` returns; 0 if the shape of a frame determines it.
    """

    num_channels: ClassVar[int] = 0

    def __init__(self, standardise: Standardise, network: nn.Module) -> None:
        super().__init__()
        self.standardise = standardise
        self.network = network

    @classmethod
    def build(cls, row: Modality, *, width: int, num_features: int) -> Encoder:
        """Build an encoder for frames of a modality, as stored on disk; :func:`make_encoder` explains the sizes."""
        num_inputs = cls.num_channels or row.frame_shape[-1]
        return cls(Standardise(row.least_spread), _mlp(num_inputs, 8 * width, num_features))

    def inputs(self, frames: Tensor) -> Tensor:
        """Frames as stored on disk to float32 values with channels last, before scaling."""
        return frames.float()

    def fit_scale(self, frames: Tensor) -> None:
        """Measure the scale of the inputs on frames as stored on disk, without their outliers."""
        inputs = self.inputs(frames)
        self.standardise.fit(without_outliers(inputs.reshape(len(inputs), -1), self.standardise.least_spread))

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (U, *frame_shape) to features (U, D)."""
        features: Tensor = self.network(self.standardise(self.inputs(frames)))
        return features


def unpack_masks(packed: Tensor) -> Tensor:
    """Packed masks (..., R, C / 8) uint8, eight pixels a byte, left to right, to (..., R, C) float32 zeros and ones."""
    bits = torch.arange(7, -1, -1, dtype=torch.uint8, device=packed.device)
    return ((packed.unsqueeze(-1) >> bits) & 1).flatten(-2).float()


def mask_shares(packed: Tensor, side: int) -> Tensor:
    """Packed masks (..., R, C / 8) to (..., R / side, C / side): the share of pixels that are on in each square.

    The result equals unpacking and averaging, but a table gives the number of bits of a byte, which is less work.

    Args:
        packed: the masks, uint8 with eight pixels a byte.
        side: the side of a square in pixels: 1, 2 or 4; R is a multiple of it.
    """
    if side == 1:
        return unpack_masks(packed)
    rows, width = packed.shape[-2], packed.shape[-1]
    every = torch.arange(256, dtype=torch.uint8, device=packed.device)
    counts = unpack_masks(every[:, None]).view(256, 8 // side, side).sum(dim=-1)
    found = counts[packed.flatten().int()].view(*packed.shape[:-2], rows // side, side, width * 8 // side)
    return found.sum(dim=-2) / side**2


class PatchStem(nn.Module):
    """A 4 x 4 convolution with stride 4, as one matrix product: every pixel is read once.

    For a few input channels this is cheaper than a strided convolution, whose backward pass is slow on a CPU.
    """

    def __init__(self, num_channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(16 * num_channels, out_channels)

    def forward(self, images: Tensor) -> Tensor:
        """Images (U, R, C, K), channels last, to maps (U, out_channels, R / 4, C / 4)."""
        num_images, rows, columns, channels = images.shape
        patches = images.view(num_images, rows // 4, 4, columns // 4, 4, channels).permute(0, 1, 3, 2, 4, 5)
        out: Tensor = self.linear(patches.reshape(num_images, rows // 4, columns // 4, 16 * channels))
        return out.permute(0, 3, 1, 2)


class ImageEncoder(Encoder):
    """Encodes camera images (U, 64, 64, 3) and radar or Doppler maps (U, 64, 64): patches, then two convolutions."""

    @classmethod
    def build(cls, row: Modality, *, width: int, num_features: int) -> Encoder:
        """Build an encoder with one scale over all channels, because the channels of a camera have one unit."""
        num_channels = cls.num_channels or (row.frame_shape[2] if len(row.frame_shape) == 3 else 1)
        return cls(Standardise(row.least_spread), _image_network(num_channels, width, num_features))

    def fit_scale(self, frames: Tensor) -> None:
        """Measure one scale on all values of the frames; what such a sensor gives is bounded, so all count."""
        self.standardise.fit(self.inputs(frames))

    def inputs(self, frames: Tensor) -> Tensor:
        """Images or maps to (U, 64, 64, C) float32."""
        return frames.float().unsqueeze(-1) if frames.dim() == 3 else frames.float()


class MotionEncoder(ImageEncoder):
    """Encodes motion masks (U, 224, 28) of packed bits, as the share of pixels that are on in each of 64 x 64 cells."""

    num_channels: ClassVar[int] = 1

    def inputs(self, frames: Tensor) -> Tensor:
        """Packed masks to shares (U, 64, 64, 1) in [0, 1]."""
        return (
            functional.adaptive_avg_pool2d(unpack_masks(frames).unsqueeze(1), (64, 64)).permute(0, 2, 3, 1).contiguous()
        )


class MapsEncoder(ImageEncoder):
    """Encodes unscaled radar maps (U, 2, 128, 64), of which every two rows are averaged."""

    num_channels: ClassVar[int] = 2

    def inputs(self, frames: Tensor) -> Tensor:
        """Maps to (U, 64, 64, 2) float32."""
        return functional.avg_pool2d(frames.float(), (2, 1)).permute(0, 2, 3, 1).contiguous()


class LidarEncoder(Encoder):
    """Encodes LiDAR ranges (U, 216) in metres per ray as closeness: 1 at the sensor, 0 if nothing returned."""

    @classmethod
    def build(cls, row: Modality, *, width: int, num_features: int) -> Encoder:
        """Build an encoder with convolutions along the rays."""
        return cls(Standardise(row.least_spread), _lidar_network(width, num_features))

    def fit_scale(self, frames: Tensor) -> None:
        """Measure one scale on all rays, whose closeness is bounded, so that nothing is left out."""
        self.standardise.fit(self.inputs(frames))

    def inputs(self, frames: Tensor) -> Tensor:
        """Ranges to closeness (U, 216, 1) in [0, 1]."""
        ranges = frames.float()
        return torch.where(ranges > 0, 1.0 - ranges / LIDAR_RANGE_M, torch.zeros((), device=ranges.device)).unsqueeze(
            -1
        )

    def forward(self, frames: Tensor) -> Tensor:
        """Ranges (U, 216) to features (U, D)."""
        features: Tensor = self.network(self.standardise(self.inputs(frames)).permute(0, 2, 1).contiguous())
        return features


class GpsEncoder(Encoder):
    """Encodes GPS positions (U, 2) in metres east and north of the base station.

    The beam depends on the bearing, so the inputs are the position, the sine and cosine of the bearing and the log
    range.
    """

    num_channels: ClassVar[int] = 5

    def inputs(self, frames: Tensor) -> Tensor:
        """Positions to (U, 5): east, north, sine and cosine of the bearing, ln(1 + range)."""
        position = frames.float()
        distance = torch.linalg.vector_norm(position, dim=-1, keepdim=True)
        return torch.cat([position, position / distance.clamp_min(1e-3), torch.log1p(distance)], dim=-1)


class BoxEncoder(Encoder):
    """Encodes camera bounding boxes (U, 4) in image fractions; NaN means that no box was found."""

    num_channels: ClassVar[int] = 5

    def inputs(self, frames: Tensor) -> Tensor:
        """Boxes to (U, 5): the box, or zeros if there is none, and whether there is one."""
        found = torch.isfinite(frames).all(dim=-1, keepdim=True)
        return torch.cat([torch.where(found, frames, torch.zeros((), device=frames.device)), found], dim=-1).float()

    def fit_scale(self, frames: Tensor) -> None:
        """Measure the scale on the frames that have a box; without any box, inputs stay as they are."""
        with_box = frames[torch.isfinite(frames).all(dim=-1)]
        if len(with_box):
            super().fit_scale(with_box)


class PowerEncoder(Encoder):
    """Encodes the power of a sweep (U, 64) in dB, with one scale over all beams; zeros mean that there was none."""


ENCODERS: dict[str, type[Encoder]] = {
    encoder.__name__: encoder
    for encoder in (
        Encoder,
        ImageEncoder,
        MotionEncoder,
        MapsEncoder,
        LidarEncoder,
        GpsEncoder,
        BoxEncoder,
        PowerEncoder,
    )
}


def encodes_vectors(modality: str) -> bool:
    """Whether the frames of a modality are vectors, which `Encoder` itself scales and gives to a perceptron.

    Args:
        modality: a key of `MODALITIES`.
    """
    encoder = _encoder_of(MODALITIES[modality])
    return encoder.build.__func__ is Encoder.build.__func__ and encoder.forward is Encoder.forward  # type: ignore[attr-defined]


def make_encoder(modality: str, *, width: int, num_features: int) -> Encoder:
    """The encoder of a modality.

    Args:
        modality: a key of `MODALITIES`.
        width: the number of channels of the first convolution; an MLP has 8 times as many units.
        num_features: D, the number of features.
    """
    row = MODALITIES[modality]
    return _encoder_of(row).build(row, width=width, num_features=num_features)


def _encoder_of(row: Modality) -> type[Encoder]:
    encoder: type[Encoder] = ENCODERS[row.encoder] if isinstance(row.encoder, str) else row.encoder
    return encoder


def _image_network(num_channels: int, width: int, num_features: int) -> nn.Module:
    layers: list[nn.Module] = [PatchStem(num_channels, 2 * width), nn.ReLU()]
    num_channels = 2 * width
    for _ in range(2):
        layers += [nn.Conv2d(num_channels, 4 * width, 3, stride=2, padding=1, bias=False)]
        layers += [nn.GroupNorm(1, 4 * width), nn.ReLU()]
        num_channels = 4 * width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * 4 * num_channels, num_features), nn.ReLU())


def _lidar_network(width: int, num_features: int) -> nn.Module:
    layers: list[nn.Module] = []
    num_channels = 1
    for out_channels in (width, 2 * width, 4 * width):
        layers += [
            nn.Conv1d(num_channels, out_channels, 5, stride=2, padding=2, bias=False),
            nn.GroupNorm(1, out_channels),
            nn.ReLU(),
        ]
        num_channels = out_channels
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(27 * num_channels, num_features), nn.ReLU())


def _mlp(num_inputs: int, num_units: int, num_features: int) -> nn.Module:
    return nn.Sequential(nn.Linear(num_inputs, num_units), nn.ReLU(), nn.Linear(num_units, num_features), nn.ReLU())
