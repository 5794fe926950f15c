"""A model of a user's own is tried before anything starts, and what is wrong with it is one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clients.learning.contract import check_models, model_costs
from configs.loading import build_experiment
from tests.conftest import tiny_experiment, tiny_values

GOOD = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, spec, hidden=4):
        super().__init__()
        self.spec = spec
        self.register_buffer("scale", torch.ones(()))
        self.encode = nn.Linear(spec.num_frames * {size}, hidden)
        self.head = nn.Linear(hidden, spec.num_horizons * spec.num_beams)

    def fit_scale(self, frames):
        self.scale.copy_(torch.cat([one.flatten() for one in frames.values()]).std())

    def features(self, frames):
        return torch.relu(self.encode(self.flat(frames) / self.scale))

    def flat(self, frames):
        return torch.cat([one.flatten(2) for one in frames.values()], dim=-1).flatten(1)

    def classify(self, features):
        return self.head(features)
"""


def write(folder: Path, *changes: tuple[str, str], size: int = 2) -> None:
    """A module with a good model, after some changes of its text."""
    text = GOOD.replace("{size}", str(size))
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    (folder / "my_models.py").write_text(text)


def values(**model: Any) -> dict[str, Any]:
    return {**tiny_values(), "students": {"gps": {"model": "my_models:Net", **model}}}


def test_a_good_model_passes_and_is_counted(tmp_path: Path) -> None:
    write(tmp_path)
    experiment = build_experiment(values(options={"hidden": 3}), origin="test")
    check_models(experiment, (tmp_path,))
    gps, lidar, teacher = model_costs(experiment, (tmp_path,))
    assert (gps.key, lidar.key, teacher.key) == ("students.gps", "students.lidar", "teacher")
    assert (gps.model, lidar.model) == ("my_models:Net", "")
    assert gps.parameters == (8 * 2 * 3 + 3) + (3 * 256 + 256)
    assert gps.macs == 8 * 2 * 3 + 3 * 256


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            ("return self.head(features)", "return self.head(features)[:, :7]"),
            r"classify: expected logits .* got \(3, 7",
        ),
        (("return torch.relu(", "return (0 / 0 * torch.ones(1)) * torch.relu("), "ZeroDivisionError: division by zero"),
        (("return torch.relu(", "return float('nan') * torch.relu("), r"features: not finite \(NaN"),
        (("return self.head(features)", "return self.head(features) / 0"), r"classify: logits are not finite"),
        (("return torch.relu(", "return torch.relu(torch.zeros(2, 1, 1) + "), "features: expected a tensor"),
        (("return self.head(features)", "return self.head(features).detach()"), "its logits have no gradient"),
        (("return self.head(features)", "return self.head(features).numpy()"), "RuntimeError: Can't call numpy"),
        (("return self.head(features)", "return 0 * self.head(features)"), "no parameter gets a gradient"),
        (
            ('self.register_buffer("scale", torch.ones(()))', "self.scale = torch.ones(())"),
            "answers differently after its state was saved and loaded; register",
        ),
        (
            (
                "return torch.relu(self.encode(self.flat(frames)",
                "self.seen = getattr(self, 'seen', self.flat(frames).std())\n"
                "        return torch.relu(self.encode(self.flat(frames) / self.seen",
            ),
            "answers differently after its state was saved and loaded; register",
        ),
        (
            (
                "self.encode = ",
                "import numpy; self.rate = nn.Parameter(torch.tensor(numpy.random.rand())); self.encode = ",
            ),
            "other weights each time it is built",
        ),
        (("return torch.relu(", "return torch.rand(()) * torch.relu("), "answers the same frames differently"),
        (
            ("return self.head(features)", "return self.head(features - features.mean(0))"),
            "answers a window differently beside other ones",
        ),
        (("def classify", "def decide"), "Net has no method classify; write one"),
        (("def __init__(self, spec, hidden=4)", "def __init__(self, hidden=4)"), "takes no spec"),
        (("class Net(nn.Module)", "class Net(nn.Linear.__mro__[-1])"), "no subclass of torch.nn.Module"),
        (("self.spec = spec", "raise OSError('no file')"), "OSError: no file"),
        (
            ("def features", "def state_dict(self, *a, **k):\n        return {'x': open}\n\n    def features"),
            "cannot be saved and loaded|AttributeError|TypeError",
        ),
    ],
)
def test_a_model_that_breaks_the_contract_is_one_line_with_its_path(
    change: tuple[str, str], problem: str, tmp_path: Path
) -> None:
    write(tmp_path, change)
    with pytest.raises(ValueError, match=problem) as raised:
        check_models(build_experiment(values(), origin="test"), (tmp_path,))
    assert str(raised.value).startswith("students.gps")
    assert "\n" not in str(raised.value)


