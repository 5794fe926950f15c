"""Beam trackers: encoders, the federation's, the published and our light ones, live streams. Here is no protocol."""
