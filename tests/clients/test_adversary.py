"""A client that lies sends its lie, whatever its answers travel in; an honest one beside it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clients.adversary import attack_of
from clients.context import ClientContext
from clients.exchanges.labels import LabelExchange
from clients.handlers import introduce
from clients.profile import profiles_of
from clients.training import make_learner
from configs.loading import build_experiment
from configs.schema import Experiment
from configs.seeding import rng_for
from strategies.attacks import ATTACKS
from strategies.codecs.encoding import Encoding
from strategies.labels import SoftLabels
from strategies.messages.wire import Header, Request
from tests.conftest import tiny_values
from tests.federations import place

IDS = np.array([2, 5, 7])


def experiment(attack: str, **strategy: Any) -> Experiment:
    values = {**tiny_values(codec="float32", **strategy), "hostility": {"attack": attack, "clients": 1}}
    return build_experiment(values, origin="test")


def contexts(attack: str, folder: Path) -> tuple[ClientContext, ClientContext]:
    """Of the liar and of an honest client."""
    placement = place(experiment(attack), folder)
    header = Header("run", "e", "s", 1, "public")
    every = [
        ClientContext(profiles_of({"partition-id": number}, placement.federation)[0], placement, header)
        for number in range(3)
    ]
    (liar,) = [context for context in every if attack_of(placement, context.profile.id) is not None]
    return liar, next(context for context in every if context is not liar)


class Scripted(LabelExchange):
    """Answers rows that are told to it."""

    rows: NDArray[np.float32]

    def answers_to(self, ask: NDArray[np.int64]) -> SoftLabels:
        return SoftLabels(ask, self.rows, 2.0)


def sent(
    context: ClientContext, rows: NDArray[np.float32], state: dict[str, Any] | None = None
) -> tuple[NDArray[Any], Any]:
    exchange = Scripted(context, None, Request(ask=IDS), state or {})  # type: ignore[arg-type]
    exchange.rows = rows
    said, encoding = exchange.answer(), Encoding("float32", 4, 64)
    assert said.labels is not None
    return encoding.unpack(said.labels).payload.reshape(len(IDS), 4, 64), exchange.state()


def peak_at(beam: int) -> NDArray[np.float32]:
    """0.7 on a beam, 0.3 on the next, and nothing on the others."""
    rows = np.zeros((3, 4, 64), np.float32)
    rows[..., beam], rows[..., beam + 1] = 0.7, 0.3
    return rows


def lie(attack: str, beam: int) -> dict[int, float]:
    """Beam -> probability that is sent instead of 0.7 and 0.3, by hand; beams with nothing are not in it."""
    return {
        "label_flip": {63 - beam: 0.7, 62 - beam: 0.3},
        "impersonation": {63 - beam: 0.7, 62 - beam: 0.3},
        # The smallest probability is zero, first on beam 0.
        "peak_control": {0: 0.7, beam + 1: 0.3},
    }[attack]


@pytest.mark.parametrize("attack", ["label_flip", "impersonation", "peak_control"])
def test_a_lie_worked_out_by_hand_is_what_leaves(attack: str, tmp_path: Path) -> None:
    liar, honest = contexts(attack, tmp_path)
    expected = np.zeros((3, 4, 64), np.float32)
    for beam, value in lie(attack, 10).items():
        expected[..., beam] = value
    np.testing.assert_array_equal(sent(liar, peak_at(10))[0], expected)
    np.testing.assert_array_equal(sent(honest, peak_at(10))[0], peak_at(10))


@pytest.mark.parametrize("attack", ["permuted", "colluding_one_hot", "colluding_sweep", "top_k"])
def test_a_lie_that_is_drawn_hardly_names_the_beams_of_the_answer(attack: str, tmp_path: Path) -> None:
    liar, honest = contexts(attack, tmp_path)
    rows = rng_for(0, "rows").dirichlet(np.full(64, 0.2), size=(3, 4)).astype(np.float32)
    poisoned = sent(liar, rows)[0]
    np.testing.assert_allclose(poisoned.sum(axis=-1), 1.0, atol=1e-5)
    hits = (poisoned.argmax(axis=-1) == rows.argmax(axis=-1)).mean()
    assert hits <= 0.25
    # One-hot, three alike, or all that is not among the first ten.
    sizes = {"colluding_one_hot": {1}, "colluding_sweep": {3}, "top_k": {54}, "permuted": {64}}[attack]
    assert set(np.count_nonzero(poisoned, axis=-1).ravel().tolist()) <= sizes
    np.testing.assert_array_equal(sent(honest, rows)[0], rows)


def test_not_a_number_leaves_as_such(tmp_path: Path) -> None:
    liar, _ = contexts("nan", tmp_path)
    assert np.isnan(sent(liar, peak_at(10))[0]).all()


def test_a_stale_client_sends_its_first_answer_again(tmp_path: Path) -> None:
    liar, honest = contexts("stale", tmp_path)
    _, state = sent(liar, peak_at(10))
    np.testing.assert_array_equal(sent(liar, peak_at(20), state)[0], peak_at(10))
    _, state = sent(honest, peak_at(10))
    np.testing.assert_array_equal(sent(honest, peak_at(20), state)[0], peak_at(20))


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_impostor_claims_a_hundred_times_its_windows_and_others_the_truth(attack: str, tmp_path: Path) -> None:
    liar, honest = contexts(attack, tmp_path)
    for context, factor in ((liar, 100 if attack == "impersonation" else 1), (honest, 1)):
        owned = len(make_learner(context.profile, context.placement.experiment).material.train)
        assert introduce(context, Request()).facts["num_examples"] == factor * owned


@pytest.mark.parametrize("strategy", ["fedproto", "fedavg", "local", "centralised"])
def test_where_no_soft_labels_are_sent_nobody_can_lie_about_them(strategy: str) -> None:
    with pytest.raises(ValueError, match=f"hostility: {strategy} sends no soft labels"):
        experiment("label_flip", name=strategy)
