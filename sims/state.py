"""The contract of simulators: a scene is put up, a state is stepped. Ground truth and learned ones are interchangeable.

Units: m, s, kg, Pa. In 2D bodies are plates of `THICKNESS`.
"""

from dataclasses import dataclass, field
from itertools import combinations
from typing import Protocol

import numpy as np

from .geometry import ball_gap, surface_gap
from .shapes import Mesh

VERSION = 4  # of the ground truth and its scenes; raised whenever the same settings give other trajectories
THICKNESS = 0.05  # of a 2D body, m
DENSITY = 1000.0  # of all soft bodies, kg/m^3
CONTACT_RADIUS = 0.003  # surfaces touch when they are two of these apart, m
MAX_POINTS = 5000  # of a scene


@dataclass(frozen=True)
class Body:
    """A soft body and how it starts.

    Args:
        mesh: rest shape.
        position, orientation: where its centre of mass is, (dim,), and its rotation matrix, (dim, dim).
        velocity: (dim,), m/s.
        spin: angular velocity, rad/s: (1,) in 2D, (3,) in 3D.
        young: Young's modulus, Pa.
    """

    mesh: Mesh
    position: np.ndarray
    orientation: np.ndarray
    velocity: np.ndarray
    spin: np.ndarray
    young: float = 5e4

    @property
    def masses(self) -> np.ndarray:
        """Mass of each point, (P,)."""
        depth = THICKNESS if self.mesh.dim == 2 else 1.0
        return DENSITY * depth * self.mesh.volumes.sum() * self.mesh.shares

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
        """Raise a ValueError when the scene cannot be simulated: nothing or too much in it, other dimensions, values
        that are not finite or make no sense, overlaps."""
        if not self.bodies:
            raise ValueError("the scene has no body; at least one is needed")
        if self.gravity.shape not in ((2,), (3,)):
            raise ValueError(f"gravity must have 2 or 3 numbers, got an array of shape {self.gravity.shape}")
        for number, body in enumerate(self.bodies):
            try:
                body.mesh.check()
            except ValueError as error:
                raise ValueError(f"body {number}: {error}") from error
            if body.mesh.dim != self.dim:
                raise ValueError(f"body {number} has {body.mesh.dim} dimensions, gravity has {self.dim}")
            for name, shape in (("position", ()), ("velocity", ()), ("orientation", (self.dim,))):
                self._expect(f"body {number}: {name}", getattr(body, name), (self.dim, *shape))
            self._expect(f"body {number}: spin", body.spin, (1,) if self.dim == 2 else (3,))
            if not 0 < body.young < np.inf:
                raise ValueError(f"body {number}: young must be finite and > 0, got {body.young}")
            turn = body.orientation
            if not (np.allclose(turn @ turn.T, np.eye(self.dim), atol=1e-6) and np.linalg.det(turn) > 0):
                raise ValueError(f"body {number}: orientation must be a rotation matrix, got {turn.tolist()}")
        for number, pusher in enumerate(self.pushers):
            for name in ("position", "velocity"):
                self._expect(f"pusher {number}: {name}", getattr(pusher, name), (self.dim,))
            if not 0 < pusher.radius < np.inf:
                raise ValueError(f"pusher {number}: the radius must be finite and > 0, got {pusher.radius}")
        for number, wall in enumerate(self.walls):
            self._expect(f"wall {number}: normal", wall.normal, (self.dim,))
            length = float(np.linalg.norm(wall.normal))
            if not (abs(length - 1) < 1e-6 and np.isfinite(wall.offset)):
                raise ValueError(
                    f"wall {number}: the normal must have length 1 and the offset be finite, got {length:g} and "
                    f"{wall.offset}"
                )
        if not (np.isfinite(self.gravity).all() and 0 <= self.drag < np.inf):
            raise ValueError(f"gravity must be finite and drag >= 0, got {self.gravity.tolist()} and {self.drag}")
        state = self.start()
        state.check()
        if len(state.positions) > MAX_POINTS:
            raise TooLargeError(
                f"the scene has {len(state.positions)} points, at most {MAX_POINTS} fit; coarsen the meshes or take "
                "bodies out"
            )
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

    @staticmethod
    def _expect(what: str, value: np.ndarray, shape: tuple[int, ...]) -> None:
        if np.shape(value) != shape:
            raise ValueError(f"{what} must have shape {shape}, got {np.shape(value)}")

    def gap(self, state: "State", one: int, two: int) -> float:
        """Distance between the surfaces of two bodies, or of a body and a pusher, m, `one` before `two`; negative:
        how deep they are in each other. Bodies that are farther apart than they need to be are not told apart."""
        reach = 4 * CONTACT_RADIUS
        if two < len(self.bodies):
            meshes = [self.bodies[number].mesh for number in (one, two)]
            first = [int((state.body == number).argmax()) for number in (one, two)]
            surfaces = meshes[0].surface + first[0], meshes[1].surface + first[1]
            solids = meshes[0].elements + first[0], meshes[1].elements + first[1]
            return surface_gap(state.positions, surfaces, solids, reach)
        ball = self.pushers[two - len(self.bodies)]
        if one >= len(self.bodies):
            other = self.pushers[one - len(self.bodies)]
            return float(np.linalg.norm(ball.position - other.position)) - ball.radius - other.radius
        points, mesh = state.positions[state.body == one], self.bodies[one].mesh
        return ball_gap(ball.position, ball.radius, points, mesh.surface, mesh.elements)


@dataclass
class State:
    """Positions (P, dim), velocities (P, dim), index of the body (P,), whether prescribed (P,)."""

    positions: np.ndarray
    velocities: np.ndarray
    body: np.ndarray
    kinematic: np.ndarray

    def check(self) -> None:
        """Raise a ValueError when a position or velocity is not finite."""
        bad = ~(np.isfinite(self.positions) & np.isfinite(self.velocities)).all(1)
        if bad.any():
            raise ValueError(
                f"{int(bad.sum())} of {len(bad)} points have a position or velocity that is not finite, the first in "
                f"body {int(self.body[bad.argmax()])}; reset the simulator"
            )


def check_step(state: State, started: State | None, dt: float) -> None:
    """Raise a ValueError where a simulator that began with `started` cannot step a state by `dt` s."""
    if started is None:
        raise ValueError("the simulator has no scene yet; reset it with one before the first step")
    own = state.positions.shape == state.velocities.shape == started.positions.shape
    if not own or not np.array_equal(state.body, started.body):
        raise ValueError(
            f"the state has positions of shape {state.positions.shape} and velocities of {state.velocities.shape}, of "
            f"{len(np.unique(state.body))} bodies and pushers; the scene has {started.positions.shape} of "
            f"{len(np.unique(started.body))}; step states of the scene that the simulator was reset with"
        )
    if not 0 < dt < np.inf:
        raise ValueError(f"dt must be finite and > 0 s, got {dt}")
    state.check()


class TooLargeError(ValueError):
    """A scene has more points than fit."""


class SimulationError(RuntimeError):
    """The physics left the range in which it is valid."""


class Simulator(Protocol):
    """Ground truth or learned."""

    def reset(self, scene: Scene) -> State:
        """Put up a scene. Raises ValueError for one that cannot be simulated."""

    def step(self, state: State, dt: float) -> State:
        """The state `dt` seconds later. Kinematic points move at their velocities in `state`."""
