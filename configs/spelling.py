"""What a person may have meant by a word that is not known."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches

_MAX_SHOWN = 3
# Names that are this much less alike than the nearest one are not shown beside it.
_MARGIN = 0.1


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """A question that names the known words nearest to an unknown one, to be put behind an error; empty if none is.

    Example:
        >>> did_you_mean("scarlett", ["scarlet", "fedmd"])
        '; did you mean scarlet?'
        >>> did_you_mean("moon", ["scarlet", "fedmd"])
        ''
    """
    by_lower = {name.lower(): name for name in sorted(known)}
    typed = str(word).lower()
    near = get_close_matches(typed, by_lower, n=_MAX_SHOWN, cutoff=0.6)
    alike = {name: SequenceMatcher(None, name, typed).ratio() for name in near}
    return asked(by_lower[name] for name in near if alike[name] >= max(alike.values()) - _MARGIN)


def asked(names: Iterable[str]) -> str:
    """The question of :func:`did_you_mean` for names that are known already; empty for none."""
    shown = list(names)[:_MAX_SHOWN]
    return f"; did you mean {' or '.join(shown)}?" if shown else ""
