"""The whole model: encoder, dynamics and decoder."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..dataset import FRAME, Trajectory
from ..model import LearnedModel
from .decoder import interpolation
from .dynamics import Dynamics, Prepared
from .encoder import Statics, controls, gather


class EqCollide(LearnedModel):
    """Simulator of scenes of soft bodies by their control points; its variables are (S, bodies, K, dim).

    Args:
        dim: 2 or 3.
        control_points: K, of a body.
        width, context, radius, substeps, collide, integrator: see `Dynamics`.
    Raises:
        ValueError: dim other than 2 or 3, fewer than 2 dim control points, or what `Dynamics` refuses.
    """

    dynamics_class: type[Dynamics] = Dynamics

    def __init__(
        self,
        dim: int,
        control_points: int = 16,
        width: int = 48,
        context: int = 16,
        radius: float = 0.0,
        substeps: int = 4,
        collide: bool = True,
        integrator: str = "euler",
    ) -> None:
        super().__init__(dim)
        if control_points < 2 * dim:
            raise ValueError(f"control_points must be at least {2 * dim} in {dim}D, got {control_points}")
        self.control_points = control_points
        self.touching = collide
        self.dynamics = self.dynamics_class(dim, width, context, radius, substeps, collide, integrator)

    def gather(self, trajectories: Sequence[Trajectory]) -> Statics:
        return gather(trajectories, self.control_points)

    def encode(self, trajectories: Sequence[Trajectory], values: Sequence[np.ndarray]) -> Tensor:
        parts = [controls(trajectory, self.control_points) for trajectory in trajectories]
        bodies = max(len(own) for own in parts)
        out = np.zeros((len(values[0]), len(trajectories), bodies, self.control_points, self.dim))
        for scene, own in enumerate(parts):
            for body, (points, control) in enumerate(own):
                out[:, scene, body] = control.encode @ values[scene][:, points]
        return torch.from_numpy(out)

    def decode(self, trajectories: Sequence[Trajectory], values: np.ndarray) -> list[np.ndarray]:
        out = []
        for scene, trajectory in enumerate(trajectories):
            particles = np.zeros((len(values), len(trajectory.body), self.dim))
            for body, (points, control) in enumerate(controls(trajectory, self.control_points)):
                particles[:, points] = control.decode @ values[:, scene, body]
            out.append(particles)
        return out

    def query(self, trajectory: Trajectory, body: int, points: np.ndarray, latent: Tensor) -> Tensor:
        """The field at any points of a body, whatever its mesh; differentiable in `latent`.

        Args:
            trajectory: the scene.
            points: (N, dim), in the body's frame at rest, m.
            latent: positions or velocities of control points, (..., bodies, K, dim), as of `rollout`.
        Returns:
            (..., N, dim), positions or velocities of the points.
        Raises:
            ValueError: no such body, or points of another shape or not finite.
        """
        own = controls(trajectory, self.control_points)
        if not 0 <= body < len(own):
            raise ValueError(f"body must be in 0..{len(own) - 1}, got {body}")
        if points.ndim != 2 or points.shape[1] != self.dim or not np.isfinite(points).all():
            raise ValueError(f"points must be finite and of shape (N, {self.dim}), got {points.shape}")
        field = torch.from_numpy(interpolation(points.astype(float), own[body][1].points))
        return field.to(latent) @ latent[..., body, :, :]

    def weights(self, statics: Statics) -> Tensor:
        return statics.present.unsqueeze(-1).expand(statics.rest.shape[:-1]).to(statics.rest)

    def contact_edges(self, p: Tensor, statics: Statics, place: Tensor) -> Tensor:
        x = self.dynamics.surface(p, p, statics)[0]
        pairs = self.dynamics.near(p, statics)
        ends = [torch.stack([x.flatten(0, 1)[own] for own in pairs], dim=1)]
        if statics.pusher_radii.shape[1]:  # and the nearest points of pushers
            centre = (statics.pusher_centres @ place).unsqueeze(1)
            away = nn.functional.normalize(x.unsqueeze(2) - centre, dim=-1)
            touched = centre + statics.pusher_radii[:, None, :, None] * away
            there = (statics.areas.flatten(1) > 0).unsqueeze(-1) & (statics.pusher_radii > 0).unsqueeze(1)
            ends.append(torch.stack([x.unsqueeze(2).expand_as(touched), touched], dim=-2)[there])
        both = torch.cat(ends)
        return both[(both[:, 0] - both[:, 1]).norm(dim=-1) < self.dynamics.radius]

    def rollout(
        self, p: Tensor, v: Tensor, statics: Statics, pushers: tuple[Tensor, Tensor], frames: int, dt: float = FRAME,
        past: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        prepared: Prepared = self.dynamics.prepare(statics)
        place, speeds = pushers
        positions, velocities = [p], [v]
        for frame in range(frames):
            p, v = self.dynamics(p, v, statics, prepared, (place, speeds[frame]), dt)
            place = place + dt * speeds[frame]
            positions.append(p)
            velocities.append(v)
        return torch.stack(positions), torch.stack(velocities)
