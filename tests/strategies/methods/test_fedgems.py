"""Where a teacher is right, whom it asks and what it takes from others, by hand: 4 samples, 2 horizons, 3 beams."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from strategies.labels import SoftLabels
from strategies.messages.wire import Reply
from strategies.methods.fedgems import FedGemsStrategy, corrected, doubtful, is_right, known_classes
from tests.made_up import NUM_PUBLIC, MadeUpTeacher, Work, World, answers_beam, experiment, published

# Best beams of a public set of five samples.
BEAMS = np.array([[0, 0], [1, 1], [2, 2], [0, 1], [2, 2]])


def labels(beams: dict[int, tuple[int, int]], certainty: float) -> SoftLabels:
    """Soft labels that name a beam for each sample and horizon."""
    probs = np.full((len(beams), 2, 3), (1 - certainty) / 2, np.float32)
    for row, named in enumerate(beams.values()):
        for horizon, beam in enumerate(named):
            probs[row, horizon, beam] = certainty
    return SoftLabels(np.array(list(beams), np.int64), probs, 2.0)


def named(found: SoftLabels) -> dict[int, list[int]]:
    return dict(zip(found.sample_ids.tolist(), found.probs.argmax(axis=-1).tolist(), strict=True))


# Right about sample 0; wrong about 1; right about 2; about 3 at its first horizon alone. Sample 4 was not drawn.
TAUGHT = labels({0: (0, 0), 1: (0, 0), 2: (2, 2), 3: (0, 0)}, 0.6)


def test_the_teacher_is_right_where_it_names_the_best_beam() -> None:
    np.testing.assert_array_equal(is_right(TAUGHT, BEAMS), [[True, True], [False, False], [True, True], [True, False]])


def test_clients_are_asked_about_samples_that_the_teacher_gets_wrong_at_any_horizon() -> None:
    assert doubtful(TAUGHT, BEAMS).tolist() == [1, 3]


def test_the_teacher_keeps_its_rows_where_it_is_right_and_takes_the_ensemble_s_where_it_is_wrong() -> None:
    found = corrected(labels({1: (2, 1), 3: (2, 1)}, 0.8), TAUGHT, BEAMS)
    # Of sample 1 the ensemble's beams, right or wrong; of sample 3 the teacher's first and the ensemble's second.
    assert named(found) == {0: [0, 0], 1: [2, 1], 2: [2, 2], 3: [0, 1]}
    top: NDArray[np.float32] = found.probs.max(axis=-1)
    np.testing.assert_allclose(top, [[0.6, 0.6], [0.8, 0.8], [0.6, 0.6], [0.6, 0.8]])


def test_what_it_gets_wrong_and_nobody_answered_has_no_target() -> None:
    assert named(corrected(labels({3: (1, 1)}, 0.8), TAUGHT, BEAMS)) == {0: [0, 0], 2: [2, 2], 3: [0, 1]}
    nothing = TAUGHT.take(np.empty(0, np.int64))
    assert named(corrected(nothing, TAUGHT, BEAMS)) == {0: [0, 0], 2: [2, 2]}


def test_a_teacher_that_is_always_wrong_changes_nothing() -> None:
    wrong = labels({0: (1, 1), 1: (0, 0)}, 0.6)
    ensemble = labels({0: (0, 0), 1: (2, 2)}, 0.8)
    np.testing.assert_array_equal(corrected(ensemble, wrong, BEAMS).probs, ensemble.probs)


def test_without_best_beams_there_is_nothing_to_correct_by() -> None:
    with pytest.raises(ValueError, match=r"^strategy\.publish: corrected needs the classes of the public set"):
        known_classes(None)


EVERYTHING = list(range(NUM_PUBLIC))
# Beam 9, which the teacher names, is the best for seven of ten samples.
BEST_BEAMS = [9, 2, 9, 9, 2, 9, 9, 9, 2, 9]
WRONG = [1, 4, 8]


def corrected_world(**works: Work) -> World:
    clients = {f"{number:03d}-gps": work for number, work in enumerate(works.values())}
    return World(
        clients, experiment(publish="corrected"), teacher=MadeUpTeacher(BEST_BEAMS), strategy_class=FedGemsStrategy
    )


def beams_of(labels: SoftLabels | None) -> dict[int, int]:
    assert labels is not None
    assert np.ptp(labels.probs.argmax(axis=-1), axis=-1).max() == 0
    return dict(zip(labels.sample_ids.tolist(), labels.probs[:, 0].argmax(axis=-1).tolist(), strict=True))


def test_clients_are_asked_only_what_the_teacher_gets_wrong_where_it_corrects_the_ensemble() -> None:
    world = corrected_world(first=answers_beam(0))
    account = world.round(1)
    assert world.request_to("000-gps").ask.tolist() == WRONG
    assert account.num_asked == 3
    assert account.num_targets == NUM_PUBLIC


def test_the_teacher_learns_from_what_is_published_its_own_right_answers_and_the_ensemble_elsewhere() -> None:
    world = corrected_world(first=answers_beam(0))
    world.round(1)
    expected = {sample: 0 if sample in WRONG else 9 for sample in EVERYTHING}
    assert beams_of(world.teacher.lesson) == expected
    assert beams_of(published(world)) == expected


def test_where_nobody_answers_only_what_the_teacher_gets_right_is_published() -> None:
    world = corrected_world(first=lambda name, number, request: Reply(error="ValueError: oh"))
    assert world.round(1).num_targets == 7
    assert beams_of(world.teacher.lesson) == {sample: 9 for sample in EVERYTHING if sample not in WRONG}


def test_a_teacher_that_gets_everything_right_asks_nothing_and_publishes_everything() -> None:
    settings = experiment(publish="corrected", teacher_starts=False)
    world = World(
        {"000-gps": lambda *asked: Reply()},
        settings,
        teacher=MadeUpTeacher([9] * NUM_PUBLIC),
        strategy_class=FedGemsStrategy,
    )
    account = world.round(1)
    assert account.num_asked == 0
    assert account.clients["000-gps"].problem == ""
    assert beams_of(published(world)) == dict.fromkeys(EVERYTHING, 9)


def test_to_correct_needs_best_beams() -> None:
    with pytest.raises(ValueError, match=r"^strategy\.publish: corrected needs the classes"):
        World({"000-gps": answers_beam(0)}, experiment(publish="corrected"), strategy_class=FedGemsStrategy)
