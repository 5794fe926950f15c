"""Searches for settings of an experiment that validate best: ``softbeam sweep``."""
