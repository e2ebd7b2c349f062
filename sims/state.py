"""The contract of simulators: a scene is put up, a state is stepped. Ground truth and learned ones are interchangeable.

Units: m, s, kg, Pa. In 2D bodies are plates of `THICKNESS`.
"""

from dataclasses import dataclass, field
from itertools import combinations
from typing import Protocol

import numpy as np
from scipy.spatial import cKDTree

from .shapes import Mesh

VERSION = 4  # of the ground truth and its scenes; raised whenever the same settings give other trajectories
THICKNESS = 0.05  # of a 2D body, m
CONTACT_RADIUS = 0.003  # surfaces touch when they are two of these apart, m


@dataclass(frozen=True)
class Body:
    """A soft body and how it starts.

    Args:
        mesh: rest shape.
        position, orientation: where its centre of mass is, (dim,), and its rotation matrix, (dim, dim).
        velocity: (dim,), m/s.
        spin: angular velocity, rad/s: (1,) in 2D, (3,) in 3D.
        young: Young's modulus, Pa.
        density: kg/m^3.
    """

    mesh: Mesh
    position: np.ndarray
    orientation: np.ndarray
    velocity: np.ndarray
    spin: np.ndarray
    young: float = 5e4
    density: float = 1000.0

    @property
    def masses(self) -> np.ndarray:
        """Mass of each point, (P,)."""
        depth = THICKNESS if self.mesh.dim == 2 else 1.0
        return self.density * depth * self.mesh.volumes.sum() * self.mesh.shares

    @property
    def start_positions(self) -> np.ndarray:
        return self.mesh.points @ self.orientation.T + self.position

    @property
    def start_velocities(self) -> np.ndarray:
        arm = self.mesh.points @ self.orientation.T
        if self.mesh.dim == 2:
            return self.velocity + self.spin[0] * np.stack([-arm[:, 1], arm[:, 0]], axis=1)
        return self.velocity + np.cross(self.spin, arm)


@dataclass(frozen=True)
class Pusher:
    """A kinematic disc (2D) or ball (3D) that moves at a given velocity, whatever it meets."""

    radius: float
    position: np.ndarray
    velocity: np.ndarray

    @property
    def points(self) -> np.ndarray:
        """Points of its surface relative to its centre, (P, dim), evenly spread, with mean zero."""
        if len(self.position) == 2:
            around = np.linspace(0, 2 * np.pi, 16, endpoint=False)
            return self.radius * np.stack([np.cos(around), np.sin(around)], axis=1)
        height = 1 - (2 * np.arange(40) + 1) / 40  # Fibonacci sphere
        around = np.arange(40) * np.pi * (3 - np.sqrt(5))
        ring = np.sqrt(1 - height**2)
        points = self.radius * np.stack([ring * np.cos(around), ring * np.sin(around), height], axis=1)
        return points - points.mean(0)  # the centre is where their mean is


@dataclass(frozen=True)
class Wall:
    """A half-space that bodies stay in: normal . x >= offset."""

    normal: np.ndarray
    offset: float


