"""Furniture: fourteen classes, each drawn from a generator as a list of parts."""

from collections.abc import Callable
from typing import NamedTuple

import mujoco
import numpy as np

BOX, CYLINDER, SPHERE = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CYLINDER, mujoco.mjtGeom.mjGEOM_SPHERE


class Part(NamedTuple):
    """A geom: MuJoCo's type and sizes, its place in the frame of the piece of furniture, which colour of the piece."""

    kind: mujoco.mjtGeom
    size: tuple[float, ...]
    place: tuple[float, float, float]
    color: int = 0


def _legs(x: float, y: float, height: float, thick: float = 0.03, color: int = 1) -> list[Part]:
    corners = [(sx * (x - thick), sy * (y - thick)) for sx in (-1, 1) for sy in (-1, 1)]
    return [Part(BOX, (thick, thick, height / 2), (cx, cy, height / 2), color) for cx, cy in corners]


def _table(rng: np.random.Generator) -> list[Part]:
    x, y, z = rng.uniform(0.4, 0.7), rng.uniform(0.3, 0.45), 0.72
    return [Part(BOX, (x, y, 0.025), (0, 0, z)), *_legs(x, y, z)]


def _desk(rng: np.random.Generator) -> list[Part]:
    x = rng.uniform(0.5, 0.7)
    drawers = Part(BOX, (0.2, 0.28, 0.33), (x - 0.22, 0, 0.35), 1)
    return [Part(BOX, (x, 0.32, 0.025), (0, 0, 0.74)), drawers, *_legs(x, 0.3, 0.72)[:2]]


def _chair(rng: np.random.Generator) -> list[Part]:
    back = Part(BOX, (0.03, 0.22, 0.28), (-0.2, 0, 0.72))
    return [Part(BOX, (0.22, 0.22, 0.03), (0, 0, 0.45)), back, *_legs(0.22, 0.22, 0.43, 0.02)]


def _sofa(rng: np.random.Generator) -> list[Part]:
    y = rng.uniform(0.6, 0.95)
    arms = [Part(BOX, (0.38, 0.09, 0.3), (0, side * (y - 0.09), 0.3), 1) for side in (-1, 1)]
    return [Part(BOX, (0.38, y, 0.2), (0, 0, 0.2)), Part(BOX, (0.1, y, 0.42), (-0.28, 0, 0.42)), *arms]


def _bed(rng: np.random.Generator) -> list[Part]:
    y = rng.uniform(0.45, 0.8)
    pillow = Part(BOX, (0.16, 0.8 * y, 0.06), (-0.72, 0, 0.52), 2)
    return [Part(BOX, (0.95, y, 0.23), (0, 0, 0.23)), Part(BOX, (0.04, y, 0.5), (-0.97, 0, 0.5), 1), pillow]


def _shelf(rng: np.random.Generator) -> list[Part]:
    y, z = rng.uniform(0.35, 0.6), rng.uniform(0.7, 0.95)
    sides = [Part(BOX, (0.15, 0.02, z), (0, side * y, z)) for side in (-1, 1)]
    boards = [Part(BOX, (0.15, y, 0.015), (0, 0, 0.05 + k * (2 * z - 0.1) / 4)) for k in range(5)]
    books = [
        Part(BOX, (0.1, rng.uniform(0.06, 0.25), 0.12), (0, rng.uniform(-0.4, 0.4) * y, 0.19 + k * (2 * z - 0.1) / 4),
             1 + k % 2) for k in range(4)
    ]  # fmt: skip
    return [*sides, *boards, *books]


def _wardrobe(rng: np.random.Generator) -> list[Part]:
    y, z = rng.uniform(0.4, 0.7), rng.uniform(0.9, 1.05)
    knobs = [Part(SPHERE, (0.03,), (0.31, side * 0.08, z), 1) for side in (-1, 1)]
    return [Part(BOX, (0.3, y, z), (0, 0, z)), Part(BOX, (0.302, 0.008, z), (0, 0, z), 2), *knobs]


