"""The import path of `DistillationStrategy` that the guides taught first; `strategies.methods.distillation` has it."""

from strategies.methods.distillation import DistillationStrategy

__all__ = ["DistillationStrategy"]
