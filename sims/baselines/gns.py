"""GNS: learning to simulate with graph networks (Sanchez-Gonzalez et al. 2020, arXiv 2002.09405)."""

import torch
from torch import Tensor, nn

from .particles import JUMP, KINDS, SPEED, Edges, GraphNetwork, ParticleModel, Particles, mlp

WALLS = {2: 3, 3: 5}  # most walls of a scene


class GNS(ParticleModel):
    """Encode, process, decode on particles with five past velocities.

    Beyond the paper, edges inside a body are those of its mesh and carry their length at rest: without it an elastic
    body has no shape to return to. Inputs and outputs are in fixed units in place of the data's statistics.

    Args:
        dim: 2 or 3.
        width: of nodes, edges and hidden layers.
        layers: of message passing.
    """

    history, markov = 4, False  # with the present one, five velocities

    def __init__(self, dim: int, width: int = 64, layers: int = 6) -> None:
        super().__init__(dim)
        self.most_walls = WALLS[dim]
        self.nodes = mlp((self.history + 1) * dim + dim + KINDS + 2 * WALLS[dim], width, width)
        self.pairs = mlp(dim + 4, width, width)
        self.layers = nn.ModuleList([GraphNetwork(width, 1) for _ in range(layers)])
        self.out = mlp(width, width, dim, norm=False)

    def acceleration(self, p: Tensor, v: Tensor, past: Tensor, edges: Edges, statics: Particles) -> Tensor:
        nodes = self.nodes(node_features(self, p, [*past, v], statics)).flatten(0, 1)
        flat = p.flatten(0, 1)
        offset = (flat[edges.sender] - flat[edges.receiver]) / self.reach
        distance = offset.norm(dim=-1, keepdim=True)
        strain = torch.where(edges.world.unsqueeze(-1), 0.0, distance - edges.length / self.reach)
        kind = edges.world.unsqueeze(-1).to(p)
        features = self.pairs(torch.cat([offset, distance, 10 * strain, edges.length / self.reach, kind], dim=-1))
        sets = [(edges.sender, edges.receiver, features)]
        for layer in self.layers:
            nodes, sets = layer(nodes, sets)
        return self.out(nodes).view_as(p)


def node_features(model: ParticleModel, p: Tensor, velocities: list[Tensor], statics: Particles) -> Tensor:
    """(S, P, F): velocities, gravity, what a particle is, and what walls are near."""
    most = WALLS[model.dim]
    gap, approach, _ = model.surroundings(p, velocities[-1], statics)
    near = torch.cat([gap, gap.new_ones(*gap.shape[:2], most - gap.shape[2])], dim=-1)
    coming = torch.cat([approach, gap.new_zeros(*gap.shape[:2], most - gap.shape[2])], dim=-1)
    gravity = (statics.gravity * (0.01 / JUMP)).unsqueeze(1).expand_as(p)
    return torch.cat([*(v / SPEED for v in velocities), gravity, model.kinds(statics), near, coming], dim=-1)