def _cabinet(rng: np.random.Generator) -> list[Part]:
    y, z = rng.uniform(0.35, 0.6), rng.uniform(0.35, 0.5)
    fronts = [Part(BOX, (0.005, 0.42 * y, 0.8 * z), (0.245, side * y / 2, z), 1) for side in (-1, 1)]
    return [Part(BOX, (0.24, y, z), (0, 0, z)), *fronts]


def _lamp(rng: np.random.Generator) -> list[Part]:
    z = rng.uniform(1.3, 1.7)
    pole = Part(CYLINDER, (0.02, z / 2), (0, 0, z / 2), 1)
    return [pole, Part(CYLINDER, (0.16, 0.02), (0, 0, 0.02), 1), Part(CYLINDER, (0.2, 0.14), (0, 0, z))]


def _plant(rng: np.random.Generator) -> list[Part]:
    leaves = [
        Part(SPHERE, (rng.uniform(0.1, 0.2),), (*rng.uniform(-0.1, 0.1, 2), rng.uniform(0.5, 1.0)), 3) for _ in range(4)
    ]
    return [Part(CYLINDER, (0.15, 0.18), (0, 0, 0.18)), *leaves]


def _stool(rng: np.random.Generator) -> list[Part]:
    return [Part(CYLINDER, (0.2, 0.04), (0, 0, 0.5)), Part(CYLINDER, (0.05, 0.24), (0, 0, 0.24), 1)]


def _television(rng: np.random.Generator) -> list[Part]:
    screen = Part(BOX, (0.03, 0.5, 0.3), (0, 0, 0.9), 4)
    return [Part(BOX, (0.2, 0.5, 0.25), (0, 0, 0.25)), screen, Part(BOX, (0.03, 0.06, 0.06), (0, 0, 0.55), 4)]


def _boxes(rng: np.random.Generator) -> list[Part]:
    below, above = rng.uniform(0.2, 0.3), rng.uniform(0.12, 0.2)
    return [Part(BOX, (below,) * 3, (0, 0, below)), Part(BOX, (above,) * 3, (0.05, 0, 2 * below + above), 1)]


def _ball(rng: np.random.Generator) -> list[Part]:
    radius = rng.uniform(0.15, 0.28)
    return [Part(SPHERE, (radius,), (0, 0, radius))]


FURNITURE: dict[str, Callable[[np.random.Generator], list[Part]]] = {
    "table": _table, "desk": _desk, "chair": _chair, "sofa": _sofa, "bed": _bed, "shelf": _shelf,
    "wardrobe": _wardrobe, "cabinet": _cabinet, "lamp": _lamp, "plant": _plant, "stool": _stool,
    "television": _television, "boxes": _boxes, "ball": _ball,
}  # fmt: skip
AGAINST_WALLS = ("desk", "sofa", "bed", "shelf", "wardrobe", "cabinet", "television")


class Piece(NamedTuple):
    """A piece of furniture in its place."""

    kind: str
    place: np.ndarray  # (2,), m
    quarter: int  # turns of 90 degrees
    parts: list[Part]

    def bounds(self) -> np.ndarray:
        """Box [low, high] around it, (2, 3), m."""
        low, high = np.full(3, np.inf), np.full(3, -np.inf)
        for part in self.parts:
            half = np.array(
                {BOX: part.size, SPHERE: part.size * 3, CYLINDER: (*part.size[:1] * 2, part.size[-1])}[part.kind]
            )
            low, high = np.minimum(low, np.subtract(part.place, half)), np.maximum(high, np.add(part.place, half))
        corners = np.stack([low[:2], high[:2]])
        turned = np.sort(corners @ rotation(self.quarter).T, axis=0)
        return np.concatenate([turned + self.place, [[low[2]], [high[2]]]], axis=1)


def rotation(quarter: int) -> np.ndarray:
    cos, sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarter % 4]
    return np.array([[cos, -sin], [sin, cos]], float)
