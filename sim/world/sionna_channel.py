"""The optional engine ``sionna``: it traces beam powers through the same boxes, and checks whether it can run here.

This module does not import the ray tracer at its top: a wrong LLVM does not raise an error, it aborts the process. So
the first ray is traced in another process.
"""

from __future__ import annotations

import subprocess
import sys
from functools import lru_cache
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from configs.schema import World
from sim.world.channel import measured
from sim.world.scene import Scene

INSTALL = 'pip install "softbeam[sionna]" and LLVM 19 from the distribution (Debian, Ubuntu: apt-get install libllvm19)'
PROBE_TIMEOUT_S = 180.0
# It traces the line of sight and one reflection, so that LLVM compiles the kernels of every step.
PROBE = """
import sionna.rt as rt
scene = rt.load_scene(rt.scene.simple_reflector)
scene.tx_array = scene.rx_array = rt.PlanarArray(num_rows=1, num_cols=1, pattern="iso", polarization="V")
scene.add(rt.Transmitter("sender", [-1.0, 0.0, 1.0]))
scene.add(rt.Receiver("receiver", [1.0, 0.0, 1.0]))
paths = rt.PathSolver()(scene, max_depth=1, samples_per_src=1000)
raise SystemExit(0 if paths.tau.numpy().size else "the ray tracer found no path in an open scene")
"""


def sionna_beam_power(world: World, scene: Scene, rng: np.random.Generator) -> NDArray[np.float32]:
    """(F, B) linear receive power by ray tracing, in the units of `sim.world.channel.beam_power`.

    Gain of the pass, noise floor and measurement error are those of the embedded channel; the diffuse cluster and the
    scatterers along the street are missing, so ``rician_k_db`` and ``spread_deg`` have no effect and labels are
    cleaner. It takes about 0.1 s per frame; the number of threads does not change a bit of the result.

    Raises:
        ValueError: the ray tracer cannot run here; the message says why and what to install.
    """
    require_sionna()
    from sim.world.sionna_street import traced_power

    return measured(world, traced_power(scene, num_beams=world.num_beams), rng)


def require_sionna() -> None:
    """Check that this machine can trace rays.

    Raises:
        ValueError: it cannot; the message has the reason from `sionna_available` and says what to install.
    """
    reason = sionna_available()
    if reason is not None:
        raise ValueError(f"sionna: {reason}; it needs {INSTALL}")


@lru_cache(maxsize=1)
def sionna_available() -> str | None:
    """The reason why rays cannot be traced on this machine; None if they can.

    It is found once per process; this takes some seconds if the packages are installed, because a ray is traced.
    """
    if find_spec("sionna") is None or find_spec("mitsuba") is None:
        return "sionna-rt is not installed"
    return probe([sys.executable, "-c", PROBE])


def probe(command: list[str]) -> str | None:
    """The reason why a command fails, in a line; None if it does not fail.

    Args:
        command: the program and its arguments; it may take ``PROBE_TIMEOUT_S``.
    """
    try:
        trial = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"tracing one ray took more than {PROBE_TIMEOUT_S:.0f} s"
    if trial.returncode == 0:
        return None
    words = " ".join(trial.stderr.split())
    if trial.returncode < 0:
        return (
            f"tracing one ray ended the process with signal {-trial.returncode} (a wrong LLVM?) {words[-200:]}".strip()
        )
    return f"tracing one ray failed: {words[-200:]}"
