"""Rooms in splits, and what is asked in them: targets for view planning, and multiple-choice items.

IVP    interactive view planning: from a start to the target's view, then STOP
P2V    path to view: a view and moves; which of four views results
V2P    view to path: two views; which of four sequences of moves leads from one to the other
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .lattice import MOVES, NEAR, Lattice, arrived, breadth_first, difficulty, path_nodes, random_walk
from .scenes import Room
from .views import Views, telling

SPLITS = {"train": 0, "dev": 1_000_000, "test": 2_000_000}  # seed of the first room of each
SHORT = 3.0  # difficulty below which an episode is short
SHORT_SHARE = 0.35  # of a mix of episodes or questions
CHOICES = 4
QUESTION_MOVES = {True: (1, 3), False: (3, 8)}  # fewest and most of a question, by whether it is short


class Episode(NamedTuple):
    """One task of interactive view planning."""

    scene: int  # index in its split
    start: int  # node
    goal: int  # node
    difficulty: float

    @property
    def short(self) -> bool:
        return self.difficulty < SHORT


class Item(NamedTuple):
    """A multiple-choice question. P2V: `moves` lead from `start` to one of `ends`; V2P: one of `paths` to `end`."""

    scene: int
    start: int
    ends: tuple[int, ...]  # where each option leads, all different; (CHOICES,)
    paths: tuple[tuple[int, ...], ...]  # moves of each option, (CHOICES,)
    answer: int
    difficulty: float

    @property
    def short(self) -> bool:
        return self.difficulty < SHORT


@dataclass(frozen=True)
class Distances:
    """Which targets are asked for: fewest and most moves away, and d of at least `least`."""

    moves: tuple[int, int] = (2, 8)
    least: float = 1.5


class Place:
    """A room with its views.

    Args:
        split, index: which room.
        size: side of the views, pixels.
        pieces: fewest and most pieces of furniture.
        folder: where views are kept; None: in memory.
    """

    def __init__(
        self, split: str, index: int, size: int = 64, pieces: tuple[int, int] = (8, 20), folder: Path | None = None
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        self.split, self.index = split, index
        self.room = Room(SPLITS[split] + index, pieces)
        self.views = Views(self.room, size, folder)
        self.told: dict[int, bool] = {}

    @property
    def lattice(self) -> Lattice:
        return self.room.lattice

    @property
    def table(self) -> np.ndarray:
        return self.room.table

    @cached_property
    def metric(self) -> np.ndarray:
        """Poses of all nodes, (nodes, 6): m and degrees."""
        return self.lattice.metric(np.arange(self.lattice.size)).astype(np.float32)

    @cached_property
    def unobstructed(self) -> np.ndarray:
        """Where every move would lead if nothing stood in its way, (nodes, MOVES) int32; -1: out of the lattice."""
        after = self.lattice.table(np.ones((*self.lattice.shape[:4], MOVES), bool))
        return np.where(after == np.arange(len(after))[:, None], -1, after)

    @cached_property
    def from_starts(self) -> dict[int, np.ndarray]:
        """Fewest moves from each of the starts to every node."""
        return {int(start): breadth_first(self.table, start) for start in self.room.starts}

    def reachable(self, moves: int) -> int:
        """How many nodes lie within so many moves of a start."""
        away = np.stack(list(self.from_starts.values()))
        return int(((away >= 0) & (away <= moves)).any(0).sum())

    def telling(self, node: int) -> bool:
        """Whether the view of a node is more than one colour."""
        if node not in self.told:
            self.told[node] = telling(self.views(np.array(node)))
        return self.told[node]

    def goals(self, goal: int) -> np.ndarray:
        """All nodes that count as arrived at the goal."""
        near = np.abs(self.metric[:, :3] - self.metric[goal, :3]).max(1) <= NEAR + 1e-6
        nodes = np.flatnonzero(near)
        return nodes[arrived(self.metric[nodes], self.metric[goal])]

    def moves_left(self, goal: int) -> np.ndarray:
        """Fewest moves from every node until it counts as arrived; -1: no way."""
        return breadth_first(self.table, self.goals(goal))

    def episode(self, rng: np.random.Generator, distances: Distances) -> Episode:
        """A random task.

        Raises:
            ValueError: the room has no such target.
        """
        short = bool(rng.random() < SHORT_SHARE)
        for _ in range(30):
            start = int(rng.choice(self.room.starts))
            away = self.from_starts[start]
            near = np.flatnonzero((away >= distances.moves[0]) & (away <= distances.moves[1]))
            hard = difficulty(self.metric[near], self.metric[start])
            near = near[(hard >= distances.least) & ((hard < SHORT) == short)]
            for goal in rng.choice(near, min(20, len(near)), replace=False):
                if self.telling(int(goal)):
                    d = float(difficulty(self.metric[goal], self.metric[start]))
                    return Episode(self.index, start, int(goal), d)
        raise ValueError(f"the room of seed {self.room.seed} has no target of {distances}; widen the distances")

    def item(self, rng: np.random.Generator) -> Item:
        """A random question: random walks of one length from anywhere that the camera may get to, whose ends are
        different places and look, as their start does, like more than one colour.

        Raises:
            ValueError: the room has no such question.
        """
        short = bool(rng.random() < SHORT_SHARE)
        anywhere = np.flatnonzero(np.any([away >= 0 for away in self.from_starts.values()], axis=0))
        for _ in range(1000):
            origin, count = int(rng.choice(anywhere)), int(rng.integers(*QUESTION_MOVES[short], endpoint=True))
            paths: dict[int, tuple[int, ...]] = {}
            for _ in range(12):
                path = tuple(random_walk(self.table, origin, count, rng))
                end = int(path_nodes(self.table, origin, path)[-1])
                d = float(difficulty(self.metric[end], self.metric[origin]))
                if len(path) == count and end != origin and (d < SHORT) == short:
                    paths.setdefault(end, path)
                if len(paths) == CHOICES:
                    if all(self.telling(node) for node in (origin, *paths)):
                        answer = int(rng.integers(CHOICES))
                        d = float(difficulty(self.metric[tuple(paths)[answer]], self.metric[origin]))
                        return Item(self.index, origin, tuple(paths), tuple(paths.values()), answer, d)
                    break
        kind = "short" if short else "long"
        raise ValueError(f"the room of seed {self.room.seed} has no {kind} question with {CHOICES} different views")
