"""Graphs that are written node by node say what torch says, for every sensor, in whole windows and in streams."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from clients.data.modalities import MODALITIES
from clients.models.decider import Decider
from clients.models.own import OwnTracker
from clients.models.tracker import BeamTracker, Windows
from clients.serving.onnx_model import session_of
from configs.models import Model
from configs.schema import Task
from sim.take_home.onnx_graph import OPSET, Graph
from sim.take_home.onnx_layers import encode
from sim.take_home.onnx_trackers import stream_graph, window_graph

TASK = Task(num_frames=4, num_future=2, num_beams=8)
COUNT = 3
Arrays = dict[str, NDArray[Any]]


def frames_of(modality: str, length: int) -> NDArray[Any]:
    """(N, L, *frame_shape) legal frames, with what is rare among them: rays without a return, frames without a box."""
    rng, row = np.random.default_rng(5), MODALITIES[modality]
    shape = (COUNT, length, *row.frame_shape)
    if np.issubdtype(row.dtype, np.integer):
        return rng.integers(0, 256, shape).astype(row.dtype)
    frames = 9.0 * rng.random(shape)
    if modality == "lidar":
        frames[frames < 2.0] = 0.0
    if modality == "box":
        frames /= 9.0
        frames[0, 1] = np.nan
    if modality == "gps":
        frames[1, 2 % length] = 0.0
    return frames.astype(row.dtype)


def tracker_of(modalities: tuple[str, ...], task: Task = TASK, *, seed: int = 1) -> BeamTracker:
    """A tracker whose scales, gains and hidden vectors are not those of the beginning."""
    torch.manual_seed(seed)
    tracker = BeamTracker(modalities, Model(width=2, features=5, hidden=6), task)
    with torch.no_grad():
        for parameter in tracker.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for encoder in tracker.encoders.values():
            encoder.standardise.mean.normal_()  # type: ignore[operator, union-attr]
            encoder.standardise.scale.uniform_(0.5, 3.0)  # type: ignore[operator, union-attr]
    return tracker


def expected(decider: Decider, frames: Arrays, present: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    length = decider.task.num_frames
    rows = torch.arange(COUNT * length).view(COUNT, length)
    flat = {name: torch.from_numpy(values.reshape(-1, *values.shape[2:])) for name, values in frames.items()}
    with torch.no_grad():
        found: NDArray[np.float32] = decider(
            Windows(flat, rows), None if present is None else torch.from_numpy(present)
        ).numpy()
    return found


def streamed(session: Any, decider: Decider, frames: Arrays, more: Arrays) -> list[NDArray[np.float32]]:
    """What a stream graph says at the last slot of each window."""
    shapes = {one.name: one.shape for one in session.get_inputs()}
    state = {
        f"state_{name}": np.zeros((COUNT, *shapes[f"state_{name}"][1:]), np.float32) for name in decider.modalities
    }
    for slot in range(decider.task.num_frames):
        logits, probs, *following = session.run(
            None, {**{name: values[:, slot] for name, values in frames.items()}, **state, **more}
        )
        state = dict(zip(state, following, strict=True))
    return [logits, probs]


def check(decider: Decider, present: NDArray[np.bool_] | None = None) -> None:
    frames = {name: frames_of(name, decider.task.num_frames) for name in decider.modalities}
    wanted = expected(decider, frames, present)
    probs = np.exp(wanted) / np.exp(wanted).sum(axis=-1, keepdims=True)
    more: Arrays = {} if present is None else {"present": present}
    whole = session_of(window_graph(decider, {}).SerializeToString()).run(["logits", "probs"], {**frames, **more})
    for found in (whole, streamed(session_of(stream_graph(decider, {}).SerializeToString()), decider, frames, more)):
        np.testing.assert_allclose(found[0], wanted, atol=1e-4)
        np.testing.assert_allclose(found[1], probs, atol=1e-5)


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_student_of_every_sensor_says_the_same_in_windows_and_in_streams(modality: str) -> None:
    check(Decider([tracker_of((modality,))], temperatures=[1.5], shares=[1.0]))


@pytest.mark.parametrize("length", [1, 2, 8])
def test_windows_may_have_any_length(length: int) -> None:
    task = Task(num_frames=length, num_future=0, num_beams=8)
    check(Decider([tracker_of(("gps",), task)], temperatures=[1.0], shares=[1.0]))


def test_a_teacher_answers_without_the_sensors_that_do_not_count() -> None:
    present = np.array([[True, True, True], [False, True, False], [True, False, True]])
    check(Decider([tracker_of(("camera", "lidar", "gps"))], temperatures=[0.7], shares=[1.0]), present)


def test_a_mixture_has_one_graph_with_both_trackers_in_it() -> None:
    members = [tracker_of(("lidar",), seed=1), tracker_of(("lidar",), seed=2)]
    decider = Decider(members, temperatures=[1.5, 0.8], shares=[0.3, 0.7])
    check(decider)
    states = {one.name: one.shape for one in session_of(stream_graph(decider, {}).SerializeToString()).get_inputs()}
    assert states["state_lidar"] == ["N", 3, 10]


def test_a_graph_states_its_opset_and_carries_its_notes() -> None:
    decider = Decider([tracker_of(("gps",))], temperatures=[1.0], shares=[1.0])
    model = window_graph(decider, {"softbeam": "from here"})
    assert [(one.domain, one.version) for one in model.opset_import] == [("", OPSET)]
    assert {one.key: one.value for one in model.metadata_props} == {"softbeam": "from here"}
    assert "GRU" not in {node.op_type for node in model.graph.node}


def test_a_model_of_a_users_own_and_an_unknown_encoder_are_not_written_node_by_node() -> None:
    own = OwnTracker(torch.nn.Identity(), ("gps",), TASK)
    with pytest.raises(ValueError, match="OwnTracker: only trackers of the federation"):
        window_graph(Decider([own], temperatures=[1.0], shares=[1.0]), {})

    class Other(type(tracker_of(("gps",)).encoders["gps"])):  # type: ignore[misc]
        """An encoder that nobody wrote down here."""

    strange = Other.build(MODALITIES["gps"], width=1, num_features=2)
    with pytest.raises(ValueError, match="Other cannot be exported to ONNX; choose --format torch"):
        encode(Graph(), "gps", strange, "gps")
