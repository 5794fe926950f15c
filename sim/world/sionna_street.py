"""A pass of the street as a scene of Sionna RT; import this only after `sim.world.sionna_channel.require_sionna`.

Vehicles are metal boxes, ground and house front are concrete slabs, the antenna of vehicle 0 sends and the mast
receives, both with vertical polarisation. The paths have up to two specular reflections and one diffraction, besides
the line of sight. The array is applied here, to the paths of an isotropic antenna; so it does not matter that Sionna
would number the elements of its own arrays from right to left.

F frames, V vehicles, N boxes, P paths, B beams.

Source: Sionna RT (arXiv:2303.11103); materials of Recommendation ITU-R P.2040-3, table 3, at 60 GHz.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import drjit as dr
import mitsuba as mi
import numpy as np
import sionna.rt as rt
from numpy.typing import NDArray

from sim.world.channel import ELEMENT_EXPONENT, NUM_ANTENNAS, NUM_BEAMS, REFERENCE_M, WAVELENGTH_M, codebook
from sim.world.scene import MAST, Scene

Floats = NDArray[np.float64]

FREQUENCY_HZ = 60e9
SPEED_OF_LIGHT = FREQUENCY_HZ * WAVELENGTH_M
MAX_DEPTH = 2
# With 1,000,000 rays no best beam changes, and no power changes by more than 0.02 dB.
NUM_RAYS = 200_000

# Half the length of the street and the height of the house front, both beyond every specular path; thickness of slabs.
HALF_LENGTH_M, FRONT_HEIGHT_M = 100.0, 12.0
CONCRETE_M, METAL_M = 0.3, 0.01

# A unit box: corner 4x + 2y + z, two triangles per face; they share corners so that edges can diffract.
CORNERS = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=np.float64)
TRIANGLES = np.array(
    [
        [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5]],
        [[0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6]],
        [[0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]],
    ]
).reshape(12, 3)


@dataclass(frozen=True)
class TracedPaths:
    """The paths that reach the mast in one frame.

    Attributes:
        gains: (P,) complex gains, relative to free space at 10 m, without the phase of the path length.
        directions: (P, 3) unit vectors from the mast to where the path comes from.
        lengths: (P,) lengths in metres.
    """

    gains: NDArray[np.complex128]
    directions: Floats
    lengths: Floats


def traced_power(scene: Scene, frames: Sequence[int] | None = None, *, num_beams: int = NUM_BEAMS) -> Floats:
    """(F, B) linear receive power without noise, in the units of `sim.world.channel.beam_power`.

    The array is that of the embedded channel: the same codebook, and elements of amplitude cos^0.65 of the angle off
    boresight.

    Args:
        scene: the pass.
        frames: the numbers of the frames to trace; None traces all.
        num_beams: the number of beams of the codebook.
    """
    street = TracedStreet(scene)
    weights, yaw = codebook(scene.site, num_beams), scene.site.yaw_rad
    along = np.array([np.cos(yaw), -np.sin(yaw), 0.0])
    boresight = np.array([np.sin(yaw), np.cos(yaw), 0.0])
    powers = []
    for frame in range(scene.num_frames) if frames is None else frames:
        paths = street.trace(frame)
        element = np.maximum(paths.directions @ boresight, 0.0) ** ELEMENT_EXPONENT
        rays = paths.gains * element * np.exp(-2j * np.pi * paths.lengths / WAVELENGTH_M)
        phases = np.pi * (paths.directions @ along)[:, None] * np.arange(NUM_ANTENNAS)
        channel = rays @ np.exp(1j * phases)
        powers.append(np.abs(channel.conj() @ weights) ** 2)
    return np.array(powers)


class TracedStreet:
    """The scene of one pass; only vehicles and antenna move from frame to frame."""

    def __init__(self, scene: Scene) -> None:
        # One thread per process, as everywhere: passes run in parallel.
        dr.set_thread_count(1)
        self._pass = scene
        concrete = rt.ITURadioMaterial("house", "concrete", thickness=CONCRETE_M)
        asphalt = rt.ITURadioMaterial("asphalt", "concrete", thickness=CONCRETE_M)
        metal = rt.ITURadioMaterial("metal", "metal", thickness=METAL_M)
        wall_y = scene.site.wall_y
        ground = ([-HALF_LENGTH_M, -HALF_LENGTH_M, -1.0], [HALF_LENGTH_M, HALF_LENGTH_M, 0.0])
        front = ([-HALF_LENGTH_M, wall_y, 0.0], [HALF_LENGTH_M, wall_y + 1.0, FRONT_HEIGHT_M])
        self._scene = rt.load_scene()
        self._scene.frequency = FREQUENCY_HZ
        self._scene.edit(
            add=[
                _boxes("ground", box_corners(*np.array(ground)[:, None]), asphalt),
                _boxes("front", box_corners(*np.array(front)[:, None]), concrete),
                _boxes("traffic", self._traffic(0), metal),
            ]
        )
        isotropic = rt.PlanarArray(num_rows=1, num_cols=1, pattern="iso", polarization="V")
        self._scene.tx_array, self._scene.rx_array = isotropic, isotropic
        self._antenna = rt.Transmitter("antenna", _point(scene.antenna[0]))
        self._scene.add(self._antenna)
        self._scene.add(rt.Receiver("mast", _point(MAST)))
        # This is deterministic: the number of threads does not change the order of the paths.
        self._solver = rt.PathSolver(deterministic=True)

    def trace(self, frame: int) -> TracedPaths:
        """The paths of one frame."""
        parameters = self._scene.mi_scene_params
        parameters["traffic.vertex_positions"] = mi.Float(self._traffic(frame).ravel())
        parameters.update()
        self._antenna.position = _point(self._pass.antenna[frame])
        paths = self._solver(
            self._scene,
            max_depth=MAX_DEPTH,
            samples_per_src=NUM_RAYS,
            los=True,
            specular_reflection=True,
            diffuse_reflection=False,
            refraction=False,
            diffraction=True,
        )
        valid = paths.valid.numpy().ravel()
        real, imaginary = (part.numpy().astype(np.float64).ravel()[valid] for part in paths.a)
        zenith, azimuth, delay = (
            values.numpy().astype(np.float64).ravel()[valid] for values in (paths.theta_r, paths.phi_r, paths.tau)
        )
        flat = np.sin(zenith)
        return TracedPaths(
            gains=(real + 1j * imaginary) * REFERENCE_M * 4.0 * np.pi / WAVELENGTH_M,
            directions=np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), np.cos(zenith)], axis=1),
            lengths=delay * SPEED_OF_LIGHT,
        )

    def _traffic(self, frame: int) -> Floats:
        return box_corners(self._pass.low[frame].reshape(-1, 3), self._pass.high[frame].reshape(-1, 3))


def box_corners(low: Floats, high: Floats) -> Floats:
    """(N, 8, 3) corners of boxes from their smallest and largest ones, (N, 3) each."""
    corners: Floats = low[:, None] + CORNERS * (high - low)[:, None]
    return corners


def _boxes(name: str, corners: Floats, material: rt.RadioMaterialBase) -> rt.SceneObject:
    """Make one object of the scene from boxes (N, 8, 3), so that one update moves them all."""
    number = len(corners)
    triangles = (TRIANGLES + 8 * np.arange(number)[:, None, None]).astype(np.uint32)
    properties = mi.Properties()
    properties["face_normals"] = True
    mesh = mi.Mesh(name, 8 * number, 12 * number, props=properties)
    parameters = mi.traverse(mesh)
    parameters["vertex_positions"] = mi.Float(corners.ravel())
    parameters["faces"] = mi.UInt32(triangles.ravel())
    parameters.update()
    return rt.SceneObject(mi_mesh=mesh, name=name, radio_material=material)


def _point(place: Floats) -> mi.Point3f:
    return mi.Point3f(*(float(value) for value in place))
