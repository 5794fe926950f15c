"""``import softbeam``: from any folder, from a wheel, in a notebook, and as the tutorial shows it."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import softbeam
from configs.loading import to_values
from tests.conftest import CHECKOUT, tiny_experiment, tiny_values
from tests.federations import assert_same_outcome

TUTORIAL = (CHECKOUT / "docs/tutorials/python.md").read_text()
NOTEBOOK = json.loads((CHECKOUT / "examples/quickstart.ipynb").read_text())


def python(code: str, folder: Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Run a script that lies in a folder, as a user does."""
    (folder / "script.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "SOFTBEAM_HOME": str(home), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "script.py"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, home: Path) -> list[softbeam.Result]:
    """Two finished runs of two seeds."""
    out = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTBEAM_HOME", str(home))
        return [
            softbeam.run(tiny_values(rounds=2), out=out, progress=False, seed=seed, **{"strategy.rounds": rounds})
            for seed, rounds in ((0, 2), (1, 2))
        ]


def test_importing_it_loads_neither_torch_nor_flower_nor_ray() -> None:
    code = "import sys, softbeam; print({'torch', 'flwr', 'ray', 'pydantic'} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_packages_of_the_user_beside_the_script_do_not_shadow_ours(tmp_path: Path, home: Path) -> None:
    for room in softbeam.ROOMS:
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").write_text("raise SystemExit('the wrong one')")
    done = python("import softbeam; print(softbeam.experiment(seed=5).seed)", tmp_path, home)
    assert (done.stdout.strip(), done.stderr) == ("5", "")


@pytest.mark.parametrize("is_package", [True, False])
def test_a_package_of_the_user_that_was_imported_before_is_named_at_once(
    is_package: bool, tmp_path: Path, home: Path
) -> None:
    (tmp_path / "server").mkdir()
    own = tmp_path / ("server/__init__.py" if is_package else "server.py")
    own.write_text("")
    done = python("import server, softbeam", tmp_path, home)
    assert "ImportError: softbeam: another 'server' is imported already" in done.stderr
    assert str(own) in done.stderr


def test_a_run_from_python_has_the_bits_of_a_run_of_the_command(
    results: list[softbeam.Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny.yaml").write_text(json.dumps({**tiny_values(rounds=2), "seed": 0}))
    monkeypatch.setattr(sys, "argv", ["softbeam", "run", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path), "--json"])
    with pytest.raises(SystemExit) as end:
        softbeam.main()
    assert not end.value.code
    (folder,) = tmp_path.glob("tiny-*")
    assert_same_outcome(folder, results[0].folder)


def test_settings_change_what_they_name_and_nothing_else() -> None:
    plain = softbeam.experiment(tiny_values())
    assert plain == tiny_experiment()
    changed = softbeam.experiment(
        plain, strategy={"rounds": 5}, **{"data.nodes.0.count": 3, "training.learning_rate": 1e-5}
    )
    assert (changed.strategy.rounds, changed.data.nodes[0].count, changed.training.learning_rate) == (5, 3, 1e-5)
    expected = to_values(plain)
    expected["strategy"]["rounds"], expected["data"]["nodes"][0]["count"] = 5, 3
    expected["training"]["learning_rate"] = 1e-5
    assert to_values(changed) == expected
    assert softbeam.experiment({"extends": "quickstart", "seed": 4}) == softbeam.experiment("quickstart", seed=4)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"strategy.round": 3}, r"strategy\.round: unknown key.*did you mean rounds\?"),
        ({"strategy": {"rounds": "three"}}, r"strategy\.rounds: must be a valid integer, got 'three'"),
        ({"seed.first": 3}, r"seed\.first: seed is a value, not a section"),
        ({"data.nodes.7.count": 3}, r"data\.nodes\.7\.count: data\.nodes is a list of 2; no entry 7"),
        ({"engine": "rai"}, r"engine\.name: must be 'ray'"),
        ({"seed": object()}, "seed: must be a number, a text, a list or a mapping, got an object"),
    ],
)
def test_a_wrong_setting_is_one_line_with_its_path(settings: dict[str, Any], problem: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=problem):
        softbeam.run(tiny_values(), out=tmp_path / "runs", progress=False, **settings)
    assert not (tmp_path / "runs").exists()


def test_the_tutorial_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    snippets = re.findall(r"```python\n(.*?)```", TUTORIAL, flags=re.DOTALL)
    assert len(snippets) == 4
    for snippet in snippets:
        exec(compile(snippet, "python.md", "exec"), namespace)
    assert namespace["sharpest"].experiment.strategy.aggregator.options == {"share": 0.5}
    assert len(namespace["comparison"].to_rows()) == 2


