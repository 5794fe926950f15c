"""The base of every section of an experiment."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

# What no machine could carry out is refused before it begins: these are far beyond what anybody runs.
MAX_ROUNDS = 1_000_000
MAX_EPOCHS = 1_000_000
MAX_PASSES = 1_000_000
MAX_STEPS = 10_000_000
MAX_BATCH = 1_000_000


class Section(BaseModel):
    """A part of an experiment: immutable, typed, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
