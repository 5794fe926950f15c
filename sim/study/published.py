"""The published results of the trackers of the study, which are printed beside our own.

They are in percent, means over the horizons, one run each, on scenario 9; the epoch was chosen on the test passes, so
they are optimistic. The "DBA" of the papers is the K = 3 term alone (`clients.learning.metrics.dba_k3_score`): the
official DBA of these trackers is not known and cannot be computed from it.

Source: results published with the code of arXiv 2603.16116 (J = 3, tested on 1267 windows) and of arXiv 2509.11419
(J = 6, 774 windows). Parameters and operations are those of the described models, counted for T = L - 1 + J steps;
the papers count operations for T = L, without attention, and call a multiply-accumulate a FLOP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sim.study.cells import Setting

Key = tuple[str, int, int, str]
# The scenario of DeepSense 6G that they were measured on.
DATA = "scenario 9"


@dataclass(frozen=True)
class Published:
    """A published result; its test windows are not the same as ours.

    Attributes:
        model: the name of the model in `clients.models.registry`.
        future: J.
        input_length: L.
        kd: the kind of knowledge, as in a row.
        top1: Top-1 in percent; ``top3`` and ``top5`` in the same way.
        dba_k3: the K = 3 term of the DBA alone, in percent.
        parameters: the number of parameters of the model.
        mmacs: million multiply-accumulates of a window.
        num_windows: the number of test windows.
        source: the source of the accuracies.
    """

    model: str
    future: int
    input_length: int
    kd: str
    top1: float
    top3: float
    top5: float
    dba_k3: float
    parameters: int
    mmacs: float
    num_windows: int
    source: str


_COLLABORATIVE, _LONG_TERM = "arXiv 2603.16116", "arXiv 2509.11419"
_ROWS = (
    Published("image-teacher", 3, 8, "none", 43.75, 78.87, 92.21, 93.69, 1_762_458, 181.4, 1267, _COLLABORATIVE),
    Published("image-teacher", 3, 8, "self", 45.22, 80.88, 93.65, 94.88, 1_762_458, 181.4, 1267, _COLLABORATIVE),
    Published("image-student", 3, 8, "none", 38.67, 75.87, 90.23, 92.05, 94_778, 94.3, 1267, _COLLABORATIVE),
    Published("image-student", 3, 8, "response", 42.58, 79.58, 93.07, 94.16, 94_778, 94.3, 1267, _COLLABORATIVE),
    Published("image-student", 3, 8, "relational", 43.67, 79.18, 91.95, 93.05, 94_778, 94.3, 1267, _COLLABORATIVE),
    Published("fusion-teacher", 3, 8, "none", 50.16, 86.96, 96.84, 96.55, 2_947_740, 207.8, 1267, _COLLABORATIVE),
    Published("fusion-student", 3, 8, "none", 44.91, 80.49, 93.57, 93.97, 105_940, 39.8, 1267, _COLLABORATIVE),
    Published("fusion-student", 3, 8, "response", 48.78, 84.57, 95.64, 95.66, 105_940, 39.8, 1267, _COLLABORATIVE),
    Published("fusion-student", 3, 8, "relational", 48.40, 85.73, 95.32, 95.80, 105_940, 39.8, 1267, _COLLABORATIVE),
    Published("long-term-teacher", 6, 8, "none", 42.91, 79.97, 93.35, 94.47, 1_788_280, 234.3, 774, _LONG_TERM),
    Published("long-term-teacher", 6, 8, "self", 44.94, 81.45, 94.63, 95.00, 1_788_280, 234.3, 774, _LONG_TERM),
    Published("long-term-student", 6, 8, "none", 38.02, 73.31, 88.46, 90.90, 107_193, 122.8, 774, _LONG_TERM),
    Published("long-term-student", 6, 8, "response", 43.37, 80.25, 94.00, 94.61, 107_193, 122.8, 774, _LONG_TERM),
    Published("long-term-student", 6, 5, "none", 37.28, 70.62, 87.45, 89.81, 107_193, 94.5, 774, _LONG_TERM),
    Published("long-term-student", 6, 5, "response", 43.25, 80.22, 94.09, 94.29, 107_193, 94.5, 774, _LONG_TERM),
    Published("long-term-student", 6, 3, "none", 35.68, 68.77, 86.42, 88.59, 107_193, 75.6, 774, _LONG_TERM),
    Published("long-term-student", 6, 3, "response", 41.79, 79.25, 93.30, 94.08, 107_193, 75.6, 774, _LONG_TERM),
)
# The published results by model, future, input length and kind of knowledge.
PUBLISHED: Mapping[Key, Published] = {(row.model, row.future, row.input_length, row.kd): row for row in _ROWS}
# The teacher of each published student; that of the fusion students was not born again.
_TEACHERS: Mapping[str, Key] = {
    "image-student": ("image-teacher", 3, 8, "self"),
    "fusion-student": ("fusion-teacher", 3, 8, "none"),
    "long-term-student": ("long-term-teacher", 6, 8, "self"),
}


def published_of(setting: Setting) -> Published | None:
    """The published result of the same tracker; None if there is none, or if the radar is aligned in another way."""
    if setting.alignment != "paper":
        return None
    return PUBLISHED.get((setting.model, setting.future, setting.input_length, setting.kd))


def published_gain(found: Published, metric: str) -> float | None:
    """The gain over the same published tracker without a teacher, in points; None if that one is not published.

    Args:
        found: the result of a taught tracker.
        metric: the name of a metric in `Published`.
    """
    plain = PUBLISHED.get((found.model, found.future, found.input_length, "none"))
    return None if plain is None or plain == found else getattr(found, metric) - getattr(plain, metric)


def published_share(found: Published) -> float | None:
    """The share of the Top-5 gap to its teacher that a published student closed; 1 is the whole gap."""
    gain = published_gain(found, "top5")
    if gain is None or found.model not in _TEACHERS:
        return None
    return gain / (PUBLISHED[_TEACHERS[found.model]].top5 - (found.top5 - gain))
