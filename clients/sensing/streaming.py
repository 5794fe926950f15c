"""The name by which the guides have taught `LiveTracker`; it lives in `clients.models.streaming`."""

from clients.models.streaming import LiveTracker

__all__ = ["LiveTracker"]
