"""The model less a part of it: without equivariance, and with equations of first order."""

from typing import Any

import torch
from torch import Tensor

from ..dataset import FRAME
from ..eqcollide.dynamics import LENGTH, PRESSURE, STIFFNESS, Dynamics, Prepared, mlp, window
from ..eqcollide.encoder import Statics
from ..eqcollide.model import EqCollide


class TwinDynamics(Dynamics):
    """Networks see coordinates and answer with force vectors, where `Dynamics` has invariants and directions.

    Control points, surfaces, the momentum of pairs and the integration are the same.
    """

    def __init__(self, dim: int, width: int, context: int, *rest: Any) -> None:
        super().__init__(dim, width, context, *rest)
        self.spring = mlp(2 * dim + 4 + 2 * context, width, dim)
        self.touch = mlp(3 * dim + 1, 32, dim)
        self.bounce = mlp(3 * dim + 1, 32, dim)
        with torch.no_grad():
            for network in (self.spring, self.touch, self.bounce):
                list(network.parameters())[-2].mul_(0.1)
                list(network.parameters())[-1].zero_()

    def elastic(self, p: Tensor, v: Tensor, prepared: Prepared) -> Tensor:
        offset, rate = p.unsqueeze(-2) - p.unsqueeze(-3), v.unsqueeze(-2) - v.unsqueeze(-3)
        distance = (offset.square().sum(-1, keepdim=True) + 1e-18).sqrt()
        length = prepared.length.unsqueeze(-1)
        strain = 5 * (distance - length) / length
        raw = self.spring(torch.cat([offset / LENGTH, rate, strain, length / LENGTH, prepared.features], dim=-1))
        raw = raw - raw.transpose(-2, -3)  # action and reaction
        return (prepared.scale.unsqueeze(-1) * STIFFNESS * 0.01 * raw).sum(-2)

    def pressure(self, d: Tensor, du: Tensor, opposed: Tensor) -> Tensor:
        distance = (d.square().sum(-1, keepdim=True) + 1e-18).sqrt() / self.radius
        seen = torch.cat([d / self.radius, du, opposed], dim=-1)
        raw = self.touch(torch.cat([seen, distance], dim=-1)) - self.touch(torch.cat([-seen, distance], dim=-1))
        return PRESSURE * raw * window(distance)

    def wall_force(self, gap: Tensor, u: Tensor, normal: Tensor, n: Tensor, weight: Tensor) -> Tensor:
        shape = (*gap.shape, self.dim)
        own = [vectors.unsqueeze(2).expand(shape) for vectors in (u, normal)]
        raw = self.bounce(torch.cat([*own, n.unsqueeze(1).expand(shape), gap.unsqueeze(-1) / self.radius], dim=-1))
        return (weight.unsqueeze(-1) * PRESSURE * raw).sum(2)


class FirstOrderDynamics(Dynamics):
    """dp/dt is a function of where the bodies are and of how fast they were at the beginning; gravity and drag have
    nothing to add up in, so it is for free space."""

    def __init__(self, *words: Any) -> None:
        super().__init__(*words)
        if self.integrator != "euler":
            raise ValueError(f"equations of first order are integrated with euler, got {self.integrator!r}")

    pace = 0.02  # s, by which a force becomes a velocity

    def forward(
        self, p: Tensor, v: Tensor, scenes: Statics, prepared: Prepared, pushers: tuple[Tensor, Tensor], dt: float
    ) -> tuple[Tensor, Tensor]:
        place, speed = pushers
        h = dt / self.substeps
        for step in range(self.substeps):
            now = (place + step * h * speed, speed)
            force = self.elastic(p, v, prepared) + self.contact(p, v, scenes, now, self.near(p, scenes, now[0]))
            move = v + self.pace * (force / scenes.mass.unsqueeze(-1) + scenes.gravity[:, None, None])
            p = p + h * move * scenes.present[..., None, None]
        return p, v


class Twin(EqCollide):
    """The non-equivariant twin; arguments as `EqCollide`."""

    dynamics_class = TwinDynamics


class FirstOrder(EqCollide):
    """Velocities are what positions changed by in a frame; the model itself keeps those of the beginning."""

    dynamics_class = FirstOrderDynamics

    def rollout(
        self, p: Tensor, v: Tensor, statics: Statics, pushers: tuple[Tensor, Tensor], frames: int, dt: float = FRAME,
        past: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        positions, _ = super().rollout(p, v, statics, pushers, frames, dt, past)
        return positions, torch.cat([v.unsqueeze(0), positions.diff(dim=0) / dt])
