"""Beam trackers: the federation's, the published and our light ones, their encoders, live streams. No protocol here."""
