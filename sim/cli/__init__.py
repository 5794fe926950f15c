"""The command line; ``softbeam --help`` lists its commands. Heavy imports stay inside them, so help answers at once."""
