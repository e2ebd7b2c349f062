"""Distillation: paths of view graphs become supervised records of seven kinds.

    navigate        view by view to the target, then STOP                     (several turns)
    sequence        all moves at once, from the first view and the target's   (one turn)
    choose_path     which of four sequences of moves leads to the view        (V2P)
    choose_view     which of four views a sequence of moves leads to          (P2V), negatives of the same room
    distance        how many moves two views are apart
    inverse         which one move led from a view to the next
    arrived         whether the target has been reached, else how to go on

Ways to a target end where it counts as reached, within 0.5 m and 30 degrees, and STOP is right there and nowhere else;
the other kinds are about exact poses. A record names its room, its start and its moves; images and texts follow from
these, so each can be replayed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from envs.view_planning.env import BUDGET
from envs.view_planning.lattice import INVERSE, MOVES, Move, arrived
from envs.view_planning.tasks import CHOICES, Place

from .graph import Router, Trajectory, ViewGraph, path_nodes

KINDS = ("navigate", "sequence", "choose_path", "choose_view", "distance", "inverse", "arrived")
EXACT = ("distance", "inverse")  # kinds that are about the goal itself
LONGEST_CHOICE = 6  # moves
CHOICE_KINDS = ("choose_path", "choose_view")
SHARES = (0.5, 0.1, 0.1, 0.1, 0.05, 0.05, 0.1)  # of the kinds
ASTRAY = 0.5  # share of paths to navigate that begin with a part of a trajectory
CAP = 0.15  # share of all moves that one of them should not go beyond


@dataclass(frozen=True)
class Record:
    """One supervised example.

    `moves` lead from `start` to `goal`, or to where it counts as reached; a "sequence", "distance" or "inverse" shows
    only the start and the goal. For the
    two choices `ends` and `paths` are the options, `paths[i]` leading to `ends[i]`, and `answer` is the right one.
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


