"""Benchmarks: the cost of world, trackers, codecs and messages, what can be learned, and what attacks can do."""
