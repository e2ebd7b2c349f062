"""The whole model: encoder, dynamics and decoder; and the same behind the simulator's contract."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..dataset import FRAME, Trajectory, describe
from ..state import Scene, State
from .dynamics import Dynamics, Prepared
from .encoder import Statics, controls, encode, statics


class EqCollide(nn.Module):
    """Simulator of scenes of soft bodies by their control points.

    Args:
        dim: 2 or 3.
        control_points: K, of a body.
        width, context, radius, substeps, collide: see `Dynamics`.
    Raises:
        ValueError: dim other than 2 or 3, or fewer than 2 dim control points.
    """

    def __init__(
        self,
        dim: int,
        control_points: int = 16,
        width: int = 48,
        context: int = 16,
        radius: float = 0.0,
        substeps: int = 4,
        collide: bool = True,
    ) -> None:
        super().__init__()
        if dim not in (2, 3):
            raise ValueError(f"dim must be 2 or 3, got {dim}")
        if control_points < 2 * dim:
            raise ValueError(f"control_points must be at least {2 * dim} in {dim}D, got {control_points}")
        self.dim, self.control_points = dim, control_points
        self.dynamics = Dynamics(dim, width, context, radius, substeps, collide)

    def statics(self, trajectories: Sequence[Trajectory]) -> Statics:
        """What does not change in scenes, on the model's device and in its precision.

        Raises:
            ValueError: no scene, or one of another dimension.
        """
        if not trajectories:
            raise ValueError("no scene was given; at least one is needed")
        for trajectory in trajectories:
            if trajectory.dim != self.dim:
                raise ValueError(f"this model is of {self.dim} dimensions, the scene has {trajectory.dim}")
        like = next(self.parameters())
        return statics(trajectories, self.control_points).to(like.device, like.dtype)

    def rollout(
        self, p: Tensor, v: Tensor, scenes: Statics, pushers: tuple[Tensor, Tensor], frames: int, dt: float = FRAME
    ) -> tuple[Tensor, Tensor]:
        """Positions and velocities (frames + 1, S, O, K, dim), the given ones first. Differentiable.

        Args:
            p, v: (S, O, K, dim).
            pushers: positions (S, R, dim) at the beginning, velocities (frames, S, R, dim) of each frame.
        """
        prepared: Prepared = self.dynamics.prepare(scenes)
        place, speeds = pushers
        positions, velocities = [p], [v]
        for frame in range(frames):
            p, v = self.dynamics(p, v, scenes, prepared, (place, speeds[frame]), dt)
            place = place + dt * speeds[frame]
            positions.append(p)
            velocities.append(v)
        return torch.stack(positions), torch.stack(velocities)


def pusher_frames(trajectories: Sequence[Trajectory], frames: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Pusher samples of trajectories: positions (S, R, dim) at the start, velocities (frames, S, R, dim)."""
    own = [np.flatnonzero(trajectory.kinematic) for trajectory in trajectories]
    most, dim = max(len(points) for points in own), trajectories[0].dim
    place = np.zeros((len(trajectories), most, dim))
    speed = np.zeros((frames, len(trajectories), most, dim))
    for scene, (trajectory, points) in enumerate(zip(trajectories, own, strict=True)):
        place[scene, : len(points)] = trajectory.positions[0, points]
        speed[:, scene, : len(points)] = trajectory.velocities[:frames, points]
    return torch.from_numpy(place).to(like), torch.from_numpy(speed).to(like)


@torch.no_grad()
def predict(model: EqCollide, trajectories: Sequence[Trajectory], frames: int) -> list[np.ndarray]:
    """Positions (frames + 1, P, dim) of all points of each scene, from its first frame."""
    scenes = model.statics(trajectories)
    p, v = (part[0].to(scenes.rest) for part in encode(trajectories, slice(0, 1), model.control_points))
    pushers = pusher_frames(trajectories, frames, scenes.rest)
    control = model.rollout(p, v, scenes, pushers, frames)[0].cpu().numpy()
    out = []
    for scene, trajectory in enumerate(trajectories):
        positions = np.zeros((frames + 1, *trajectory.positions.shape[1:]))
        for body, (own, parts) in enumerate(controls(trajectory, model.control_points)):
            positions[:, own] = np.einsum("pk,tkd->tpd", parts.decode, control[:, scene, body])
        pushed = trajectory.kinematic
        steps = FRAME * np.cumsum(trajectory.velocities[:frames, pushed], axis=0, dtype=float)
        positions[:, pushed] = trajectory.positions[0, pushed] + np.concatenate([0 * steps[:1], steps])
        out.append(positions)
    return out


class LearnedSimulator:
    """A trained model behind the simulator's contract. A step is a function of the state alone."""

    def __init__(self, model: EqCollide) -> None:
        self.model = model.eval()

    def reset(self, scene: Scene) -> State:
        """Put up a scene. Raises ValueError for one that cannot be simulated, or of another dimension."""
        scene.check()
        start = scene.start()
        self.described = describe(scene, [start], 0)
        self.statics = self.model.statics([self.described])
        self.parts = controls(self.described, self.model.control_points)
        return start

    @torch.no_grad()
    def step(self, state: State, dt: float) -> State:
        """The state `dt` seconds later, in frames of the length that the model was trained with, or shorter."""
        like, scenes = self.statics.rest, self.statics
        prepared = self.model.dynamics.prepare(scenes)

        def fitted(values: np.ndarray) -> Tensor:
            rows = [parts.encode @ values[own] for own, parts in self.parts]
            return torch.from_numpy(np.stack(rows)).to(like).unsqueeze(0)

        p, v = fitted(state.positions), fitted(state.velocities)
        pushed = state.kinematic
        place, speed = (
            torch.from_numpy(values[pushed]).to(like).unsqueeze(0) for values in (state.positions, state.velocities)
        )
        frames = max(1, round(dt / FRAME))
        for frame in range(frames):
            now = place + frame * dt / frames * speed
            p, v = self.model.dynamics(p, v, scenes, prepared, (now, speed), dt / frames)
        positions, velocities = state.positions + dt * state.velocities, state.velocities.copy()
        for body, (own, parts) in enumerate(self.parts):
            positions[own] = parts.decode @ p[0, body].cpu().double().numpy()
            velocities[own] = parts.decode @ v[0, body].cpu().double().numpy()
        return State(positions, velocities, state.body, state.kinematic)