class Sampler:
    """Draws records from the graph of a room.

    Args:
        place: the room.
        graph: its view graph.
        trajectories: of the room. Half of the paths to navigate begin with a part of one: an agent that has gone
            astray, or bumped into something, must find its way too, and the graph knows what is best at every node.
        walk: paths are random walks of the graph and their own moves the labels, as in the paper's code; False: the
            shortest ways, and everything that lies on one is right.
        longest: of a path, moves.
    """

    def __init__(
        self, place: Place, graph: ViewGraph, trajectories: Sequence[Trajectory] = (), walk: bool = False,
        longest: int = 12,
    ) -> None:  # fmt: skip
        self.place, self.walk, self.longest = place, walk, longest
        self.trajectories = [own for own in trajectories if len(own.moves)]
        self.router = Router(graph)
        self.index = graph.index
        self.metric = place.metric[self.router.nodes]
        self.degree = (self.router.forward != np.arange(len(graph))[:, None]).sum(1)
        self.usable = np.flatnonzero(self.degree > 0)

    def path(
        self, rng: np.random.Generator, length: tuple[int, int], used: np.ndarray, exact: bool, astray: bool = False
    ) -> tuple[list[int], list[int], list[int], list[int]] | None:
        """Places, moves, and what is best and how many moves are left at every place, of a path to a random goal, the
        place of which comes last in addition; None: this draw has none.

        Args:
            length: fewest and most moves of the shortest way.
            exact: the path ends at the goal itself, not where it counts as reached.
            used: how often each move was used so far; where several are right the rarest is taken.
            astray: the path begins with a part of a trajectory.
        """
        if not len(self.usable):
            return None
        if self.walk:
            return self._walk(rng, length)
        goal = int(rng.choice(self.usable))
        ends = [goal] if exact else np.flatnonzero(arrived(self.metric, self.metric[goal]))
        labels = self.router.labels(ends)
        places: list[int] = []
        moves: list[int] = []
        if astray:
            own = self.trajectories[int(rng.integers(len(self.trajectories)))]
            first, last = np.sort(rng.integers(len(own.nodes), size=2))
            places = [self.index[int(node)] for node in own.nodes[first : last + 1]]
            moves = [int(move) for move in own.moves[first:last]]
            left = labels.left[places[-1]]
            if left < 0 or len(moves) + left > BUDGET:
                return None
        else:
            wanted = int(rng.integers(length[0], length[1] + 1))
            far = np.flatnonzero(labels.left == min(wanted, int(labels.left.max())))
            if not len(far) or labels.left[far[0]] < length[0]:
                return None
            places = [int(rng.choice(far))]
        at = places[-1]
        while labels.left[at]:
            right = np.flatnonzero(labels.best[at, :MOVES])
            share = 1.0 / (1.0 + used[right])
            move = int(rng.choice(right, p=share / share.sum()))
            at = int(self.router.forward[at, move])
            places.append(at)
            moves.append(move)
        best, left = [bits(labels.best[place]) for place in places], labels.left[places].tolist()
        return [*places, goal], moves, best, left

    def _walk(
        self, rng: np.random.Generator, length: tuple[int, int]
    ) -> tuple[list[int], list[int], list[int], list[int]] | None:
        start = int(rng.choice(self.usable))
        _, moves = self._from(rng, start, int(rng.integers(length[0], length[1] + 1)))
        if len(moves) < length[0]:
            return None
        places = path_nodes(self.router.forward, start, moves).tolist()
        best, left = [1 << move for move in (*moves, Move.STOP)], [*range(len(moves), -1, -1)]
        return [*places, places[-1]], list(moves), best, left

    def record(self, rng: np.random.Generator, kind: str, used: np.ndarray) -> Record | None:
        """One record of a kind; None: this draw has none."""
        if kind in CHOICE_KINDS:
            return self.choice(rng, kind)
        shortest = {"inverse": (1, 1), "arrived": (0, 2)}.get(kind, (1, self.longest))
        astray = kind == "navigate" and len(self.trajectories) > 0 and rng.random() < ASTRAY
        found = self.path(rng, shortest, used, kind in EXACT, astray)
        if found is None:
            return None
        places, moves, best, left = found
        *nodes, goal = map(int, self.router.nodes[places])
        if not moves and kind != "arrived":
            return None
        return Record(kind, self.place.index, nodes[0], goal, tuple(moves), tuple(best), tuple(left))

    def choice(self, rng: np.random.Generator, kind: str) -> Record | None:
        """A multiple-choice record: four random walks of the graph from one node, of one length, to different ends."""
        at, length = int(rng.choice(self.usable)), int(rng.integers(1, min(self.longest, LONGEST_CHOICE) + 1))
        options: dict[int, tuple[int, ...]] = {}
        for _ in range(4 * CHOICES):
            end, moves = self._from(rng, at, length)
            if len(moves) == length and end != at:
                options.setdefault(int(self.router.nodes[end]), moves)
            if len(options) == CHOICES:
                answer = int(rng.integers(CHOICES))
                ends, paths = tuple(options), tuple(options.values())
                start = int(self.router.nodes[at])
                return Record(kind, self.place.index, start, ends[answer], paths[answer], (), (), ends, paths, answer)
        return None

    def _from(self, rng: np.random.Generator, at: int, length: int) -> tuple[int, tuple[int, ...]]:
        """Where a random walk of the graph ends, and its moves."""
        moves: list[int] = []
        for _ in range(length):
            possible = np.flatnonzero(self.router.forward[at] != at)
            if moves:
                possible = possible[possible != INVERSE[moves[-1]]]
            if not len(possible):
                break
            moves.append(int(rng.choice(possible)))
            at = int(self.router.forward[at, moves[-1]])
        return at, tuple(moves)


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
        ValueError: the graphs hold no path.
    """
    rng = np.random.default_rng(seed)
    used = np.zeros(MOVES + 1)
    kinds = rng.choice(len(KINDS), count, p=np.asarray(shares) / np.sum(shares))
    sizes = np.array([len(sampler.usable) for sampler in samplers], float)
    if not sizes.sum():
        raise ValueError("the view graphs hold no edge; explore with more rollouts")
    for kind in kinds:
        for attempt in range(400):
            sampler = samplers[int(rng.choice(len(samplers), p=sizes / sizes.sum()))]
            record = sampler.record(rng, KINDS[kind], used)
            if record is None:
                continue
            if attempt < 20 and record.moves:
                common = np.bincount(record.moves, minlength=MOVES).argmax()
                if used[common] > CAP * max(used.sum(), 200):
                    continue
            used += np.bincount(record.moves, minlength=MOVES + 1)
            yield record
            break
        else:
            raise ValueError(f"the view graphs hold no path for records of kind {KINDS[kind]!r}; explore more")
