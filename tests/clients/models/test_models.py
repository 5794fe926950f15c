"""The trackers of the registry: sizes as published, steps, streams and eight-bit copies."""

from __future__ import annotations

import io
import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clients.data.motion import packed_masks
from clients.data.radar_maps import unscaled_maps
from clients.models.blocks import (
    ChannelAttention,
    ColumnPool,
    GlobalPool,
    SelfAttention,
    SpatialAttention,
    TimeAttention,
)
from clients.models.complexity import count_macs, count_window_macs, macs_of
from clients.models.quantised import decode_int8, encode_int8
from clients.models.registry import MODELS, make_tracker
from clients.models.step_tracker import Alignment, StepTracker
from clients.models.streaming import LiveTracker, StreamingTracker, count_slot_macs
from clients.models.tracker import Windows, count_parameters
from configs.schema import Task, World
from configs.seeding import rng_for
from sim.data.generate import simulate_pass

TASK = Task(num_frames=8, num_future=3)
# Model -> parameters, and millions of multiply-accumulates of one step and of a window (T = L - 1 + J steps).
# Source: counts on the models of arXiv 2603.16116 (L = 8, J = 3) and arXiv 2509.11419 (L = 8, J = 6).
PUBLISHED = {
    "image-teacher": (1_762_458, 18.14, 181.4, 3),
    "image-student": (94_778, 9.43, 94.3, 3),
    "fusion-teacher": (2_947_740, 20.78, 207.8, 3),
    "fusion-student": (105_940, 3.98, 39.8, 3),
    "long-term-teacher": (1_788_280, 18.02, 234.3, 6),
    "long-term-student": (107_193, 9.45, 122.8, 6),
}
LIGHT = {"image-light": "image-student", "fusion-light": "fusion-student"}


@pytest.fixture(scope="module")
def drive() -> dict[str, Tensor]:
    """All frames of one pass on the street."""
    frames = simulate_pass(World(preset="s9"), seed=3, stream="models", index=0, modalities=("motion", "maps"))
    return {name: torch.from_numpy(np.asarray(values)) for name, values in frames.items()}


def tracker_of(name: str, *, task: Task = TASK, pixels: int = 224, alignment: Alignment = "paper") -> StepTracker:
    """A tracker in evaluation mode whose signals and statistics are as lively as those of one that has learned."""
    tracker = make_tracker(name, task, seed=1, pixels=pixels, alignment=alignment)
    draw = torch.Generator().manual_seed(0)
    for module in tracker.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=draw)
        if isinstance(module, nn.BatchNorm2d):
            for value, low, high in ((module.running_mean, -0.1, 0.1), (module.running_var, 0.5, 1.5)):
                assert value is not None
                value.copy_(low + (high - low) * torch.rand(value.shape, generator=draw))
    return tracker.eval()


def whole_pass(frames: dict[str, Tensor], task: Task) -> Windows:
    """Every window of a pass."""
    count = len(frames["motion"]) - task.num_frames + 1
    return Windows(dict(frames), torch.arange(count)[:, None] + torch.arange(task.num_frames))


# Sizes


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_published(name: str) -> None:
    tracker = make_tracker(name, TASK, seed=0)
    assert count_parameters(tracker) == PUBLISHED[name][0]


@pytest.mark.parametrize("name", PUBLISHED)
def test_operations_are_those_published_within_a_hundredth(name: str) -> None:
    _, step, window, future = PUBLISHED[name]
    tracker = make_tracker(name, Task(num_frames=8, num_future=future), seed=0)
    assert count_macs(tracker, num_steps=1) / 1e6 == pytest.approx(step, rel=0.01)
    assert count_macs(tracker) / 1e6 == pytest.approx(window, rel=0.01)


@pytest.mark.parametrize(("frames", "window"), [(8, 122.8), (5, 94.5), (3, 75.6)])
def test_a_shorter_input_costs_the_published_operations(frames: int, window: float) -> None:
    tracker = make_tracker("long-term-student", Task(num_frames=frames, num_future=6), seed=0)
    assert count_macs(tracker) / 1e6 == pytest.approx(window, rel=0.01)


def test_operations_of_layers_are_counted_as_by_hand() -> None:
    convolution = nn.Conv2d(2, 6, 3, stride=2, padding=1, groups=2)
    assert macs_of(convolution, lambda: convolution(torch.zeros(5, 2, 8, 8))) == 5 * 6 * 4 * 4 * 9
    gru = nn.GRU(10, 7, batch_first=True)
    assert macs_of(gru, lambda: gru(torch.zeros(1, 4, 10))) == 4 * 3 * 7 * (10 + 7)
    attention = SelfAttention(16, num_heads=2)
    # Four products with (16, 16), the scores and the weighted sums.
    assert macs_of(attention, lambda: attention(torch.zeros(1, 5, 16))) == 5 * 4 * 16 * 16 + 2 * 5 * 5 * 16


