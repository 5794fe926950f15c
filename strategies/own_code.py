"""What a rule or a strategy of a user's own raises or returns wrongly, as one line that names it.

Without this, a mistake in a user's class ends a run with a stack of ours, or is taken for a mistake of clients.
"""

from __future__ import annotations

import inspect
import logging
import sysconfig
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from traceback import FrameSummary, extract_tb
from types import FunctionType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies.aggregation import Aggregator
from strategies.labels import Contribution, SoftLabels

log = logging.getLogger(__name__)

_NOT_OWN = ("strategies.", "flwr.", "builtins", "abc", "typing")
_ROOMS = Path(__file__).resolve().parents[1]
# The samples for which clients answer when a rule is tried.
NUM_MADE_UP = 8
_OUR_FOLDERS = tuple(
    _ROOMS / name for name in ("configs", "strategies", "clients", "server", "sim", "softbeam", "tests")
)
_LIBRARIES = tuple(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))


class OwnCodeError(ValueError):
    """A user's own class raised, or returned what cannot be used."""


def is_own(value: object) -> bool:
    """Whether the class of an object, or one that it inherits from, is a user's own."""
    return bool(_own_classes(value))


def apply_rule(rule: Aggregator, contributions: Sequence[Contribution]) -> SoftLabels:
    """What a rule makes of contributions; of a user's own rule, every mistake is told in one line.

    Args:
        rule: the rule.
        contributions: what clients answered, at least one.

    Raises:
        OwnCodeError: a user's own rule raised, or what it returned is no ensemble of the contributions.
    """
    if not is_own(rule):
        return rule.aggregate(contributions)
    with blaming(rule, is_called_here=True):
        found = rule.aggregate(contributions)
    asked = np.unique(np.concatenate([one.labels.sample_ids for one in contributions]))
    shape = contributions[0].labels.probs.shape[1:]
    return checked_labels(found, rule, "aggregate", shape=shape, sample_ids=asked)


def check_rule(rule: Aggregator) -> None:
    """Refuse a rule whose method cannot be called as every round does.

    Raises:
        ValueError: it takes other arguments.
    """
    try:
        inspect.signature(rule.aggregate).bind([])
    except TypeError as error:
        raise ValueError(
            f"strategy.aggregator.name: {title_of(rule)}.aggregate must take the contributions and nothing else "
            f"({error}); write def aggregate(self, contributions)"
        ) from None
    except ValueError:  # a built-in callable tells no signature
        return


@contextmanager
def blaming(owner: object, *, is_called_here: bool = False) -> Iterator[None]:
    """Turn what a user's own class raises into one line; whatever our code raises passes.

    Args:
        owner: the rule or the strategy.
        is_called_here: whether nothing but the user's code is called, so that a call that it refuses is its mistake.

    Raises:
        OwnCodeError: the last frame that is the user's or ours is the user's.
    """
    try:
        yield
    except OwnCodeError:
        raise
    except (Exception, SystemExit) as error:
        place = _place_of(error, owner)
        if place is None and not is_called_here:
            raise
        log.debug("%s raised", title_of(owner), exc_info=error)
        where = f" ({Path(place.filename).name}, line {place.lineno}, in {place.name})" if place else ""
        raise OwnCodeError(f"{title_of(owner)} raised {type(error).__name__}: {error}{where}") from error


def place_in_own_code(error: BaseException) -> str:
    """Where a user's own code raised, such as ``(my_models.py, line 12, in Tiny.features)``; empty if ours did.

    What the user's code calls of other libraries counts as the user's, and so does a user's file in the checkout.
    """
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append((trace.tb_frame.f_code, trace.tb_lineno))
        trace = trace.tb_next
    for code, line in reversed(frames):
        file = Path(code.co_filename)
        if any(folder in file.parents for folder in _OUR_FOLDERS):
            return ""
        is_library = any(folder in file.parents for folder in _LIBRARIES) or {"site-packages", "dist-packages"} & set(
            file.parts
        )
        if not is_library and not code.co_filename.startswith("<"):
            return f"({file.name}, line {line}, in {getattr(code, 'co_qualname', code.co_name)})"
    return ""


