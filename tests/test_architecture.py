"""The rooms: who may import whom, and what no module is called."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from configs.loading import load_experiment
from configs.study_loading import load_study
from sim.study.grid import check_models

CHECKOUT = Path(__file__).parents[1]
ROOMS = ("configs", "strategies", "clients", "server", "sim")
MODULES = sorted(path for room in ROOMS for path in (CHECKOUT / room).rglob("*.py"))
YAMLS = sorted((CHECKOUT / "configs").rglob("*.yaml"))
STUDIES = [path for path in YAMLS if path.name.startswith("study-")]
CONFIGS = [path for path in YAMLS if path not in STUDIES]
EMPTY_NAMES = {"utils", "common", "helpers", "core", "misc", "manager"}

# Package -> what of ours it may import beside itself, and why nothing else.
MAY_IMPORT: dict[str, tuple[tuple[str, ...], str]] = {
    "configs": ((), "configs says what an experiment is; it needs none of the other rooms"),
    "strategies": (("configs",), "strategies is the protocol; it knows neither clients nor server nor worlds"),
    "clients.data": (("configs",), "what a client senses is no matter of the protocol or of a model"),
    "clients.models": (("clients.data", "configs"), "a tracker is there whoever trains it"),
    "clients.learning": (
        ("clients.data", "clients.models", "configs"),
        "how a tracker learns is no matter of the protocol, so server and clients share it",
    ),
    "clients.serving": (
        (
            "clients.data",
            "clients.models",
            "clients.learning.metrics",
            "clients.learning.beam_sets",
            "clients.learning.stand_ins",
            "configs",
        ),
        "a model at work on a node needs neither the protocol nor what made it; it is scored as it was then",
    ),
    "clients": (("strategies", "configs"), "a client runs on a machine that has no server and no worlds"),
    "server": (
        ("strategies", "clients.data", "clients.models", "clients.learning", "configs"),
        "the server shares data, models and learning with the clients, nothing else",
    ),
    "sim.world": (("clients.data", "configs"), "a street is there whoever learns in it"),
    "sim.data": (("sim.world", "clients", "configs"), "data is made without a server, a protocol or a launch"),
    "sim.bench": (
        ("sim.worksheet", "sim.data", "sim.world", "server", "clients", "strategies", "configs"),
        "a benchmark measures; it does not launch federations",
    ),
    "sim.study": (
        (
            "sim.bench",
            "sim.data",
            "sim.world",
            "sim.report.style",
            "sim.worksheet",
            "server",
            "clients",
            "strategies",
            "configs",
        ),
        "a study trains and compares; it launches no federations",
    ),
    "sim": (("server", "clients", "strategies", "configs"), ""),
}
KNOW_FLOWER = {
    "strategies.messages.wire",
    "strategies.messages.mailbox",
    "strategies.methods.base",
    "strategies.methods.distillation",
    "clients.app",
    "server.app",
    "server.session",
    "sim.launch",
    "sim.ray_workers",
    "sim.inline",
    "sim.speed.plain_flower",  # it measures stock Flower
}
KNOW_RAY = {"sim.launch", "sim.ray_workers"}


@cache
def imports_of(source: str) -> tuple[str, ...]:
    """Every dotted name that a module imports, wherever the import stands; `from a import b` gives a.b."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            stem = "." * node.level + (node.module or "")
            names += [f"{stem}.{alias.name}" for alias in node.names]
    return tuple(names)


def lies_in(name: str, package: str) -> bool:
    """Whether a dotted name is a package or in it."""
    return name == package or name.startswith(f"{package}.")


