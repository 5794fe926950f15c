"""The study of the paper: the trackers to train, how they are fitted and scored, and the tables and figures.

It is centralised, as in arXiv 2603.16116: no federation is launched here, and nothing crosses a wire.
"""
