"""Federations with privacy, with masked sums and with liars, from config to record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from clients.adversary import attack_of
from clients.app import build_app as build_client_app
from clients.profile import ClientProfile, profiles_of
from clients.training import make_learner
from configs.loading import build_experiment
from configs.placement import Placement
from configs.schema import Experiment
from server.checkpoint import load_checkpoint
from server.recorder import read_rounds
from strategies.attacks import ATTACKS
from strategies.codecs.encoding import Encoding
from strategies.methods.base import FederationState
from strategies.privacy import epsilon_spent
from strategies.registry import find_plugins
from tests.conftest import tiny_values
from tests.federations import assert_same_outcome, place, run_apps


def experiment(hostility: dict[str, Any] | None = None, **strategy: Any) -> Experiment:
    return build_experiment({**tiny_values(**strategy), "controls": False, "hostility": hostility}, origin="test")


def checkpointed(run: Path) -> FederationState:
    checkpoint = load_checkpoint(run)
    assert checkpoint is not None
    return checkpoint.federation


def published(run: Path, codec: str) -> np.ndarray:
    cache = checkpointed(run).cache
    assert cache is not None
    return Encoding(codec, 4, 64).decode(cache.newest, 2.0).probs


def profiles(placement: Placement) -> list[ClientProfile]:
    return [profiles_of({"partition-id": number}, placement.federation)[0] for number in range(3)]


SECURE = {"secure_sum": True, "aggregator": {"name": "mean"}, "codec": "float32", "publish": "ensemble"}


class Filtered(ClientApp):
    """A ClientApp of which one node fails on some messages."""

    def __init__(self, inner: ClientApp, node: int, kinds: tuple[str, ...], rounds: tuple[int, ...]) -> None:
        super().__init__()
        self.inner, self.node, self.kinds, self.rounds = inner, node, kinds, rounds

    def __call__(self, message: Message, context: Context) -> Message:
        here = context.node_config["partition-id"] == self.node and message.metadata.message_type in self.kinds
        if here and message.content["header"]["round"] in self.rounds:
            raise RuntimeError("battery empty")
        return self.inner(message, context)


class Listening(ClientApp):
    """A ClientApp that notes what is asked of one client, by kind of message."""

    def __init__(self, inner: ClientApp, client: str) -> None:
        super().__init__()
        self.inner, self.client = inner, client
        self.heard: list[tuple[str, Any]] = []

    def __call__(self, message: Message, context: Context) -> Message:
        arrays = message.content.array_records.get(f"{self.client}/arrays", {})
        values = {name: array.numpy() for name, array in arrays.items()}
        self.heard.append((message.metadata.message_type, values))
        return self.inner(message, context)


@pytest.mark.parametrize("votes", [False, True])
def test_a_federation_of_masked_sums_publishes_the_plain_mean(votes: bool, tmp_path: Path) -> None:
    masked = place(experiment(**SECURE, teacher_votes=votes), tmp_path / "masked")
    plain = place(experiment(**{**SECURE, "secure_sum": False}, teacher_votes=votes), tmp_path / "plain")
    run_apps(masked)
    run_apps(plain)
    difference = np.abs(published(masked.run, "float32") - published(plain.run, "float32"))
    # Half a level of three clients a round; what little differs is learned from.
    assert difference.max() < 2e-3
    assert all(not client["problem"] for line in read_rounds(masked.run) for client in line["clients"].values())


def test_masked_sums_are_the_same_in_any_order_and_after_a_new_start(tmp_path: Path) -> None:
    one, other = (place(experiment(**SECURE), tmp_path / name) for name in ("one", "other"))
    run_apps(one)
    run_apps(other, shuffle_seed=3)
    assert_same_outcome(one.run, other.run)


def test_whoever_drops_out_of_a_masked_sum_is_left_out_exactly(tmp_path: Path) -> None:
    masked = place(experiment(**SECURE, rounds=2), tmp_path / "masked")
    plain = place(experiment(**{**SECURE, "secure_sum": False}, rounds=2), tmp_path / "plain")
    for placement in (masked, plain):
        run_apps(placement, client_app=Filtered(build_client_app(placement), 1, ("train.round",), (1, 2)))
    assert np.abs(published(masked.run, "float32") - published(plain.run, "float32")).max() < 2e-3
    lines = read_rounds(masked.run)
    assert all("battery" in line["clients"]["001-gps"]["problem"] for line in lines)
    assert all(line["num_targets"] == 24 for line in lines)


def test_where_one_is_left_nobody_is_asked_for_seeds_and_nothing_is_published(tmp_path: Path) -> None:
    placement = place(experiment(**SECURE, rounds=1), tmp_path / "run")
    app = build_client_app(placement)
    for node in (1, 2):
        app = Filtered(app, node, ("train.round",), (1,))
    listening = Listening(app, "000-gps")
    run_apps(placement, client_app=listening)
    assert "query.reveal" not in [kind for kind, _ in listening.heard]
    assert [line["num_targets"] for line in read_rounds(placement.run)] == [0]


def test_every_attempt_at_a_round_has_masks_of_its_own(tmp_path: Path) -> None:
    placement = place(experiment(**SECURE, rounds=2), tmp_path / "run")
    nonces, keys = [], []
    for _ in range(2):
        listening = Listening(build_client_app(placement), "000-gps")
        run_apps(placement, client_app=listening)
        asked = [arrays for kind, arrays in listening.heard if kind == "train.round" and arrays]
        nonces += [arrays["nonce"].tobytes() for arrays in asked]
        keys += [arrays["keys"].tobytes() for arrays in asked]
        # As if the server had been killed before its first checkpoint: the clients keep their keys.
        for file in (placement.run / "checkpoint").rglob("*"):
            file.unlink()
    assert len(keys) == 4 and len(set(keys)) == 1
    assert len(set(nonces)) == 4


@pytest.mark.parametrize("attack", ["colluding_one_hot", "colluding_sweep"])
def test_a_liar_lies_under_its_masks_as_it_does_without(attack: str, tmp_path: Path) -> None:
    hostility = {"attack": attack, "clients": 1}
    masked = place(experiment(hostility, **SECURE, rounds=1), tmp_path / "masked")
    plain = place(experiment(hostility, **{**SECURE, "secure_sum": False}, rounds=1), tmp_path / "plain")
    honest = place(experiment(**{**SECURE, "secure_sum": False}, rounds=1), tmp_path / "honest")
    for placement in (masked, plain, honest):
        run_apps(placement)
    assert np.abs(published(masked.run, "float32") - published(plain.run, "float32")).max() < 1e-4
    # Of four votes, the teacher's among them, one has a third on a beam at least, and the honest ones hardly a tenth.
    assert np.abs(published(masked.run, "float32") - published(honest.run, "float32")).max() > 0.05


def test_a_liar_that_answers_not_a_number_adds_nothing_to_a_sum(tmp_path: Path) -> None:
    lying = place(experiment({"attack": "nan", "clients": 1}, **SECURE, rounds=1), tmp_path / "lying")
    run_apps(lying)
    plain = experiment({"attack": "nan", "clients": 1}, **{**SECURE, "secure_sum": False}, rounds=1)
    refused = place(plain, tmp_path / "refused")
    run_apps(refused)
    assert np.abs(published(lying.run, "float32") - published(refused.run, "float32")).max() < 1e-4


def test_a_sum_of_one_client_a_round_is_refused_before_anything_starts() -> None:
    with pytest.raises(ValueError, match=r"strategy\.participation: 0\.4 of 3 clients are fewer than two"):
        experiment(**SECURE, participation=0.4)
    # 1.5 rounds to two.
    assert experiment(**SECURE, participation=0.5).strategy.secure_sum


def test_a_round_that_cannot_be_unmasked_publishes_nothing_and_the_next_goes_on(tmp_path: Path) -> None:
    placement = place(experiment(**SECURE, rounds=2), tmp_path / "run")
    app = Filtered(build_client_app(placement), 1, ("train.round",), (1,))
    run_apps(placement, client_app=Filtered(app, 0, ("query.reveal",), (1,)))
    assert [line["num_targets"] for line in read_rounds(placement.run)] == [0, 24]


@pytest.mark.parametrize(
    ("strategy", "text"),
    [
        ({"aggregator": {"name": "median"}}, r"strategy\.secure_sum: median needs the answer of each client"),
        ({"name": "personal", "aggregator": {"name": "mean"}}, "personal does not sum"),
        ({"aggregator": {"name": "mean"}, "answer_filter": "density"}, "all must answer all samples"),
        ({"aggregator": {"name": "mean"}, "late_rounds": 1}, "all must answer all samples"),
    ],
)
def test_what_cannot_be_done_with_a_sum_is_refused(strategy: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        experiment(secure_sum=True, **strategy)


def test_a_noisy_federation_keeps_an_account_of_every_client(tmp_path: Path) -> None:
    privacy = {"clip": 0.5, "noise_multiplier": 3.0, "delta": 1e-4}
    placement = place(experiment(privacy=privacy, participation=0.7), tmp_path / "run")
    run_apps(placement)
    released = dict.fromkeys(["000-gps", "001-gps", "002-lidar"], 0)
    lines = read_rounds(placement.run)
    assert any(len(line["clients"]) < 3 for line in lines)
    for line in lines:
        for client, entry in line["clients"].items():
            released[client] += entry["num_answers"]
            expected = epsilon_spent(released[client], noise_multiplier=3.0, delta=1e-4)
            assert entry["epsilon"] == pytest.approx(expected)
            # What the account does not cover stays at home; the record does without.
            assert entry["own"] is None and entry["validation"] is None and entry["loss"] is None
            assert entry["common"] is not None
    members = checkpointed(placement.run).members
    assert all(member.seen is None and member.num_examples > 0 for member in members.values())


def test_without_noise_there_is_no_account(tmp_path: Path) -> None:
    placement = place(experiment(privacy={"clip": 0.5, "reveal": "top1"}, rounds=1), tmp_path / "run")
    run_apps(placement)
    assert all(entry["epsilon"] is None for entry in read_rounds(placement.run)[0]["clients"].values())


def test_noise_without_a_clip_is_refused() -> None:
    with pytest.raises(ValueError, match=r"strategy\.privacy\.clip"):
        experiment(privacy={"noise_multiplier": 1.0})


def test_learning_from_k_of_n_windows_tells_how_many_were_drawn_and_none_else(tmp_path: Path) -> None:
    placement = place(experiment(privacy={"window_share": 0.5}, rounds=1), tmp_path / "run")
    run_apps(placement)
    entries = read_rounds(placement.run)[0]["clients"]
    assert all(not entry["problem"] and entry["own"] is None for entry in entries.values())
    for client, member in checkpointed(placement.run).members.items():
        (profile,) = [one for one in profiles(placement) if one.id == client]
        owned = make_learner(profile, placement.experiment).material
        account = json.loads((placement.run / "clients" / client / "privacy.json").read_text())
        assert account["num_owned"] == len(owned.train) + len(owned.validation)
        assert 0 < member.num_examples < len(owned.train)


def test_a_reproducible_experiment_with_noise_comes_out_the_same_twice_and_another_does_not(tmp_path: Path) -> None:
    privacy = {"clip": 0.5, "noise_multiplier": 0.01, "window_share": 0.7}
    runs = []
    for name, is_reproducible in (("one", True), ("same", True), ("real", False)):
        settings = experiment(privacy={**privacy, "reproducible": is_reproducible}, rounds=2, codec="float32")
        runs.append(place(settings, tmp_path / name))
        run_apps(runs[-1])
    one, same, real = runs
    assert_same_outcome(one.run, same.run)
    assert not np.array_equal(published(one.run, "float32"), published(real.run, "float32"))


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("codec", ["float16", "top8-uint4+delta"])
def test_every_attack_is_carried_out_by_the_largest_client_and_stops_nobody_else(
    attack: str, codec: str, tmp_path: Path
) -> None:
    lying = place(experiment({"attack": attack, "clients": 1}, codec=codec, rounds=2), tmp_path / "lying")
    clients = ["000-gps", "001-gps", "002-lidar"]
    (liar,) = [client for client in clients if attack_of(lying, client) is not None]
    run_apps(lying)
    for line in read_rounds(lying.run):
        for client in clients:
            problem = line["clients"][client]["problem"]
            assert bool(problem) == (client == liar and attack == "nan")


def test_an_unknown_attack_is_refused(tmp_path: Path) -> None:
    settings = experiment({"attack": "bribe", "clients": 1})
    with pytest.raises(ValueError, match=r"^hostility\.attack: unknown attack 'bribe'; known are label_flip"):
        find_plugins(Placement(settings, tmp_path, tmp_path, (tmp_path,)))


def test_only_virtual_clients_lie(tmp_path: Path) -> None:
    settings = experiment({"attack": "nan", "clients": 1})
    with pytest.raises(ValueError, match="only virtual clients can attack"):
        attack_of(Placement(settings, tmp_path, tmp_path, (tmp_path,)), "000-gps")
