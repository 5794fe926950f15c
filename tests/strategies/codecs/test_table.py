"""The laws of every codec, what each refuses, and its answers on rows computed by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from configs.seeding import rng_for
from strategies.codecs.encoding import Encoding
from strategies.codecs.table import CODECS, Codec, find_codec
from strategies.labels import SIMPLEX_TOLERANCE, SoftLabels

# Bytes of a sample of 3 horizons and 64 beams.
BYTES = {
    "float32": 768,
    "float16": 384,
    "uint8": 192,
    "uint4": 96,
    "top8": 3 * 8 * 3,
    "top8-uint4": 33,  # 3 (8 + 8 (4 + 6)) bits
    "argmax": 3,  # 18 bits
    "top1": 9,
    "top64": 3 * 64 * 3,
    "top1-uint4": 7,  # 3 (8 + 10) bits
    "top64-uint4": 3 * (8 + 640) // 8,
}
DENSE = ("float32", "float16", "uint8", "uint4")


def rows(num_beams: int = 64) -> NDArray[np.float32]:
    """(N, 3, B) legal rows from flat to certain, the extremes included."""
    rng = rng_for(0, "codec rows", num_beams)
    drawn = [rng.dirichlet(np.full(num_beams, alpha), size=(20, 3)) for alpha in (0.01, 0.1, 1.0, 100.0)]
    uniform = np.full((1, 3, num_beams), 1 / num_beams)
    certain = np.broadcast_to(np.eye(num_beams)[0], (1, 3, num_beams))
    return np.concatenate([*drawn, uniform, certain]).astype(np.float32)


@pytest.fixture(params=sorted(BYTES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def codec(name: str) -> Codec:
    return find_codec(name, 64)


def test_every_codec_of_the_table_is_held_to_the_laws() -> None:
    assert set(CODECS) <= set(BYTES)
    for name, codec in CODECS.items():
        assert find_codec(name, 64) == codec


@pytest.mark.parametrize("num_beams", [2, 3, 8, 32, 64, 100, 256, 257, 1024])
@pytest.mark.parametrize("spec", [*CODECS, "top1", "top2", "top2-uint4"])
def test_what_was_decoded_is_on_the_simplex(spec: str, num_beams: int) -> None:
    codec = find_codec(spec, num_beams)
    probs = codec.decode(codec.encode(rows(num_beams)), 3, num_beams)
    assert probs.dtype == np.float32
    assert probs.min() >= 0
    np.testing.assert_allclose(probs.sum(axis=-1, dtype=np.float64), 1.0, atol=SIMPLEX_TOLERANCE / 100)


@pytest.mark.parametrize("num_beams", [2, 8, 32, 64, 100, 1024])
@pytest.mark.parametrize("spec", [*CODECS, "top1", "top2-uint4"])
def test_any_beam_of_any_number_arrives_as_the_likeliest(spec: str, num_beams: int) -> None:
    probs = np.full((num_beams, 1, num_beams), 0.1 / (num_beams - 1), np.float32)
    probs[np.arange(num_beams), 0, np.arange(num_beams)] = 0.9
    codec = find_codec(spec, num_beams)
    received = codec.decode(codec.encode(probs), 1, num_beams)
    np.testing.assert_array_equal(received[:, 0].argmax(axis=1), np.arange(num_beams))


@pytest.mark.parametrize("num_beams", [2, 8, 32, 64, 100, 1024])
@pytest.mark.parametrize("layer", ["zlib", "delta"])
@pytest.mark.parametrize("spec", CODECS)
def test_any_number_of_beams_is_packed_and_unpacked(spec: str, layer: str, num_beams: int) -> None:
    encoding = Encoding(f"{spec}+{layer}", 3, num_beams)
    first, second = (
        encoding.encode(SoftLabels(np.arange(len(probs)), probs, 1.0), number)
        for number, probs in enumerate((rows(num_beams), rows(num_beams)[::-1].copy()))
    )
    for reference in (None, first):
        packed = encoding.pack(second, reference=reference)
        np.testing.assert_array_equal(encoding.unpack(packed, reference=reference).payload, second.payload)


def test_a_name_of_the_table_keeps_every_beam_where_there_are_fewer() -> None:
    assert find_codec("top8", 5) == find_codec("top5", 5)
    assert find_codec("top8-uint4", 5) == find_codec("top5-uint4", 5)
    with pytest.raises(ValueError, match="up to K = 5"):
        find_codec("top6", 5)


@pytest.mark.parametrize(("num_beams", "size"), [(256, 8 * 3), (257, 8 * 4), (1024, 8 * 4)])
def test_a_kept_beam_takes_a_second_byte_from_257_beams_on(num_beams: int, size: int) -> None:
    assert CODECS["top8"].encode(rows(num_beams)[:1, :1]).nbytes == size


def test_a_sample_takes_exactly_its_bytes(name: str, codec: Codec) -> None:
    payload = codec.encode(rows())
    assert len(payload) == len(rows())
    assert payload.nbytes == len(rows()) * BYTES[name]


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


def test_certain_rows_come_back_as_they_were(codec: Codec) -> None:
    certain = rows()[-1:]
    np.testing.assert_allclose(codec.decode(codec.encode(certain), 3, 64), certain, atol=1e-7)


def test_uniform_rows_come_back_nearly_as_they_were_unless_one_beam_is_all_that_travels(name: str) -> None:
    if name == "argmax":
        return
    uniform = rows()[-2:-1]
    codec = find_codec(name, 64)
    np.testing.assert_allclose(codec.decode(codec.encode(uniform), 3, 64), uniform, atol=1e-3)


def test_the_most_likely_beam_stays_so_where_it_stands_out(codec: Codec) -> None:
    ranked = np.sort(rows(), axis=-1)
    stands_out = ranked[..., -1] > 1.3 * ranked[..., -2]
    decoded = codec.decode(codec.encode(rows()), 3, 64)
    assert stands_out.sum() > 50
    np.testing.assert_array_equal(decoded.argmax(axis=-1)[stands_out], rows().argmax(axis=-1)[stands_out])


def test_what_was_decoded_can_be_sent_on(codec: Codec) -> None:
    once = codec.decode(codec.encode(rows()), 3, 64)
    twice = codec.decode(codec.encode(once), 3, 64)
    np.testing.assert_allclose(twice, once, atol=0.02)


def test_random_bytes_are_refused_or_become_distributions(codec: Codec) -> None:
    payload = codec.encode(rows())
    rng = rng_for(0, "random bytes")
    for _ in range(200):
        noise = rng.integers(0, 256, payload[:1].nbytes, dtype=np.uint8).view(payload.dtype)
        try:
            probs = codec.decode(noise.reshape(payload[:1].shape), 3, 64)
        except ValueError:
            continue
        SoftLabels(np.array([0]), probs, 1.0)


@pytest.mark.parametrize("shape", [(), (7,), (2, 2), (2, 3, 63), (2, 64, 3), (2, 3, 64, 1)])
def test_a_payload_of_another_shape_is_refused(codec: Codec, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        codec.decode(np.ones(shape, codec.encode(rows()).dtype), 3, 64)


@pytest.mark.parametrize("dtype", [np.float64, np.int8, np.int64, np.uint16, np.bool_, np.complex64, ">f4", "S4"])
def test_a_payload_of_another_dtype_is_refused(codec: Codec, dtype: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        codec.decode(np.zeros(codec.encode(rows()).shape, dtype), 3, 64)


# Worst errors.


def test_float32_comes_back_bit_by_bit() -> None:
    np.testing.assert_array_equal(CODECS["float32"].decode(CODECS["float32"].encode(rows()), 3, 64), rows())


@pytest.mark.parametrize("num_beams", [2, 64])
def test_float16_is_off_by_its_rounding_at_most(num_beams: int) -> None:
    codec = CODECS["float16"]
    error = np.abs(codec.decode(codec.encode(rows(num_beams)), 3, num_beams) - rows(num_beams))
    assert error.max() <= 2.0**-12 + 1e-6  # 1e-6 for the float32 arithmetic of scaling the rows


def test_uint8_is_off_by_half_a_level_of_the_root_at_most() -> None:
    probs = rows().astype(np.float64)
    error = np.abs((CODECS["uint8"].encode(rows()).astype(np.float64) / 255) ** 2 - probs)
    assert np.all(error <= np.sqrt(probs) / 255 + 1 / 255**2 / 4 + 1e-7)


def test_uint4_is_off_by_half_a_level_of_the_relative_root_at_most() -> None:
    decoded = CODECS["uint4"].decode(CODECS["uint4"].encode(rows()), 3, 64)
    sent, found = (np.sqrt(one / one.max(axis=-1, keepdims=True)) for one in (rows(), decoded))
    assert np.abs(sent - found).max() <= 1 / 30 + 1e-6


@pytest.mark.parametrize("count", [1, 8, 64])
def test_kept_beams_are_off_by_their_rounding_and_the_others_are_even(count: int) -> None:
    codec = find_codec(f"top{count}", 64)
    decoded = codec.decode(codec.encode(rows()), 3, 64)
    order = np.argsort(-rows(), axis=-1, kind="stable")
    sent, found = (np.take_along_axis(one, order, axis=-1) for one in (rows(), decoded))
    assert np.abs(sent - found)[..., :count].max() <= 2.0**-12 + 1e-6
    assert count == 64 or np.ptp(found[..., count:], axis=-1).max() <= 1e-7


@pytest.mark.parametrize("count", [1, 8, 64])
def test_kept_beams_of_top_four_bit_are_off_by_half_a_level_of_the_relative_root_at_most(count: int) -> None:
    codec = find_codec(f"top{count}-uint4", 64)
    decoded = codec.decode(codec.encode(rows()), 3, 64)
    order = np.argsort(-rows(), axis=-1, kind="stable")[..., :count]
    sent, found = (np.take_along_axis(one, order, axis=-1) for one in (rows(), decoded))
    # The largest of a row is the scale of its others, and what is kept of it in all is known to a byte.
    relative = [np.sqrt(one / one[..., :1]) for one in (sent, found)]
    assert np.abs(relative[0] - relative[1]).max() <= 1 / 30 + 1e-5
    others = [np.sqrt(np.maximum(1 - one.sum(axis=-1, dtype=np.float64), 0)) for one in (sent, found)]
    assert np.abs(others[0] - others[1]).max() <= 1 / 510 + 1e-3


def test_the_rest_of_top_four_bit_is_off_by_half_a_level_of_the_root_at_most() -> None:
    codec = find_codec("top8-uint4", 64)
    decoded = codec.decode(codec.encode(rows()), 3, 64)
    order = np.argsort(-rows(), axis=-1, kind="stable")[..., 8:]
    sent, found = (np.sqrt(np.take_along_axis(one, order, axis=-1).sum(axis=-1)) for one in (rows(), decoded))
    assert np.abs(sent - found).max() <= 1 / 510 + 1e-4


def test_argmax_is_off_by_all_but_the_largest() -> None:
    codec = CODECS["argmax"]
    decoded = codec.decode(codec.encode(rows()), 3, 64)
    assert np.abs(decoded - rows()).max() <= 1 - 1 / 64 + 1e-6
    np.testing.assert_array_equal(decoded.argmax(axis=-1), rows().argmax(axis=-1))


# By hand.


def test_uint8_on_a_hand_computed_row() -> None:
    # sqrt(0.64) = 0.8 -> 204, sqrt(0.36) = 0.6 -> 153, both without error.
    payload = CODECS["uint8"].encode(np.array([[[0.64, 0.36]]], np.float32))
    np.testing.assert_array_equal(payload, [[[204, 153]]])
    np.testing.assert_allclose(CODECS["uint8"].decode(payload, 1, 2), [[[0.64, 0.36]]], atol=1e-6)


def test_uint4_on_a_hand_computed_row() -> None:
    # 0.45 is the largest: 15. sqrt(0.2 / 0.45) = 2/3 -> 10; sqrt(0.05 / 0.45) = 1/3 -> 5; 0.3 -> 12.25 -> 12.
    payload = CODECS["uint4"].encode(np.array([[[0.45, 0.2, 0.05, 0.3]]], np.float32))
    np.testing.assert_array_equal(payload, [[0xFA, 0x5C]])
    total = 225 + 100 + 25 + 144
    expected = np.array([[[225, 100, 25, 144]]]) / total
    np.testing.assert_allclose(CODECS["uint4"].decode(payload, 1, 4), expected, atol=1e-6)


def test_top2_on_a_hand_computed_row() -> None:
    codec = find_codec("top2", 4)
    payload = codec.encode(np.array([[[0.125, 0.5, 0.125, 0.25]]], np.float32))
    # float16: 0.5 = 0x3800, 0.25 = 0x3400, little-endian; then the beams.
    np.testing.assert_array_equal(payload, [[[0x00, 0x38, 0x00, 0x34, 1, 3]]])
    np.testing.assert_allclose(codec.decode(payload, 1, 4), [[[0.125, 0.5, 0.125, 0.25]]])


def test_top2_at_four_bits_on_a_hand_computed_row() -> None:
    codec = find_codec("top2-uint4", 4)
    payload = codec.encode(np.array([[[0.02, 0.72, 0.02, 0.24]]], np.float32))
    # rest 0.04: 255 * 0.2 = 51 = 0x33; levels 15 and 15 / sqrt(3) = 8.66 -> 9; beams 1 and 3 in two bits: 0111 -> 0x70.
    np.testing.assert_array_equal(payload, [[0x33, 0xF9, 0x70]])
    kept = 0.96 / (225 + 81)
    np.testing.assert_allclose(codec.decode(payload, 1, 4), [[[0.02, 225 * kept, 0.02, 81 * kept]]], atol=1e-6)


def test_argmax_on_a_hand_computed_row() -> None:
    probs = np.zeros((1, 3, 64), np.float32)
    probs[0, [0, 1, 2], [5, 63, 32]] = 1.0
    # 000101 111111 100000, then padding.
    np.testing.assert_array_equal(CODECS["argmax"].encode(probs), [[0b00010111, 0b11111000, 0b00000000]])


# Refusals.


@pytest.mark.parametrize("spec", ["float32", "float16", "uint8"])
def test_a_row_of_zeros_is_refused(spec: str) -> None:
    payload = CODECS[spec].encode(rows())
    payload[4, 1] = 0
    with pytest.raises(ValueError):
        CODECS[spec].decode(payload, 3, 64)


@pytest.mark.parametrize("spec", ["float32", "float16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -0.25])
def test_a_float_that_is_no_probability_is_refused(spec: str, value: float) -> None:
    payload = CODECS[spec].encode(rows())
    payload[4, 1, 7] = value
    with pytest.raises(ValueError, match="finite and >= 0"):
        CODECS[spec].decode(payload, 3, 64)


@pytest.mark.parametrize("spec", ["float32", "float16"])
def test_logits_that_happen_to_be_positive_are_refused(spec: str) -> None:
    payload = CODECS[spec].encode(np.full((2, 3, 64), 2.0, np.float32))
    with pytest.raises(ValueError, match="logits"):
        CODECS[spec].decode(payload, 3, 64)


def _top2(*values: float, beams: tuple[int, int]) -> NDArray[np.uint8]:
    halves = np.array(values, "<f2").view(np.uint8)
    return np.concatenate([halves, np.array(beams, np.uint8)])[None, None]


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (_top2(0.5, 0.25, beams=(1, 1)), "twice"),
        (_top2(0.5, 0.25, beams=(1, 4)), "below 4"),
        (_top2(0.75, 0.5, beams=(1, 2)), "more than one"),
        (_top2(np.nan, 0.25, beams=(1, 2)), "finite"),
        (_top2(0.5, -0.25, beams=(1, 2)), "finite and >= 0"),
    ],
)
def test_kept_beams_that_no_row_has_are_refused(payload: NDArray[np.uint8], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        find_codec("top2", 4).decode(payload, 1, 4)


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ([0x33, 0xE9, 0x70], "start at the highest"),
        ([0x33, 0xFF, 0x50], "twice"),
        ([0x33, 0xF9, 0x71], "padding"),
    ],
)
def test_four_bit_rows_that_no_encoder_makes_are_refused(payload: list[int], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        find_codec("top2-uint4", 4).decode(np.array([payload], np.uint8), 1, 4)


def test_a_four_bit_row_without_a_largest_value_is_refused() -> None:
    with pytest.raises(ValueError, match="highest level"):
        CODECS["uint4"].decode(np.zeros((1, 2), np.uint8), 1, 4)


def test_padding_and_beams_that_do_not_exist_are_refused_in_argmax() -> None:
    with pytest.raises(ValueError, match="padding"):
        CODECS["argmax"].decode(np.array([[0, 0, 1]], np.uint8), 3, 64)
    with pytest.raises(ValueError, match="below 3"):
        CODECS["argmax"].decode(np.array([[0b11000000]], np.uint8), 1, 3)


@pytest.mark.parametrize(
    "spec",
    ["", "float8", "top0", "top65", "top08", "top8-uint5", "uint4+", "uint4+lzma", "uint4+zlib+delta", "+zlib", "TOP8"],
)
def test_a_codec_that_does_not_exist_is_refused_by_its_name(spec: str) -> None:
    with pytest.raises(ValueError, match="unknown codec"):
        find_codec(spec, 64)


@pytest.mark.parametrize("spec", ["uint4+zlib", "top8-uint4+delta", "top64"])
def test_suffixes_and_any_number_of_beams_are_found(spec: str) -> None:
    assert find_codec(spec, 64) == find_codec(spec.partition("+")[0], 64)


@pytest.mark.parametrize("decimals", [8, 2])
@pytest.mark.parametrize("count", [1, 5, 64])
def test_the_kept_beams_are_those_that_sorting_all_of_them_finds(count: int, decimals: int) -> None:
    probs = np.round(rng_for(0, "kept", decimals).dirichlet(np.full(64, 0.3), (40, 2)), decimals).astype(np.float32)
    probs[3, 0, :30] = np.nan
    packed = find_codec(f"top{count}", 64).encode(probs)
    wanted = np.argsort(-probs, axis=-1, kind="stable")[..., :count]
    np.testing.assert_array_equal(packed[..., 2 * count :], wanted)
