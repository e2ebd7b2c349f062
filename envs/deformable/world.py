"""A soft body and a pusher, moved by the ground truth or by a learned simulator."""

from pathlib import Path

import numpy as np

from sims.build import load_simulator
from sims.flex import FlexSimulator, SimulationError
from sims.model import LearnedSimulator
from sims.state import Scene, Simulator, State

BACKENDS = ("mujoco", "learned")
TRAINING = {
    2: "python train.py sim=eqcollide env=soft_bodies_2d env.world=pusher env.bodies=[1,2]",
    3: "python train.py sim=eqcollide env=soft_bodies_3d env.world=table env.bodies=[1,1]",
}


class SoftWorld:
    """What the environments of this folder have in common.

    Args:
        dim: 2 or 3.
        backend: "mujoco" (flex) or "learned".
        simulator: file of a learned simulator, `simulator.pt` of a run; with backend "learned".
        on_ood: what happens when the body leaves the range that the simulator has learned (or the ground truth
            diverges): "truncate" is for the environment to do, "error" raises.
    Raises:
        ValueError: an argument is out of range, or the file is not a simulator of `dim` dimensions.
    """

    def __init__(self, dim: int, backend: str, simulator: str | None, on_ood: str) -> None:
        if backend not in BACKENDS:
            raise ValueError(f"backend must be one of {BACKENDS}, got {backend!r}")
        if on_ood not in ("truncate", "error"):
            raise ValueError(f"on_ood must be truncate or error, got {on_ood!r}")
        self.on_ood = on_ood
        self.simulator: Simulator = FlexSimulator()
        if backend == "learned":
            if simulator is None:
                raise ValueError(f"backend=learned needs simulator=FILE; train one: {TRAINING[dim]}")
            self.simulator = load_simulator(Path(simulator))
            if self.simulator.model.dim != dim:
                raise ValueError(f"{simulator} is of {self.simulator.model.dim} dimensions, this environment has {dim}")

    def reset(self, scene: Scene) -> None:
        """Put up a scene of one body and one pusher."""
        self.state = self.simulator.reset(scene)

    def step(self, velocity: np.ndarray, dt: float) -> str:
        """Move on by `dt` s while the pusher moves at a velocity (dim,), m/s. Returns in words how the body left what
        the simulator is good for; empty where it has not.

        Raises:
            SimulationError: it has, and `on_ood` is "error".
        """
        kinematic = self.state.kinematic
        velocities = self.state.velocities.copy()
        velocities[kinematic] = velocity
        given = State(self.state.positions, velocities, self.state.body, kinematic)
        reason = ""
        try:
            following = self.simulator.step(given, dt)
            if isinstance(self.simulator, LearnedSimulator):
                reason = self.simulator.out_of_distribution(following)
        except SimulationError as error:
            following, reason = given, str(error)
        if reason and self.on_ood == "error":
            raise SimulationError(f"{reason}; on_ood=truncate ends the episode instead")
        if np.isfinite(following.positions).all():
            self.state = following
        return reason

    @property
    def pusher(self) -> np.ndarray:
        """Where the pusher is, (dim,), m."""
        return self.state.positions[self.state.kinematic].mean(0)

    @property
    def body(self) -> np.ndarray:
        """Points of the body, (P, dim), m."""
        return self.state.positions[~self.state.kinematic]