def checked_labels(
    found: Any,
    owner: object,
    method: str,
    *,
    shape: tuple[int, ...],
    sample_ids: NDArray[np.int64] | None = None,
    count: int | None = None,
) -> SoftLabels:
    """Soft labels that a user's own method returned.

    Args:
        found: what it returned.
        owner: the rule or the strategy.
        method: the name of the method.
        shape: (H, C), what each row must have.
        sample_ids: the samples that must be answered, no others; None lets any pass.
        count: how many public samples there are; None lets any number pass.

    Raises:
        OwnCodeError: it is something else.
    """
    said = f"{title_of(owner)}.{method}"
    if not isinstance(found, SoftLabels):
        raise OwnCodeError(f"{said} returned {type(found).__name__}; return SoftLabels(sample_ids, probs, temperature)")
    try:
        replace(found)  # its arrays may have changed since it was made
    except (ValueError, TypeError, AttributeError) as error:
        raise OwnCodeError(f"{said}: {error}") from None
    if found.probs.shape[1:] != shape:
        raise OwnCodeError(
            f"{said} returned rows of shape {found.probs.shape[1:]}; the horizons and classes of this task are {shape}"
        )
    if count is not None and len(found) and found.sample_ids[-1] >= count:
        raise OwnCodeError(
            f"{said} returned sample {found.sample_ids[-1]}; public samples have the numbers 0 to {count - 1}"
        )
    if sample_ids is not None and not np.array_equal(found.sample_ids, sample_ids):
        raise OwnCodeError(
            f"{said} returned {len(found)} samples, other than the {len(sample_ids)} that clients answered; return "
            "one row for each of them, in ascending order"
        )
    return found


def checked_samples(found: Any, owner: object, method: str, *, count: int) -> NDArray[np.int64]:
    """Numbers of what clients are asked about, such as public samples, that a user's own method returned.

    Args:
        found: what it returned.
        owner: the strategy.
        method: the name of the method.
        count: how many of them there are.

    Raises:
        OwnCodeError: they are something else.
    """
    values = np.asarray(found)
    is_fine = values.ndim == 1 and (values.dtype.kind in "iu" or values.size == 0)
    if is_fine and values.size:
        is_fine = values[0] >= 0 and values[-1] < count and bool(np.all(np.diff(values.astype(np.int64)) > 0))
    if not is_fine:
        raise OwnCodeError(
            f"{title_of(owner)}.{method} returned {type(found).__name__} {str(found)!r:.60}; return an array of "
            f"integers from 0 to {count - 1} that ascend"
        )
    return values.astype(np.int64)


def checked_clients(found: Any, owner: object, method: str, *, members: Collection[str]) -> list[str]:
    """The clients that a user's own method chose; none is a choice, too.

    Args:
        found: what it returned.
        owner: the strategy.
        method: the name of the method.
        members: the ids that there are.

    Raises:
        OwnCodeError: it is no list of these, or names one twice.
    """
    said = f"{title_of(owner)}.{method}"
    if not isinstance(found, (list, tuple, set, frozenset)) or not all(isinstance(one, str) for one in found):
        raise OwnCodeError(
            f"{said} returned {type(found).__name__} {str(found)!r:.60}; return a list of ids of clients"
        )
    if unknown := [one for one in found if one not in members]:
        known = ", ".join(sorted(members)[:4]) + (", ..." if len(members) > 4 else "")
        raise OwnCodeError(f"{said} names {unknown[0]!r}, which is no client; there are {known}")
    if len(set(found)) < len(found):
        raise OwnCodeError(f"{said} names a client twice; name each once")
    return sorted(found)


def try_rule(rule: Aggregator, clients: Sequence[tuple[str, str]], *, shape: tuple[int, int]) -> None:
    """Let a user's own rule aggregate made-up answers, in which every client answers for the same samples.

    Args:
        rule: the rule; it should be one of its own, for it may remember what it saw.
        clients: id and modality of each client.
        shape: (H, C), the horizons and classes of the task.

    Raises:
        ValueError: it raised, or what it returned is no ensemble.
    """
    rng = np.random.default_rng(0)
    contributions = []
    for client, modality in clients:
        probs = rng.dirichlet(np.ones(shape[1]), size=(NUM_MADE_UP, shape[0])).astype(np.float32)
        labels = SoftLabels(np.arange(NUM_MADE_UP), probs, 1.0)
        contributions.append(Contribution(client, modality, labels, 5, seen=np.ones(shape[1], np.int64)))
    try:
        apply_rule(rule, contributions)
    except OwnCodeError as error:
        raise ValueError(f"strategy.aggregator.name: tried on made-up answers: {error}") from error


def title_of(owner: object) -> str:
    """The name by which a YAML names the class of an object, its own one first: ``module:Class``."""
    cls = next(iter(_own_classes(owner)), type(owner))
    return f"{cls.__module__}:{cls.__name__}"


def _own_classes(owner: object) -> list[type]:
    """The classes of a user's own that an object is of, the nearest first."""
    return [cls for cls in type(owner).__mro__ if not cls.__module__.startswith(_NOT_OWN)]


def _place_of(error: BaseException, owner: object) -> FrameSummary | None:
    """Where a user's own code raised; None if our code did, called by it or not."""
    theirs = {
        member.__code__.co_filename
        for cls in _own_classes(owner)
        for member in vars(cls).values()
        if isinstance(member, FunctionType)
    }
    for frame in reversed(extract_tb(error.__traceback__)):
        if frame.filename in theirs:
            return frame
        if _ROOMS in Path(frame.filename).parents and "site-packages" not in frame.filename:
            return None
    return None