def test_a_frozen_model_has_nothing_to_train_and_a_frozen_part_is_allowed(tmp_path: Path) -> None:
    experiment = build_experiment(values(), origin="test")
    head = "        self.head = nn.Linear(hidden, spec.num_horizons * spec.num_beams)\n"
    write(tmp_path, (head, f"{head}        self.encode.requires_grad_(False)\n"))
    check_models(experiment, (tmp_path,))
    assert model_costs(experiment, (tmp_path,))[0].parameters == 4 * 256 + 256
    write(tmp_path, (head, f"{head}        self.requires_grad_(False)\n"))
    with pytest.raises(ValueError, match=r"students\.gps\.model: Net: has no parameter that requires a gradient"):
        check_models(experiment, (tmp_path,))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            {"students": {"gps": {"model": "my_models:Net", "options": {"hiden": 3}}}},
            r"students\.gps\.options\.hiden: .*hidden\?",
        ),
        (
            {"students": {"gps": {"model": "my_models:Nett"}}},
            r"students\.gps\.model: my_models has no class Nett; did you mean Net\?",
        ),
        (
            {"students": {"gps": {"model": "image-lite"}}},
            r"students\.gps\.model: unknown name 'image-lite'.*did you mean image-light",
        ),
        (
            {"students": {"gps": {"model": "image-light"}}},
            r"students\.gps\.model: image-light senses motion, and here it would get gps",
        ),
        ({"teacher": {"model": "fusion-teacher"}}, r"teacher\.model: fusion-teacher senses motion and maps"),
    ],
)
def test_a_name_or_option_that_is_not_there_is_told_with_the_nearest(
    change: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    write(tmp_path)
    with pytest.raises(ValueError, match=problem):
        check_models(build_experiment({**tiny_values(), **change}, origin="test"), (tmp_path,))


def test_sizes_of_our_tracker_and_options_of_another_one_are_not_mixed() -> None:
    with pytest.raises(ValueError, match=r"students\.gps\.width: this is a size of our tracker, and my_models:Net has"):
        build_experiment(values(width=4), origin="test")
    with pytest.raises(ValueError, match=r"students\.gps\.options: these are of a model with a name"):
        build_experiment({**tiny_values(), "students": {"gps": {"options": {"a": 1}}}}, origin="test")


def test_what_a_yaml_does_not_name_is_not_built(tmp_path: Path) -> None:
    check_models(tiny_experiment(), ())


def test_weights_that_cannot_be_averaged_are_told_before_the_run() -> None:
    nodes = [{"modality": "motion", "count": 2}]
    data = {**tiny_values()["data"], "nodes": nodes}
    change = {"data": data, "students": {"motion": {"model": "image-light"}}}
    experiment = build_experiment({**tiny_values(name="fedavg"), **change}, origin="test")
    with pytest.raises(
        ValueError, match=r"students\.motion\.model: fedavg averages weights, and .*num_batches_tracked"
    ):
        check_models(experiment, ())


def test_a_node_of_a_deployment_cannot_be_told_by_its_number(tmp_path: Path) -> None:
    data = {**tiny_values()["data"], "nodes": [{"modality": "gps", "student": {"model": "my_models:Net"}}]}
    made = {**tiny_values(), "data": data, "students": {}, "engine": {"name": "deployment"}}
    with pytest.raises(ValueError, match=r"data\.nodes\.0\.student: machines have names of their own"):
        check_models(build_experiment(made, origin="test"), (tmp_path,))
