"""Exported graphs in onnxruntime, on one thread; numpy is all that is needed besides.

N windows, L frames of a window, H horizons, B beams, D features of a frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.models.live import Frames, State, Stepper
from clients.serving.beam_model import BeamModel, WindowStepper
from clients.serving.manifest import STREAM, STREAM_INT8, WINDOW, WINDOW_INT8, Manifest


class OnnxModel(BeamModel):
    """An exported model in onnxruntime, on one thread.

    Args:
        folder: its folder.
        manifest: what the folder says.
        precision: ``float32``, or ``int8`` where the model was exported with it.

    Raises:
        ValueError: onnxruntime is not installed, or there is no such graph.
    """

    def __init__(self, folder: Path, manifest: Manifest, precision: str = "float32") -> None:
        super().__init__(folder, manifest)
        self._kinds = (WINDOW, STREAM) if precision == "float32" else (WINDOW_INT8, STREAM_INT8)
        if self._kinds[0] not in manifest.files:
            raise ValueError(f"{folder}: has no graph in {precision}; export it with softbeam export ... --int8")

    @cached_property
    def window(self) -> Any:
        """The session for whole windows."""
        return self._session(self._kinds[0])

    @cached_property
    def stream(self) -> Any:
        """The session for streams; None if the model was exported without one."""
        return self._session(self._kinds[1]) if self._kinds[1] in self.manifest.files else None

    def logits(self, frames: Frames, present: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """(N, H, B) calibrated logits for whole windows, as `BeamModel.logits` says."""
        feed, counts = self.whole(frames, present)
        if self.manifest.tolerates_absence:
            feed["present"] = counts
        found: NDArray[np.float32] = self.window.run(["logits"], feed)[0]
        return found

    def stepper(self) -> Stepper:
        """The graph for streams or, where there is none, that for windows with the frames kept beside it."""
        return WindowStepper(self) if self.stream is None else OnnxStepper(self.stream, self.manifest)

    def _session(self, kind: str) -> Any:
        path = self.folder / self.manifest.files[kind]
        try:
            return session_of(str(path))
        except ImportError:
            raise ValueError(
                "onnxruntime is not installed, which reads graphs; install it with: pip install onnxruntime"
            ) from None
        except Exception as error:  # onnxruntime has a class of its own for each reason
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{path}: not a graph that onnxruntime reads ({reason}); export it again") from None


def session_of(graph: str | bytes) -> Any:
    """A graph in onnxruntime, on one thread.

    Args:
        graph: the path of its file, or what the file holds.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


class OnnxStepper:
    """A graph for streams as a model that takes one slot at a time.

    Args:
        session: the graph in onnxruntime.
        manifest: what the folder of the model says.
    """

    def __init__(self, session: Any, manifest: Manifest) -> None:
        self.modalities, self.num_frames = manifest.modalities, manifest.num_frames
        self.tolerates_absence = manifest.tolerates_absence
        self._session = session
        self._shapes = {one.name: tuple(one.shape[1:]) for one in session.get_inputs()}
        self._outputs = ["logits", *(f"next_{name}" for name in self.modalities)]

    def fresh_state(self) -> State:
        """Modality -> (L - 1, D) zeros."""
        return {name: np.zeros(self._shapes[f"state_{name}"], np.float32) for name in self.modalities}

    def step(self, frames: Frames, state: State, present: Mapping[str, bool]) -> tuple[NDArray[np.float32], State]:
        """(H, B) logits, and the state for the next slot."""
        feed = {name: np.asarray(frames[name])[None] for name in self.modalities}
        feed |= {f"state_{name}": state[name][None] for name in self.modalities}
        if self.tolerates_absence:
            feed["present"] = np.array([[present[name] for name in self.modalities]])
        logits, *following = self._session.run(self._outputs, feed)
        return logits[0], {name: value[0] for name, value in zip(self.modalities, following, strict=True)}
