"""The two tasks: PushSoft and SortSoft."""

from typing import Any

import numpy as np

from sims.shapes import Mesh, body_mesh

from ..base import Phase
from .env import SoftEnv
from .expert import GoalPose, turned, unit

LAMP_COLORS = ((0.9, 0.15, 0.1, 1), (0.1, 0.3, 0.9, 1))
DARK = (0.25, 0.25, 0.25, 1)


class PushSoftEnv(SoftEnv):
    """Push the body onto the pose that is drawn on the table: within 2 cm and 0.25 rad. The mark lies 16 to 24 cm
    ahead, up to 0.6 rad to the side, so that one push is enough and the finger need not go round the body first: how
    well a policy steers is then what its score tells."""

    task_description = "push the soft body onto the mark"
    horizon = 250
    near, aligned = 0.02, 0.25  # m, rad

    def make_mesh(self) -> Mesh:
        return body_mesh("box", 2, 0.08, 0.0135, np.random.default_rng(2))

    def marks(self) -> list[dict[str, Any]]:
        half = np.abs(self.mesh.points).max(0)
        size = (*half, 0.0005)
        return [{"name": "goal", "type": "box", "size": size, "pos": (0, 0), "rgba": (0.3, 0.75, 0.4, 1)}]

    def randomise(self) -> tuple[np.ndarray, float, np.ndarray]:
        rng = self.np_random
        heading = rng.uniform(-0.6, 0.6)
        way = rng.uniform(0.16, 0.24) * np.array([np.cos(heading), np.sin(heading)])
        middle = rng.uniform(-0.03, 0.03, 2)
        goal, place = middle + way / 2, middle - way / 2
        self.goal = GoalPose(goal, heading + float(rng.uniform(-0.25, 0.25)), offset=0.035)
        angle = self.goal.angle + float(rng.uniform(-0.4, 0.4))
        side = rng.uniform(-0.6, 0.6)
        finger = place + 0.15 * turned(-unit(way), side)
        self.renderer.mark("goal", self.goal.place, self.goal.angle)
        return place, angle, self.clip(finger)

    def push(self) -> tuple[np.ndarray, float, float] | None:
        return self.goal.push(self.centre, self.angle)

    def check(self) -> None:
        distance, missing = self.goal.errors(self.centre, self.angle)
        self.success = distance < self.near and abs(missing) < self.aligned
        self.stage, self.over = int(self.success), self.success


class SortSoftEnv(SoftEnv):
    """A lamp is lit for a moment; its colour says into which of two bins the body must go, at the end of a passage
    that is painted on the table and the same for both.

    Args:
        delay: the expert takes so many times as long from the lamp to the fork, 1 to 4.
    Others as `SoftEnv`.
    """

    task_description = "push the soft body through the passage into the bin of the lamp's colour"
    cue_values = 2
    stages = 3
    START, FORK, COMMITTED = -0.26, 0.06, 0.07  # x of the body at the start and at the fork, and |y| of a choice, m
    BINS = np.array([[0.26, 0.19], [0.26, -0.19]])
    HALF = np.array([0.10, 0.09])
    LIT = 15  # control steps

    def __init__(self, *words: Any, delay: float = 1.0, **more: Any) -> None:
        if not 1 <= delay <= 4:
            raise ValueError(f"delay must be in 1..4, got {delay}")
        self.delay = delay
        self.horizon = 150 + round(100 * delay)
        super().__init__(*words, **more)

    def make_mesh(self) -> Mesh:
        return body_mesh("disc", 2, 0.07, 0.0135, np.random.default_rng(0))

    def marks(self) -> list[dict[str, Any]]:
        bins = [
            {"name": f"bin_{i}", "type": "box", "size": (*self.HALF, 0.0005), "pos": place, "rgba": color}
            for i, (place, color) in enumerate(zip(self.BINS, LAMP_COLORS, strict=True))
        ]
        lamp = {"name": "lamp", "type": "cylinder", "size": (0.035, 0.001), "pos": (-0.3, 0.3), "rgba": DARK}
        half = ((self.FORK - self.START) / 2 + 0.12, 0.10, 0.0004)
        pos = ((self.FORK + self.START) / 2, 0)
        return [*bins, lamp, {"name": "passage", "type": "box", "size": half, "pos": pos, "rgba": (0.7, 0.7, 0.66, 1)}]

    def randomise(self) -> tuple[np.ndarray, float, np.ndarray]:
        rng = self.np_random
        place = np.array([self.START, 0.0]) + rng.uniform(-0.025, 0.025, 2)
        finger = place + (-0.125, rng.uniform(-0.05, 0.05))
        return place, float(rng.uniform(-np.pi, np.pi)), self.clip(finger)

    @property
    def pace(self) -> float:
        slow = self.delay if self.phase == Phase.SHARED else 1.0
        return super().pace / slow

    def push(self) -> tuple[np.ndarray, float, float] | None:
        if self.phase == Phase.CUE:
            return None
        return self.towards(self.BINS[self.cue] if self.phase == Phase.BRANCH else np.array([self.FORK + 0.05, 0.0]))

    def check(self) -> None:
        x, y = self.centre
        if self.steps < self.LIT:
            self.phase = Phase.CUE
        elif self.phase == Phase.CUE:
            self.phase = Phase.SHARED
        self.renderer.color("lamp", LAMP_COLORS[self.cue] if self.phase == Phase.CUE else DARK)
        if self.stage == 0 and x > (self.START + self.FORK) / 2:
            self.stage = 1
        if self.stage <= 1 and x > self.FORK and self.phase != Phase.CUE:
            self.stage, self.phase = 2, Phase.BRANCH
        if self.stage == 2:
            if self.branch_correct < 0 and abs(y) > self.COMMITTED:
                self.branch_correct = int((y < 0) == (self.cue == 1))
            inside = np.abs(self.centre - self.BINS) < self.HALF - 0.02
            for number in np.flatnonzero(inside.all(1)):
                self.over = True
                self.success = bool(number == self.cue) and self.branch_correct == 1
                self.stage = 3 if self.success else 2
