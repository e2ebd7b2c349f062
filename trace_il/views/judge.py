"""How good an agent is: interactive planning on rooms it has not seen, and multiple choice."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from envs.view_planning.env import BUDGET
from envs.view_planning.lattice import INVERSE, MOVES, arrived, descend, differences, path_nodes
from envs.view_planning.tasks import Episode, Item, Place

from ..errors import UserError
from ..scores import wilson_interval
from .agent import ChoiceBatch, ViewAgent
from .batch import choices, closed_moves
from .explore import greedy, run
from .graph import Trajectory

CHUNK = 50  # questions at a time


def questions(places: Sequence[Place], count: int, seed: int) -> list[Item]:
    """`count` multiple-choice questions, spread over the rooms. Raises UserError for a room that has none."""
    try:
        return [places[number % len(places)].item(np.random.default_rng([seed, number])) for number in range(count)]
    except ValueError as error:
        raise UserError(f"env: {error}; give rooms more pieces, or evaluation.items=0") from error


@torch.no_grad()
def choose(agent: ViewAgent, places: Sequence[Place], items: Sequence[Item]) -> dict[str, np.ndarray]:
    """Whether each question was answered rightly, as P2V and as V2P."""
    agent.eval()
    out: dict[str, list[np.ndarray]] = {"p2v": [], "v2p": []}
    for first in range(0, len(items), CHUNK):
        batch = choices(places, items[first : first + CHUNK])
        batch = ChoiceBatch(*(part.to(agent.unseen.device) for part in batch))
        p2v, v2p = agent.scores(batch)
        rows = torch.arange(len(batch.answer), device=p2v.device)
        out["p2v"].append((p2v[rows, :, batch.answer].argmax(-1) == batch.answer).cpu().numpy())
        out["v2p"].append((v2p[rows, batch.answer].argmax(-1) == batch.answer).cpu().numpy())
    return {name: np.concatenate(parts) for name, parts in out.items()}


def oscillation(own: Trajectory) -> float:
    """Share of moves that take back the one before."""
    if len(own.moves) < 2:
        return 0.0
    return float((own.moves[1:] == INVERSE[own.moves[:-1]]).mean())


def score(places: Sequence[Place], tasks: Sequence[Episode], found: Sequence[Trajectory]) -> dict[str, Any]:
    """Scores of one trajectory a task.

    `success` with its Wilson interval, over all tasks and over short and long ones, of a STOP that is said for the
    agent when its moves are spent, too, and `success_own_stop`, of those that it said itself, alone; `spl`, success
    weighted by shortest over actual length (Anderson et al. 2018); `stopped`, the share that said STOP before its moves
    were spent, and `stop_precision`, the share of those that were right; errors of position (m) and rotation (degrees)
    at the end; `oscillation`; `by_moves`, success by the fewest moves there are; `outcomes`, a "1" or "0" for each
    task, and the number of `rooms`, whose tasks stand together.
    """
    success = np.array([own.success for own in found])
    short = np.array([task.short for task in tasks])
    stopped = np.array([own.stopped and len(own.moves) < BUDGET for own in found])
    fewest = np.array([int(places[task.scene].moves_left(task.goal)[task.start]) for task in tasks])
    taken = np.array([len(own.moves) for own in found])
    ends = [differences(places[own.scene].metric[own.nodes[-1]], places[own.scene].metric[own.goal]) for own in found]
    out: dict[str, Any] = {"episodes": len(tasks)}
    for name, chosen in (("", np.ones(len(tasks), bool)), ("_short", short), ("_long", ~short)):
        count = int(chosen.sum())
        if count:
            out[f"success{name}"] = float(success[chosen].mean())
            out[f"success{name}_interval"] = list(wilson_interval(int(success[chosen].sum()), count))
    out |= {
        "spl": float((success * fewest / np.maximum(np.maximum(taken, fewest), 1)).mean()),
        "success_own_stop": float((success & stopped).mean()),
        "stopped": float(stopped.mean()),
        "stop_precision": float(success[stopped].mean()) if stopped.any() else 0.0,
        "position_error": float(np.mean([apart for apart, _ in ends])),
        "rotation_error": float(np.mean([angle for _, angle in ends])),
        "oscillation": float(np.mean([oscillation(own) for own in found])),
        "outcomes": "".join("01"[int(own)] for own in success),
        "rooms": len({task.scene for task in tasks}),
        "by_moves": {str(n): float(success[fewest == n].mean()) for n in np.unique(fewest)},
    }
    return out


def evaluate(
    agent: ViewAgent, places: Sequence[Place], tasks: Sequence[Episode], items: Sequence[Item]
) -> dict[str, Any]:
    """Everything on some rooms; the agent does what is likeliest."""
    out = score(places, tasks, run(agent, places, tasks, greedy))
    easy = np.array([item.short for item in items], bool)
    for name, right in (choose(agent, places, items) if len(items) else {}).items():
        out[name] = float(right.mean())
        out[f"{name}_interval"] = list(wilson_interval(int(right.sum()), len(right)))
        for part, chosen in (("short", easy), ("long", ~easy)):
            if chosen.any():
                out[f"{name}_{part}"] = float(right[chosen].mean())
    return out


def oracle(places: Sequence[Place], tasks: Sequence[Episode]) -> list[Trajectory]:
    """The shortest way on the whole lattice, then STOP: the ceiling."""
    out = []
    for task in tasks:
        place = places[task.scene]
        moves = descend(place.table, place.moves_left(task.goal), task.start)[:BUDGET]
        path = path_nodes(place.table, task.start, moves)
        there = bool(arrived(place.metric[path[-1]], place.metric[task.goal]))
        out.append(Trajectory(task.scene, task.goal, path, np.array(moves, int), True, there))
    return out


def random_moves(places: Sequence[Place], tasks: Sequence[Episode], seed: int, stops: bool = True) -> list[Trajectory]:
    """Uniformly random moves, with STOP as one of them and when the budget is spent; or, to explore, without it and, as
    an agent does, not to where it has been, while there is another way."""
    rng, out = np.random.default_rng(seed), []
    for task in tasks:
        place, path, stopped = places[task.scene], [task.start], False
        moves: list[int] = []
        while len(moves) < BUDGET and not stopped:
            if stops:
                move = int(rng.integers(MOVES + 1))
            else:
                free = np.flatnonzero(~closed_moves(place, path, moves)[-1, :MOVES])
                move = int(rng.choice(free if len(free) else MOVES))
            stopped = move == MOVES
            if not stopped:
                moves.append(move)
                path.append(int(place.table[path[-1], move]))
        there = stops and bool(arrived(place.metric[path[-1]], place.metric[task.goal]))
        out.append(Trajectory(task.scene, task.goal, np.array(path), np.array(moves, int), stops, there))
    return out