def test_counting_leaves_a_tracker_in_its_mode() -> None:
    tracker = make_tracker("image-light", TASK, seed=0)
    before = {name: value.clone() for name, value in tracker.state_dict().items()}
    count_macs(tracker)
    assert tracker.training
    assert all(torch.equal(value, before[name]) for name, value in tracker.state_dict().items())


@pytest.mark.parametrize(("light", "published"), LIGHT.items())
def test_a_light_student_takes_at_most_half_the_operations_and_no_more_parameters(light: str, published: str) -> None:
    ours, theirs = (make_tracker(name, TASK, seed=0) for name in (light, published))
    assert count_macs(ours) <= 0.5 * count_macs(theirs)
    assert count_parameters(ours) <= count_parameters(theirs)
    assert count_window_macs(ours) < count_macs(ours), "the empty frame is encoded more than once"


def test_the_same_seed_makes_the_same_tracker_and_another_another() -> None:
    first, again, other = (make_tracker("fusion-student", TASK, seed=seed).state_dict() for seed in (4, 4, 5))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(
    ("name", "task", "message"),
    [
        ("image-huge", TASK, "model: there is no 'image-huge'; choose one of image-teacher"),
        ("image-light", Task(num_frames=1), "task.num_frames: must be at least 2"),
    ],
)
def test_what_cannot_be_made_is_refused(name: str, task: Task, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_tracker(name, task, seed=0)


# Steps


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("length", [8, 3])
@pytest.mark.parametrize("pixels", [224, 112])
def test_a_tracker_answers_for_every_horizon_of_every_window(
    name: str, length: int, pixels: int, drive: dict[str, Tensor]
) -> None:
    task = Task(num_frames=length, num_future=6)
    tracker = tracker_of(name, task=task, pixels=pixels)
    windows = Windows(drive, torch.arange(5)[:, None] + torch.arange(length))
    with torch.no_grad():
        features = tracker.features(windows)
        logits = tracker.decide(features)
    assert features.shape == (5, tracker.num_features)
    assert logits.shape == (5, 7, 64)
    assert torch.isfinite(logits).all()
    assert logits.std(dim=0).max() > 0, "every window gets the same answer"


def test_our_own_models_are_aligned_to_the_newest_frame_unless_told_otherwise() -> None:
    assert make_tracker("fusion-light", TASK, seed=0).alignment == "newest"
    assert make_tracker("fusion-student", TASK, seed=0).alignment == "paper"
    assert make_tracker("fusion-light", TASK, seed=0, alignment="paper").alignment == "paper"


def steps_of(alignment: Alignment) -> Tensor:
    """(T, 2) what the steps of a window of four frames with two future slots hold, as frame numbers; 0 is nothing."""
    task = Task(num_frames=4, num_future=2)
    tracker = make_tracker("fusion-light", task, seed=0, alignment=alignment)
    number = {"motion": "motion", "maps": "maps"}
    tracker.encode = lambda name, frames: frames.flatten(1)[:, :1].float() if name in number else frames  # type: ignore[method-assign]
    tracker.fuse = nn.Identity()
    frames = {
        "motion": torch.arange(1, 5, dtype=torch.uint8)[:, None, None].expand(4, 224, 28),
        "maps": torch.arange(1, 5, dtype=torch.float16)[:, None, None, None].expand(4, 2, 128, 64),
    }
    return tracker.steps(Windows(frames, torch.arange(4)[None]))[0]


def test_as_published_the_newest_radar_map_comes_a_step_after_the_newest_mask() -> None:
    # Masks end at frames 2, 3, 4; then nothing. Column 0 is the mask, column 1 the map.
    assert steps_of("paper").tolist() == [[2, 1], [3, 2], [4, 3], [0, 4], [0, 0]]


def test_aligned_to_the_newest_mask_and_map_end_at_the_same_frame() -> None:
    assert steps_of("newest").tolist() == [[2, 2], [3, 3], [4, 4], [0, 0], [0, 0]]


@pytest.mark.parametrize("alignment", ["paper", "newest"])
def test_only_aligned_does_a_causal_tracker_answer_for_now_from_the_newest_radar_map(
    alignment: Alignment, drive: dict[str, Tensor]
) -> None:
    tracker = tracker_of("fusion-student", alignment=alignment)
    windows = Windows(drive, torch.arange(8)[None])
    blind = Windows({**drive, "maps": drive["maps"].clone()}, windows.rows)
    blind.frames["maps"][7] = 0
    with torch.no_grad():
        seen, unseen = tracker(windows)[0], tracker(blind)[0]
    assert torch.equal(seen[0], unseen[0]) == (alignment == "paper")
    assert not torch.equal(seen[1], unseen[1])


def test_windows_that_share_frames_get_the_answers_of_windows_alone(drive: dict[str, Tensor]) -> None:
    tracker = tracker_of("fusion-student")
    together = Windows(drive, torch.arange(6)[:, None] + torch.arange(8))
    with torch.no_grad():
        alone = torch.cat([tracker(Windows(drive, rows[None])) for rows in together.rows])
        torch.testing.assert_close(tracker(together), alone, atol=1e-5, rtol=1e-5)


# Streams


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("alignment", ["paper", "newest"])
def test_a_stream_gives_the_answers_of_whole_windows_over_a_whole_pass(
    name: str, alignment: Alignment, drive: dict[str, Tensor]
) -> None:
    tracker = tracker_of(name, alignment=alignment)
    with torch.no_grad():
        expected = tracker(whole_pass(drive, TASK))
    stream = StreamingTracker(tracker)
    for _ in range(2):  # the second pass knows nothing of the first
        answers = [
            stream.push({key: values[slot].numpy() for key, values in drive.items()})
            for slot in range(len(drive["motion"]))
        ]
        assert [answer is None for answer in answers] == [slot < 7 for slot in range(len(answers))]
        found = torch.stack([answer for answer in answers if answer is not None])
        assert expected.std(dim=0).max() > 0.1
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
        stream.reset()


@pytest.mark.parametrize(("name", "limit"), [("fusion-student", 5e6), ("fusion-light", 2.5e6), ("image-light", 3e6)])
def test_a_slot_of_a_stream_costs_little(name: str, limit: float) -> None:
    tracker = make_tracker(name, TASK, seed=0)
    assert count_slot_macs(tracker) <= limit < count_window_macs(tracker)


def test_pictures_and_cubes_give_the_answers_of_their_masks_and_maps() -> None:
    rng = rng_for(0, "live")
    pictures = rng.integers(0, 255, (9, 224, 224, 3), np.uint8)
    cubes = (rng.standard_normal((9, 4, 256, 128, 2)) @ [1.0, 1.0j]).astype(np.complex64)
    tracker = tracker_of("fusion-light")
    frames = {
        "motion": torch.from_numpy(packed_masks(pictures)),
        "maps": torch.from_numpy(np.stack([unscaled_maps(cube) for cube in cubes])),
    }
    with torch.no_grad():
        expected = tracker(whole_pass(frames, TASK))
    live = LiveTracker(tracker)
    answers = [live.push(picture=picture, cube=cube) for picture, cube in zip(pictures, cubes, strict=True)]
    found = torch.stack([answer for answer in answers if answer is not None])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_a_stream_without_one_of_its_sensors_says_which(drive: dict[str, Tensor]) -> None:
    stream = StreamingTracker(make_tracker("fusion-light", TASK, seed=0))
    with pytest.raises(ValueError, match="no frame of maps"):
        stream.push({"motion": drive["motion"][0].numpy()})


def test_a_frame_that_is_refused_does_not_count(drive: dict[str, Tensor]) -> None:
    tracker = tracker_of("fusion-light")
    with torch.no_grad():
        expected = tracker(Windows(drive, torch.arange(8)[None]))[0]
    stream = StreamingTracker(tracker)
    for slot in range(8):
        good = {name: values[slot].numpy() for name, values in drive.items()}
        with pytest.raises(ValueError, match="a frame of maps has shape"):
            stream.push({**good, "maps": good["maps"][:1]})
        answer = stream.push(good)
    assert answer is not None
    torch.testing.assert_close(answer, expected, atol=1e-4, rtol=0)


def test_a_cube_that_is_refused_leaves_the_picture_before_it_as_it_was() -> None:
    rng = rng_for(0, "refused")
    pictures = rng.integers(0, 255, (8, 56, 56, 3), np.uint8)
    cubes = (rng.standard_normal((8, 4, 256, 128, 2)) @ [1.0, 1.0j]).astype(np.complex64)
    answers = []
    for is_bad in (False, True):
        live = LiveTracker(tracker_of("fusion-light"))
        for picture, cube in zip(pictures, cubes, strict=True):
            if is_bad:
                with pytest.raises(ValueError, match="a radar cube"):
                    live.push(picture=picture[::-1].copy(), cube=np.zeros((4, 256, 7), np.complex64))
            answer = live.push(picture=picture, cube=cube)
        answers.append(answer)
    assert answers[0] is not None
    assert answers[1] is not None
    assert torch.equal(answers[0], answers[1])


# Eight bits


@pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name].role == "student"])
def test_eight_bits_are_a_quarter_of_the_bytes_and_nearly_the_same_answers(name: str, drive: dict[str, Tensor]) -> None:
    tracker = tracker_of(name)
    data = encode_int8(tracker, name)
    assert len(data) < 0.27 * 4 * count_parameters(tracker)
    assert len(data) <= 110_000 or name == "long-term-student"
    with torch.no_grad():
        expected = tracker(whole_pass(drive, TASK))
        found = decode_int8(data)(whole_pass(drive, TASK))
    error = (found - expected).square().mean().sqrt() / expected.std()
    assert 0 < error < 0.05
    assert encode_int8(tracker, name) == data


