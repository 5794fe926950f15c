"""A trained model at work on a node: its folder, frames in, beams out. It needs numpy and onnxruntime only."""
