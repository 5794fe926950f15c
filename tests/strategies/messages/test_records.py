"""Where soft labels begin to cost more than weights."""

from __future__ import annotations

import pytest

from strategies.messages.records import ClientRound, Member, break_even_samples


def test_the_paper_s_fusion_student_breaks_even_at_414_samples() -> None:
    assert break_even_samples(106_000, 4 * 64 * 4) == 414  # 424 kB over 1,024 B


def test_at_the_break_even_soft_labels_are_not_dearer_and_one_sample_later_they_are() -> None:
    for num_parameters, bytes_per_sample in ((1000, 516.0), (12_345, 1028.0), (64, 256.0)):
        samples = break_even_samples(num_parameters, bytes_per_sample)
        assert samples * bytes_per_sample <= 4 * num_parameters < (samples + 1) * bytes_per_sample


def test_an_answer_that_counts_has_no_problem() -> None:
    assert ClientRound(downlink_bytes=3).problem == ""


def test_an_account_cannot_be_changed() -> None:
    member = Member("000-gps", "gps", num_parameters=1, num_passes=2, num_examples=3)
    with pytest.raises(AttributeError):
        member.num_examples = 4  # type: ignore[misc]