def test_each_weight_is_off_by_half_a_step_at_most() -> None:
    tracker = tracker_of("image-light")
    decoded = decode_int8(encode_int8(tracker, "image-light"))
    weight, found = tracker.memory.gru.weight_ih_l0, decoded.memory.gru.weight_ih_l0
    step = weight.abs().amax(dim=1, keepdim=True) / 127
    # The scale itself is rounded to 11 bits, which moves the largest integers by a sixteenth of a step.
    assert ((weight - found).abs() <= 0.57 * step).all()


def test_a_tracker_keeps_its_task_and_alignment_in_eight_bits() -> None:
    tracker = tracker_of("fusion-light", task=Task(num_frames=5, num_future=6), pixels=112, alignment="newest")
    decoded = decode_int8(encode_int8(tracker, "fusion-light"))
    assert (decoded.task, decoded.pixels, decoded.alignment) == (tracker.task, 112, "newest")


@pytest.mark.parametrize("damage", ["cut", "text", "other"])
def test_a_broken_file_of_eight_bits_is_refused(damage: str) -> None:
    data = encode_int8(tracker_of("radar-light"), "radar-light")
    broken = {"cut": data[: len(data) // 2], "text": b"hello", "other": data.replace(b"about", b"abaft")}[damage]
    with pytest.raises(ValueError, match="not a tracker of eight bits"):
        decode_int8(broken)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("floats", lambda values: values[:-7]),
        ("floats", lambda values: np.full_like(values, np.nan)),
        ("rows", lambda values: values[:-64]),
        ("rows", lambda values: values.reshape(2, -1)),
        ("rows", lambda values: values.astype(np.float32)),
        ("alignment", "sideways"),
        ("alignment", None),
        ("pixels", 0),
        ("model", "radar-huge"),
        ("format", 9),
    ],
)
def test_a_file_of_eight_bits_that_was_tampered_with_is_refused(key: str, value: Any) -> None:
    with np.load(io.BytesIO(encode_int8(tracker_of("radar-light"), "radar-light"))) as file:
        parts = dict(file)
    if key in parts:
        parts[key] = value(parts[key])
    else:
        about = {**json.loads(parts["about"].tobytes()), key: value}
        parts["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    changed = io.BytesIO()
    np.savez_compressed(changed, **parts)
    with pytest.raises(ValueError, match="not a tracker of eight bits"):
        decode_int8(changed.getvalue())


# Blocks


def test_attention_over_time_adds_the_same_context_to_every_step() -> None:
    states = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    added = TimeAttention(8, 4)(states) - states
    torch.testing.assert_close(added, added[:, :1].expand_as(added))
    low, high = states.min(dim=1).values, states.max(dim=1).values
    assert (added[:, 0] >= low - 1e-6).all(), "a weighted mean lies between the smallest and the largest"
    assert (added[:, 0] <= high + 1e-6).all()


def test_gates_shrink_and_never_turn_the_sign() -> None:
    maps = torch.randn(3, 4, 9, 9, generator=torch.Generator().manual_seed(1))
    for gate in (ChannelAttention(4), SpatialAttention(4)):
        ratio = gate(maps) / maps
        assert (ratio > 0).all()
        assert (ratio < 1).all()


def test_pools_keep_what_they_say() -> None:
    maps = torch.tensor([[[[1.0, 2.0], [3.0, 8.0]]]])
    assert GlobalPool(with_mean=True)(maps).tolist() == [[3.5, 8.0]]
    assert GlobalPool(with_mean=False)(maps).tolist() == [[8.0]]
    assert ColumnPool()(maps).tolist() == [[2.0, 5.0, 3.0, 8.0]]


def test_each_model_of_the_registry_senses_what_its_card_says() -> None:
    for name, card in MODELS.items():
        assert make_tracker(name, TASK, seed=0).modalities == card.modalities
    assert len({card.description for card in MODELS.values()}) == len(MODELS)
    assert all(first != second for first, second in pairwise(MODELS))
