"""Docstrings are read as the project writes them."""

from __future__ import annotations

from sim.reference.docstrings import cell, markdown, parse

WHOLE = """Deal passes.

    A client that gets nothing takes one
    from :func:`another`.

        >>> code()

    Args:
        count: how many,
            at least one.
        name: ``None`` for none.

    Source: a paper, arXiv:1; with passes
    in place of rows.

    Raises:
        ValueError: it is < 1.

    Example:
        >>> deal(1)
        {1: 2}
    """


def test_a_docstring_is_taken_apart() -> None:
    found = parse(WHOLE)
    assert found.text == "Deal passes.\n\nA client that gets nothing takes one from `another`.\n\n    >>> code()"
    assert found.entries == {
        "Args": {"count": "how many, at least one.", "name": "`None` for none."},
        "Raises": {"ValueError": "it is &lt; 1."},
    }
    assert found.texts == {
        "Source": "a paper, arXiv:1; with passes in place of rows.",
        "Example": ">>> deal(1)\n{1: 2}",
    }
    assert found.meaning("count") == "how many, at least one." and found.meaning("other") == ""


def test_its_markdown_has_lists_and_code() -> None:
    text = parse(WHOLE).to_markdown()
    assert "**Arguments**\n\n- `count`: how many, at least one.\n- `name`: `None` for none." in text
    assert "```pycon\n>>> deal(1)\n{1: 2}\n```" in text
    assert "**Source**: a paper" in text


def test_code_keeps_its_signs_and_prose_shows_them() -> None:
    assert markdown("a <b> ``x < y`` and `z<w`") == "a &lt;b> `x < y` and `z<w`"
    assert cell("a | b\n  c") == "a \\| b c"


def test_nothing_is_said_where_there_is_no_docstring() -> None:
    assert parse(None).to_markdown() == ""
