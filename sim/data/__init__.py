"""Federations on disk: planned, generated, converted, cut, exported and inspected."""