def test_the_notebook_was_executed_and_runs_in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert all("error" not in {output["output_type"] for output in cell["outputs"]} for cell in cells)
    # The tests do without pandas.
    wanted = [cell for cell in cells if "needs-pandas" not in cell["metadata"].get("tags", [])]
    assert len(cells) - len(wanted) == 1
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile("\n".join("".join(cell["source"]) for cell in wanted), "quickstart.ipynb", "exec"), namespace)
    # What the notebook shows of the run is what comes out; another processor may round otherwise.
    (shown,) = ("".join(one["data"]["text/plain"]) for one in cells[1]["outputs"] if "data" in one)
    assert words_of(repr(namespace["plain"])) == words_of(shown)


def words_of(text: str) -> list[str]:
    """The words of a text, with every number replaced by a sign."""
    return re.sub(r"[-+]?\d+(\.\d+)?", "#", text).split()


@pytest.mark.ray
def test_a_class_of_a_script_reaches_the_server_and_the_workers_of_ray(
    tmp_path: Path, home: Path, running_ray: None
) -> None:
    code = f"""
import softbeam
import torch
from torch import nn
from strategies.methods.distillation import DistillationStrategy
SHARE = 0.5
HIDDEN = 3

class Net(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.encode = nn.Linear(spec.num_frames * spec.shape[0], HIDDEN)
        self.head = nn.Linear(HIDDEN, spec.num_horizons * spec.num_beams)

    def features(self, frames):
        return torch.tanh(self.encode(frames["gps"].flatten(1) / 50.0))

    def classify(self, features):
        return self.head(features)

class Half(DistillationStrategy):
    def choose_samples(self, round_number):
        return super().choose_samples(round_number)[: round(SHARE * 24)]

result = softbeam.run({tiny_values(rounds=2)!r}, engine="ray", strategy=Half, students={{"gps": {{"model": Net}}}})
print([line["num_asked"] for line in result.rounds], [client["parameters"] for client in result.clients][:2])
print(type(result.students["000-gps"].model) is Net, result.summary["faults"])
"""
    done = python(code, tmp_path, home)
    weights = (16 * 3 + 3) + (3 * 256 + 256)
    assert done.stdout.splitlines() == [f"[12, 12] [{weights}, {weights}]", "True []"], done.stderr


def test_the_wheel_holds_the_module_the_tree_and_the_yamls_and_nothing_else(tmp_path: Path) -> None:
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="hatchling is in the extra dev")
    (path,) = wheel.WheelBuilder(str(CHECKOUT)).build(directory=str(tmp_path), versions=["standard"])
    names = set(zipfile.ZipFile(path).namelist())
    sources = {
        f"softbeam/tree/{file.relative_to(CHECKOUT).as_posix()}"
        for room in softbeam.ROOMS
        for pattern in ("*.py", "*.yaml")
        for file in (CHECKOUT / room).rglob(pattern)
    }
    assert {name for name in names if ".dist-info/" not in name} == sources | {
        "softbeam/__init__.py",
        "softbeam/__main__.py",
    }
    assert "softbeam/tree/configs/quickstart.yaml" in names


def test_an_installed_wheel_runs_and_says_what_needs_a_checkout(tmp_path: Path, home: Path) -> None:
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="hatchling is in the extra dev")
    (path,) = wheel.WheelBuilder(str(CHECKOUT)).build(directory=str(tmp_path), versions=["standard"])
    zipfile.ZipFile(path).extractall(tmp_path / "site")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path / "site")!r})
import softbeam, configs
print(softbeam.TREE == __import__("pathlib").Path(configs.__file__).parents[1], softbeam.experiment(seed=2).seed)
result = softbeam.run({tiny_values(rounds=1)!r}, progress=False)
print(len(result.clients))
sys.argv = ["softbeam", "deploy", "init", "lab", "--nodes", "gps:a"]
softbeam.main()
"""
    done = python(code, tmp_path, home)
    assert done.stdout.splitlines() == ["True 2", "3"], done.stderr
    assert "softbeam deploy: Flower brings nodes what lies in a checkout" in done.stderr
    assert done.returncode == 1


def test_a_frame_is_the_table_of_the_run(results: list[softbeam.Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(read_csv=lambda file: list(csv.DictReader(file))))
    rows = results[0].to_dataframe()
    assert {row["arm"] for row in rows} >= {"local", "offline_kd", "federated", "before", "after"}
    assert [row["seed"] for row in softbeam.compare(results).to_dataframe()] == ["0", "1"]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="to_dataframe: pandas is not installed"):
        results[0].to_dataframe()
