"""Simulators whose variables are the particles themselves, (S, P, dim), and whose step is one acceleration a frame.

Messages go along the edges of the meshes and, found anew each frame, between particles of different bodies that are
near each other. A subclass says what the acceleration is; v' = e^(-drag dt) (v + a dt) and p' = p + v' dt are common.
So a velocity is what a position changed by in the frame before, as in GNS; the first one is that of the truth.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..dataset import FRAME, Trajectory
from ..eqcollide.encoder import YOUNG
from ..model import Batch, LearnedModel

SPEED = 0.5  # m/s, unit of velocities
KINDS = 5  # numbers that say what a particle is
JUMP = 0.1  # m/s, unit of their change in a frame
REACH = {2: 0.02, 3: 0.04}  # m, up to which particles of different bodies see each other


@dataclass
class Particles(Batch):
    """What does not change in a batch of scenes."""

    rest: Tensor  # (S, P, dim), in each body's own frame
    soft: Tensor  # (S, P), bool: neither padding nor of a pusher
    present: Tensor  # (S, P), bool
    body: Tensor  # (S, P)
    mass: Tensor  # (S, P), over the mean of the particle's body; 1 of pushers
    surface: Tensor  # (S, P), bool: on the surface of a soft body
    young: Tensor  # (S, P), in units of YOUNG; 1 of pushers
    gravity: Tensor  # (S, dim)
    drag: Tensor  # (S,)
    walls: Tensor  # (S, W, dim + 1): normal, offset
    wall_present: Tensor  # (S, W), bool
    sender: Tensor  # (E,), flat indices into (S, P), both directions of every edge of the meshes
    receiver: Tensor  # (E,)


@dataclass
class Edges:
    """Directed edges between flat particles, those of the meshes first."""

    sender: Tensor
    receiver: Tensor
    world: Tensor  # (E,), bool: between bodies
    length: Tensor  # (E, 1), at rest, m; 0 between bodies


def mlp(inputs: int, width: int, outputs: int, norm: bool = True) -> nn.Sequential:
    """Two hidden layers, layer normalisation at the end, as in GNS and MeshGraphNets."""
    layers = [nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, outputs)]
    return nn.Sequential(*layers, *([nn.LayerNorm(outputs)] if norm else []))


class ParticleModel(LearnedModel):
    """Base of the baselines on particles."""

    most_walls: int | None = None  # of a scene, where inputs have room for so many

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.reach = REACH[dim]

    def speeds(self, trajectory: Trajectory) -> np.ndarray:
        return np.concatenate([trajectory.velocities[:1], np.diff(trajectory.positions, axis=0) / FRAME])

    def check(self, trajectories: Sequence[Trajectory]) -> None:
        super().check(trajectories)
        most = max(len(trajectory.walls) for trajectory in trajectories)
        if self.most_walls is not None and most > self.most_walls:
            raise ValueError(f"{type(self).__name__} knows at most {self.most_walls} walls, the scene has {most}")

    @abstractmethod
    def acceleration(self, p: Tensor, v: Tensor, past: Tensor, edges: Edges, statics: Particles) -> Tensor:
        """In units of JUMP a frame, (S, P, dim)."""

    def gather(self, trajectories: Sequence[Trajectory]) -> Particles:
        dim, scenes = trajectories[0].dim, len(trajectories)
        most = max(len(trajectory.body) for trajectory in trajectories)
        walls = max(len(trajectory.walls) for trajectory in trajectories)
        rest, soft = np.zeros((scenes, most, dim)), np.zeros((scenes, most), bool)
        present, body, young = soft.copy(), np.zeros((scenes, most), int), np.ones((scenes, most))
        mass, surface = np.ones((scenes, most)), soft.copy()
        wall, wall_present = np.zeros((scenes, walls, dim + 1)), np.zeros((scenes, walls), bool)
        edges = []
        for scene, own in enumerate(trajectories):
            count = len(own.body)
            rest[scene, :count], soft[scene, :count], present[scene, :count] = own.rest, ~own.kinematic, True
            body[scene, :count] = own.body
            free = np.flatnonzero(~own.kinematic)
            means = np.bincount(own.body[free], own.mass[free]) / np.bincount(own.body[free])
            mass[scene, free] = own.mass[free] / means[own.body[free]]
            surface[scene, np.unique(own.surface)] = True
            young[scene, free] = own.young[own.body[free]] / YOUNG
            wall[scene, : len(own.walls)], wall_present[scene, : len(own.walls)] = own.walls, True
            corners = [own.elements[:, [i, j]] for i in range(dim + 1) for j in range(dim + 1) if i != j]
            edges.append(np.unique(np.concatenate(corners), axis=0) + scene * most)
        out = {
            "rest": rest, "soft": soft, "present": present, "body": body, "mass": mass, "young": young,
            "surface": surface,
            "gravity": np.stack([own.gravity for own in trajectories]).astype(float),
            "drag": np.array([float(own.drag) for own in trajectories]),
            "walls": wall, "wall_present": wall_present,
            "sender": np.concatenate(edges)[:, 0], "receiver": np.concatenate(edges)[:, 1],
        }  # fmt: skip
        return Particles(**{name: torch.from_numpy(value) for name, value in out.items()})

    def encode(self, trajectories: Sequence[Trajectory], values: Sequence[np.ndarray]) -> Tensor:
        out = np.zeros((len(values[0]), len(values), max(own.shape[1] for own in values), self.dim))
        for scene, own in enumerate(values):
            out[:, scene, : own.shape[1]] = own
        return torch.from_numpy(out)

    def decode(self, trajectories: Sequence[Trajectory], values: np.ndarray) -> list[np.ndarray]:
        return [values[:, scene, : len(own.body)].copy() for scene, own in enumerate(trajectories)]

    def weights(self, statics: Particles) -> Tensor:
        return statics.soft.to(statics.rest)

    def edges(self, p: Tensor, statics: Particles) -> Edges:
        """The edges of the meshes and those between bodies, in this state."""
        with torch.no_grad():
            near = torch.cdist(p, p, compute_mode="donot_use_mm_for_euclid_dist") < self.reach
            both = statics.present.unsqueeze(1) & statics.present.unsqueeze(2)
            other = statics.body.unsqueeze(1) != statics.body.unsqueeze(2)
            scene, one, two = (near & both & other).nonzero().unbind(-1)
        count = p.shape[1]
        sender = torch.cat([statics.sender, scene * count + one])
        receiver = torch.cat([statics.receiver, scene * count + two])
        rest = statics.rest.flatten(0, 1)
        length = (rest[statics.sender] - rest[statics.receiver]).norm(dim=-1)
        between = torch.zeros(len(sender), dtype=torch.bool, device=p.device)
        between[len(length) :] = True
        return Edges(sender, receiver, between, torch.cat([length, p.new_zeros(len(one))]).unsqueeze(-1))

    def kinds(self, statics: Particles) -> Tensor:
        """What a particle is: stiffness, mass, whether soft, whether on a surface, drag around it, (S, P, KINDS)."""
        flags = [flag.to(statics.young) for flag in (statics.soft, statics.surface)]
        drag = statics.drag[:, None].expand_as(statics.young)
        return torch.stack([statics.young.log(), statics.mass.log(), *flags, drag], dim=-1)

    def contact_edges(self, p: Tensor, statics: Particles, place: Tensor) -> Tensor:
        edges = self.edges(p, statics)
        once = edges.world & (edges.sender < edges.receiver)
        flat = p.flatten(0, 1)
        return torch.stack([flat[edges.sender[once]], flat[edges.receiver[once]]], dim=1)

    def surroundings(self, p: Tensor, v: Tensor, statics: Particles) -> tuple[Tensor, Tensor, Tensor]:
        """Of the walls near particles: distance over the reach (at most 1), approach and presence, (S, P, W) each."""
        normal, offset = statics.walls[..., :-1].transpose(1, 2), statics.walls[..., -1].unsqueeze(1)
        present = statics.wall_present.unsqueeze(1).to(p)
        gap = ((p @ normal - offset) / self.reach).clamp(-1.0, 1.0)
        return gap * present + (1 - present), (v @ normal) / SPEED * present, present.expand_as(gap)

    def rollout(
        self, p: Tensor, v: Tensor, statics: Particles, pushers: tuple[Tensor, Tensor], frames: int, dt: float = FRAME,
        past: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        given = statics.present & ~statics.soft
        decay = torch.exp(-dt * statics.drag)[:, None, None]
        past = v.expand(self.history, *v.shape) if past is None else past
        # Which sample of the pushers a particle is; there are as many as particles that are given.
        sample = (given.cumsum(1) - 1).clamp_min(0).unsqueeze(-1).expand_as(v)
        given = given.unsqueeze(-1)
        positions, velocities = [p], [v]
        for frame in range(frames):
            prescribed = torch.zeros_like(v)
            if pushers[1].shape[2]:
                prescribed = torch.where(given, pushers[1][frame].gather(1, sample), prescribed)
            v = torch.where(given, prescribed, v)
            jump = self.acceleration(p, v, past, self.edges(p, statics), statics) * (JUMP * dt / FRAME)
            past = torch.cat([past[1:], v.unsqueeze(0)]) if self.history else past
            v = torch.where(statics.soft.unsqueeze(-1), decay * (v + jump), prescribed)
            p = p + dt * v
            positions.append(p)
            velocities.append(v)
        return torch.stack(positions), torch.stack(velocities)


class GraphNetwork(nn.Module):
    """Message passing with edge and node updates, residual, as in GNS and MeshGraphNets.

    Args:
        kinds: sets of edges, each with networks of its own.
    """

    def __init__(self, width: int, kinds: int) -> None:
        super().__init__()
        self.edge = nn.ModuleList([mlp(3 * width, width, width) for _ in range(kinds)])
        self.node = mlp((1 + kinds) * width, width, width)

    def forward(
        self, nodes: Tensor, sets: Sequence[tuple[Tensor, Tensor, Tensor]]
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor, Tensor]]]:
        """Nodes (N, width) and sets of edges (sender, receiver, features (E, width)), all updated."""
        gathered, out = [nodes], []
        for network, (sender, receiver, features) in zip(self.edge, sets, strict=True):
            message = network(torch.cat([features, nodes[sender], nodes[receiver]], dim=-1))
            gathered.append(torch.zeros_like(nodes).index_add(0, receiver, message))
            out.append((sender, receiver, features + message))
        return nodes + self.node(torch.cat(gathered, dim=-1)), out
