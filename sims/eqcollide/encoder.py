"""Encoder: what particles are and do -> control points, and a batch of scenes as padded tensors.

Control points are chosen by farthest-point sampling of the rest shape. Those that fit given particles are the
least-squares solution p = (G^T m G)^-1 G^T m x (and likewise v), whose momentum is that of the particles. Where bodies
may touch, their surfaces are sampled at the middles of their facets, which are linear in the control points as well:
x = Gs p, tangents = Gt p.

Shapes: S scenes, O bodies, K control points, Q surface samples, R points of B pushers, W walls; all padded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..dataset import Trajectory
from ..model import Batch
from ..shapes import facet_normals
from ..state import THICKNESS
from .decoder import farthest_points, interpolation

YOUNG = 5e4  # Pa, unit of stiffness


@dataclass(frozen=True)
class Control:
    """Control points of one body, from its rest shape alone."""

    points: np.ndarray  # (K, dim), at rest
    masses: np.ndarray  # (K,), kg
    decode: np.ndarray  # G, (P, K)
    encode: np.ndarray  # (G^T m G)^-1 G^T m, (K, P)
    samples: np.ndarray  # Gs, (Q, K)
    tangents: np.ndarray  # Gt, (Q, dim - 1, K)
    areas: np.ndarray  # (Q,), m in 2D, m^2 in 3D


def control_of(rest: np.ndarray, mass: np.ndarray, surface: np.ndarray, count: int) -> Control:
    """Control points of a body: rest (P, dim), mass (P,), facets (F, dim) of its surface."""
    rest, mass = rest.astype(float), mass.astype(float)
    control = rest[farthest_points(rest, count)]
    decode = interpolation(rest, control)
    weighted = mass[:, None] * decode
    corners = decode[surface]  # (Q, dim, K)
    return Control(
        control,
        weighted.sum(0),
        decode,
        np.linalg.solve(decode.T @ weighted, weighted.T),
        corners.mean(1),
        corners[:, 1:] - corners[:, :1],
        np.linalg.norm(facet_normals(rest, surface), axis=1),
    )


@lru_cache(maxsize=4096)
def _controls(key: bytes, dim: int, points: int, count: int) -> Control:  # the same body is asked for many times
    size = points * dim * 4
    rest = np.frombuffer(key[:size], np.float32).reshape(points, dim)
    mass = np.frombuffer(key[size : size + points * 4], np.float32)
    return control_of(rest, mass, np.frombuffer(key[size + points * 4 :], np.int64).reshape(-1, dim), count)


def controls(trajectory: Trajectory, count: int) -> list[tuple[np.ndarray, Control]]:
    """For each soft body, which points are its, and its control points."""
    out = []
    for number in range(len(trajectory.young)):
        own = np.flatnonzero(trajectory.body == number)
        surface = trajectory.surface[trajectory.body[trajectory.surface[:, 0]] == number] - own[0]
        key = trajectory.rest[own].tobytes() + trajectory.mass[own].tobytes() + surface.astype(np.int64).tobytes()
        out.append((own, _controls(key, trajectory.dim, len(own), count)))
    return out


@dataclass
class Statics(Batch):
    """What does not change in a batch of scenes."""

    rest: Tensor  # (S, O, K, dim)
    mass: Tensor  # (S, O, K); 1 where there is no body
    present: Tensor  # (S, O), bool
    young: Tensor  # (S, O), in units of YOUNG
    samples: Tensor  # (S, O, Q, K)
    tangents: Tensor  # (S, O, Q, dim - 1, K)
    areas: Tensor  # (S, O, Q), 0 where there is no sample
    gravity: Tensor  # (S, dim)
    drag: Tensor  # (S,)
    walls: Tensor  # (S, W, dim + 1): normal, offset
    wall_present: Tensor  # (S, W), bool
    pusher_centres: Tensor  # (S, B, R), weights of the points of pushers that make their centres
    pusher_radii: Tensor  # (S, B), m; 0 where there is none

    @property
    def depth(self) -> float:
        """Thickness of the bodies, m; 1 in 3D."""
        return THICKNESS if self.rest.shape[-1] == 2 else 1.0


def gather(trajectories: Sequence[Trajectory], count: int) -> Statics:
    """Scenes of trajectories as padded tensors with `count` control points a body."""
    parts = [controls(trajectory, count) for trajectory in trajectories]
    dim, scenes = trajectories[0].dim, len(trajectories)
    bodies = max(len(own) for own in parts)
    samples = max(len(control.areas) for own in parts for _, control in own)
    walls = max(len(trajectory.walls) for trajectory in trajectories)
    pushing = [trajectory.body[trajectory.kinematic] for trajectory in trajectories]  # which pusher a point is of
    pushers = max(len(np.unique(own)) for own in pushing)
    f = np.float64  # of a sum of weights that is 1 to round-off; models cast to their own precision
    out = {
        "rest": np.zeros((scenes, bodies, count, dim), f),
        "mass": np.ones((scenes, bodies, count), f),
        "present": np.zeros((scenes, bodies), bool),
        "young": np.ones((scenes, bodies), f),
        "samples": np.zeros((scenes, bodies, samples, count), f),
        "tangents": np.zeros((scenes, bodies, samples, dim - 1, count), f),
        "areas": np.zeros((scenes, bodies, samples), f),
        "gravity": np.stack([trajectory.gravity for trajectory in trajectories]).astype(f),
        "drag": np.array([float(trajectory.drag) for trajectory in trajectories], f),
        "walls": np.zeros((scenes, walls, dim + 1), f),
        "wall_present": np.zeros((scenes, walls), bool),
        "pusher_centres": np.zeros((scenes, pushers, max(len(own) for own in pushing)), f),
        "pusher_radii": np.zeros((scenes, pushers), f),
    }
    for scene, (trajectory, own) in enumerate(zip(trajectories, parts, strict=True)):
        for body, (_, control) in enumerate(own):
            out["rest"][scene, body], out["mass"][scene, body] = control.points, control.masses
            out["present"][scene, body], out["young"][scene, body] = True, trajectory.young[body] / YOUNG
            number = len(control.areas)
            out["samples"][scene, body, :number] = control.samples
            out["tangents"][scene, body, :number] = control.tangents
            out["areas"][scene, body, :number] = control.areas
        number = len(trajectory.walls)
        out["walls"][scene, :number], out["wall_present"][scene, :number] = trajectory.walls, True
        for pusher, body in enumerate(np.unique(pushing[scene])):
            points = np.flatnonzero(pushing[scene] == body)
            out["pusher_centres"][scene, pusher, points] = 1 / len(points)
            place = trajectory.positions[0, trajectory.body == body].astype(f)
            out["pusher_radii"][scene, pusher] = np.linalg.norm(place - place.mean(0), axis=1).mean()
    return Statics(**{name: torch.from_numpy(value) for name, value in out.items()})
