"""Random scenes by seed: soft bodies thrown at each other, in free space, in a box with gravity, or before a pusher, in
space or on a table."""

from dataclasses import dataclass, replace

import numpy as np

from .shapes import KINDS_2D, KINDS_3D, body_mesh
from .state import CONTACT_RADIUS, MAX_POINTS, Body, Pusher, Scene, TooLargeError, Wall

MIXTURE = ("free", "box", "pusher")
MIXED = "mixed"  # every scene in one of the worlds of the mixture
WORLDS = (*MIXTURE, "table", MIXED)
RADIUS = 0.08  # of a body, m
PUSHER_RADIUS = 0.025  # m
PUSHER_DRAG = (1.0, 9.0)  # 1/s, from and to, where there is a pusher
TABLE_GRAVITY = -9.81  # m/s^2: bodies that are pushed there stay flat
TRIES = 50  # to place bodies without overlap, before the scene is called too full


@dataclass(frozen=True)
class SceneSettings:
    """What scenes are drawn from.

    Args:
        dim: 2 or 3.
        world: free (no gravity, no walls), box (gravity, floor and side walls), pusher (drag, a disc or ball that
            comes along), mixed (every scene one of these), or table (as pusher, with everything on a floor).
        bodies: fewest and most soft bodies.
        kinds: of the bodies; empty: all that training uses, which leaves out `UNSEEN`.
        speed: largest speed at the start, m/s; young: Young's modulus, Pa, from and to.
        spacing: between the points of a body, m; 0: the usual one.
    """

    dim: int = 2
    world: str = "free"
    bodies: tuple[int, int] = (2, 3)
    kinds: tuple[str, ...] = ()
    speed: float = 0.5
    young: tuple[float, float] = (4e4, 8e4)
    spacing: float = 0.0

    @property
    def usual_spacing(self) -> float:
        return self.spacing or {2: 0.0135, 3: 0.035}[self.dim]

    def check(self) -> None:
        """Raise a ValueError for a value that makes no sense, a TooLargeError for more points than fit."""
        if self.dim not in (2, 3) or self.world not in WORLDS:
            raise ValueError(f"dim must be 2 or 3 and world one of {', '.join(WORLDS)}, got {self.dim}, {self.world!r}")
        if not 1 <= self.bodies[0] <= self.bodies[1]:
            raise ValueError(f"bodies must be (fewest, most), at least 1, got {self.bodies}")
        known = {2: KINDS_2D, 3: KINDS_3D}[self.dim]
        for kind in self.kinds:
            if kind not in known:
                raise ValueError(f"unknown shape {kind!r}; choose of {', '.join(known)} in {self.dim}D")
        for name in ("speed", "spacing"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name} must be finite and >= 0, got {getattr(self, name)}")
        if not 0 < self.young[0] <= self.young[1] < np.inf:
            raise ValueError(f"young must be (least, most), finite and > 0, got {self.young}")
        if (least := self.bodies[0] * 1.5 * (0.85 * RADIUS / self.usual_spacing) ** self.dim) > MAX_POINTS:
            raise TooLargeError(
                f"{self.bodies[0]} bodies with points {self.usual_spacing} m apart have {least:.0f} points at least, "
                f"at most {MAX_POINTS} fit; ask for a larger spacing or fewer bodies"
            )


UNSEEN = {2: ("l_shape", "star"), 3: ("extrusion",)}  # kinds that training does not see


def training_kinds(dim: int) -> tuple[str, ...]:
    return tuple(kind for kind in {2: KINDS_2D, 3: KINDS_3D}[dim] if kind not in UNSEEN[dim])


def random_rotation(dim: int, rng: np.random.Generator) -> np.ndarray:
    """A uniformly random rotation matrix."""
    if dim == 2:
        angle = rng.uniform(0, 2 * np.pi)
        return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix, triangle = np.linalg.qr(rng.normal(size=(3, 3)))
    matrix = matrix * np.sign(np.diag(triangle))
    matrix[:, 0] *= np.linalg.det(matrix)
    return matrix


def upright(dim: int, rng: np.random.Generator) -> np.ndarray:
    """A random rotation matrix about the last axis, the vertical one."""
    matrix = np.eye(dim)
    if dim == 3:
        matrix[:2, :2] = random_rotation(2, rng)
    return matrix