def violations(module: str, source: str) -> list[str]:
    """What a module imports against the rules, each with the reason."""
    owner = next(package for package in MAY_IMPORT if lies_in(module, package))
    others, reason = MAY_IMPORT[owner]
    found = []
    for name in imports_of(source):
        if name.startswith("."):
            found.append(f"{module} imports {name}: write the full name, so that a reader sees the room")
        elif name.partition(".")[0] in ROOMS and not any(lies_in(name, package) for package in (owner, *others)):
            found.append(f"{module} imports {name}: {reason}")
        elif lies_in(name, "flwr") and module not in KNOW_FLOWER:
            found.append(f"{module} imports {name}: Flower is known to {', '.join(sorted(KNOW_FLOWER))} only")
        elif lies_in(name, "ray") and module not in KNOW_RAY:
            knowing = " and ".join(sorted(KNOW_RAY))
            found.append(f"{module} imports {name}: only {knowing} know Ray, so that everything else runs without it")
    return found


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_module_imports_only_from_the_rooms_that_its_own_may_know(path: Path) -> None:
    assert violations(module_name(path), path.read_text()) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("configs.schema", "from strategies.codecs.table import CODECS"),
        ("strategies.labels", "import clients.learning.metrics"),
        ("strategies.messages.wire", "from server import teacher"),
        ("clients.app", "def late():\n    from server.recorder import Recorder"),
        ("clients.memory", "from sim.data.generate import write_street"),
        ("clients.models.tracker", "from clients.profile import ClientProfile"),
        ("clients.models.tracker", "from clients import profile"),
        ("clients.learning.learner", "from strategies.labels import SoftLabels"),
        ("server.app", "from clients.app import build_app"),
        ("server.app", "import clients"),
        ("server.teacher", "try:\n    import flwr.app\nexcept ImportError:\n    pass"),
        ("server.app", "import ray"),
        ("strategies.aggregation", "if TYPE_CHECKING:\n    from flwr.app import Message"),
        ("strategies.cache", "from .labels import SoftLabels"),
    ],
)
def test_a_forbidden_import_is_caught(module: str, source: str) -> None:
    (violation,) = violations(module, source)
    assert violation.startswith(f"{module} imports ")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("server.app", "from clients.learning import metrics\nimport clients.models.tracker\nimport flwr"),
        ("clients.app", "from strategies.messages.wire import Reply\nfrom clients.learning.learner import Learner"),
        ("clients.learning.learner", "import torch\nfrom configs.seeding import rng_for"),
        ("sim.launch", "import ray\nfrom ray.cloudpickle import dumps"),
        ("sim.world.channel", "from simulators import rays"),
    ],
)
def test_an_allowed_import_is_let_through(module: str, source: str) -> None:
    assert violations(module, source) == []


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_module_is_named_for_an_idea(path: Path) -> None:
    assert not EMPTY_NAMES & set(module_name(path).split(".")), f"{module_name(path)}: name it for what it holds"


@pytest.mark.parametrize("path", [path for path in MODULES if path.name == "__init__.py"], ids=module_name)
def test_an_init_file_holds_a_docstring_only(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{module_name(path)}: say what lives here and what does not"
    assert len(tree.body) == 1, f"{module_name(path)}: an import here would run for every module of the room"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_the_one_of_this_checkout(room: str) -> None:
    file = import_module(room).__file__
    assert file is not None
    assert Path(file).resolve() == CHECKOUT / room / "__init__.py", f"another {room} lies ahead on the import path"


def _loaded_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys; print(*sorted(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


def test_importing_the_aggregation_rules_loads_neither_torch_nor_flower() -> None:
    assert not {"torch", "flwr", "ray"} & _loaded_after("import strategies.aggregation")


def test_importing_a_learner_loads_neither_flower_nor_ray() -> None:
    assert not {"flwr", "ray"} & _loaded_after("import clients.learning.learner")


def test_there_are_configs() -> None:
    assert "quickstart" in [path.stem for path in CONFIGS]


@pytest.mark.parametrize("quick", [False, True], ids=["full", "quick"])
@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_loads_at_both_sizes_and_is_named_like_its_file(path: Path, quick: bool) -> None:
    if quick and "\nquick:" not in path.read_text():
        pytest.skip(f"{path.name} has no quick size")
    study = load_study(path, quick=quick)
    check_models(study)
    assert study.name == path.stem


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_loads_and_is_named_like_its_file(path: Path) -> None:
    assert load_experiment(path).name == path.stem
