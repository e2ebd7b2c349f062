"""Distillation: paths of view graphs become supervised records of seven kinds.

    navigate        view by view to the target, then STOP                     (several turns)
    sequence        all moves at once, from the first view and the target's   (one turn)
    choose_path     which of four sequences of moves leads to the view        (V2P)
    choose_view     which of four views a sequence of moves leads to          (P2V), negatives of the same room
    distance        how many moves two views are apart
    inverse         which one move led from a view to the next
    arrived         whether the target has been reached, else how to go on

Ways end at the target's own pose, though an episode succeeds within 0.5 m and 30 degrees of it: there the two views are
equal, which is easy to see, while the edge of the zone where STOP counts is not. A record names its room, its start and
its moves; images and texts follow from these, so each can be replayed.

Most of what the agent navigates by is not good examples but what it did itself: a part of any trajectory, a target
near it, and the best moves of the graph at every view as labels. What was done then says nothing of what is right, so
there is nothing to copy but the views (Ross et al. 2011); and each part serves several targets.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from envs.view_planning.lattice import MOVES, Move, breadth_first, path_nodes, random_walk
from envs.view_planning.tasks import CHOICES, Place

from ..errors import UserError
from .graph import Router, Trajectory, ViewGraph

KINDS = ("navigate", "sequence", "choose_path", "choose_view", "distance", "inverse", "arrived")
CHOICE_KINDS = ("choose_path", "choose_view")
SHARES = (0.6, 0.05, 0.12, 0.12, 0.03, 0.04, 0.04)  # of the kinds
# Share of draws of navigation that follow trajectories (of the records they are 94 %, since a draw gives one for each
# target); targets of a part; its most moves.
PARTS, TARGETS, WINDOW = 0.8, 4, 10
CAP = 0.15  # share of the moves of all other records that one of them should not go beyond


@dataclass(frozen=True)
class Record:
    """One supervised example.

    `moves` lead from `start` to `goal`, unless they are a part of a trajectory (`part`); a "sequence", "distance" or
    "inverse" shows only the start and the goal. For the two choices `ends` and `paths` are the options, `paths[i]`
    leading to `ends[i]`, and `answer` is the right one.
    """

    kind: str
    scene: int
    start: int
    goal: int
    moves: tuple[int, ...]
    best: tuple[int, ...] = ()  # of every view of the path: all moves on a shortest way, as bits
    left: tuple[int, ...] = ()  # of every view of the path: moves to its end; -1: the graph has no way
    ends: tuple[int, ...] = ()
    paths: tuple[tuple[int, ...], ...] = ()
    answer: int = 0
    part: bool = False


class Sampler:
    """Draws records from the graph of a room.

    Args:
        place: the room.
        graph: its view graph.
        trajectories: of the room, to navigate along.
        walk: paths are random walks of the graph and their own moves the labels, as in the paper's code; False: the
            shortest ways, and everything that lies on one is right.
        longest: of a path, moves.
        longest_choice: of a path in a multiple-choice record, moves.
    """

    def __init__(
        self, place: Place, graph: ViewGraph, trajectories: Sequence[Trajectory] = (), walk: bool = False,
        longest: int = 8, longest_choice: int = 6,
    ) -> None:  # fmt: skip
        self.place, self.walk, self.longest, self.longest_choice = place, walk, longest, min(longest, longest_choice)
        self.trajectories = [own for own in trajectories if len(own.moves)]
        self.router = Router(graph)
        self.index = graph.index
        self.usable = np.flatnonzero((self.router.forward != np.arange(len(graph))[:, None]).any(1))
        self.targets = np.array([place.telling(int(node)) for node in self.router.nodes], bool)

    def path(
        self, rng: np.random.Generator, length: tuple[int, int], used: np.ndarray
    ) -> tuple[list[int], list[int], list[int], list[int]] | None:
        """Places, moves, and what is best and how many moves are left at every place, of a shortest way to a random
        goal; None: this draw has none.

        Args:
            length: fewest and most moves.
            used: how often each move was used so far; where several are right the rarest is taken.
        """
        if self.walk:
            return self._walk(rng, length)
        goal = int(rng.choice(self.usable))
        if not self.targets[goal]:
            return None
        labels = self.router.labels([goal])
        wanted = min(int(rng.integers(length[0], length[1] + 1)), int(labels.left.max()))
        if wanted < length[0]:
            return None
        at = int(rng.choice(np.flatnonzero(labels.left == wanted)))
        places, moves = [at], []
        while labels.left[at]:
            right = np.flatnonzero(labels.best[at, :MOVES])
            share = 1.0 / (1.0 + used[right])
            moves.append(int(rng.choice(right, p=share / share.sum())))
            at = int(self.router.forward[at, moves[-1]])
            places.append(at)
        return places, moves, [bits(labels.best[place]) for place in places], labels.left[places].tolist()

    def along(self, rng: np.random.Generator) -> list[Record]:
        """Records of a part of a trajectory, one for each of `TARGETS` targets near it."""
        own = self.trajectories[int(rng.integers(len(self.trajectories)))]
        count = 1 + int(rng.integers(min(len(own.moves), WINDOW)))
        first = int(rng.integers(len(own.moves) - count + 1))
        moves = tuple(map(int, own.moves[first : first + count]))
        places = [self.index[int(node)] for node in own.nodes[first : first + count + 1]]
        out = []
        for _ in range(TARGETS):
            away = breadth_first(self.router.forward, places[int(rng.integers(len(places)))], self.longest)
            # The nearer of two: most places of a large graph are so far that no view tells where they are.
            wanted = min(*rng.integers(self.longest + 1, size=2).tolist(), int(away.max()))
            far = np.flatnonzero(self.targets & (away == wanted))
            if not len(far):
                continue
            goal = int(rng.choice(far))
            labels = self.router.labels([goal])
            best, left = [bits(labels.best[place]) for place in places], labels.left[places].tolist()
            start, end = int(own.nodes[first]), int(self.router.nodes[goal])
            out.append(Record("navigate", self.place.index, start, end, moves, tuple(best), tuple(left), part=True))
        return out

    def _walk(
        self, rng: np.random.Generator, length: tuple[int, int]
    ) -> tuple[list[int], list[int], list[int], list[int]] | None:
        start = int(rng.choice(self.usable))
        moves = random_walk(self.router.forward, start, int(rng.integers(length[0], length[1] + 1)), rng)
        if len(moves) < length[0]:
            return None
        places = path_nodes(self.router.forward, start, moves).tolist()
        best, left = [1 << move for move in (*moves, Move.STOP)], [*range(len(moves), -1, -1)]
        return places, moves, best, left

    def records(self, rng: np.random.Generator, kind: str, used: np.ndarray) -> list[Record]:
        """One record of a kind, or those of a part of a trajectory; empty: this draw has none."""
        if not len(self.usable):
            return []
        if kind in CHOICE_KINDS:
            return self.choice(rng, kind)
        if kind == "navigate" and self.trajectories and not self.walk and rng.random() < PARTS:
            return self.along(rng)
        shortest = {"inverse": (1, 1), "arrived": (0, 2)}.get(kind, (1, self.longest))
        found = self.path(rng, shortest, used)
        if found is None:
            return []
        places, moves, best, left = found
        nodes = list(map(int, self.router.nodes[places]))
        return [Record(kind, self.place.index, nodes[0], nodes[-1], tuple(moves), tuple(best), tuple(left))]

    def choice(self, rng: np.random.Generator, kind: str) -> list[Record]:
        """A multiple-choice record: four random walks of the graph from one node, of one length, to different ends."""
        at, length = int(rng.choice(self.usable)), int(rng.integers(1, self.longest_choice + 1))
        if not self.targets[at]:
            return []
        options: dict[int, tuple[int, ...]] = {}
        for _ in range(4 * CHOICES):
            moves = tuple(random_walk(self.router.forward, at, length, rng))
            end = int(path_nodes(self.router.forward, at, moves)[-1])
            if len(moves) == length and end != at and self.targets[end]:
                options.setdefault(int(self.router.nodes[end]), moves)
            if len(options) == CHOICES:
                answer = int(rng.integers(CHOICES))
                ends, paths = tuple(options), tuple(options.values())
                start = int(self.router.nodes[at])
                question = (start, ends[answer], paths[answer], (), (), ends, paths, answer)
                return [Record(kind, self.place.index, *question)]
        return []


def bits(best: np.ndarray) -> int:
    """Booleans (MOVES + 1,) as one number."""
    return int((best << np.arange(MOVES + 1)).sum())


def single_graphs(trajectories: Sequence[Trajectory], reverse: bool) -> list[ViewGraph]:
    """A graph of each trajectory alone: what hindsight relabelling has."""
    out = []
    for trajectory in trajectories:
        graph = ViewGraph(reverse)
        graph.add(trajectory.nodes, trajectory.moves)
        out.append(graph)
    return out


def successes(trajectories: Sequence[Trajectory], count: int, seed: int) -> list[Record]:
    """Records of what succeeded and of nothing else: whole episodes as they were. Empty where nothing has succeeded."""
    good = [own for own in trajectories if own.success and len(own.moves)]
    rng = np.random.default_rng(seed)
    out = []
    for index in rng.integers(len(good), size=count) if good else ():
        own, moves = good[index], tuple(map(int, good[index].moves))
        best = tuple(1 << move for move in (*moves, int(Move.STOP)))
        left = tuple(range(len(moves), -1, -1))
        out.append(Record("navigate", own.scene, int(own.nodes[0]), own.goal, moves, best, left))
    return out


def distil(samplers: Sequence[Sampler], count: int, seed: int, shares: Sequence[float] = SHARES) -> Iterator[Record]:
    """`count` records from samplers drawn at random; moves are balanced.

    A record is put back while one of its moves has more than `CAP` of all moves so far and is its most frequent one.

    Raises:
        UserError: the graphs hold no path.
    """
    rng = np.random.default_rng(seed)
    used = np.zeros(MOVES + 1)
    sizes = np.array([len(sampler.usable) for sampler in samplers], float)
    if not sizes.sum():
        raise UserError("the view graphs hold no edge; explore with more rollouts: view.rollouts")
    for kind, wanted in zip(KINDS, rng.multinomial(count, np.asarray(shares) / np.sum(shares)), strict=True):
        made = 0
        while made < wanted:
            for attempt in range(400):
                sampler = samplers[int(rng.choice(len(samplers), p=sizes / sizes.sum()))]
                found = sampler.records(rng, kind, used)
                if not found:
                    continue
                if attempt < 20 and not found[0].part and found[0].moves:
                    common = np.bincount(found[0].moves, minlength=MOVES).argmax()
                    if used[common] > CAP * max(used.sum(), 200):
                        continue
                if not found[0].part:
                    used += np.bincount(found[0].moves, minlength=MOVES + 1)
                yield from found[: wanted - made]
                made += len(found)
                break
            else:
                raise UserError(f"the view graphs hold no path for records of kind {kind!r}; give more view.rollouts")
