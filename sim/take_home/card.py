"""The model card of an exported model: a README for whoever finds the folder."""

from __future__ import annotations

from collections.abc import Mapping

from clients.serving.manifest import STREAM, WEIGHTS, Manifest

_METRICS = {"top1": "Top-1 %", "top3": "Top-3 %", "top5": "Top-5 %", "dba": "DBA %", "power_loss_db": "power loss dB"}
_FILES = {
    "window.onnx": "whole windows, float32",
    "stream.onnx": "a stream, one frame a slot, float32",
    "window.int8.onnx": "whole windows, eight bits",
    "stream.int8.onnx": "a stream, eight bits",
    "model.pt": "weights for torch",
    "model.safetensors": "weights in safetensors",
}


def card_of(manifest: Manifest, sizes: Mapping[str, int]) -> str:
    """The text of the card.

    Args:
        manifest: what is known of the model.
        sizes: file -> its bytes.
    """
    senses = ", ".join(manifest.modalities)
    ahead = manifest.horizons[-1]
    lines = [
        f"# {manifest.name}: a beam tracker that senses {senses}",
        "",
        f"From the last {manifest.num_frames} frames it tells which of {manifest.num_beams} beams is best in the "
        f"slot of the newest frame and in the next {ahead}. It is the {manifest.kind} of a federation that Softbeam "
        "ran.",
        "",
        "```python",
        "import softbeam",
        "",
        f'model = softbeam.load_model("{manifest.name}")  # this folder',
        "```",
        "",
        "or `softbeam predict FOLDER RECORDING`. Beams count from 0.",
        "",
        "## Files",
        "",
        "| file | what it is | kB |",
        "|---|---|---|",
        *(f"| `{name}` | {_FILES[name]} | {size / 1000:.1f} |" for name, size in sizes.items()),
        "| `model.json` | all of this page for programs | |",
        "",
        *_inputs(manifest),
        *_graphs(manifest),
        *_scores(manifest),
        *_sets(manifest),
        "## Where it comes from",
        "",
        "| | |",
        "|---|---|",
        *(f"| {key.replace('_', ' ')} | {value} |" for key, value in manifest.provenance.items() if value is not None),
        "",
        "## Licence",
        "",
        f"{manifest.licence}.",
        "",
        "## Limits",
        "",
        "It knows the array, the beams and the surroundings that it learned from; another array or another yaw is "
        "another set of labels. Its probabilities are calibrated on held-out passes of its "
        "owner, where there were any.",
    ]
    return "\n".join(lines) + "\n"


def _inputs(manifest: Manifest) -> list[str]:
    lines = ["## Inputs", "", "Raw frames as a recording holds them, oldest first; scales are inside.", ""]
    lines += ["| sensor | shape of a frame | type | unit |", "|---|---|---|---|"]
    for one in manifest.inputs:
        shape = " x ".join(map(str, one.frame_shape))
        lines.append(f"| {one.modality} | {shape} | {one.dtype} | {one.unit} |")
    if manifest.tolerates_absence:
        lines += ["", "It also answers without some of its sensors."]
    return [*lines, ""]


def _graphs(manifest: Manifest) -> list[str]:
    if WEIGHTS in manifest.files:
        return []
    length, horizons, beams = manifest.num_frames, len(manifest.horizons), manifest.num_beams
    lines = ["## Graphs", "", f"ONNX, opset {manifest.opset}. N is the number of windows or streams.", ""]
    lines += ["| value | shape | meaning |", "|---|---|---|"]
    for one in manifest.inputs:
        lines.append(f"| `{one.modality}` | N x {length} x frame; of a stream N x frame | frames |")
        if STREAM in manifest.files:
            state = f"`state_{one.modality}`, `next_{one.modality}`"
            lines.append(
                f"| {state} | N x {length - 1} x D | of a stream: features of the slots before; zeros at first |"
            )
    if manifest.tolerates_absence:
        lines.append(f"| `present` | N x {len(manifest.inputs)} | whether each sensor counts in the window |")
    lines.append(f"| `logits`, `probs` | N x {horizons} x {beams} | calibrated; probabilities of the beams |")
    if STREAM in manifest.files:
        lines += ["", f"The first answer of a stream that counts is the one after {length} frames."]
    checks = manifest.checks
    worst = max(checks["largest_difference_from_torch"].values())
    lines += [
        "",
        f"On {checks['windows']} windows of the test set no logit differs from torch by more than {worst:.1e}.",
    ]
    if "int8" in checks:
        changes = ", ".join(f"{kind} {value:+.2f}" for kind, value in checks["int8"]["top5_change_points"].items())
        lines.append(
            f"In eight bits Top-5 (mean over horizons, {checks['int8']['top5']:.2f} % in float32) changes by these "
            f"points: {changes}. The ranges were measured on {checks['int8']['calibration_windows']} public windows."
        )
    return [*lines, ""]


def _scores(manifest: Manifest) -> list[str]:
    shown = {key: title for key, title in _METRICS.items() if key in manifest.metrics}
    if not shown:
        return []
    lines = ["## Scores on the common test set", "", f"| slots ahead | {' | '.join(shown.values())} |"]
    lines.append("|---" * (len(shown) + 1) + "|")
    for place, ahead in enumerate(manifest.horizons):
        cells = []
        for key in shown:
            value = manifest.metrics[key][place]
            cells.append(f"{value:.2f}" if key == "power_loss_db" else f"{100.0 * value:.1f}")
        lines.append(f"| {ahead} | {' | '.join(cells)} |")
    return [*lines, ""]


def _sets(manifest: Manifest) -> list[str]:
    if not manifest.sets:
        return []
    lines = ["## Which beams to sweep", ""]
    lines.append(
        "Beams are taken up, each time the one that adds most to the probability of a beam within the loss, until that "
        "is above the threshold. Such a set holds one for the wanted share of windows or more, on average over the "
        "passes of a client drawn from the federation. `softbeam predict ... --within 1 --wanted 90` tells them."
    )
    lines += ["", f"| within | wanted | thresholds, {len(manifest.horizons)} horizons |", "|---|---|---|"]
    for row in manifest.sets:
        thresholds = ", ".join(f"{one:.4f}" for one in row["thresholds"])
        lines.append(f"| {row['within_db']:g} dB | {100 * (1 - row['alpha']):g} % | {thresholds} |")
    return [*lines, ""]
