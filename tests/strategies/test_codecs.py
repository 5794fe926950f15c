"""The laws of every codec, and what each refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from configs.seeding import rng_for
from strategies.codecs import CODECS, Codec, FloatCodec, SquareRootCodec
from strategies.labels import SIMPLEX_TOLERANCE

BYTES_PER_VALUE = {"float32": 4, "float16": 2, "uint8": 1}


def rows(num_beams: int = 64) -> NDArray[np.float32]:
    """(N, 3, B) legal rows from flat to certain, the extremes included."""
    rng = rng_for(0, "codec rows", num_beams)
    drawn = [rng.dirichlet(np.full(num_beams, alpha), size=(20, 3)) for alpha in (0.01, 0.1, 1.0, 100.0)]
    uniform = np.full((1, 3, num_beams), 1 / num_beams)
    certain = np.broadcast_to(np.eye(num_beams)[0], (1, 3, num_beams))
    return np.concatenate([*drawn, uniform, certain]).astype(np.float32)


@pytest.fixture(params=sorted(CODECS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def codec(name: str) -> Codec:
    return CODECS[name]


@pytest.mark.parametrize("num_beams", [2, 64, 256])
def test_what_was_decoded_is_on_the_simplex(codec: Codec, num_beams: int) -> None:
    probs = codec.decode(codec.encode(rows(num_beams)), 3, num_beams)
    assert probs.dtype == np.float32
    assert probs.min() >= 0
    np.testing.assert_allclose(probs.sum(axis=-1, dtype=np.float64), 1.0, atol=SIMPLEX_TOLERANCE / 100)


def test_a_payload_takes_exactly_its_bytes_per_value(name: str, codec: Codec) -> None:
    assert codec.encode(rows()).nbytes == rows().size * BYTES_PER_VALUE[name]


def test_no_sample_travels_as_no_bytes(codec: Codec) -> None:
    payload = codec.encode(np.empty((0, 3, 64), np.float32))
    assert payload.nbytes == 0
    assert codec.decode(payload, 3, 64).shape == (0, 3, 64)


def test_an_encoded_row_is_the_same_in_any_batch(codec: Codec) -> None:
    np.testing.assert_array_equal(codec.encode(rows())[5:7], codec.encode(rows()[5:7]))


def test_inputs_are_not_modified(codec: Codec) -> None:
    probs = rows()
    payload = codec.encode(probs)
    before = payload.copy()
    codec.decode(payload, 3, 64)
    np.testing.assert_array_equal(probs, rows())
    np.testing.assert_array_equal(payload, before)


def test_certain_and_uniform_rows_come_back_as_they_were(codec: Codec) -> None:
    extremes = rows()[-2:]
    np.testing.assert_allclose(codec.decode(codec.encode(extremes), 3, 64), extremes, atol=1e-7)


def test_what_was_decoded_can_be_sent_on_without_loss(codec: Codec) -> None:
    once = codec.decode(codec.encode(rows()), 3, 64)
    twice = codec.decode(codec.encode(once), 3, 64)
    np.testing.assert_array_equal(twice.argmax(axis=-1), once.argmax(axis=-1))
    np.testing.assert_allclose(twice, once, atol=1 / 255)


def test_float32_comes_back_bit_by_bit() -> None:
    np.testing.assert_array_equal(CODECS["float32"].decode(CODECS["float32"].encode(rows()), 3, 64), rows())


@pytest.mark.parametrize("num_beams", [2, 64])
def test_float16_is_off_by_its_rounding_at_most(num_beams: int) -> None:
    codec = CODECS["float16"]
    error = np.abs(codec.decode(codec.encode(rows(num_beams)), 3, num_beams) - rows(num_beams))
    assert error.max() <= 2.0**-12 + 1e-6  # 1e-6 for the float32 arithmetic of scaling the rows


def test_uint8_is_off_by_half_a_level_of_the_root_at_most() -> None:
    probs = rows().astype(np.float64)
    error = np.abs((SquareRootCodec().encode(rows()).astype(np.float64) / 255) ** 2 - probs)
    assert np.all(error <= np.sqrt(probs) / 255 + 1 / 255**2 / 4 + 1e-7)


def test_uint8_on_a_hand_computed_row() -> None:
    # sqrt(0.64) = 0.8 -> 204, sqrt(0.36) = 0.6 -> 153, both without error.
    payload = SquareRootCodec().encode(np.array([[[0.64, 0.36]]], np.float32))
    np.testing.assert_array_equal(payload, [[[204, 153]]])
    np.testing.assert_allclose(SquareRootCodec().decode(payload, 1, 2), [[[0.64, 0.36]]], atol=1e-6)


def test_the_ranking_of_beams_survives_where_levels_differ(codec: Codec) -> None:
    row = np.array([[[0.5, 0.3, 0.15, 0.04, 0.01]]], np.float32)
    np.testing.assert_array_equal(np.argsort(-codec.decode(codec.encode(row), 1, 5)), [[[0, 1, 2, 3, 4]]])


@pytest.mark.parametrize("shape", [(3, 64), (2, 4, 64), (2, 3, 63), (2, 64, 3), (2, 3, 64, 1), (), (384,)])
def test_a_payload_of_another_shape_is_refused(codec: Codec, shape: tuple[int, ...]) -> None:
    payload = np.ones(shape, codec.encode(rows()).dtype)
    with pytest.raises(ValueError, match="expected"):
        codec.decode(payload, 3, 64)


@pytest.mark.parametrize("dtype", [np.float64, np.int8, np.int64, np.uint16, np.bool_, np.complex64, ">f4", "S4"])
def test_a_payload_of_another_dtype_is_refused(codec: Codec, dtype: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        codec.decode(np.zeros((2, 3, 64), dtype), 3, 64)


def test_a_row_of_zeros_is_refused(codec: Codec) -> None:
    payload = codec.encode(rows())
    payload[4, 1] = 0
    with pytest.raises(ValueError):
        codec.decode(payload, 3, 64)


@pytest.mark.parametrize("name", ["float32", "float16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -0.25])
def test_a_float_that_is_no_probability_is_refused(name: str, value: float) -> None:
    payload = CODECS[name].encode(rows())
    payload[4, 1, 7] = value
    with pytest.raises(ValueError, match="finite and >= 0"):
        CODECS[name].decode(payload, 3, 64)


@pytest.mark.parametrize("name", ["float32", "float16"])
def test_logits_that_happen_to_be_positive_are_refused(name: str) -> None:
    payload = CODECS[name].encode(np.full((2, 3, 64), 2.0, np.float32))
    with pytest.raises(ValueError, match="logits"):
        CODECS[name].decode(payload, 3, 64)


def test_the_table_names_every_codec_that_an_experiment_may_name() -> None:
    assert set(CODECS) == set(BYTES_PER_VALUE)
    assert isinstance(CODECS["float16"], FloatCodec)
