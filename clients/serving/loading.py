"""Reads an exported model back: graphs into onnxruntime, weights into torch."""

from __future__ import annotations

from pathlib import Path

from clients.serving.beam_model import BeamModel
from clients.serving.manifest import WEIGHTS, read_manifest
from clients.serving.model_store import ModelStore, is_store
from clients.serving.onnx_model import OnnxModel


def load_model(folder: Path, *, precision: str = "float32") -> BeamModel:
    """The exported model in a folder: graphs in onnxruntime, weights in torch.

    Args:
        folder: a folder that ``softbeam export`` wrote, or a store, of which the current version is taken.
        precision: ``float32`` or ``int8``.

    Raises:
        ValueError: the folder holds no exported model, or what it needs is not installed.
    """
    if precision not in ("float32", "int8"):
        raise ValueError(f"precision {precision}: expected float32 or int8")
    if is_store(folder):
        folder = ModelStore(folder).current()
    manifest = read_manifest(folder)
    if WEIGHTS not in manifest.files:
        return OnnxModel(folder, manifest, precision)
    if precision == "int8":
        raise ValueError(f"{folder}: holds weights, and eight bits are for graphs; export it with --format onnx --int8")
    try:
        from clients.serving.torch_model import TorchModel
    except ImportError as error:
        raise ValueError(
            f"{folder}: holds weights for torch, and {error.name} is not installed; export it with --format onnx, "
            "which needs onnxruntime and numpy only"
        ) from None
    return TorchModel(folder, manifest)
