"""Worlds and launches: scene, channel, sensors, generation, engines, baselines, report, command line."""
