"""How much a client trusts itself on a window: by the certainty of its answer, or by the density of its own data there.

Both are scores of which only the order matters, so both get their threshold from the client's own held-out windows:
the threshold is the score that a given share of them reaches. The alternative, one threshold for all clients, would
have to be found again for every sensor. N windows, D features.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from clients.data.recording import Recording
from clients.learning.learner import Learner
from configs.seeding import seed_for

# The number of centres of a client's own features; it is small, because the filter runs on small nodes.
NUM_CENTRES = 16


def trusted(
    learner: Learner, starts: NDArray[np.int64], *, kind: Literal["none", "confidence", "density"], share: float
) -> NDArray[np.bool_]:
    """(N,) whether the learner trusts itself on public windows; a learner without own labels always does.

    Source: client-side selection as in Selective-FD, arXiv 2304.01731; the distance to the nearest of a few k-means
    centres as in EdgeFD; here it is computed on the tracker's own features.

    Args:
        learner: the learner that would answer.
        starts: (N,) first frames of windows of the public recording.
        kind: the score. ``confidence``: the largest probability, averaged over the horizons; ``density``: the negative
            distance to the nearest centre of the learner's own features; ``none``: every window is trusted.
        share: the share of its own held-out windows (of its training windows if it has none) that the learner would
            answer, in (0, 1].
    """
    material = learner.material
    if kind == "none" or len(starts) == 0 or not material.is_labelled:
        return np.ones(len(starts), np.bool_)
    held_out = material.validation if len(material.validation) else material.train
    score = _certainty if kind == "confidence" else _closeness
    threshold = np.quantile(score(learner, material.recording, held_out), 1.0 - share)
    passes: NDArray[np.bool_] = score(learner, material.public, starts) >= threshold
    return passes


def _certainty(learner: Learner, recording: Recording, starts: NDArray[np.int64]) -> NDArray[np.float64]:
    logits = learner.predict(recording, starts, best=False)
    top = torch.softmax(logits, dim=-1).amax(dim=-1).mean(dim=-1)
    return top.numpy().astype(np.float64)


def _closeness(learner: Learner, recording: Recording, starts: NDArray[np.int64]) -> NDArray[np.float64]:
    from scipy.cluster.vq import kmeans2, vq  # This import takes a quarter of the time in which a node starts.

    own = learner.predict_features(learner.material.recording, learner.material.train)
    seed = seed_for(learner.seed, learner.name, "centres", learner.progress.round) % 2**32
    centres, _ = kmeans2(own, min(NUM_CENTRES, len(own)), minit="++", seed=seed)
    _, distance = vq(learner.predict_features(recording, starts), centres)
    closeness: NDArray[np.float64] = -distance.astype(np.float64)
    return closeness
