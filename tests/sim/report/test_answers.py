"""Which answers counted: cells, marks and sentences follow from what the rounds recorded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sim.report.answers import MAX_ROWS, answers_caption, draw_answers
from sim.report.style import INK, LOSS

CLIENTS = ("000-gps", "001-radar")


def summary(*clients: str) -> dict[str, Any]:
    return {"clients": [{"id": name, "modality": name[4:], "parameters": 9} for name in clients]}


def line(number: int, num_asked: int, **entries: dict[str, Any]) -> dict[str, Any]:
    by_client = {CLIENTS[int(name[-1])]: entry for name, entry in entries.items()}
    return {"round": number, "num_asked": num_asked, "clients": by_client}


def answer(num_answers: int = 0, **more: Any) -> dict[str, Any]:
    return {"num_answers": num_answers, "problem": "", **more}


ROUNDS = [
    line(1, 20, c0=answer(20), c1=answer(5)),
    line(2, 20, c0=answer(problem="no reply", fault="missing"), c1=answer(15, rounds_late=1)),
    line(3, 20, c0=answer(problem="rows are no distributions", fault="refused"), c1=answer(10)),
]


def test_a_cell_is_as_strong_as_the_share_that_was_answered_and_trouble_is_marked() -> None:
    figure = draw_answers([summary(*CLIENTS)], [ROUNDS])
    assert figure is not None
    (axis,) = figure.axes
    strengths = [np.asarray(image.get_array())[0, :, 3].tolist() for image in axis.images]
    assert strengths == [[1.0, 0.0, 0.0], [0.25, 0.75, 0.5]]
    marks = [(one.get_marker(), one.get_color(), one.get_xdata()[0], one.get_ydata()[0]) for one in axis.lines]
    assert marks == [("x", LOSS, 1, 0), ("x", LOSS, 2, 0), ("o", INK, 1, 1)]
    assert [label.get_text() for label in axis.get_yticklabels()] == list(CLIENTS)
    assert [label.get_text() for label in axis.get_xticklabels()] == ["1", "2", "3"]


def test_the_caption_counts_them_and_says_who_trusts_itself_least() -> None:
    caption = answers_caption([summary(*CLIENTS)], [ROUNDS])
    assert "Of 6 answers that were asked for, 4 counted (1 of them late), 1 missing, 1 refused." in caption
    assert "answered for 50 % (001-radar) to 100 % (000-gps) of the samples" in caption
    assert "local self" not in caption


@pytest.mark.parametrize(("num_asked", "said"), [(20, "Every client answered for all samples."), (0, "2 counted.")])
def test_whole_answers_are_said_to_be_whole(num_asked: int, said: str) -> None:
    rounds = [line(1, num_asked, c0=answer(num_asked), c1=answer(num_asked))]
    assert said in answers_caption([summary(*CLIENTS)], [rounds])
    figure = draw_answers([summary(*CLIENTS)], [rounds])
    assert figure is not None
    assert all(np.asarray(image.get_array())[0, 0, 3] == 1.0 for image in figure.axes[0].images)


def test_the_weight_of_a_federated_student_beside_a_local_self_is_that_of_the_last_round() -> None:
    rounds = [line(1, 0, c0=answer(federated_share=0.1), c1=answer(federated_share=0.2))]
    rounds.append(line(2, 0, c0=answer(federated_share=0.75), c1=answer(federated_share=None)))
    caption = answers_caption([summary(*CLIENTS)], [rounds])
    assert "a weight of 20 % (001-radar) to 75 % (000-gps)." in caption


def test_many_clients_have_one_row_for_each_kind_with_their_mean() -> None:
    names = [f"{i:03d}-gps" for i in range(MAX_ROWS + 1)]
    entries = {name: answer(10 if i else 0) for i, name in enumerate(names)}
    figure = draw_answers([summary(*names)], [[{"round": 1, "num_asked": 10, "clients": entries}]])
    assert figure is not None
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["gps"]
    assert np.asarray(axis.images[0].get_array())[0, 0, 3] == pytest.approx(MAX_ROWS / (MAX_ROWS + 1))


def test_without_a_round_there_is_no_figure() -> None:
    assert draw_answers([summary(*CLIENTS)], [[]]) is None
