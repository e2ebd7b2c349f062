"""The view graph of a room: every pose that was visited is a node, every move that was made an edge.

Trajectories merge where their poses are the same, which a closed lattice makes exact; then a shortest way from a node
to another may be made of many trajectories. Unmerged graphs of single trajectories are what hindsight relabelling sees.
"""

import io
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from envs.view_planning.lattice import INVERSE, MOVES, breadth_first

from ..errors import UserError
from ..files import atomic_write

# What numpy and zip raise for files with a wrong byte or none. Not MemoryError, say: such a file need not be deleted.
DAMAGED = (OSError, ValueError, LookupError, EOFError, RuntimeError, SyntaxError, zipfile.BadZipFile, zlib.error,
           tokenize.TokenError)  # fmt: skip


class Trajectory(NamedTuple):
    """One episode of exploration: typed transitions, from which everything else follows.

    The first of `nodes` is where the episode began; a move that was blocked leaves the node as it was.
    """

    scene: int
    goal: int
    nodes: np.ndarray  # (T + 1,) int64
    moves: np.ndarray  # (T,) int64, without STOP
    stopped: bool
    success: bool


def save_trajectories(path: Path, found: Sequence[Trajectory]) -> None:
    """Write trajectories, atomically."""
    ends = np.cumsum([len(own.nodes) for own in found])
    content = io.BytesIO()
    np.savez_compressed(
        content, scene=[own.scene for own in found], goal=[own.goal for own in found],
        stopped=[own.stopped for own in found], success=[own.success for own in found], ends=ends,
        nodes=np.concatenate([own.nodes for own in found]), moves=np.concatenate([[*own.moves, -1] for own in found]),
    )  # fmt: skip
    atomic_write(path, content.getvalue())


def load_trajectories(path: Path) -> list[Trajectory]:
    """Those of a file. Raises UserError for one that is damaged."""
    again = "delete the folder of its iteration and explore again"
    parts = read_arrays(path, ("scene", "goal", "stopped", "success", "ends", "nodes", "moves"), again)
    nodes, moves = (np.split(parts[name], parts["ends"][:-1]) for name in ("nodes", "moves"))
    rest = zip(*(parts[name].tolist() for name in ("scene", "goal", "stopped", "success")), strict=True)
    return [
        Trajectory(scene, goal, path, done[:-1], stopped, success)
        for (scene, goal, stopped, success), path, done in zip(rest, nodes, moves, strict=True)
    ]


def read_arrays(path: Path, names: Sequence[str], again: str) -> dict[str, np.ndarray]:
    """Arrays of a file by name. Raises UserError for one that is not there or damaged, which tells how to make it
    `again`."""
    try:
        with np.load(path) as parts:
            return {name: parts[name] for name in names}
    except DAMAGED as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} cannot be read ({reason}); {again}") from error


class Labels(NamedTuple):
    """What is best at every node of a graph on the way to a goal."""

    left: np.ndarray  # (n,) moves; -1: the graph has no way
    best: np.ndarray  # (n, MOVES + 1) bool: all that lie on a shortest way; STOP at the goal


