"""The name by which the guides have taught `DistillationStrategy`; it lives in `strategies.methods.distillation`."""

from strategies.methods.distillation import DistillationStrategy

__all__ = ["DistillationStrategy"]
