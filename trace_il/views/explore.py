"""Episodes of an agent, many at a time; every trajectory is kept."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from envs.view_planning.env import BUDGET
from envs.view_planning.lattice import MOVES, Move, arrived
from envs.view_planning.tasks import Distances, Episode, Place

from .agent import NO_MOVE, ViewAgent
from .batch import Gallery, pose_features
from .graph import Trajectory

Chooser = Callable[[Tensor], Tensor]  # logits (B, MOVES + 1) -> what to do (B,)


def sampled(generator: torch.Generator, temperature: float = 1.0) -> Chooser:
    """Draws from the policy."""

    def choose(logits: Tensor) -> Tensor:
        return torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)[:, 0]

    return choose


def greedy(logits: Tensor) -> Tensor:
    """The likeliest."""
    return logits.argmax(-1)


def episodes(places: Sequence[Place], each: int, seed: int, distances: Distances) -> list[Episode]:
    """`each` tasks of every room, drawn from a seed and the room's number alone."""
    out = []
    for place in places:
        rng = np.random.default_rng([seed, place.room.seed])
        out += [place.episode(rng, distances) for _ in range(each)]
    return out


@torch.no_grad()
def run(
    agent: ViewAgent, places: Sequence[Place], tasks: Sequence[Episode], choose: Chooser, batch: int = 256
) -> list[Trajectory]:
    """One trajectory a task, in their order."""
    agent.eval()
    out: list[Trajectory] = []
    for first in range(0, len(tasks), batch):
        out += _run(agent, places, tasks[first : first + batch], choose)
    return out


def _run(agent: ViewAgent, places: Sequence[Place], tasks: Sequence[Episode], choose: Chooser) -> list[Trajectory]:
    count, device = len(tasks), agent.unseen.device
    metric = [places[task.scene].metric for task in tasks]
    goals = Gallery(places)
    index = np.array([goals(task.scene, [task.goal])[0] for task in tasks])
    target = agent.encode(goals.images().to(device))[index]
    nodes = [[task.start] for task in tasks]
    moves: list[list[int]] = [[] for _ in tasks]
    stopped = np.zeros(count, bool)
    z = target.new_zeros(count, 0, agent.width)
    for step in range(BUDGET + 1):
        views = Gallery(places)
        index = np.array([views(task.scene, [own[-1]])[0] for task, own in zip(tasks, nodes, strict=True)])
        here = agent.encode(views.images().to(device))[index]
        z = torch.cat([z, agent.compare(here, target).unsqueeze(1)], dim=1)
        pose = np.stack(
            [pose_features(own[path], own[path[0]]) for own, path in zip(metric, nodes, strict=True)]
        ).astype(np.float32)
        last = np.array([[NO_MOVE, *path] for path in moves])
        seen = np.array(nodes)
        blocked = np.zeros(seen.shape, bool)
        blocked[:, 1:] = (seen[:, 1:] == seen[:, :-1]) & (last[:, 1:] != MOVES)
        parts = [torch.from_numpy(part).to(device) for part in (pose, last, blocked)]
        logits = agent.move(agent.remember(z, *parts)[:, -1]).float().cpu()
        done = choose(logits).numpy()
        stopped |= done == Move.STOP
        if step == BUDGET or stopped.all():
            break
        for number, task in enumerate(tasks):  # those that have stopped stay; their ends are cut off below
            here_now, over = nodes[number][-1], stopped[number]
            moves[number].append(int(Move.STOP) if over else int(done[number]))
            nodes[number].append(here_now if over else int(places[task.scene].table[here_now, done[number]]))
    out = []
    for number, task in enumerate(tasks):
        made = np.array([move for move in moves[number] if move != Move.STOP], np.int64)
        path = np.array(nodes[number][: len(made) + 1], np.int64)
        there = bool(arrived(metric[number][path[-1]], metric[number][task.goal]))
        has_stopped = bool(stopped[number])
        out.append(Trajectory(task.scene, task.goal, path, made, has_stopped, has_stopped and there))
    return out
