"""What every environment of this repository adds to Gymnasium's interface."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

import gymnasium
import mujoco
import numpy as np


class RenderingError(RuntimeError):
    """This machine cannot render; the message says what to install."""


def new_renderer(model: mujoco.MjModel, height: int, width: int) -> mujoco.Renderer:
    """An offscreen renderer.

    Raises:
        RenderingError: no offscreen OpenGL context can be made.
    """
    try:
        return mujoco.Renderer(model, height, width)
    except Exception as error:  # the GL back ends raise a different type each
        raise RenderingError(
            f"no offscreen OpenGL context ({error}); install libegl1 and libgl1-mesa-dri, or set MUJOCO_GL"
        ) from error


class Phase(IntEnum):
    """Where an episode stands with respect to its delayed evidence."""

    BEFORE_CUE = 0
    CUE = 1  # the evidence is in view
    SHARED = 2  # it has left view; every cue looks and moves alike
    BRANCH = 3  # the cue decides what is right


@dataclass(frozen=True)
class ExpertAction:
    """One expert step. A disturbance moves the robot, but the label stays what the expert wants."""

    label: np.ndarray  # (A,), the action to imitate
    executed: np.ndarray  # (A,), what is sent to the environment
    astray: bool = False  # not to be imitated: it leads to where the expert then shows the way back


class Expert(Protocol):
    """A scripted policy with access to the simulator's state."""

    def action(self) -> ExpertAction:
        """Action for the current state of the environment it was made for."""
        ...


class DelayedEvidenceBase(gymnasium.Env):
    """Base of environments with a cue and a branch.

    `info` holds `stage` (int, ordered stages done), `progress` in [0, 1], `is_success`, `branch_correct`
    (-1 while undecided, then 0 or 1), `phase` (a `Phase`) and `cue` (diagnostics only; never in the
    observation). `reset(options={"cue": c})` fixes the cue; everything else is set by the seed alone.
    """

    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    cue_values: int
    task_description: str
    horizon: int
    goes_astray: bool = False  # whether its expert has actions that are not to be imitated

    def make_expert(self, disturbance: float = 0.0) -> Expert:
        """A fresh expert for the episode just reset. `disturbance` scales its random perturbations."""
        raise NotImplementedError

    def scene_geometry(self) -> list[dict[str, Any]]:
        """Shapes for a 3D view: dicts with `name`, `kind`, `rgba` and either `size`, `position`, `quaternion` (wxyz)
        or, of a "mesh", `vertices` (V, 3) in the world and triangles `faces` (F, 3)."""
        return []

    def _draw_cue(self, options: dict[str, Any] | None) -> int:
        """The cue of this episode: from `options`, else drawn after all other randomness would be equal."""
        drawn = int(self.np_random.integers(self.cue_values))
        cue = (options or {}).get("cue")
        if cue is not None and cue not in range(self.cue_values):
            raise ValueError(f"cue must be in 0..{self.cue_values - 1}, got {cue}")
        return drawn if cue is None else int(cue)
