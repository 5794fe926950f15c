"""How a client protects its soft labels before they leave, and what that guarantees. N samples, H horizons, C classes.

There are three ways, which can be combined:

- *Clipping and noise.* The neighbours are two data sets of the client that differ in anything (user level). A soft
  label of one public sample is one release: its rows minus the uniform one, clipped to norm ``clip``, so that it
  changes by ``2 clip`` at most; Gaussian noise of ``noise_multiplier`` times that is added. All releases of all rounds
  compose, also those of a round that is done again.
  The accountant is that of Opacus, because an accountant of our own would be one more thing to trust.
- *k of n.* The client learns from k windows drawn once, with replacement, from its n for training and validation: two
  data sets that differ in one window give the same student unless that window is drawn. Windows of a pass share frames,
  so the guarantee is for windows, not for passes. Noise-free differential privacy, arXiv 2009.05537.
- *Top-1.* Only the likeliest class and its probability leave. This gives no bound, but less to learn from.

An account belongs to one client in one run, and covers what the two bounds are about. With noise a client therefore
withholds its loss, its validation score, its scores on its own test passes and which classes it has seen. With k of n
it withholds the scores on its own test passes; the rest follows from the drawn windows, which the bound covers. No
account covers how many passes and windows a client has, how long it takes, and its scores on the common test set,
which a node without that set does not send. Noise and draw come from the client's own randomness (`clients.privacy`).
They are ordinary floating-point numbers, not hardened against somebody who studies their last bits (Mironov, CCS 2012).
"""

from __future__ import annotations

import math
import warnings

import numpy as np
from numpy.typing import NDArray

from strategies.labels import normalise_rows

Probs = NDArray[np.float32]

# Orders of Renyi divergence among which the accountant finds the best.
ORDERS = [1.001, 1.003, 1.01, 1.03] + [1.0 + tenth / 10.0 for tenth in range(1, 100)] + list(range(12, 512, 4))


def privatise(probs: Probs, *, clip: float, noise_multiplier: float, rng: np.random.Generator) -> Probs:
    """Clip soft labels around the uniform one, add noise, and bring them back to the simplex.

    The projection takes the nearest point of the simplex; it only uses what is released, so it costs no privacy.

    Args:
        probs: (N, H, C) rows on the simplex.
        clip: the largest L2 norm of a sample's H C differences from uniform, > 0; two one-hot rows differ by 1.41.
        noise_multiplier: the standard deviation of the noise on a value, divided by the sensitivity 2 clip; >= 0.
        rng: the only source of randomness.
    """
    centred = probs.astype(np.float64) - 1.0 / probs.shape[-1]
    norms = np.sqrt(np.sum(centred**2, axis=(1, 2), keepdims=True))
    clipped = centred * np.minimum(1.0, clip / np.maximum(norms, np.finfo(np.float64).tiny))
    noisy = clipped + rng.normal(0.0, 2.0 * clip * noise_multiplier, probs.shape)
    return normalise_rows(project_to_simplex(noisy + 1.0 / probs.shape[-1]))


def epsilon_spent(num_released: int, *, noise_multiplier: float, delta: float) -> float:
    """The epsilon of all soft labels that a client has released; infinite without noise.

    Args:
        num_released: the number of soft labels sent, over all rounds; each counts as often as it was sent.
        noise_multiplier: the one given to :func:`privatise`.
        delta: the probability, in (0, 1), with which the bound may fail.
    """
    if num_released == 0:
        return 0.0
    if noise_multiplier == 0:
        return math.inf
    # Opacus loads torch; only a client that adds noise needs it.
    from opacus.accountants.analysis import rdp

    spent = rdp.compute_rdp(q=1.0, noise_multiplier=noise_multiplier, steps=num_released, orders=ORDERS)
    with warnings.catch_warnings():
        # At the ends of the range of orders the bound is looser than it could be, but it still holds.
        warnings.filterwarnings("ignore", message="Optimal order is the", category=UserWarning)
        epsilon, _ = rdp.get_privacy_spent(orders=ORDERS, rdp=spent, delta=delta)
    return float(epsilon)


def sampling_bound(num_drawn: int, num_owned: int) -> tuple[float, float]:
    """(epsilon, delta) of training on windows drawn with replacement from those owned.

    epsilon = k ln((n + 1) / n), delta = 1 - ((n - 1) / n)^k.

    Source: noise-free differential privacy, arXiv 2009.05537, theorem on sampling with replacement.

    Args:
        num_drawn: the number k >= 1 of draws.
        num_owned: the number n >= 1 of windows to draw from.
    """
    epsilon = num_drawn * math.log((num_owned + 1) / num_owned)
    return epsilon, 1.0 - ((num_owned - 1) / num_owned) ** num_drawn


def draw_windows(windows: NDArray[np.int64], share: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """The windows to learn from, drawn once with replacement, each kept once.

    Args:
        windows: (N,) indices of windows, increasing.
        share: the share of the N windows that is drawn, in (0, 1]; at least one window is.
        rng: the only source of randomness.
    """
    return np.unique(rng.choice(windows, count_drawn(len(windows), share), replace=True))


def count_drawn(num_owned: int, share: float) -> int:
    """The number of draws from n windows: the share of n, but at least one."""
    return max(1, round(share * num_owned))


def reveal_top1(probs: Probs) -> Probs:
    """(N, H, C) rows in which the likeliest class keeps its probability and the others share the rest evenly."""
    num_classes = probs.shape[-1]
    best = probs.argmax(axis=-1)[..., None]
    top = np.take_along_axis(probs, best, axis=-1).astype(np.float64)
    rows = np.repeat((1.0 - top) / max(num_classes - 1, 1), num_classes, axis=-1)
    np.put_along_axis(rows, best, top, axis=-1)
    return normalise_rows(np.maximum(rows, 0.0))


def project_to_simplex(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest point of the simplex to each row (..., C).

    Source: Duchi et al., ICML 2008, figure 1.
    """
    falling = -np.sort(-rows, axis=-1)
    excess = (np.cumsum(falling, axis=-1) - 1.0) / np.arange(1, rows.shape[-1] + 1)
    count = np.sum(falling > excess, axis=-1, keepdims=True)
    projected: NDArray[np.float64] = np.maximum(rows - np.take_along_axis(excess, count - 1, axis=-1), 0.0)
    return projected
