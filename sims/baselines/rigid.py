"""What needs no learning: every particle keeps its velocity, or every body moves rigidly; neither knows of contact."""

import torch
from torch import Tensor

from ..dataset import FRAME
from .particles import ParticleModel, Particles


class ConstantVelocity(ParticleModel):
    """p(t) = p + v t."""

    touching = False

    def rollout(
        self, p: Tensor, v: Tensor, statics: Particles, pushers: tuple[Tensor, Tensor], frames: int, dt: float = FRAME,
        past: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        time = dt * torch.arange(frames + 1, device=p.device, dtype=p.dtype)[:, None, None, None]
        return p + time * v, v.expand(frames + 1, *v.shape)


class Ballistic(ParticleModel):
    """Every body flies and turns as a rigid one with its linear and angular momentum, under gravity and drag.

    In 3D the angular velocity is kept: tumbling is left out.
    """

    touching = False

    def rollout(
        self, p: Tensor, v: Tensor, statics: Particles, pushers: tuple[Tensor, Tensor], frames: int, dt: float = FRAME,
        past: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        time = dt * torch.arange(frames + 1, device=p.device, dtype=p.dtype)[:, None, None, None]
        drag = statics.drag[:, None, None]
        decay = torch.exp(-drag * time)
        # Time that a velocity lasts, and what gravity adds to velocity and place: dv/dt = g - drag v.
        lasts = torch.where(drag > 0, (1 - decay) / drag.clamp_min(1e-9), time)
        fallen = torch.where(drag > 0, (time - lasts) / drag.clamp_min(1e-9), 0.5 * time.square())
        gravity = statics.gravity.unsqueeze(1)
        positions, velocities = p + 0 * time * v, v + 0 * time * v
        for body in range(int(statics.body.max()) + 1):
            own = statics.soft & (statics.body == body)
            share = (own * statics.mass).unsqueeze(-1)
            share = share / share.sum(1, keepdim=True).clamp_min(1e-12)
            centre, mean = (share * p).sum(1, keepdim=True), (share * v).sum(1, keepdim=True)
            arm, relative = p - centre, v - mean
            # The antisymmetric W with the body's angular momentum: W M + M W = A - A^T.
            moment = (share * arm).transpose(1, 2) @ arm + 1e-12 * torch.eye(self.dim).to(p)
            twist = (share * relative).transpose(1, 2) @ arm
            values, vectors = torch.linalg.eigh(moment)
            inside = vectors.transpose(1, 2) @ (twist - twist.transpose(1, 2)) @ vectors
            spin = vectors @ (inside / (values.unsqueeze(1) + values.unsqueeze(2))) @ vectors.transpose(1, 2)
            turn = torch.matrix_exp(spin * lasts)
            rotated = arm @ turn.transpose(-1, -2)
            place = centre + mean * lasts + gravity * fallen + rotated
            speed = mean * decay + gravity * lasts + decay * (rotated @ spin.transpose(-1, -2))
            positions = torch.where(own.unsqueeze(-1), place, positions)
            velocities = torch.where(own.unsqueeze(-1), speed, velocities)
        return positions, velocities
