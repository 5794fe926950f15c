"""Received texts as they are shown, and where soft labels begin to cost more than weights."""

from __future__ import annotations

import pytest

from strategies.messages.records import MAX_TEXT, ClientRound, Member, break_even_samples, one_line, printable
from strategies.messages.wire import WireError

# What a terminal, a page or an editor would obey instead of show, each kind once or more.
HOSTILE = {
    "escape": "\x1b[2J\x1b]0;title\x07",
    "one-byte CSI": "\x9b31m",
    "backspace": "ok\b\b",
    "NUL and delete": "\0\x7f",
    "right to left": "\u202egpj.exe",
    "isolates": "\u2066a\u2067b\u2068c\u2069",
    "embeddings": "\u202aa\u202bb\u202cc\u202dd",
    "marks": "\u200e\u200f\u061c",
    "zero width": "a\u200bb\u200cc\u200dd\u2060e\ufeff",
    "soft hyphen": "a\u00adb",
    "invisible letters": "\u3164\uffa0\u115f\u2800",
    "variation selectors": "a\ufe0fb\U000e0100",
    "tags": "\U000e0041\U000e007f",
    "half of a character": "\ud83d",
    "private use": "\ue000",
    "annotations": "\ufff9a\ufffab\ufffb",
}
BREAKS = {"newline": "a\nb", "return": "a\rb", "lines": "a\u2028b\u2029c", "next line": "a\x85b", "form feed": "a\fb"}


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


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_a_terminal_would_obey_is_shown_as_what_it_is(text: str) -> None:
    for shown in (printable(text), one_line(text), str(WireError(f"got {text}"))):
        assert shown.isprintable()
        shown.encode()
        assert "\\" in shown
        assert printable(shown) == shown, "a second time changes nothing"


@pytest.mark.parametrize("text", BREAKS.values(), ids=BREAKS)
def test_what_would_begin_a_line_is_a_space(text: str) -> None:
    assert one_line(text).replace(" ", "") in ("ab", "abc")


def test_a_text_that_people_write_stays_as_it_is() -> None:
    text = "no disk: Größe 5 µm, 温度 -3 °C, العربية, ∑ 🙂 [red] <b> \\n"
    assert one_line(text) == text


def test_a_long_text_is_cut_and_soon_looked_at() -> None:
    line = one_line("\u202e" * 10_000_000)
    assert len(line) == MAX_TEXT
    assert line.endswith("...")
