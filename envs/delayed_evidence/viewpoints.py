"""Where a wrist camera can be taken to look: a lattice of hand poses, and what is seen from them.

A viewpoint is (x, y, z, yaw) of the right hand, level, on a grid in the frame of the base. Its moves go to neighbours
on the grid, so every move has an exact inverse, as in planning by views.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import mujoco
import numpy as np

from ..view_planning.lattice import breadth_first, descend, path_nodes, random_walk
from .expert import DOWN, HandIK
from .robot import RobotIndex

GRID = (
    np.linspace(0.20, 0.44, 4),  # x, m
    np.linspace(-0.36, 0.00, 5),  # y, m
    np.array([0.55, 0.63]),  # z, m; above what stands on the table
    np.radians([0.0, 30.0, 60.0, 90.0, 120.0]),  # yaw; to the left of straight ahead
)
WAITING = np.array([0.30, 0.30, 0.62])  # of the left hand, m
MOVES = 2 * len(GRID)  # one step up or down each axis of the grid
CLOSE = 0.004, 0.06  # m and rad: how exactly inverse kinematics must reach a viewpoint
WALK, WALKS = 16, 96  # moves of a random walk, and walks that are merged at a time
STRAY = 3  # most wrong moves that a demonstration makes before it looks
SWEEP = [2, 5, 0, 6, 7, 1, 3, 4]  # moves in the order in which a sweep tries them: left, down, ahead, turns, back
LARGE = 0.035  # share of the picture that the card must fill, for a viewpoint to show it


@cache
def lattice() -> tuple[np.ndarray, np.ndarray]:
    """Joints of the right arm (N, 6), rad, NaN where no joints reach, and where moves lead (N, MOVES); a move that does
    not exist leads to where it starts."""
    shape = tuple(map(len, GRID))
    joints = np.full((*shape, 6), np.nan)
    solver = HandIK()
    for index in np.ndindex(shape):
        if index[3] == 0:
            solver = HandIK()
        x, y, z, yaw = (axis[i] for axis, i in zip(GRID, index, strict=True))
        ahead = np.array([np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)])
        solver.solve(np.array([WAITING, (x, y, z)]), (DOWN, ahead), iterations=60 if index[3] == 0 else 25)
        error = solver.tasks[1].compute_error(solver.configuration)
        if np.linalg.norm(error[:3]) < CLOSE[0] and np.linalg.norm(error[3:]) < CLOSE[1]:
            joints[index] = solver.configuration.q[solver.index.arm_qpos[1]]
    joints = joints.reshape(-1, 6)
    nodes = np.arange(len(joints))
    poses = np.stack(np.unravel_index(nodes, shape), axis=-1)
    table = np.repeat(nodes[:, None], MOVES, axis=1)
    for move in range(MOVES):
        after = poses.copy()
        after[:, move // 2] += 1 - 2 * (move % 2)
        there = np.array([pose.min() >= 0 and (pose < shape).all() for pose in after])
        ends = np.ravel_multi_index(tuple(np.where(there[:, None], after, poses).T), shape)
        usable = there & np.isfinite(joints[nodes, 0]) & np.isfinite(joints[ends, 0])
        table[:, move] = np.where(usable, ends, nodes)
    return joints, table


@cache
def resting(raised: float) -> np.ndarray:
    """Joints (6,) of the left arm where it waits, about, rad."""
    home = WAITING + (0, 0, raised)
    return HandIK().solve(np.array([home, home * (1, -1, 1)]), (DOWN, DOWN), iterations=60)[0].copy()


@dataclass
class Outlook:
    """The viewpoints of a scene."""

    seen: np.ndarray  # (N,) bool: the card is seen from there
    hidden: np.ndarray  # (N,) bool: nothing of the card is seen from there
    free: np.ndarray  # (N,) bool: the hand gets there and touches nothing
    table: np.ndarray  # (N, MOVES) where moves lead; blocked ones to where they start

    def moves_left(self, table: np.ndarray | None = None) -> np.ndarray:
        """Fewest moves (N,) from each viewpoint to one that shows the card, by `table` or by all; -1: no way."""
        if not self.seen.any():
            return np.full(len(self.seen), -1)
        return breadth_first(self.table if table is None else table, np.flatnonzero(self.seen))


def examine(
    model: mujoco.MjModel, data: mujoco.MjData, robot: RobotIndex, filled: Callable[[mujoco.MjData], float]
) -> Outlook:
    """Take the right hand to every viewpoint, in a copy of the scene.

    All are looked from, whoever then walks among them, since that is cheap in a simulator. A viewpoint counts as free
    when the fingers touch nothing: nothing else of an arm collides (see robot.py).

    Args:
        filled: which share of the camera's picture the card fills, by a segmentation.
    """
    joints, table = lattice()
    trial = mujoco.MjData(model)
    trial.qpos[:], trial.mocap_pos[:], trial.mocap_quat[:] = data.qpos, data.mocap_pos, data.mocap_quat
    share, free = np.zeros(len(joints)), np.zeros(len(joints), bool)
    fingers = {model.body(f"right_finger_{name}").id for name in "ab"}
    for node in np.flatnonzero(np.isfinite(joints[:, 0])):
        trial.qpos[robot.arm_qpos[1]] = joints[node]
        mujoco.mj_fwdPosition(model, trial)
        touched = {int(body) for pair in trial.contact.geom for body in model.geom_bodyid[pair]}
        free[node] = not touched & fingers
        share[node] = filled(trial) if free[node] else 0.0
    open_ways = np.where(free[:, None] & free[table], table, np.arange(len(table))[:, None])
    return Outlook(share > LARGE, free & (share == 0), free, open_ways)


def walk(room: Outlook, start: int, rng: np.random.Generator) -> list[int]:
    """Viewpoints of a random walk, until it sees the card or has made `WALK` moves."""
    return path_nodes(room.table, start, random_walk(room.table, start, WALK, rng, room.seen)).tolist()


def stray(room: Outlook, start: int, rng: np.random.Generator) -> list[int]:
    """Viewpoints of at most `STRAY` moves, each of which leads farther from where the card is seen, and none of which
    shows a piece of it."""
    away, been = room.moves_left(), [start]
    for _ in range(int(rng.integers(1, STRAY + 1))):
        there = room.table[been[-1]]
        farther = there[(away[there] > away[been[-1]]) & room.hidden[there]]
        if not len(farther):
            break
        been.append(int(rng.choice(farther)))
    return been


def shortest(room: Outlook, table: np.ndarray, start: int) -> list[int]:
    """A shortest way of a table to where the card is seen: of several, the one that turns and rises first, so that
    demonstrations agree, and what the camera then sees can tell how to go on."""
    moves = MOVES - 1 - np.array(descend(table[:, ::-1], room.moves_left(table), start), int)
    return path_nodes(table, start, moves).tolist()


def known(room: Outlook, paths: list[list[int]]) -> np.ndarray:
    """The table of the moves that were made on some paths, and of their inverses."""
    out = np.repeat(np.arange(len(room.table))[:, None], MOVES, axis=1)
    for path in paths:
        for before, after in pairwise(path):
            move = int(np.flatnonzero(room.table[before] == after)[0])
            out[before, move], out[after, move ^ 1] = after, before
    return out


def oracle(room: Outlook, been: list[int], rng: np.random.Generator) -> list[int]:
    """A shortest way of the whole lattice."""
    return shortest(room, room.table, been[-1])


def graph(room: Outlook, been: list[int], rng: np.random.Generator) -> list[int]:
    """A shortest way of the view graph of random walks: all of them merged, failures included."""
    paths = [been]
    while True:
        paths += [walk(room, been[0], rng) for _ in range(WALKS)]
        merged = known(room, paths)
        if room.moves_left(merged)[been[-1]] >= 0:
            return shortest(room, merged, been[-1])


def hindsight(room: Outlook, been: list[int], rng: np.random.Generator) -> list[int]:
    """The shortest way of any of the same random walks alone: nothing is merged."""
    while True:
        paths = [walk(room, been[-1], rng) for _ in range(WALKS)]
        ways = [shortest(room, known(room, [path]), been[-1]) for path in paths if room.seen[path[-1]]]
        if ways:
            return min(ways, key=len)


def random(room: Outlook, been: list[int], rng: np.random.Generator) -> list[int]:
    """A random walk as it is; where it lasts too long, another one."""
    while True:
        path = walk(room, been[-1], rng)
        if room.seen[path[-1]]:
            return path


def sweep(room: Outlook, been: list[int], rng: np.random.Generator) -> list[int]:
    """Depth first, with the moves always in the same order, until the card is seen."""
    path, trail, tried = been[-1:], been[-1:], set(been[-1:])
    while not room.seen[path[-1]]:
        ahead = [int(n) for n in room.table[trail[-1], SWEEP] if int(n) not in tried]
        if ahead:
            tried.add(ahead[0])
            trail.append(ahead[0])
        else:
            trail.pop()
        path.append(trail[-1])
    return path


def fixed(room: Outlook, been: list[int], rng: np.random.Generator) -> list[int]:
    """No look at all."""
    return been[-1:]


# Ways of looking: from the viewpoints where the hand has been, of which it is at the last, those by which it goes on.
LOOKS: dict[str, Callable[[Outlook, list[int], np.random.Generator], list[int]]] = {
    look.__name__: look for look in (graph, oracle, hindsight, random, sweep, fixed)
}
