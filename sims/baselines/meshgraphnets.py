"""MeshGraphNets: mesh edges and world edges (Pfaff et al. 2021, arXiv 2010.03409)."""

import torch
from torch import Tensor, nn

from .gns import WALLS, node_features
from .particles import KINDS, SPEED, Edges, GraphNetwork, ParticleModel, Particles, mlp


class MeshGraphNets(ParticleModel):
    """Edges of the meshes know their rest shape; edges between bodies have networks of their own.

    Inputs and outputs are in fixed units in place of the data's statistics.

    Args:
        dim: 2 or 3.
        width: of nodes, edges and hidden layers.
        layers: of message passing.
    """

    def __init__(self, dim: int, width: int = 64, layers: int = 6) -> None:
        super().__init__(dim)
        self.most_walls = WALLS[dim]
        self.nodes = mlp(2 * dim + KINDS + 2 * WALLS[dim], width, width)
        self.mesh = mlp(2 * dim + 3, width, width)
        self.world = mlp(2 * dim + 1, width, width)
        self.layers = nn.ModuleList([GraphNetwork(width, 2) for _ in range(layers)])
        self.out = mlp(width, width, dim, norm=False)

    def acceleration(self, p: Tensor, v: Tensor, past: Tensor, edges: Edges, statics: Particles) -> Tensor:
        nodes = self.nodes(node_features(self, p, [v], statics)).flatten(0, 1)
        place, speed, rest = p.flatten(0, 1), v.flatten(0, 1), statics.rest.flatten(0, 1)
        offset = (place[edges.sender] - place[edges.receiver]) / self.reach
        relative = (speed[edges.sender] - speed[edges.receiver]) / SPEED
        distance = offset.norm(dim=-1, keepdim=True)
        inside = ~edges.world
        sender, receiver = edges.sender[inside], edges.receiver[inside]
        shape = (rest[sender] - rest[receiver]) / self.reach
        length = edges.length[inside] / self.reach
        strain = 10 * (distance[inside] - length)
        sets = [
            (sender, receiver, self.mesh(torch.cat([shape, length, offset[inside], distance[inside], strain], -1))),
            (
                edges.sender[edges.world],
                edges.receiver[edges.world],
                self.world(torch.cat([offset, distance, relative], -1)[edges.world]),
            ),
        ]
        for layer in self.layers:
            nodes, sets = layer(nodes, sets)
        return self.out(nodes).view_as(p)
