"""What a sweep varies: one key of an experiment for each dimension, and the values that it may take.

strategy.temperature=1..8                    any number between, ends included; whole numbers where the key takes these
training.learning_rate=log(1e-3,1e-2)        any number between, drawn by its logarithm
strategy.aggregator.name=mean|entropy_mean   one of several values, each as YAML would have it
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})", re.IGNORECASE)
_LOG = re.compile(rf"log\(\s*({_NUMBER})\s*,\s*({_NUMBER})\s*\)", re.IGNORECASE)


class Draws(Protocol):
    """What draws the values of a trial; a trial of Optuna does."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number between two."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """A whole number between two, ends included."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of several values."""


@dataclass(frozen=True)
class Dimension:
    """A key that a sweep varies.

    Attributes:
        key: its dotted path.
        choices: its values, as YAML texts; empty for a range.
        low: the least number of a range.
        high: the largest one.
        is_log: whether a range is drawn by its logarithm.
        is_whole: whether the numbers of a range are whole.
    """

    key: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    is_log: bool = False
    is_whole: bool = False

    @property
    def corners(self) -> tuple[str, ...]:
        """The values to try before a sweep starts, as YAML texts: all of a choice, both ends of a range."""
        return self.choices or (self._text(self.low), self._text(self.high))

    def draw(self, trial: Draws) -> str:
        """The value of a trial, as a YAML text."""
        if self.choices:
            return str(trial.suggest_categorical(self.key, self.choices))
        if self.is_whole:
            return self._text(trial.suggest_int(self.key, int(self.low), int(self.high), log=self.is_log))
        return self._text(trial.suggest_float(self.key, self.low, self.high, log=self.is_log))

    def text_of(self, drawn: Any) -> str:
        """The YAML text of what :meth:`draw` drew in an earlier trial."""
        return str(drawn) if self.choices else self._text(drawn)

    def _text(self, value: float) -> str:
        return str(int(value)) if self.is_whole else number_text(value)


def number_text(value: float) -> str:
    """A number as YAML reads it: a float with an exponent needs a point there, or it would be a text."""
    text = repr(float(value))
    mantissa, sign, exponent = text.partition("e")
    return f"{mantissa}{'' if '.' in mantissa else '.0'}{sign}{exponent}"


def parse_dimension(text: str, values: Mapping[str, Any]) -> Dimension:
    """The dimension that ``KEY=SPACE`` describes.

    Args:
        text: the words of the command line.
        values: the whole experiment, which says where whole numbers are wanted.

    Raises:
        ValueError: the text is no dimension.
    """
    key, sign, space = (part.strip() for part in text.partition("="))
    if not sign or not all(key.split(".")):
        raise ValueError(f"--over {text}: expected KEY=SPACE, such as strategy.temperature=1..8")
    log, plain = _LOG.fullmatch(space), _RANGE.fullmatch(space)
    if found := log or plain:
        low, high = float(found[1]), float(found[2])
        if low >= high:
            raise ValueError(f"--over {text}: the first number must be less than the second")
        if log and low <= 0:
            raise ValueError(f"--over {text}: a logarithm needs numbers above 0")
        is_whole = _is_whole(values, key) and low.is_integer() and high.is_integer()
        return Dimension(key, low=low, high=high, is_log=log is not None, is_whole=is_whole)
    choices = tuple(choice.strip() for choice in space.split("|"))
    if len(choices) < 2 or "" in choices:
        raise ValueError(
            f"--over {text}: expected a range such as 1..8 or log(1e-3,1e-2), or choices such as mean|median"
        )
    if len(set(choices)) < len(choices):
        raise ValueError(f"--over {text}: a value is there twice; leave one out")
    return Dimension(key, choices)


def parse_space(texts: Sequence[str], values: Mapping[str, Any]) -> tuple[Dimension, ...]:
    """The dimensions of a sweep.

    Raises:
        ValueError: one of them is none, or two are of one key.
    """
    space = tuple(parse_dimension(text, values) for text in texts)
    keys = [one.key for one in space]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise ValueError(f"--over {twice}: it is there twice; name each key once")
    return space


def _is_whole(values: Mapping[str, Any], key: str) -> bool:
    """Whether an experiment has a whole number at a dotted path."""
    try:
        value: Any = reduce(
            lambda here, name: here[int(name)] if isinstance(here, list) else here[name], key.split("."), values
        )
    except (KeyError, IndexError, TypeError, ValueError):
        return False
    return isinstance(value, int) and not isinstance(value, bool)
