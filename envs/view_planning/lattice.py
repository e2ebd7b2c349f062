"""A closed lattice of camera poses: every move has an exact inverse, and a pose is one integer.

A pose is (x, y, z, yaw, pitch): x and y in 0.25 m, z in 0.5 m, yaw in 12 steps of 30 degrees, pitch -60 to 60 degrees
in steps of 30; there is no roll. A step forward is a fixed integer offset for each yaw, 0.5 to 0.56 m long, and the one
of the opposite yaw is its negative. Snapping Euler angles to a grid, as the code of arXiv 2605.29563 does, leaves a
fifth of the moves without an inverse.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

CELL, LEVEL, LOWEST = 0.25, 0.5, 0.6  # m: of x and y, of z, and the height of the lowest level
YAWS, PITCHES, STEP_DEGREES = 12, 5, 30.0
FORWARD = np.array(
    [(2, 0), (2, 1), (1, 2), (0, 2), (-1, 2), (-2, 1), (-2, 0), (-2, -1), (-1, -2), (0, -2), (1, -2), (2, -1)]
)  # (dx, dy) of a step forward, in cells, by yaw
NEAR, ALIKE = 0.5, 30.0  # m and degrees: as close as this counts as arrived


class Move(IntEnum):
    """What an agent can do. Moves are in the frame of the camera, which stays level when it goes forward."""

    FORWARD = 0
    BACK = 1
    RIGHT = 2
    LEFT = 3
    UP = 4
    DOWN = 5
    TURN_LEFT = 6
    TURN_RIGHT = 7
    LOOK_UP = 8
    LOOK_DOWN = 9
    STOP = 10


MOVES = 10  # all but STOP
INVERSE = np.arange(MOVES) ^ 1


@dataclass(frozen=True)
class Lattice:
    """The poses of a box-shaped room: nodes 0 to size - 1.

    Args:
        cells: along x, y and levels along z.
        corner: (2,), m, where cell (0, 0) is.
    """

    cells: tuple[int, int, int]
    corner: tuple[float, float]

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.cells, YAWS, PITCHES)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    def node(self, pose: np.ndarray) -> np.ndarray:
        """Poses (..., 5) of integers -> nodes (...)."""
        return np.ravel_multi_index(tuple(np.moveaxis(np.asarray(pose), -1, 0)), self.shape)

    def pose(self, node: np.ndarray | int) -> np.ndarray:
        """Nodes (...) -> poses (..., 5) of integers."""
        return np.stack(np.unravel_index(np.asarray(node), self.shape), axis=-1)

    def metric(self, node: np.ndarray | int) -> np.ndarray:
        """Nodes (...) -> x, y, z in m, roll, pitch, yaw in degrees, (..., 6)."""
        pose = self.pose(node)
        place = pose[..., :3] * (CELL, CELL, LEVEL) + (*self.corner, LOWEST)
        pitch = (pose[..., 4:] - PITCHES // 2) * STEP_DEGREES
        return np.concatenate([place, np.zeros_like(pitch), pitch, pose[..., 3:4] * STEP_DEGREES], axis=-1)

    def table(self, clear: np.ndarray) -> np.ndarray:
        """Where every move leads, (size, MOVES) int32; a blocked move leads to where it started.

        Args:
            clear: (x, y, z, YAWS, MOVES) bool, whether the way of a move from there is free; its end being inside the
                lattice is checked here.
        """
        nodes = np.arange(self.size)
        poses = self.pose(nodes)
        out = np.empty((self.size, MOVES), np.int32)
        for move in range(MOVES):
            after = poses + offsets(poses[:, 3], move)
            after[:, 3] %= YAWS
            inside = ((after >= 0) & (after < self.shape)).all(1)
            inside &= clear[(*poses[:, :4].T, move)]
            out[:, move] = np.where(inside, self.node(np.where(inside[:, None], after, poses)), nodes)
        return out


def offsets(yaw: np.ndarray, move: int) -> np.ndarray:
    """What a move adds to poses of these yaws (N,): (N, 5)."""
    out = np.zeros((len(yaw), 5), int)
    sign = -1 if move % 2 else 1
    if move in (Move.FORWARD, Move.BACK):
        out[:, :2] = sign * FORWARD[yaw]
    elif move in (Move.RIGHT, Move.LEFT):
        out[:, :2] = sign * FORWARD[(yaw - YAWS // 4) % YAWS]
    else:
        out[:, {4: 2, 6: 3, 8: 4}[move - move % 2]] = sign
    return out


def breadth_first(table: np.ndarray, sources: np.ndarray | int, most: int = 10_000) -> np.ndarray:
    """Fewest moves from any of the sources to each node, (size,) int32; -1: more than `most`, or no way.

    Moves have inverses, so these are also the fewest moves from each node to a source.
    """
    distance = np.full(len(table), -1, np.int32)
    front = np.atleast_1d(np.asarray(sources))
    distance[front] = 0
    for steps in range(1, most + 1):
        after = table[front].ravel()
        after = after[distance[after] < 0]
        if not len(after):
            break
        distance[after] = steps
        front = np.flatnonzero(distance == steps)
    return distance


def descend(table: np.ndarray, left: np.ndarray, start: int) -> list[int]:
    """Moves of a shortest way from `start` to where none are left; `left` as `breadth_first` gives it."""
    moves: list[int] = []
    while left[start] > 0:
        moves.append(int(np.flatnonzero(left[table[start]] == left[start] - 1)[0]))
        start = int(table[start, moves[-1]])
    return moves


def random_walk(
    table: np.ndarray, start: int, most: int, rng: np.random.Generator, ends: np.ndarray | None = None
) -> list[int]:
    """Random moves, none blocked and none that undoes the one before: `most`, or fewer where there is no other.

    Args:
        ends: (size,) bool, nodes at which it is over; None: nowhere.
    """
    moves: list[int] = []
    while len(moves) < most and (ends is None or not ends[start]):
        possible = np.flatnonzero(table[start] != start)
        if moves:
            possible = possible[possible != moves[-1] ^ 1]
        if not len(possible):
            break
        moves.append(int(rng.choice(possible)))
        start = int(table[start, moves[-1]])
    return moves


def path_nodes(table: np.ndarray, start: int, moves: Sequence[int] | np.ndarray) -> np.ndarray:
    """Nodes (T + 1,) that moves (T,) lead through.

    Raises:
        ValueError: a move that there is not, STOP among them.
    """
    out = [int(start)]
    for move in moves:
        if not 0 <= move < table.shape[1]:
            raise ValueError(f"moves of a path must be in 0..{table.shape[1] - 1}, got {move}")
        out.append(int(table[out[-1], move]))
    return np.array(out)


def differences(one: np.ndarray, two: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance in m and geodesic angle in degrees between metric poses (..., 6)."""
    apart = np.linalg.norm(one[..., :3] - two[..., :3], axis=-1)
    yaw, pitch = np.cos(np.radians(one[..., 5] - two[..., 5])), np.cos(np.radians(one[..., 4] - two[..., 4]))
    trace = yaw * pitch + yaw + pitch  # of R1^T R2, with R = Rz(yaw) Ry(pitch)
    return apart, np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))


def difficulty(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """d = sqrt((distance / 0.5 m)^2 + (angle / 30 degrees)^2) of metric poses; short is d < 3."""
    apart, angle = differences(one, two)
    return np.hypot(apart / NEAR, angle / ALIKE)


def arrived(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Whether metric poses are within 0.5 m and 30 degrees of each other."""
    apart, angle = differences(one, two)
    return (apart <= NEAR + 1e-6) & (angle <= ALIKE + 1e-3)
