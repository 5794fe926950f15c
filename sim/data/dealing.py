"""Deals the passes of a scenario by shares of what is there, and counts what they hold in windows, not in passes.

A pass of ``len`` frames has ``len - L - J`` windows, for windows of L frames with J labelled slots after them. Passes
without a window teach and test nothing, so they are not dealt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clients.data.blocks import BLOCK_FRAMES
from configs.schema import Task

FEW_WINDOWS = 32
"""Windows below which a part is said to be too small before training: with fewer than one batch of the default size
there is little to learn, to choose between learners by, or to tell learners apart by."""


@dataclass(frozen=True)
class Slot:
    """A part of a federation that passes are dealt to.

    Attributes:
        share: the share of the windows that it should get, relative to the other slots, > 0.
        turns: the turns in which it gets a pass before the rest is dealt: in turn 0 one that it cannot do without, in
            turn 1 one to validate on, in turn 2 one to test itself on.
    """

    share: float
    turns: tuple[int, ...] = (0,)

    @property
    def is_needed(self) -> bool:
        """Whether the slot cannot do without a pass."""
        return 0 in self.turns


def windows_of(pass_ids: NDArray[np.integer], task: Task) -> dict[int, int]:
    """Id of each pass, ascending -> the number of its windows, >= 0."""
    ids, lengths = np.unique(pass_ids, return_counts=True)
    counts = np.maximum(lengths - task.num_frames - task.num_future, 0)
    return dict(zip(ids.tolist(), counts.tolist(), strict=True))


def deal_by_windows(deck: Sequence[int], windows: Mapping[int, int], slots: Sequence[Slot]) -> list[list[int]]:
    """Deal passes so that the windows of each slot come near its share.

    First come the turns of the slots, as far as passes last. Then each pass goes to the slot that lacks most windows.

    Args:
        deck: the passes in the order of dealing, at least as many as there are needed slots.
        windows: id of each pass -> the number of its windows, > 0.
        slots: the slots.

    Returns:
        The passes of each slot, ascending.
    """
    shares = np.array([slot.share for slot in slots])
    wanted = shares / shares.sum() * sum(windows[i] for i in deck)
    held = np.zeros(len(slots))
    hands: list[list[int]] = [[] for _ in slots]
    first = [n for _, n in sorted((turn, n) for n, slot in enumerate(slots) for turn in slot.turns)]
    for number, pass_id in enumerate(deck):
        slot = first[number] if number < len(first) else int(np.argmax(wanted - held))
        hands[slot].append(pass_id)
        held[slot] += windows[pass_id]
    return [sorted(hand) for hand in hands]


def cut_into_blocks(pass_ids: NDArray[np.int32], *, needed: int, task: Task) -> NDArray[np.int32]:
    """Cut passes into blocks of consecutive frames, as passes of their own, with gaps of a window between two blocks.

    Windows of two blocks share no frame in any case. The gap of L + J frames keeps them from being neighbours, whose
    frames are nearly the same.

    Args:
        pass_ids: (F,) the pass of each frame, one run of frames for each pass.
        needed: the number of blocks with windows that should come out; blocks are as long as this allows, and at most
            `BLOCK_FRAMES` frames.
        task: the task, which gives the length of a window.

    Returns:
        (F,) the block of each frame, from 1 on; 0 for the frames of gaps and of passes without a window.
    """
    gap = task.num_frames + task.num_future
    lengths = [int(n) for n in np.unique(pass_ids, return_counts=True)[1]]
    size = BLOCK_FRAMES
    while size > gap + 1 and _num_blocks(lengths, size, gap) < needed:
        size -= 1
    blocks = np.zeros(len(pass_ids), np.int32)
    number = 0
    for pass_id in np.unique(pass_ids):
        frames = np.flatnonzero(pass_ids == pass_id)
        for first in range(0, len(frames), size + gap):
            if len(block := frames[first : first + size]) > gap:
                number += 1
                blocks[block] = number
    return blocks


def _num_blocks(lengths: Sequence[int], size: int, gap: int) -> int:
    """The number of blocks with a window: whole ones, and rests that are longer than a window."""
    return sum(length // (size + gap) + (length % (size + gap) > gap) for length in lengths)
