"""E(n)-equivariant graph networks on the particles.

EGNN: several layers, each with weights of its own (Satorras et al. 2021, arXiv 2102.09844, section 3.2, with velocity).
SEGNO: one layer iterated as the steps of a second-order equation (Liu et al. 2024, arXiv 2308.13212).
"""

import torch
from torch import Tensor, nn

from ..dataset import FRAME
from .particles import JUMP, KINDS, SPEED, Edges, ParticleModel, Particles


def scalar_mlp(inputs: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, outputs))


class EquivariantLayer(nn.Module):
    """Messages from distances; velocities change along the offsets to neighbours and the normals of walls."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.message = nn.Sequential(nn.Linear(2 * width + 6, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.push = scalar_mlp(width, width, 2)
        self.wall = scalar_mlp(width + 2, width, 1)
        self.speed = scalar_mlp(width, width, 1)
        self.node = scalar_mlp(2 * width, width, width)
        with torch.no_grad():
            for network in (self.push, self.wall, self.speed):
                list(network.parameters())[-2].mul_(0.1)
                list(network.parameters())[-1].zero_()

    def forward(
        self, h: Tensor, p: Tensor, v: Tensor, edges: Edges, statics: Particles, model: ParticleModel
    ) -> tuple[Tensor, Tensor]:
        """Features (S P, width) of the nodes and how their velocities change (S, P, dim), in units of JUMP."""
        place, speed = p.flatten(0, 1), v.flatten(0, 1)
        offset = (place[edges.receiver] - place[edges.sender]) / model.reach
        relative = (speed[edges.receiver] - speed[edges.sender]) / SPEED
        square = offset.square().sum(-1, keepdim=True)
        length = edges.length / model.reach
        strain = torch.where(edges.world.unsqueeze(-1), 0.0, (square + 1e-12).sqrt() - length)
        approach = (offset * relative).sum(-1, keepdim=True)
        kind = edges.world.unsqueeze(-1).to(p)
        pair = [square, 10 * strain, length, kind, approach, relative.square().sum(-1, keepdim=True)]
        message = self.message(torch.cat([h[edges.receiver], h[edges.sender], *pair], dim=-1))
        along, damp = self.push(message).tanh().unbind(-1)
        pushed = offset * along.unsqueeze(-1) + relative * damp.unsqueeze(-1)
        change = torch.zeros_like(place).index_add(0, edges.receiver, pushed).view_as(p)
        change = change + (v / SPEED) * self.speed(h).view(*p.shape[:2], 1)
        if statics.walls.shape[1]:
            gap, coming, present = model.surroundings(p, v, statics)
            own = h.view(*p.shape[:2], 1, -1).expand(-1, -1, gap.shape[2], -1)
            force = self.wall(torch.cat([own, gap.unsqueeze(-1), coming.unsqueeze(-1)], dim=-1)).squeeze(-1)
            change = change + (force * present * (gap < 1)) @ statics.walls[..., :-1]
        gathered = torch.zeros_like(h).index_add(0, edges.receiver, message)
        return h + self.node(torch.cat([h, gathered], dim=-1)), change


class EGNN(ParticleModel):
    """Layers move positions and velocities in turn; the frame's acceleration is what the velocities changed by.

    Beyond the paper: positions move by v dt / layers instead of v, messages are summed along the edges of the meshes,
    whose rest lengths they know, gravity is added as known, and what a message pushes with is bounded by a tanh, an
    option of the authors' code: without it training diverged.

    Args:
        dim: 2 or 3.
        width: of nodes, messages and hidden layers.
        layers: each takes an equal share of the frame.
    """

    shared = False

    def __init__(self, dim: int, width: int = 64, layers: int = 6) -> None:
        super().__init__(dim)
        self.nodes = scalar_mlp(KINDS + 1, width, width)
        self.steps = layers
        self.layers = nn.ModuleList([EquivariantLayer(width) for _ in range(1 if self.shared else layers)])

    def acceleration(self, p: Tensor, v: Tensor, past: Tensor, edges: Edges, statics: Particles) -> Tensor:
        pace = v.norm(dim=-1, keepdim=True) / SPEED
        h = self.nodes(torch.cat([self.kinds(statics), pace], dim=-1)).flatten(0, 1)
        dt, begun = FRAME / self.steps, v
        soft = statics.soft.unsqueeze(-1)
        gravity = statics.gravity.unsqueeze(1) * dt
        for step in range(self.steps):
            h, change = self.layers[0 if self.shared else step](h, p, v, edges, statics, self)
            v = v + soft * (JUMP / self.steps * change + gravity)
            p = p + dt * v
        return (v - begun) / JUMP


class SEGNO(EGNN):
    """EGNN whose layers share their weights: steps of one second-order equation. Arguments as `EGNN`."""

    shared = True
