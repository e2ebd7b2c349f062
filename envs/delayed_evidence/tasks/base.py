"""What a delayed-evidence task declares."""

from collections.abc import Callable

import mujoco
import numpy as np

from ..expert import Script
from ..scene import CUE_COLORS, Factors

# Where things are in this episode, drawn from the seed alone; "base": x, y, yaw of the base at the start, if it drives.
Layout = dict[str, np.ndarray]


class Task:
    """One manipulation task with an early cue and a late branch.

    `stages` names the ordered stages by subtask. Predicates are on the physics state and latch: a stage
    counts once it and all before it have been reached.
    """

    name: str
    version: int = 1  # of its demonstrations
    description: str
    mobile: bool
    max_cue_values: int = 2
    horizon: int  # control steps after which an episode is cut off
    stages: tuple[tuple[str, str], ...]  # (subtask, stage)
    visual_only: bool  # the motion up to the branch is the same for every cue
    tables: tuple[str, ...] = ()  # geoms that wear a table texture
    decoy_half: tuple[float, float, float]  # half sizes of things that look like the cue, m
    goes_astray = False  # whether its experts make wrong moves, not to be imitated, to show the way back
    look: str = "oracle"  # how the expert of an active task finds the cue, one of viewpoints.LOOKS
    left_raised = 0.0  # m by which the left hand waits higher, where something stands below it
    decoys_ahead = False  # whether places of decoys count from where the base is when they come
    decoy_colors: tuple[tuple[float, ...], ...] = CUE_COLORS
    # Which share of a camera's picture a geom fills, (data, camera, geom); the environment sets it.
    share_in_view: Callable[[mujoco.MjData, str, str], float]

    def __init__(self, cue_values: int = 2) -> None:
        fewest = min(2, self.max_cue_values)
        if not fewest <= cue_values <= self.max_cue_values:
            raise ValueError(f"cue_values of {self.name} must be in {fewest}..{self.max_cue_values}, got {cue_values}")
        self.cue_values = cue_values

    def build(self, spec: mujoco.MjSpec) -> None:
        """Add furniture and objects."""
        raise NotImplementedError

    def distractor_places(self) -> np.ndarray:
        """Boxes (M, 2, 3) in which distractors may stand."""
        raise NotImplementedError

    def decoy_places(self) -> np.ndarray:
        """Boxes (M, 2, 3) in which decoys may stand, where a camera sees them."""
        return self.distractor_places()

    def randomise(self, model: mujoco.MjModel, data: mujoco.MjData, factors: Factors) -> Layout:
        """Place objects; must not depend on the cue."""
        raise NotImplementedError

    def apply_cue(self, model: mujoco.MjModel, data: mujoco.MjData, layout: Layout, cue: int) -> None:
        """Make the scene show the cue."""
        raise NotImplementedError

    def script(self, layout: Layout, cue: int) -> Script:
        """The expert's episode."""
        raise NotImplementedError

    def check(self, model: mujoco.MjModel, data: mujoco.MjData, layout: Layout, progress: "Progress") -> None:
        """Update `progress` from the physics state after a control step."""
        raise NotImplementedError


def touching(model: mujoco.MjModel, data: mujoco.MjData, body: str, others: str) -> bool:
    """Whether geoms of `body` are in contact with a body whose name begins with `others`."""
    wanted = model.body(body).id
    for pair in data.contact.geom:
        first, second = model.geom_bodyid[pair]
        if wanted in (first, second) and model.body(second if first == wanted else first).name.startswith(others):
            return True
    return False


def held(model: mujoco.MjModel, data: mujoco.MjData, body: str) -> bool:
    """Whether a finger of either hand touches `body`."""
    return any(touching(model, data, body, f"{side}_finger") for side in ("left", "right"))


def flex_touching(model: mujoco.MjModel, data: mujoco.MjData, geom: str) -> bool:
    """Whether a deformable body is in contact with the geom."""
    wanted = model.geom(geom).id
    return bool(((data.contact.geom == wanted).any(1) & (data.contact.flex >= 0).any(1)).any())


class Progress:
    """Latched progress of one episode."""

    def __init__(self, task: Task, cue: int) -> None:
        self.task, self.cue = task, cue
        self.stage = 0
        self.choice = -1  # the cue value the robot acted for, once it has
        self.cue_seen = False  # the evidence is or was in view
        self.cue_over = False
        self.glimpsed = False  # a piece of it, where it has to be looked for
        self.hidden_for = 0  # control steps since it was in view, where it comes and goes
        self.at_branch = False
        self.over = False  # nothing that counts can happen any more

    def reach(self, stage: str, condition: bool) -> None:
        """Latch the named stage if it is the next one and its condition holds."""
        if self.stage < len(self.task.stages) and self.task.stages[self.stage][1] == stage and condition:
            self.stage += 1

    @property
    def success(self) -> bool:
        return self.stage == len(self.task.stages)

    def fraction(self) -> float:
        """Mean over subtasks of the share of their stages that was reached."""
        subtasks = list(dict.fromkeys(subtask for subtask, _ in self.task.stages))
        shares = []
        for name in subtasks:
            flags = [index < self.stage for index, (subtask, _) in enumerate(self.task.stages) if subtask == name]
            shares.append(sum(flags) / len(flags))
        return float(np.mean(shares))
