"""The old place of `LiveTracker`, which the guides have taught; the class is in `clients.models.streaming`."""

from clients.models.streaming import LiveTracker

__all__ = ["LiveTracker"]