@dataclass(frozen=True)
class Scene:
    """What is simulated: soft bodies, then pushers, in a space with gravity (dim,), drag (1/s) and walls."""

    bodies: tuple[Body, ...]
    pushers: tuple[Pusher, ...] = ()
    walls: tuple[Wall, ...] = ()
    gravity: np.ndarray = field(default_factory=lambda: np.zeros(2))
    drag: float = 0.0

    @property
    def dim(self) -> int:
        return len(self.gravity)

    def start(self) -> "State":
        """The state at time zero."""
        parts = [(body.start_positions, body.start_velocities, False) for body in self.bodies]
        for pusher in self.pushers:
            moving = np.broadcast_to(pusher.velocity, pusher.points.shape)
            parts.append((pusher.position + pusher.points, moving, True))
        count = [len(positions) for positions, _, _ in parts]
        return State(
            np.concatenate([positions for positions, _, _ in parts]),
            np.concatenate([velocities for _, velocities, _ in parts]),
            np.repeat(np.arange(len(parts)), count),
            np.repeat([kinematic for _, _, kinematic in parts], count),
        )

    def check(self) -> None:
        """Raise a ValueError when the scene cannot be simulated: nothing in it, other dimensions, overlaps."""
        if not self.bodies:
            raise ValueError("the scene has no body; at least one is needed")
        for number, body in enumerate(self.bodies):
            if body.mesh.dim != self.dim:
                raise ValueError(f"body {number} has {body.mesh.dim} dimensions, gravity has {self.dim}")
            if body.young <= 0 or body.density <= 0:
                raise ValueError(f"body {number}: young and density must be > 0, got {body.young} and {body.density}")
        state = self.start()
        if not (np.isfinite(state.positions).all() and np.isfinite(state.velocities).all()):
            raise ValueError("the scene's positions and velocities must be finite")
        least = 2 * CONTACT_RADIUS
        for one, two in combinations(range(int(state.body.max()) + 1), 2):
            gap = self.gap(state, one, two)
            if gap < least:
                raise ValueError(f"bodies {one} and {two} overlap: {gap:.4f} m apart, at least {least} m are needed")
        for wall in self.walls:
            depth = state.positions[~state.kinematic] @ wall.normal - wall.offset
            if depth.min() < CONTACT_RADIUS:
                number = int(state.body[~state.kinematic][depth.argmin()])
                raise ValueError(f"body {number} is {CONTACT_RADIUS - depth.min():.4f} m inside a wall; move it away")

    def gap(self, state: "State", one: int, two: int) -> float:
        """Distance between the points of two bodies, m; negative where a point of one is inside the other."""
        points = [state.positions[state.body == number] for number in (one, two)]
        for own, other, number in ((points[0], points[1], two), (points[1], points[0], one)):
            if number >= len(self.bodies):
                pusher = self.pushers[number - len(self.bodies)]
                deep = pusher.radius - np.linalg.norm(own - other.mean(0), axis=1)
            else:
                deep = contained(own, other, self.bodies[number].mesh.elements)
            if deep.max() > 0:
                return -float(deep.max())
        return float(cKDTree(points[0]).query(points[1])[0].min())


@dataclass
class State:
    """Positions (P, dim), velocities (P, dim), index of the body (P,), whether prescribed (P,)."""

    positions: np.ndarray
    velocities: np.ndarray
    body: np.ndarray
    kinematic: np.ndarray


class SimulationError(RuntimeError):
    """The physics left the range in which it is valid."""


class Simulator(Protocol):
    """Ground truth or learned."""

    def reset(self, scene: Scene) -> State:
        """Put up a scene. Raises ValueError for one that cannot be simulated."""

    def step(self, state: State, dt: float) -> State:
        """The state `dt` seconds later. Kinematic points move at their velocities in `state`."""


def contained(points: np.ndarray, corners: np.ndarray, elements: np.ndarray) -> np.ndarray:
    """How deep points (P, dim) are in a mesh of `elements` over `corners`, (P,), m; at most 0 outside of it.

    The depth is that below the facet nearest to the point in the element around it: enough to tell an overlap.
    """
    box = (points >= corners.min(0)).all(1) & (points <= corners.max(0)).all(1)
    depth = np.zeros(len(points))
    if not box.any():
        return depth
    tips = corners[elements]  # (E, dim + 1, dim)
    edges = tips[:, 1:] - tips[:, :1]
    inverse = np.linalg.inv(edges)
    weights = np.einsum("ped,edk->pek", points[box, None] - tips[:, 0], inverse)
    least = np.minimum(weights.min(-1), 1 - weights.sum(-1))  # barycentric coordinate of the nearest facet
    height = 1 / np.linalg.norm(inverse, axis=1).max(-1)  # the smallest height of the element
    depth[box] = np.maximum(least * height, 0).max(1)
    return depth
