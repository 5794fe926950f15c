"""The paper's study: which trackers are trained, how they are fitted and scored, and the tables and figures made of it.

Centralised, as in arXiv 2603.16116: no federation is launched here, nothing crosses a wire.
"""
