"""The figures of DeepSense 6G scenario 9, by name, with their meanings and measured values.

This file has text and numbers only, so that the help of a command can list them without other imports.

Source: `sim.data.statistics` on the power of DeepSense 6G scenario 9 (Alkhateeb et al., IEEE Communications Magazine
2023, www.deepsense6g.net), 5,964 frames of 136 passes. Aggregates only; the data itself is CC BY-NC-SA 4.0.
"""

from __future__ import annotations

import textwrap

HORIZONS = (1, 2, 3)
"""Numbers of slots ahead at which trivial predictors are scored."""
PROFILE_OFFSETS = (1, 2, 3, 4, 5, 6, 8)
"""Distances from the best beam, in beams, at which the power of its neighbours is averaged."""

_PER_HORIZON = {
    "persistence_{h}": "share of frames whose beam is still the best {h} slots later",
    "linear_top1_{h}": "share hit {h} slots ahead by the line through the current beam with the last 5 beams' slope",
    "linear_within2_{h}": "share that this line misses by two beams at most",
    "markov_top1_{h}": "Top-1 {h} slots ahead of a table by current beam, filled on the first 70 % of the passes",
    "markov_top3_{h}": "Top-3 of the same table",
    "markov_top5_{h}": "Top-5 of the same table",
}
STATISTICS: dict[str, str] = {
    "pass_length_p05": "frames of a pass, 5th percentile over passes",
    "pass_length_p50": "frames of a pass, median",
    "pass_length_p95": "frames of a pass, 95th percentile",
    "gap_2nd_db": "best beam's power over the second best's, median over frames, dB",
    "gap_3rd_db": "the same over the third best's",
    "gap_5th_db": "the same over the fifth best's",
    "range_db_p05": "best over worst beam's power, 5th percentile over frames, dB",
    "range_db_p50": "the same, median",
    "range_db_p95": "the same, 95th percentile",
    "level_spread_db": "s.d. of the best beam's power round its mean over the pass, dB",
    "level_memory": "correlation of that deviation from frame to frame",
    "step_share_0": "share of steps (frame to frame, within a pass) that keep the beam",
    "step_share_1": "share of steps to the next beam, either side",
    "step_share_2": "share of steps by two beams",
    "step_share_over_2": "share of steps by more than two beams, those by more than five included",
    "step_share_over_5": "share of steps by more than five beams",
    "steps_backwards": "share of steps against the pass's main direction",
    "steps_backwards_over_2": "share of steps by more than two beams against it",
    "entropy_bits": "entropy of the histogram of best beams, bits; 6 would be 64 equal shares",
    "dead_beams": "beams that are the best in under 0.3 % of the frames (of 64 beams; else in proportion)",
    "edge_share_low": "share of frames whose best beam is one of the first three",
    "edge_share_high": "share of frames whose best beam is one of the last three",
    **{f"profile_db_{k}": f"mean power {k} beams below the best, relative to it, dB" for k in PROFILE_OFFSETS},
    **{f"profile_above_db_{k}": f"mean power {k} beams above the best, relative to it, dB" for k in PROFILE_OFFSETS},
    **{name.format(h=h): text.format(h=h) for name, text in _PER_HORIZON.items() for h in HORIZONS},
    "mask_density": "share of pixels on in the motion masks of 224x224 camera pictures",
    "mask_density_64": "the same of 64x64 pictures, as recordings keep them; not measured in scenario 9",
}

SCENARIO_9: dict[str, float] = {
    "pass_length_p05": 35.0,
    "pass_length_p50": 43.0,
    "pass_length_p95": 54.5,
    "gap_2nd_db": 0.21122,
    "gap_3rd_db": 0.50593,
    "gap_5th_db": 1.3296,
    "range_db_p05": 3.2575,
    "range_db_p50": 10.022,
    "range_db_p95": 18.323,
    "level_spread_db": 4.1016,
    "level_memory": 0.85986,
    "step_share_0": 0.25412,
    "step_share_1": 0.26321,
    "step_share_2": 0.2349,
    "step_share_over_2": 0.24777,
    "step_share_over_5": 0.019904,
    "steps_backwards": 0.051476,
    "steps_backwards_over_2": 0.015786,
    "entropy_bits": 5.4395,
    "dead_beams": 9.0,
    "edge_share_low": 0.10111,
    "edge_share_high": 0.12508,
    "profile_db_1": -0.63668,
    "profile_db_2": -1.2634,
    "profile_db_3": -2.2754,
    "profile_db_4": -3.6945,
    "profile_db_5": -5.4341,
    "profile_db_6": -6.3594,
    "profile_db_8": -5.5684,
    "profile_above_db_1": -0.63,
    "profile_above_db_2": -1.6002,
    "profile_above_db_3": -2.1856,
    "profile_above_db_4": -3.4786,
    "profile_above_db_5": -4.9556,
    "profile_above_db_6": -6.2326,
    "profile_above_db_8": -6.9852,
    "persistence_1": 0.20278,
    "persistence_2": 0.090421,
    "persistence_3": 0.065354,
    "linear_top1_1": 0.26141,
    "linear_top1_2": 0.23948,
    "linear_top1_3": 0.19248,
    "linear_within2_1": 0.93397,
    "linear_within2_2": 0.88115,
    "linear_within2_3": 0.83796,
    "markov_top1_1": 0.47704,
    "markov_top1_2": 0.44927,
    "markov_top1_3": 0.42006,
    "markov_top3_1": 0.83542,
    "markov_top3_2": 0.80868,
    "markov_top3_3": 0.76238,
    "markov_top5_1": 0.94037,
    "markov_top5_2": 0.9346,
    "markov_top5_3": 0.91411,
    "mask_density": 0.0215,
}
"""The measured values. The mask density is the middle of the 2.1-2.2 % that the batch norms of published students
(arXiv:2603.16116) have stored; the pictures themselves were not available."""


def describe_statistics(width: int = 80) -> str:
    """The table of names and meanings for a terminal of ``width`` columns."""
    column = max(map(len, STATISTICS)) + 2
    return "\n".join(
        textwrap.fill(meaning, width, initial_indent=name.ljust(column), subsequent_indent=" " * column)
        for name, meaning in STATISTICS.items()
    )
