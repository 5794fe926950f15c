"""What a client keeps to itself so that its privacy account holds: what it has released, and its own randomness.

One small file in its memory of a run, outside the states that are named by rounds: a server that goes back a round does
not take back what was released. A file that cannot be read is an error, since an account that began anew would be too
low and a second draw of windows a second release.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, replace

import numpy as np

from clients.context import ClientContext
from clients.data.material import Material
from configs.files import write_durably
from configs.seeding import rng_for
from configs.strategy import Privacy
from strategies.privacy import count_drawn, draw_windows, epsilon_spent, sampling_bound

LEDGER_FILE = "privacy.json"
SECRET_BITS = 256


@dataclass(frozen=True)
class Ledger:
    """The account of a client in a run.

    Attributes:
        secret: that its windows are drawn with, hexadecimal; never sent.
        num_released: soft labels with noise that it has released, each as often as it was.
        num_owned: n windows of its own at the time of the draw; 0 before.
    """

    secret: str
    num_released: int = 0
    num_owned: int = 0


def book_release(context: ClientContext, count: int) -> dict[str, float]:
    """Book soft labels that are about to leave, durably, and say what all so far are worth.

    Args:
        context: of the handler.
        count: soft labels of this answer.

    Returns:
        ``epsilon`` and ``delta``; nothing where there is no noise and so no account.

    Raises:
        OSError, ValueError: they could not be booked, so they must not leave.
    """
    privacy = _privacy(context)
    if not privacy.has_noise:
        return {}
    ledger = _open_ledger(context)
    if count:
        ledger = replace(ledger, num_released=ledger.num_released + count)
        _write(context, ledger)
    multiplier, delta = privacy.noise_multiplier, privacy.delta
    return {"epsilon": epsilon_spent(ledger.num_released, noise_multiplier=multiplier, delta=delta), "delta": delta}


def noise_rng(context: ClientContext) -> np.random.Generator:
    """What an answer's noise is drawn from: new for each, since the same noise on two answers shows their difference.

    An experiment that is to be reproducible draws by client and round, and its account is nominal.
    """
    if _privacy(context).reproducible:
        return rng_for(context.placement.experiment.seed, context.profile.id, "privacy", context.header.round)
    return np.random.default_rng(secrets.randbits(SECRET_BITS))


def drawn_material(context: ClientContext, material: Material) -> Material:
    """What a client may learn from: all of its windows, or those for training and validation that it drew in this run.

    It draws when it first has labels. Windows of recordings that come later have higher numbers and are left out, since
    a new draw would be another release.

    Raises:
        OSError, ValueError: what it drew from cannot be read or written.
    """
    share = _privacy(context).window_share
    if share is None or not material.is_labelled:
        return material
    ledger = _open_ledger(context)
    if ledger.num_owned == 0:
        ledger = replace(ledger, num_owned=count_owned(material))
        _write(context, ledger)
    if _privacy(context).reproducible:
        rng = rng_for(context.placement.experiment.seed, context.profile.id, "privacy", "windows")
    else:
        rng = np.random.default_rng(int(ledger.secret, 16))
    return draw_material(material, share=share, num_owned=ledger.num_owned, rng=rng)


def draw_material(material: Material, *, share: float, num_owned: int, rng: np.random.Generator) -> Material:
    """Material with those of its windows for training and validation that are drawn from the first n.

    Args:
        material: all that there is.
        share: k / n, in (0, 1].
        num_owned: n.
        rng: the only source of randomness.
    """
    owned = np.sort(np.concatenate([material.train, material.validation]))
    drawn = draw_windows(owned[:num_owned], share, rng)
    train, validation = (starts[np.isin(starts, drawn)] for starts in (material.train, material.validation))
    return replace(material, train=train, validation=validation)


def count_owned(material: Material) -> int:
    """How many windows there are for training and validation."""
    return len(material.train) + len(material.validation)


def window_bound(context: ClientContext) -> dict[str, float]:
    """``window_epsilon`` and ``window_delta`` of learning from the windows drawn; nothing where none were."""
    share = _privacy(context).window_share
    num_owned = 0 if share is None else _open_ledger(context).num_owned
    if share is None or num_owned == 0:
        return {}
    epsilon, delta = sampling_bound(count_drawn(num_owned, share), num_owned)
    return {"window_epsilon": epsilon, "window_delta": delta}


def _privacy(context: ClientContext) -> Privacy:
    return context.placement.experiment.strategy.privacy


def _open_ledger(context: ClientContext) -> Ledger:
    """The client's account; a new one where there is none, which is not written yet."""
    path = context.folder / LEDGER_FILE
    try:
        return Ledger(**json.loads(path.read_text()))
    except FileNotFoundError:
        return Ledger(secret=f"{secrets.randbits(SECRET_BITS):x}")
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: the privacy account is not readable ({type(error).__name__}); start a new run, or restore it"
        ) from None


def _write(context: ClientContext, ledger: Ledger) -> None:
    write_durably(context.folder / LEDGER_FILE, f"{json.dumps(asdict(ledger))}\n".encode(), mode=0o600)
