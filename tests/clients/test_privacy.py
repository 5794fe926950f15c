"""What a client keeps to itself, so that its privacy account is true whatever the server knows and does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clients.cohort import alone
from clients.context import ClientContext
from clients.exchanges.base import Answer
from clients.exchanges.labels import LabelExchange
from clients.handlers import introduce, take_round, train_controls
from clients.privacy import LEDGER_FILE, draw_material, drawn_material, window_bound
from clients.profile import profiles_of
from clients.training import make_learner
from configs.seeding import rng_for
from server.recorder import metrics_of
from strategies.codecs.encoding import Encoding
from strategies.labels import SoftLabels
from strategies.messages.wire import Header, Reply, Request
from strategies.privacy import epsilon_spent, privatise
from tests.conftest import tiny_experiment
from tests.federations import place

NOISE = {"clip": 0.5, "noise_multiplier": 1.0, "delta": 1e-4}
IDS = np.arange(10)
ROWS = rng_for(0, "rows").dirichlet(np.full(64, 0.2), size=(10, 4)).astype(np.float32)


class Scripted(LabelExchange):
    """Answers made-up soft labels."""

    def answers_to(self, ask: NDArray[np.int64]) -> SoftLabels:
        return SoftLabels(ask, ROWS[ask], 2.0)


def context(folder: Path, *, round_number: int = 1, client: int = 0, **privacy: Any) -> ClientContext:
    """Of a client of a tiny federation, with float32 soft labels."""
    placement = place(tiny_experiment(codec="float32", privacy=privacy), folder)
    (profile,) = profiles_of({"partition-id": client}, placement.federation)
    return ClientContext(profile, placement, Header("run", "e", "s", round_number, "public"))


def answer(at: ClientContext, state: dict[str, Any] | None = None) -> tuple[Answer, dict[str, Any]]:
    exchange = Scripted(at, None, Request(ask=IDS), state or {})  # type: ignore[arg-type]
    said = exchange.answer()
    return said, exchange.state()


def released(said: Answer) -> NDArray[np.float32]:
    assert said.labels is not None
    encoding = Encoding("float32", 4, 64)
    return encoding.decode(encoding.unpack(said.labels), 2.0).probs


def by_seed(at: ClientContext) -> NDArray[np.float32]:
    """What leaves if the noise follows from what the server knows."""
    rng = rng_for(at.placement.experiment.seed, at.profile.id, "privacy", at.header.round)
    return privatise(ROWS, clip=0.5, noise_multiplier=1.0, rng=rng)


def test_noise_does_not_follow_from_what_the_server_knows_and_never_repeats(tmp_path: Path) -> None:
    at = context(tmp_path, **NOISE)
    first, again = released(answer(at)[0]), released(answer(at)[0])
    for one, other in ((first, again), (first, by_seed(at)), (again, by_seed(at))):
        # Not a row of a horizon is alike.
        assert np.abs(one - other).max(axis=-1).min() > 0


def test_a_reproducible_experiment_draws_its_noise_from_the_seed(tmp_path: Path) -> None:
    at = context(tmp_path, **NOISE, reproducible=True)
    np.testing.assert_array_equal(released(answer(at)[0]), by_seed(at))


def test_labels_that_were_released_stay_released_when_the_server_goes_back_a_round(tmp_path: Path) -> None:
    _, after_first = answer(context(tmp_path, **NOISE))
    second = context(tmp_path, round_number=2, **NOISE)
    answer(second, after_first)
    said, _ = answer(second, after_first)
    assert said.metrics["epsilon"] == epsilon_spent(30, noise_multiplier=1.0, delta=1e-4)
    assert said.metrics["delta"] == 1e-4


def test_labels_are_booked_before_they_leave_or_do_not_leave(tmp_path: Path) -> None:
    at = context(tmp_path, **NOISE)
    at.folder.parent.mkdir(parents=True)
    at.folder.write_text("a file where the memory should be")
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        answer(at)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"secret": "0", "num_released": 3, "colour": 1}'])
def test_an_account_that_cannot_be_read_is_no_new_beginning(content: str, tmp_path: Path) -> None:
    at = context(tmp_path, **NOISE)
    answer(at)
    (at.folder / LEDGER_FILE).write_text(content)
    with pytest.raises(ValueError, match=r"privacy\.json: the privacy account is not readable"):
        answer(at)


def test_without_noise_there_is_no_account_and_no_file(tmp_path: Path) -> None:
    at = context(tmp_path, clip=0.5)
    said, _ = answer(at)
    assert said.metrics == {}
    assert not (at.folder / LEDGER_FILE).exists()


def test_the_account_is_for_the_client_s_own_eyes(tmp_path: Path) -> None:
    at = context(tmp_path, **NOISE)
    answer(at)
    assert (at.folder / LEDGER_FILE).stat().st_mode & 0o077 == 0


def test_a_draw_takes_what_it_draws_from_training_and_validation_windows(tmp_path: Path) -> None:
    at = context(tmp_path)
    material = replace(
        make_learner(at.profile, at.placement.experiment).material,
        train=np.array([1, 2, 3, 8]),
        validation=np.array([5, 6, 9]),
    )

    class Loaded(np.random.Generator):
        def choice(self, a: Any, size: Any = None, replace: bool = True, **others: Any) -> Any:
            assert a.tolist() == [1, 2, 3, 5, 6, 8] and size == 3 and replace
            return np.array([6, 2, 6])

    drawn = draw_material(material, share=0.5, num_owned=6, rng=Loaded(np.random.PCG64(0)))
    assert (drawn.train.tolist(), drawn.validation.tolist()) == ([2], [6])


def windows(at: ClientContext) -> list[int]:
    """What a client may learn from, as each of its messages finds it."""
    drawn = drawn_material(at, make_learner(at.profile, at.placement.experiment).material)
    return [*drawn.train.tolist(), *drawn.validation.tolist()]


def test_windows_are_drawn_once_in_a_run_and_from_what_the_server_does_not_know(tmp_path: Path) -> None:
    at = context(tmp_path / "one", window_share=0.5)
    mine = windows(at)
    assert windows(at) == mine
    assert windows(replace(at, header=replace(at.header, round=7))) == mine
    assert windows(context(tmp_path / "other", window_share=0.5)) != mine
    seeded = context(tmp_path / "seeded", window_share=0.5, reproducible=True)
    assert windows(seeded) != mine
    assert windows(seeded) == windows(context(tmp_path / "again", window_share=0.5, reproducible=True))


def test_windows_recorded_after_the_draw_are_not_learned_from(tmp_path: Path) -> None:
    at = context(tmp_path, window_share=1.0)
    whole = make_learner(at.profile, at.placement.experiment).material
    new = whole.recording.power.shape[0] + np.arange(5)  # type: ignore[union-attr]
    before = drawn_material(at, whole)
    after = drawn_material(at, replace(whole, train=np.append(whole.train, new)))
    np.testing.assert_array_equal(after.train, before.train)
    np.testing.assert_array_equal(after.validation, before.validation)


def test_the_bound_of_the_draw_is_told_with_its_delta(tmp_path: Path) -> None:
    at = context(tmp_path, window_share=0.5)
    assert window_bound(at) == {}
    at.folder.mkdir(parents=True)
    (at.folder / LEDGER_FILE).write_text(json.dumps({"secret": "a", "num_owned": 4}))
    # Two draws of four: 2 ln(5 / 4), and 1 - (3 / 4)^2.
    assert window_bound(at) == {"window_epsilon": pytest.approx(0.446287), "window_delta": pytest.approx(0.4375)}


def test_the_student_learns_from_the_drawn_windows_alone_and_its_scales_tell_of_none(tmp_path: Path) -> None:
    # So few windows that not all frames are in one of them.
    at = context(tmp_path, window_share=0.1, reproducible=True)
    every = make_learner(at.profile, at.placement.experiment)
    mine = drawn_material(at, every.material)
    learner = make_learner(at.profile, at.placement.experiment, choose=lambda material: drawn_material(at, material))
    np.testing.assert_array_equal(learner.material.train, mine.train)
    hello = introduce(at, Request())
    assert hello.facts["num_examples"] == len(mine.train) < len(every.material.train)
    before, after = every.model.state_dict(), learner.model.state_dict()
    for name in before:
        np.testing.assert_array_equal(before[name].numpy(), after[name].numpy(), err_msg=name)


def names(reply: Reply) -> set[str]:
    return {name.rpartition(".")[0] or name for name in reply.metrics}


@pytest.mark.parametrize(
    ("privacy", "seen", "metrics", "controls"),
    [
        (
            {},
            True,
            {"loss", "validation", "kept", "own", "common", "common_now", "passes"},
            {"local", "local.own", "local.common", "offline_kd", "offline_kd.own", "offline_kd.common"},
        ),
        (NOISE, False, {"epsilon", "delta", "common", "common_now", "passes"}, {"local.common", "offline_kd.common"}),
        (
            {"window_share": 0.5},
            True,
            {"loss", "validation", "kept", "common", "common_now", "passes", "window_epsilon", "window_delta"},
            {"local", "local.common", "offline_kd", "offline_kd.common"},
        ),
    ],
    ids=["none", "noise", "k of n"],
)
def test_a_client_withholds_what_its_account_does_not_cover(
    privacy: dict[str, Any], seen: bool, metrics: set[str], controls: set[str], tmp_path: Path
) -> None:
    at = context(tmp_path, **privacy)
    hello, reply = introduce(at, Request()), alone(take_round(at, Request(ask=IDS)))
    for facts in (hello.facts, reply.facts):
        assert ("seen" in facts) == seen
        assert facts["num_examples"] > 0 and facts["num_passes"] > 0  # type: ignore[operator]
    assert names(reply) == metrics
    assert metrics_of(reply.metrics, "common.") is not None
    baselines = {"last_beam.common", "beam_history.common", "nearest_position.common"}
    by_pass = {"local.passes", "offline_kd.passes"}
    assert names(alone(train_controls(at, Request()))) == controls | baselines | by_pass
