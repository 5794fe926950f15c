"""The privacy account of a client: how many soft labels it has released, and the secret that draws its windows.

The account is one small file in the client's memory of a run, apart from the states that are named by rounds: if the
server goes back a round, the labels that were released remain released. A file that cannot be read is an error, because
a new account would be too low, and a second draw of windows would be a second release.
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
    """The privacy account of a client in a run.

    Attributes:
        secret: the seed that the client's windows are drawn with, hexadecimal; it is never sent.
        num_released: the number of soft labels with noise that were released; a repeated release counts again.
        num_owned: n, the number of windows that the client had at the time of the draw; 0 before the draw.
    """

    secret: str
    num_released: int = 0
    num_owned: int = 0


def book_release(context: ClientContext, count: int) -> dict[str, float]:
    """Record durably that soft labels are about to leave, and compute the privacy spent so far.

    Args:
        context: the context of the handler.
        count: the number of soft labels in this answer.

    Returns:
        ``epsilon`` and ``delta`` of everything released so far; empty without noise, because there is no account then.

    Raises:
        OSError, ValueError: the labels could not be recorded, so they must not leave.
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
    """The generator that draws the noise of an answer.

    Every answer gets new noise, because the same noise on two answers would show their difference. A reproducible
    experiment seeds the generator by client and round; its account is then nominal.
    """
    if _privacy(context).reproducible:
        return rng_for(context.placement.experiment.seed, context.profile.id, "privacy", context.header.round)
    return np.random.default_rng(secrets.randbits(SECRET_BITS))


def drawn_material(context: ClientContext, material: Material) -> Material:
    """The windows that a client may learn from: all of them, or those that it has drawn for this run.

    Windows for training and validation are drawn when the client first has labels. Windows that are recorded later have
    higher numbers and are left out, because a new draw would be another release.

    Raises:
        OSError, ValueError: the privacy account cannot be read or written.
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
    """Draw k of the first n windows for training and validation; the material is otherwise the same.

    Args:
        material: everything that the client has.
        share: k / n, in (0, 1].
        num_owned: n, the number of windows to draw from.
        rng: the only source of randomness.
    """
    owned = np.sort(np.concatenate([material.train, material.validation]))
    drawn = draw_windows(owned[:num_owned], share, rng)
    train, validation = (starts[np.isin(starts, drawn)] for starts in (material.train, material.validation))
    return replace(material, train=train, validation=validation)


def count_owned(material: Material) -> int:
    """The number of windows for training and validation."""
    return len(material.train) + len(material.validation)


def window_bound(context: ClientContext) -> dict[str, float]:
    """``window_epsilon`` and ``window_delta`` of learning from the drawn windows; empty if none were drawn."""
    share = _privacy(context).window_share
    num_owned = 0 if share is None else _open_ledger(context).num_owned
    if share is None or num_owned == 0:
        return {}
    epsilon, delta = sampling_bound(count_drawn(num_owned, share), num_owned)
    return {"window_epsilon": epsilon, "window_delta": delta}


def _privacy(context: ClientContext) -> Privacy:
    return context.placement.experiment.strategy.privacy


def _open_ledger(context: ClientContext) -> Ledger:
    """The client's account; if there is none, a new one that is not written yet."""
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
