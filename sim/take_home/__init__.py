"""From a finished run to models that are used elsewhere: which there are, and folders with one model each."""
