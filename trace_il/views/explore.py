"""Episodes of an agent, many at a time; every trajectory is kept."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from envs.view_planning.env import BUDGET
from envs.view_planning.lattice import Move, arrived
from envs.view_planning.tasks import Distances, Episode, Place

from ..errors import UserError
from .agent import ViewAgent
from .batch import Gallery, closed_moves, pose_features
from .graph import Trajectory

Chooser = Callable[[Tensor], Tensor]  # logits (B, MOVES + 1) -> what to do (B,)


def sampled(generator: torch.Generator) -> Chooser:
    """Draws from the policy."""

    def choose(logits: Tensor) -> Tensor:
        return torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]

    return choose


def greedy(logits: Tensor) -> Tensor:
    """The likeliest."""
    return logits.argmax(-1)


def episodes(places: Sequence[Place], each: int, seed: int, distances: Distances) -> list[Episode]:
    """`each` tasks of every room, drawn from a seed and the room's number alone. Raises UserError for a room that has
    none."""
    out = []
    for place in places:
        rng = np.random.default_rng([seed, place.room.seed])
        try:
            out += [place.episode(rng, distances) for _ in range(each)]
        except ValueError as error:
            raise UserError(f"env: {error}") from error
    return out


@torch.no_grad()
def run(
    agent: ViewAgent, places: Sequence[Place], tasks: Sequence[Episode], choose: Chooser, batch: int = 256
) -> list[Trajectory]:
    """One trajectory a task, in their order."""
    training, out = agent.training, []
    agent.eval()
    for first in range(0, len(tasks), batch):
        out += _run(agent, places, tasks[first : first + batch], choose)
    agent.train(training)
    return out


def _run(agent: ViewAgent, places: Sequence[Place], tasks: Sequence[Episode], choose: Chooser) -> list[Trajectory]:
    device = agent.unseen.device
    goals = Gallery(places)
    index = np.array([goals(task.scene, [task.goal])[0] for task in tasks])
    target = agent.encode(goals.images().to(device))[index]
    nodes = [[task.start] for task in tasks]
    moves: list[list[int]] = [[] for _ in tasks]
    stopped = np.zeros(len(tasks), bool)
    going = list(range(len(tasks)))
    z = target.new_zeros(len(tasks), 0, agent.width)
    for _ in range(BUDGET + 1):
        views = Gallery(places)
        index = np.array([views(tasks[i].scene, [nodes[i][-1]])[0] for i in going])
        here = agent.encode(views.images().to(device))[index]
        z = torch.cat([z, agent.compare(here, target[going]).unsqueeze(1)], dim=1)
        metric = [places[tasks[i].scene].metric[nodes[i]] for i in going]
        pose = np.stack([pose_features(own, own[0]) for own in metric]).astype(np.float32)
        closed = np.stack([closed_moves(places[tasks[i].scene], nodes[i], moves[i])[-1] for i in going])
        seen = torch.ones(z.shape[:2], dtype=torch.bool, device=device)
        hidden = agent.remember(z, torch.from_numpy(pose).to(device), seen).hidden[:, -1]
        # At the last step only STOP is open.
        done = choose(agent.decide(hidden, torch.from_numpy(closed).to(device)).float().cpu()).numpy()
        stopped[going] = done == Move.STOP
        on = np.flatnonzero(done != Move.STOP)
        if not len(on):
            break
        going, z = [going[i] for i in on], z[torch.from_numpy(on).to(device)]
        for i, move in zip(going, done[on].tolist(), strict=True):
            moves[i].append(move)
            nodes[i].append(int(places[tasks[i].scene].table[nodes[i][-1], move]))
    out = []
    for task, path, made, over in zip(tasks, nodes, moves, stopped.tolist(), strict=True):
        metric_of = places[task.scene].metric
        there = over and bool(arrived(metric_of[path[-1]], metric_of[task.goal]))
        out.append(Trajectory(task.scene, task.goal, np.array(path, np.int64), np.array(made, np.int64), over, there))
    return out