def random_scene(settings: SceneSettings, seed: int) -> Scene:
    """The scene of a seed.

    Raises:
        ValueError: as `SceneSettings.check`, or more bodies than fit.
    """
    settings.check()
    rng = np.random.default_rng(seed)
    if settings.world == MIXED:
        settings = replace(settings, world=str(rng.choice(MIXTURE)))
    count = int(rng.integers(settings.bodies[0], settings.bodies[1] + 1))
    reason: ValueError | None = None
    for _ in range(TRIES):
        try:
            scene = _draw(settings, count, rng)
            scene.check()
        except TooLargeError:  # it would be again
            raise
        except ValueError as error:
            reason = error
        else:
            return scene
    raise ValueError(f"{count} bodies do not fit into the scene of seed {seed} ({reason}); ask for fewer") from reason


def _draw(settings: SceneSettings, count: int, rng: np.random.Generator) -> Scene:
    dim, flat, pushed_about = settings.dim, settings.world == "table", settings.world in ("pusher", "table")
    level = np.ones(dim)  # what is left of a vector on a table
    level[-1] = not flat
    reach = 0.2 * max(1.0, count / 2.2) ** (1 / dim) if count > 3 else 0.2
    kinds = settings.kinds or training_kinds(dim)
    meshes = [
        body_mesh(str(rng.choice(kinds)), dim, RADIUS * rng.uniform(0.85, 1.15), settings.usual_spacing, rng)
        for _ in range(count)
    ]
    radii = np.array([np.linalg.norm(mesh.points, axis=1).max() for mesh in meshes])
    places = np.zeros((0, dim))
    for _ in range(TRIES * count):
        place = level * rng.uniform(-reach, reach, dim)
        apart = np.linalg.norm(places - place, axis=1) > radii[: len(places)] + radii[len(places)] + 0.01
        if np.linalg.norm(place) < reach and apart.all():
            places = np.concatenate([places, place[None]])
            if len(places) == count:
                break
    else:
        raise ValueError("there is no room for all of them")
    places -= places.mean(0)
    bodies = []
    for mesh, place in zip(meshes, places, strict=True):
        towards = -place / max(float(np.linalg.norm(place)), 1e-9)
        velocity = settings.speed * rng.uniform(0.4, 1) * towards + rng.normal(0, 0.08, dim)
        if pushed_about:
            velocity = 0.2 * level * velocity
        spin = rng.uniform(-3, 3, 1 if dim == 2 else 3)
        young = float(np.exp(rng.uniform(*np.log(settings.young))))
        turn = upright(dim, rng) if flat else random_rotation(dim, rng)
        if flat:
            spin *= (1 - level)[-len(spin) :] * (dim == 3)  # about the vertical axis
            place[-1] = CONTACT_RADIUS + 0.001 - (mesh.points @ turn.T)[:, -1].min()
        bodies.append(Body(mesh, place, turn, velocity, spin, young))
    gravity, drag = np.zeros(dim), 0.0
    walls: tuple[Wall, ...] = ()
    pushers: tuple[Pusher, ...] = ()
    if flat:
        gravity[-1] = TABLE_GRAVITY
        walls = (Wall(np.eye(dim)[-1], 0.0),)
    if settings.world == "box":
        gravity[-1] = -1.0
        half = 1.6 * reach
        sides = [(sign * np.eye(dim)[axis], -half) for axis in range(dim - 1) for sign in (1, -1)]
        walls = tuple(Wall(normal, offset) for normal, offset in [*sides, (np.eye(dim)[-1], -half)])
    if pushed_about:
        drag = float(rng.uniform(*PUSHER_DRAG))
        direction = level * rng.normal(size=dim)
        direction /= np.linalg.norm(direction)
        pushed = int(rng.integers(count))  # soon
        away = radii[pushed] + PUSHER_RADIUS + rng.uniform(0.01, 0.05)
        start = places[pushed] + away * direction + rng.normal(0, 0.02, dim)
        if flat:
            start[-1] = bodies[pushed].position[-1] + rng.uniform(-0.01, 0.01)
        pushers = (Pusher(PUSHER_RADIUS, start, -settings.speed * rng.uniform(0.2, 1) * direction),)
    return Scene(tuple(bodies), pushers, walls, gravity, drag)
