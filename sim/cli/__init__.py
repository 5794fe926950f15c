"""The command line; ``softbeam --help`` lists its commands. No algorithm is here: commands call the other folders."""