class ViewGraph:
    """A graph that grows.

    Args:
        reverse: every edge also counts backwards, since moves have inverses and the way back was not blocked either.
    """

    def __init__(self, reverse: bool = True) -> None:
        self.reverse = reverse
        self.index: dict[int, int] = {}
        self.visits: list[int] = []
        self.meetings: list[int] = []  # trajectories that came by
        self.edges: dict[tuple[int, int], int] = {}  # (place in `nodes`, move) -> place

    def __len__(self) -> int:
        return len(self.index)

    @property
    def nodes(self) -> np.ndarray:
        """Nodes of the lattice, (n,), in the order in which they were found."""
        return np.fromiter(self.index, np.int64, len(self.index))

    def add(self, nodes: Sequence[int] | np.ndarray, moves: Sequence[int] | np.ndarray) -> None:
        """One trajectory. Blocked moves add no edge.

        Raises:
            ValueError: not one node more than moves.
        """
        if len(nodes) != len(moves) + 1:
            raise ValueError(f"a trajectory has one node more than moves, got {len(nodes)} and {len(moves)}")
        places = [self._place(int(node)) for node in nodes]
        for place in set(places):
            self.meetings[place] += 1
        for place in places:
            self.visits[place] += 1
        for before, move, after in zip(places, moves, places[1:], strict=False):
            if before != after:
                self.edges[before, int(move)] = after
                if self.reverse:
                    self.edges[after, int(INVERSE[move])] = before

    def _place(self, node: int) -> int:
        if node not in self.index:
            self.index[node] = len(self.index)
            self.visits.append(0)
            self.meetings.append(0)
        return self.index[node]

    def tables(self) -> tuple[np.ndarray, np.ndarray]:
        """Where moves lead and where they come from, by places, (n, MOVES) each; an edge that is not there leads to
        where it starts."""
        forward = np.repeat(np.arange(len(self))[:, None], MOVES, axis=1)
        backward = forward.copy()
        if self.edges:
            ends = np.array([(place, move, after) for (place, move), after in self.edges.items()])
            forward[ends[:, 0], ends[:, 1]] = ends[:, 2]
            backward[ends[:, 2], INVERSE[ends[:, 1]]] = ends[:, 0]
        return forward, backward

    def statistics(self, starts: Sequence[int] | np.ndarray) -> dict[str, float]:
        """Size, edges a node, share of nodes where trajectories meet, and nodes within 6 moves of a start (mean)."""
        forward, _ = self.tables()
        known = [self.index[int(start)] for start in starts if int(start) in self.index]
        reach = [int((breadth_first(forward, start, 6) >= 0).sum()) for start in known]
        count = max(len(self), 1)
        return {
            "nodes": len(self), "edges": len(self.edges), "edges_per_node": len(self.edges) / count,
            "shared": sum(meeting > 1 for meeting in self.meetings) / count,
            "reach_6": float(np.mean(reach)) if reach else 0.0,
        }  # fmt: skip

    def save(self, path: Path, table: np.ndarray) -> None:
        """Write it, atomically, with the room's table by which it is known again."""
        edges = np.array([(*key, after) for key, after in self.edges.items()], np.int64).reshape(-1, 3)
        content = io.BytesIO()
        np.savez_compressed(
            content, nodes=self.nodes, edges=edges, visits=np.array(self.visits), meetings=np.array(self.meetings),
            reverse=np.array(self.reverse), room=np.array(zlib.crc32(table.tobytes())),
        )  # fmt: skip
        atomic_write(path, content.getvalue())

    @classmethod
    def load(cls, path: Path, table: np.ndarray) -> "ViewGraph":
        """The graph of a file, which must be of the room of this table.

        Raises:
            UserError: no such file, one that is damaged, or the graph of another room.
        """
        if not path.exists():
            raise UserError(f"no view graph at {path}; explore first: python train.py env=view_planning")
        again = "delete it and run the same command again"
        parts = read_arrays(path, ("nodes", "edges", "visits", "meetings", "reverse", "room"), again)
        if int(parts["room"]) != zlib.crc32(table.tobytes()):
            raise UserError(f"{path} is the graph of another room; explore again")
        graph = cls(bool(parts["reverse"]))
        nodes, edges = parts["nodes"], parts["edges"]
        graph.visits, graph.meetings = parts["visits"].tolist(), parts["meetings"].tolist()
        graph.index = {int(node): place for place, node in enumerate(nodes)}
        graph.edges = {(int(a), int(move)): int(b) for a, move, b in edges}
        return graph


class Router:
    """Shortest ways in a graph as it is now."""

    def __init__(self, graph: ViewGraph) -> None:
        self.nodes = graph.nodes
        self.forward, self.backward = graph.tables()

    def labels(self, goals: Sequence[int] | np.ndarray) -> Labels:
        """What is best on the way to the nearest of some places: a breadth-first search from all of them."""
        left = breadth_first(self.backward, np.asarray(goals))
        nearer = (left[self.forward] == left[:, None] - 1) & (left[:, None] > 0)
        return Labels(left, np.concatenate([nearer, left[:, None] == 0], axis=1))
