"""What a node publishes is what its client decides by; nothing of it needs a server. Real processes: test_pushed.py."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from clients.data.recording import open_recording
from clients.learning.state import pack_state, unpack_state
from clients.memory import ClientMemory
from clients.profile import profiles_of
from clients.serving.loading import load_model
from clients.serving.model_store import ModelStore
from configs.loading import build_experiment, to_values
from server.recorder import read_rounds
from sim.data.federation import ensure_federation
from sim.deploy.machine import NodeMachine
from sim.deploy.provision import hand_out
from sim.deploy.publisher import decider_of, publish
from sim.deploy.settings import load_node
from sim.take_home.verification import torch_logits
from tests.federations import place, run_apps
from tests.labs import experiment_of, make_lab
from tests.sim.cli.test_main import softbeam

# So many steps that the student knows its street.
MORE = ("training.first_round_steps=200", "data.passes.client=8")


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lab of one node, beside it in ``run`` what its client learned in a simulation, as a mixture."""
    folder = tmp_path_factory.mktemp("publisher")
    deployment = make_lab(folder / "lab", nodes=["gps:van-4"])
    federation, _ = ensure_federation(experiment_of(deployment, *MORE))
    hand_out(federation, folder / "lab", deployment)
    mixed = ("strategy.keeps=mixture", "strategy.mixture_windows=0.5")
    experiment = experiment_of(deployment, *MORE, *mixed, "engine.name=inline")
    run_apps(place(experiment, folder / "run"))
    (folder / "note.json").write_text(json.dumps({"experiment": to_values(experiment), "plugins": []}))
    return folder


@pytest.fixture
def machine(learned: Path, tmp_path: Path) -> NodeMachine:
    """A node on which its client learned that: its memory and its note, as a ClientApp there writes them."""
    shutil.copytree(learned / "lab/nodes/van-4", tmp_path / "van-4")
    memory = tmp_path / "van-4/state/runs/tiny-run/000-gps"
    shutil.copytree(learned / "run/clients/000-gps", memory)
    shutil.copyfile(learned / "note.json", memory / "experiment.json")
    return NodeMachine(tmp_path / "van-4", load_node(tmp_path / "van-4"))


def test_a_mixture_is_published_with_the_weights_that_the_client_gave_it(machine: NodeMachine, learned: Path) -> None:
    decision = publish(machine)
    assert decision.is_current and decision.version == "0001"
    manifest = load_model(machine.models).manifest
    reported = read_rounds(learned / "run")[-1]["clients"]["000-gps"]["federated_share"]
    assert manifest.kind == "mixture" and manifest.shares[0] == pytest.approx(reported, abs=1e-6)
    assert manifest.provenance["run"] == "tiny-run" and manifest.provenance["node"] == "van-4"
    found = json.loads((machine.state / "published.json").read_text())
    assert (found["run"], found["round"], found["decision"]["version"]) == ("tiny-run", 3, "0001")


def test_what_is_served_is_what_the_client_decides_by(machine: NodeMachine) -> None:
    publish(machine)
    (profile,) = profiles_of(machine.facts(), None)
    state = ClientMemory(machine.state / "runs/tiny-run/000-gps").load(before_round=9)
    assert state is not None
    values = json.loads((machine.state / "runs/tiny-run/000-gps/experiment.json").read_text())
    experiment = build_experiment(values["experiment"], origin="test")
    common = open_recording(machine.recordings()["test"])
    starts = common.window_starts(8, 3)
    rows = starts[:, None] + np.arange(8)
    expected = torch_logits(decider_of(profile, experiment, state, ()), common, starts)
    np.testing.assert_allclose(
        load_model(machine.models).logits({"gps": np.asarray(common.sensors["gps"][rows])}), expected, atol=1e-4
    )


def test_the_same_student_is_no_new_version(machine: NodeMachine) -> None:
    publish(machine)
    again = publish(machine)
    assert again.version == "0001" and again.reason == "is current already"
    assert ModelStore(machine.models).versions() == ["0001"]


def spoil(machine: NodeMachine) -> None:
    """Let the memory of the node hold a later state whose heads name wrong beams."""
    memory = machine.state / "runs/tiny-run/000-gps"
    newest = sorted(memory.glob("0*.state"))[-1]
    state = unpack_state(newest.read_bytes())
    for learner in (state["learner"], state["local"]):
        with torch.no_grad():
            for name in ("head.weight", "head.bias"):
                values = learner["best_model"][name]
                learner["best_model"][name] = values.view(4, 64, -1).roll(32, dims=1).reshape(values.shape)
    (memory / f"{int(newest.stem) + 1:06d}.state").write_bytes(pack_state(state))


def test_a_spoilt_student_is_refused_with_its_evidence_on_own_passes(machine: NodeMachine) -> None:
    publish(machine)
    spoil(machine)
    said = softbeam("deploy", "publish", machine.folder)
    assert said.code == 0 and said.out.startswith("van-4: 0002 is not served: is worse: ")
    evidence = ModelStore(machine.models).canary("0002")
    assert evidence is not None and not evidence["taken"] and evidence["held_out"]
    assert evidence["recording"] == str(machine.recordings()["recording"])
    assert ModelStore(machine.models).state().current == "0001"


def test_a_node_without_labels_is_judged_on_the_common_test_set(machine: NodeMachine) -> None:
    publish(machine)
    spoil(machine)
    own = machine.settings.model_copy(update={"recording": None})
    # Without labels there is no local self, whose weight they would say.
    memory = machine.state / "runs/tiny-run/000-gps"
    for path in memory.glob("0*.state"):
        state = unpack_state(path.read_bytes())
        path.write_bytes(pack_state({key: value for key, value in state.items() if key != "local"}))
    decision = publish(NodeMachine(machine.folder, own))
    evidence = ModelStore(machine.models).canary(decision.version)
    assert evidence is not None and evidence["recording"] == str(machine.recordings()["test"])


def test_what_cannot_be_published_says_why(machine: NodeMachine) -> None:
    missing = softbeam("deploy", "publish", machine.folder, "--run", "another")
    assert missing.code == 1 and "000-gps has not learned in any round here yet" in missing.err
    (machine.state / "runs/tiny-run/000-gps/experiment.json").unlink()
    unknown = softbeam("deploy", "publish", machine.folder)
    assert unknown.code == 1 and "it is written with the first round that this version runs" in unknown.err
    assert "cannot be read" in json.loads((machine.state / "published.json").read_text())["error"]


def test_a_deployment_publishes_what_it_can_and_names_the_rest(learned: Path, machine: NodeMachine) -> None:
    said = softbeam("deploy", "publish", learned / "lab")
    assert said.code == 1 and "van-4: " in said.err and "has not learned in any round here yet" in said.err
    rows = json.loads(softbeam("deploy", "publish", machine.folder, "--json").out)
    assert [(row["node"], row["version"], row["is_current"]) for row in rows] == [("van-4", "0001", True)]
