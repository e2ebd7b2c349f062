"""The model less a part of it: without equivariance, and with equations of first order."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..dataset import FRAME, Trajectory
from ..eqcollide.dynamics import Dynamics, Prepared
from ..eqcollide.encoder import Statics
from ..eqcollide.model import EqCollide


class TwinDynamics(Dynamics):
    """The networks are shown vectors, by their coordinates, beside the invariants: the same springs and pressures, but
    they can differ from one direction of space to another."""

    vectors = (2, 3, 3)

    def ask(self, network: nn.Module, seen: Tensor, vectors: Sequence[Tensor], symmetric: bool = True) -> Tensor:
        around = torch.cat(list(vectors), dim=-1)
        answer = network(torch.cat([seen, around], dim=-1))
        return 0.5 * (answer + network(torch.cat([seen, -around], dim=-1))) if symmetric else answer


class FirstOrderDynamics(Dynamics):
    """dp/dt is a function of where the bodies are and of how fast they were at the beginning: a body that bounces goes
    on as before once nothing touches it. Gravity and drag have nothing to add up in, so it is for free space."""

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
            force = self.elastic(p, v, prepared) + self.contact(p, v, scenes, now, self.near(p, scenes))
            move = v + self.pace * (force / scenes.mass.unsqueeze(-1) + scenes.gravity[:, None, None])
            p = p + h * move * scenes.present[..., None, None]
        return p, v


class Twin(EqCollide):
    """The non-equivariant twin; arguments as `EqCollide`."""

    dynamics_class = TwinDynamics


class FirstOrder(EqCollide):
    """Velocities are what positions changed by in a frame; the model itself keeps those of the beginning."""

    dynamics_class, markov = FirstOrderDynamics, False

    def check(self, trajectories: Sequence[Trajectory]) -> None:
        super().check(trajectories)
        for own in trajectories:
            if own.gravity.any() or own.drag or len(own.walls):
                raise ValueError(
                    "equations of first order know no gravity, drag or walls, which change velocities for good; "
                    "take env.world=free"
                )

    def rollout(
        self, p: Tensor, v: Tensor, statics: Statics, pushers: tuple[Tensor, Tensor], frames: int, dt: float = FRAME,
        past: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        positions, _ = super().rollout(p, v, statics, pushers, frames, dt, past)
        return positions, torch.cat([v.unsqueeze(0), positions.diff(dim=0) / dt])
