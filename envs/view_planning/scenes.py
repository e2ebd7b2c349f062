"""Procedural rooms: textured walls and floor, 8 to 20 pieces of furniture of 14 classes, lights; all from a seed.

Furniture stands parallel to the walls, so that boxes around it are exact and a camera's way can be checked.
"""

from functools import cached_property

import mujoco
import numpy as np

from .furniture import AGAINST_WALLS, BOX, FURNITURE, Piece, rotation
from .lattice import CELL, FORWARD, LEVEL, LOWEST, MOVES, YAWS, Lattice, Move, breadth_first

LEVELS = 3
HEIGHT = 2.4  # of a room, m
MARGIN = 0.18  # m that a camera keeps from walls and furniture
STARTS = 4  # poses of a room where episodes begin: many trajectories must meet for a graph to have worth
FIELD_OF_VIEW = 90.0  # degrees


def _facing(normal: tuple[float, float, float]) -> np.ndarray:
    """Quaternion of a plane that faces along the normal; a wall's second axis is up."""
    z = np.array(normal, float)
    y = np.array((0.0, 1.0, 0.0) if abs(z[2]) > 0.5 else (0.0, 0.0, 1.0))
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, np.stack([np.cross(y, z), y, z], axis=1).ravel())
    return quaternion


class Room:
    """A room, where a camera can be in it, and how it gets from there to elsewhere.

    Args:
        seed: of everything.
        pieces: fewest and most pieces of furniture.
    Raises:
        ValueError: no furniture is asked for, or so much that a camera finds no room.
    """

    def __init__(self, seed: int, pieces: tuple[int, int] = (8, 20)) -> None:
        if not 1 <= pieces[0] <= pieces[1]:
            raise ValueError(f"a scene needs furniture: pieces must be (fewest, most), at least 1, got {pieces}")
        self.seed = seed
        self.rng = np.random.default_rng([seed, 31])
        cells = self.rng.integers(15, 22, 2)  # of 0.25 m: rooms of 3.75 to 5.25 m
        self.half = cells * CELL / 2 + MARGIN
        self.lattice = Lattice((int(cells[0]) + 1, int(cells[1]) + 1, LEVELS), tuple(-cells * CELL / 2))
        self.pieces = self._furnish(int(self.rng.integers(pieces[0], pieces[1] + 1)))
        self.boxes = np.stack([piece.bounds() for piece in self.pieces])
        self.boxes[:, 0] -= MARGIN
        self.boxes[:, 1] += MARGIN

    def _furnish(self, count: int) -> list[Piece]:
        out: list[Piece] = []
        kinds = list(FURNITURE)
        for _ in range(60 * count):
            kind = str(self.rng.choice(kinds))
            piece = Piece(kind, np.zeros(2), int(self.rng.integers(4)), FURNITURE[kind](self.rng))
            bounds = piece.bounds()[:, :2]
            low, high = -self.half - bounds[0] + 0.02, self.half - bounds[1] - 0.02
            if (low > high).any():
                continue
            place = self.rng.uniform(low, high)
            if kind in AGAINST_WALLS:  # its back, which is at -x in its own frame, to the wall
                back = rotation(piece.quarter) @ (-1, 0)
                axis = int(np.abs(back).argmax())
                place[axis] = high[axis] if back[axis] > 0 else low[axis]
            piece = piece._replace(place=place)
            own, others = piece.bounds(), [other.bounds() for other in out]
            apart = [(own[0] > other[1] + 0.1).any() or (own[1] < other[0] - 0.1).any() for other in others]
            if all(apart):
                out.append(piece)
                if len(out) == count:
                    return out
        raise ValueError(
            f"a room of {2 * self.half[0]:.1f} by {2 * self.half[1]:.1f} m has no place for {count} pieces of "
            f"furniture; {len(out)} were placed, ask for fewer"
        )

    def free(self, points: np.ndarray) -> np.ndarray:
        """Whether a camera can be at points (..., 3), m."""
        inside = (np.abs(points[..., :2]) <= self.half - MARGIN + 1e-9).all(-1)
        inside &= (points[..., 2] > MARGIN) & (points[..., 2] < HEIGHT - MARGIN)
        for low, high in self.boxes:
            inside &= ~((points > low) & (points < high)).all(-1)
        return inside

    @cached_property
    def table(self) -> np.ndarray:
        """Where every move leads, (nodes, MOVES) int32; see `Lattice.table`."""
        grid = np.stack(np.meshgrid(*map(np.arange, self.lattice.cells), indexing="ij"), axis=-1)
        places = grid * (CELL, CELL, LEVEL) + (*self.lattice.corner, LOWEST)
        clear = np.zeros((*self.lattice.cells, YAWS, MOVES), bool)
        for yaw in range(YAWS):
            for move in range(MOVES):
                step = np.zeros(3)
                sign = -1 if move % 2 else 1
                if move < Move.UP:
                    side = yaw if move < Move.RIGHT else yaw - YAWS // 4
                    step[:2] = sign * FORWARD[side % YAWS] * CELL
                elif move < Move.TURN_LEFT:
                    step[2] = sign * LEVEL
                way = np.stack([places + share * step for share in (0, 0.25, 0.5, 0.75, 1)])
                clear[..., yaw, move] = self.free(way).all(0)
        return self.lattice.table(clear)

    @cached_property
    def starts(self) -> np.ndarray:
        """Nodes (STARTS,) where episodes begin: they can reach most of the room, and one another.

        Raises:
            ValueError: there is no room for a camera.
        """
        level = self.lattice.pose(np.arange(self.lattice.size))
        metric = self.lattice.metric(np.arange(self.lattice.size))
        usable = self.free(metric[:, :3]) & (level[:, 4] == 2) & (level[:, 2] == 1)
        for _ in range(20):
            if not usable.any():
                break
            first = int(self.rng.choice(np.flatnonzero(usable)))
            reached = breadth_first(self.table, first) >= 0
            if reached.sum() > 0.3 * self.lattice.size:
                return self.rng.choice(np.flatnonzero(reached & usable), STARTS, replace=False)
        raise ValueError(f"there is no way through the room of seed {self.seed}; ask for fewer pieces of furniture")

    def check(self, node: int) -> None:
        """Raise a ValueError for a node outside the lattice, or a camera inside furniture or a wall."""
        if not 0 <= node < self.lattice.size:
            raise ValueError(f"node must be in 0..{self.lattice.size - 1}, got {node}")
        place = self.lattice.metric(node)[:3]
        if not self.free(place):
            raise ValueError(f"the camera of node {node} at {place.round(2)} m is inside furniture or too near to it")

    def spec(self) -> mujoco.MjSpec:
        """The room as a model."""
        spec, rng = mujoco.MjSpec(), np.random.default_rng([self.seed, 32])
        spec.visual.quality.offsamples, spec.visual.quality.shadowsize = 0, 0
        settings = getattr(spec.visual, "global")
        settings.fovy, settings.offwidth, settings.offheight = FIELD_OF_VIEW, 640, 640
        spec.visual.map.znear = 0.02
        spec.visual.headlight.ambient, spec.visual.headlight.diffuse = [0.35] * 3, [0.25] * 3
        x, y = self.half
        patterns = [mujoco.mjtBuiltin.mjBUILTIN_CHECKER, mujoco.mjtBuiltin.mjBUILTIN_FLAT]
        middle = HEIGHT / 2
        walls = [((x, 0, middle), (-1, 0, 0)), ((-x, 0, middle), (1, 0, 0))]
        walls += [((0, y, middle), (0, -1, 0)), ((0, -y, middle), (0, 1, 0))]
        surfaces = [((0, 0, 0), (0, 0, 1)), ((0, 0, HEIGHT), (0, 0, -1)), *walls]
        for number, (place, normal) in enumerate(surfaces):
            name, color = f"surface_{number}", rng.uniform(0.35, 0.9, 3)
            spec.add_texture(
                name=name, type=mujoco.mjtTexture.mjTEXTURE_2D, builtin=patterns[int(number > 0)], rgb1=color,
                rgb2=color * rng.uniform(0.75, 0.9), width=64, height=64, mark=mujoco.mjtMark.mjMARK_RANDOM,
                markrgb=rng.uniform(0, 1, 3), random=rng.uniform(0.005, 0.03),
            )  # fmt: skip
            material = spec.add_material(name=name, specular=0.0, texrepeat=(2, 2) if number == 0 else (1, 1))
            material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
            extent = ((x, y), (y, middle), (x, middle))[number // 2]
            spec.worldbody.add_geom(
                name=name, type=mujoco.mjtGeom.mjGEOM_PLANE, size=(*extent, 1), pos=place, quat=_facing(normal),
                material=name,
            )  # fmt: skip
        for number in range(int(rng.integers(3, 7))):  # pictures on the walls
            axis, side = int(rng.integers(2)), int(rng.integers(2)) * 2 - 1
            half = (0.01, rng.uniform(0.15, 0.45), rng.uniform(0.15, 0.35))
            spot = np.array(
                [side * self.half[axis], rng.uniform(-0.7, 0.7) * self.half[1 - axis], rng.uniform(1.2, 1.7)]
            )
            for inner, shrink in ((0, 1.0), (1, 0.6)):
                shape = np.array((half[0] * (1 + inner), half[1] * shrink, half[2] * shrink))
                order = [0, 1, 2] if axis == 0 else [1, 0, 2]
                spec.worldbody.add_geom(
                    name=f"picture_{number}_{inner}", type=BOX, size=shape[order], pos=spot[order],
                    rgba=(*rng.uniform(0.05, 1, 3), 1),
                )  # fmt: skip
        for number, piece in enumerate(self.pieces):
            half_turn = piece.quarter * np.pi / 4
            body = spec.worldbody.add_body(
                name=f"{piece.kind}_{number}", pos=(*piece.place, 0), quat=(np.cos(half_turn), 0, 0, np.sin(half_turn))
            )
            colors = [rng.uniform(0.1, 0.95, 3) for _ in range(3)]
            colors += [rng.uniform((0.05, 0.3, 0.05), (0.3, 0.7, 0.3)), np.full(3, 0.12)]
            for part in piece.parts:
                size = (*part.size, *(0.0,) * (3 - len(part.size)))
                body.add_geom(type=part.kind, size=size, pos=part.place, rgba=(*colors[part.color], 1))
        for _ in range(2):
            spec.worldbody.add_light(
                pos=(*rng.uniform(-0.6, 0.6, 2) * self.half, HEIGHT - 0.1), dir=(0, 0, -1), castshadow=False,
                diffuse=rng.uniform(0.3, 0.5, 3), cutoff=90,
            )  # fmt: skip
        return spec
