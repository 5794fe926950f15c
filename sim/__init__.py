"""Launches of experiments: engines, baselines, reports, command line; with worlds, data and benchmarks in folders."""
