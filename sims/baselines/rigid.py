"""What needs no learning: every particle keeps its velocity, or every body moves rigidly; neither knows of contact."""

import torch
from torch import Tensor

from ..dataset import FRAME
from .particles import ParticleModel, Particles


class ConstantVelocity(ParticleModel):
    """p(t) = p + v t."""

    def rollout(
        self, p: Tensor, v: Tensor, statics: Particles, pushers: tuple[Tensor, Tensor], frames: int, dt: float = FRAME,
        past: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        time = dt * torch.arange(frames + 1, device=p.device, dtype=p.dtype)[:, None, None, None]
        return p + time * v, v.expand(frames + 1, *v.shape)


class Ballistic(ParticleModel):
    """Every body flies and turns as a rigid one with its momentum, under gravity and drag."""

    def rollout(
        self, p: Tensor, v: Tensor, statics: Particles, pushers: tuple[Tensor, Tensor], frames: int, dt: float = FRAME,
        past: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        positions, velocities = [p] * (frames + 1), [v] * (frames + 1)
        for body in range(int(statics.body.max()) + 1):
            own = (statics.soft & (statics.body == body)).to(p).unsqueeze(-1)  # every particle weighs the same
            count = own.sum(1, keepdim=True).clamp_min(1.0)
            centre, mean = (own * p).sum(1, keepdim=True) / count, (own * v).sum(1, keepdim=True) / count
            arm, relative = own * (p - centre), own * (v - mean)
            # The antisymmetric W that fits relative = W arm best: W M + M W = A - A^T.
            moment = arm.transpose(1, 2) @ arm + 1e-12 * torch.eye(self.dim).to(p)
            twist = relative.transpose(1, 2) @ arm
            values, vectors = torch.linalg.eigh(moment)
            inside = vectors.transpose(1, 2) @ (twist - twist.transpose(1, 2)) @ vectors
            spin = vectors @ (inside / (values.unsqueeze(1) + values.unsqueeze(2))) @ vectors.transpose(1, 2)
            drag = statics.drag[:, None, None]
            for frame in range(1, frames + 1):
                t = frame * dt
                turn = torch.matrix_exp(spin * t)
                decay = torch.exp(-drag * t)
                flown = torch.where(drag > 0, (1 - decay) / drag.clamp_min(1e-9), torch.full_like(drag, t))
                fallen = statics.gravity.unsqueeze(1)
                place = centre + mean * flown + 0.5 * t * t * fallen + arm @ turn.transpose(1, 2)
                speed = mean * decay + t * fallen + arm @ (spin @ turn).transpose(1, 2)
                positions[frame] = torch.where(own > 0, place, positions[frame])
                velocities[frame] = torch.where(own > 0, speed, velocities[frame])
        return torch.stack(positions), torch.stack(velocities)
