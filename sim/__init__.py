"""Everything that starts a run: engines, real machines, command line; with its world, data, benchmarks and reports."""
