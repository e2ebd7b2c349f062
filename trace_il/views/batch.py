"""Records and trajectories as tensors."""

from collections.abc import Sequence

import numpy as np
import torch

from envs.view_planning.env import BUDGET
from envs.view_planning.lattice import MOVES, Move, path_nodes
from envs.view_planning.tasks import Item, Place

from .agent import NO_MOVE, POSE_FEATURES, ChoiceBatch, PathBatch
from .distill import Record
from .graph import Trajectory

# What each move is in a mirror, and STOP and NO_MOVE.
OTHER_SIDE = torch.tensor(
    [0, 1, Move.LEFT, Move.RIGHT, 4, 5, Move.TURN_RIGHT, Move.TURN_LEFT, 8, 9, Move.STOP, NO_MOVE]
)
SIDES = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, 1.0])  # signs of POSE_FEATURES there


def pose_features(metric: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Metric poses (..., 6) as seen from others that broadcast with them: (..., POSE_FEATURES) of ahead, left and up
    in m, sine and cosine of the yaw, and the pitch in rad, which is not relative."""
    apart = metric[..., :3] - origin[..., :3]
    yaw, pitch = np.radians(origin[..., 5]), np.radians(metric[..., 4])
    turn = np.radians(metric[..., 5]) - yaw
    ahead = np.cos(yaw) * apart[..., 0] + np.sin(yaw) * apart[..., 1]
    left = -np.sin(yaw) * apart[..., 0] + np.cos(yaw) * apart[..., 1]
    parts = np.broadcast_arrays(ahead, left, apart[..., 2], np.sin(turn), np.cos(turn), pitch)
    return np.stack(parts, axis=-1)


def closed_moves(place: Place, nodes: Sequence[int] | np.ndarray, moves: Sequence[int] | np.ndarray) -> np.ndarray:
    """Which moves were blocked where the agent is, or lead to where it has been, and whether all moves are spent:
    (T, MOVES + 1) bool for nodes (T,).

    Args:
        moves: (T - 1,) those between the nodes, or more.
    """
    path, made = np.asarray(nodes), np.asarray(moves, int)[: len(nodes) - 1]
    before = np.tri(len(path), dtype=bool)[:, :, None]  # [now, then]
    out = np.zeros((len(path), MOVES + 1), bool)
    out[:, :MOVES] = (before & (place.unobstructed[path][:, None] == path[None, :, None])).any(1)
    bumped = np.flatnonzero(path[1:] == path[:-1])
    for then in bumped:
        out[then + 1 :, made[then]] |= path[then + 1 :] == path[then]
    out[BUDGET:, MOVES] = True
    return out


class Gallery:
    """Images of a batch, each once.

    Args:
        places: rooms by index.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        self.places = places
        self.index: dict[tuple[int, int], int] = {}

    def __call__(self, scene: int, nodes: np.ndarray | Sequence[int]) -> np.ndarray:
        """Indices of views."""
        return np.array([self.index.setdefault((scene, int(node)), len(self.index)) for node in nodes])

    def images(self) -> torch.Tensor:
        """uint8 (U, S, S, 3)."""
        size = self.places[0].views.size
        out = np.empty((len(self.index), size, size, 3), np.uint8)
        own: dict[int, list[tuple[int, int]]] = {}
        for (scene, node), number in self.index.items():
            own.setdefault(scene, []).append((node, number))
        for scene, pairs in own.items():
            nodes, numbers = np.array(pairs).T
            out[numbers] = self.places[scene].views(nodes)
        return torch.from_numpy(out)


def paths(
    places: Sequence[Place],
    rows: Sequence[tuple[int, int, np.ndarray, Sequence[int] | np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
) -> PathBatch:
    """A batch of rows (scene, goal, nodes (T,), moves between them, seen (T,), labels (T, MOVES + 1), moves left
    (T,))."""
    gallery, count, longest = Gallery(places), len(rows), max(len(row[2]) for row in rows)
    view, goal = np.zeros((count, longest), int), np.zeros(count, int)
    seen, closed = np.zeros((count, longest), bool), np.zeros((count, longest, MOVES + 1), bool)
    pose, where = (np.zeros((count, longest, POSE_FEATURES), np.float32) for _ in range(2))
    left = np.full((count, longest), -1.0, np.float32)
    label = np.zeros((count, longest, MOVES + 1), np.float32)
    for number, (scene, target, nodes, moves, visible, best, remaining) in enumerate(rows):
        steps = len(nodes)
        goal[number] = gallery(scene, [target])[0]
        view[number, :steps] = gallery(scene, np.where(visible, nodes, nodes[0]))
        seen[number, :steps] = visible
        metric = places[scene].metric
        pose[number, :steps] = pose_features(metric[nodes], metric[nodes[0]])
        where[number, :steps] = pose_features(metric[target], metric[nodes])
        closed[number, :steps] = closed_moves(places[scene], nodes, moves)
        label[number, :steps] = best / np.maximum(best.sum(-1, keepdims=True), 1)
        left[number, :steps] = remaining
    parts = (view, goal, seen, pose, closed, label, left, where)
    return PathBatch(gallery.images(), *(torch.from_numpy(part) for part in parts))


def from_records(places: Sequence[Place], records: Sequence[Record]) -> PathBatch:
    """Records other than choices."""
    rows = []
    for record in records:
        nodes = path_nodes(places[record.scene].table, record.start, record.moves)
        best = (np.array(record.best)[:, None] >> np.arange(MOVES + 1) & 1).astype(np.float32)
        left = np.array(record.left, np.float32)
        seen = np.ones(len(nodes), bool)
        if record.kind == "sequence":
            seen[1:] = False
        if record.kind in ("distance", "inverse", "arrived"):
            nodes, best, left, seen = nodes[:1], best[:1], left[:1], seen[:1]
        if record.kind == "distance":
            best = 0 * best
        rows.append((record.scene, record.goal, nodes, record.moves, seen, best, left))
    return paths(places, rows)


def from_trajectories(places: Sequence[Place], trajectories: Sequence[Trajectory]) -> PathBatch:
    """What was done, as labels; those of views after the end are zero."""
    rows = []
    for own in trajectories:
        done = [*own.moves, Move.STOP] if own.stopped else list(own.moves)
        best = np.eye(MOVES + 1, dtype=np.float32)[np.array(done, int)].reshape(len(done), MOVES + 1)
        nodes = own.nodes[: len(done)]
        seen, left = np.ones(len(nodes), bool), np.full(len(nodes), -1.0)
        rows.append((own.scene, own.goal, nodes, own.moves, seen, best, left))
    return paths(places, rows)


def choices(places: Sequence[Place], items: Sequence[Item | Record]) -> ChoiceBatch:
    """Multiple-choice questions."""
    gallery = Gallery(places)
    start = np.array([gallery(item.scene, [item.start])[0] for item in items])
    end = np.stack([gallery(item.scene, item.ends) for item in items])
    longest = max(len(path) for item in items for path in item.paths)
    moves = np.full((*end.shape, longest), NO_MOVE)
    for number, item in enumerate(items):
        for option, path in enumerate(item.paths):
            moves[number, option, : len(path)] = path
    answer = np.array([item.answer for item in items])
    return ChoiceBatch(gallery.images(), *(torch.from_numpy(part) for part in (start, end, moves, answer)))


def mirrored(paths: PathBatch) -> PathBatch:
    """The same in rooms seen in a mirror: left is right."""
    return paths._replace(
        images=paths.images.flip(2), pose=paths.pose * SIDES, where=paths.where * SIDES,
        closed=paths.closed[..., OTHER_SIDE[: MOVES + 1]], label=paths.label[..., OTHER_SIDE[: MOVES + 1]],
    )  # fmt: skip


def mirrored_choices(asked: ChoiceBatch) -> ChoiceBatch:
    """Likewise."""
    return asked._replace(images=asked.images.flip(2), paths=OTHER_SIDE[asked.paths])
