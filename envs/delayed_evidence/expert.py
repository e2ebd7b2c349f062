"""Scripted experts: timed keyframes for two hands and the base, followed through differential IK (mink)."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING

import mink
import mujoco
import numpy as np

from ..base import ExpertAction
from .robot import ACTION_HIGH, ACTION_LOW, HOME, RobotIndex, add_robot

if TYPE_CHECKING:
    from .env import DelayedEvidenceEnv

DOWN = np.array([np.sqrt(0.5), 0.0, np.sqrt(0.5), 0.0])  # hand pointing down, fingers opening along y (wxyz)
FORWARD = np.array([1.0, 0.0, 0.0, 0.0])  # hand pointing forward, fingers opening along y
IK_DT = 0.05  # s
STRAYS = 0.5  # share of disturbed demonstrations that go astray first, where there is something to look for
SLOWLY = 0.08  # share of the way back from a look that is made slowly


@dataclass
class Track:
    """Keyframes of one hand (x, y, z, gripper; in the base frame) or of the base (x, y, yaw; in the world).

    Between keyframes values follow a minimum-jerk profile; the track stops at a keyframe made by `to` and
    moves on through one made by `through`. Long stops must be avoided: where neither picture nor state
    changes, an imitator cannot know when to go on. The same holds for a slow start where the state has
    velocities but no positions, so a base drives at constant velocities (`linear`); its servo rounds the corners.
    """

    start: np.ndarray
    steps: list[int] = field(default_factory=lambda: [0])
    values: list[np.ndarray] = field(default_factory=list)
    linear: bool = False

    def __post_init__(self) -> None:
        self.values.insert(0, np.asarray(self.start, dtype=float))
        self.velocities = [np.zeros_like(self.values[0])]  # a control step, at the keyframes

    def to(self, step: int, *value: float) -> "Track":
        """Arrive at `value` at control step `step`."""
        if step <= self.steps[-1]:
            raise ValueError(f"keyframe at step {step} must come after step {self.steps[-1]}")
        self.steps.append(step)
        self.values.append(np.asarray(value, dtype=float))
        self.velocities.append(np.zeros_like(self.values[-1]))
        return self

    def through(self, step: int, *value: float, speed: float = 1.0) -> "Track":
        """Pass `value` at control step `step`, at `speed` times the mean velocity since the last keyframe.

        That velocity depends on earlier keyframes only, so it cannot give away what comes next.
        """
        self.to(step, *value)
        self.velocities[-1] = speed * (self.values[-1] - self.values[-2]) / (self.steps[-1] - self.steps[-2])
        return self

    def hold(self, step: int) -> "Track":
        """Stay where the last keyframe is until `step`."""
        return self.to(step, *self.values[-1])

    def retimed(self, when: Callable[[int], int]) -> "Track":
        """The same way at other times: what was at step s is at step when(s)."""
        out = Track(self.start, linear=self.linear)
        out.steps, out.values = [when(step) for step in self.steps], list(self.values)
        before, after = np.diff(self.steps, prepend=-1), np.diff(out.steps, prepend=-1)
        out.velocities = [v * (b / a) for v, b, a in zip(self.velocities, before, after, strict=True)]
        return out

    def at(self, step: float) -> np.ndarray:
        index = int(np.searchsorted(self.steps, step, side="right"))
        if index >= len(self.steps):
            return self.values[-1]
        first, last = self.steps[index - 1], self.steps[index]
        duration = last - first
        s = (step - first) / duration
        begin, end = self.values[index - 1], self.values[index]
        if self.linear:
            return begin + (end - begin) * s
        v0, v1 = self.velocities[index - 1] * duration, self.velocities[index] * duration
        way = end - begin  # quintic with these velocities and no acceleration at both ends
        cubic, quartic, quintic = 10 * way - 6 * v0 - 4 * v1, -15 * way + 8 * v0 + 7 * v1, 6 * way - 3 * v0 - 3 * v1
        return begin + v0 * s + cubic * s**3 + quartic * s**4 + quintic * s**5


@dataclass
class Script:
    """A whole expert episode. Tracks must not depend on the cue before `branch_step`."""

    left: Track
    right: Track
    base: Track
    orientation: tuple[np.ndarray, np.ndarray]  # of the left and of the right hand, wxyz in the base frame
    cue_step: int  # at which the evidence has left view
    branch_step: int
    calm: tuple[tuple[int, int], ...]  # (first, last) steps without disturbances: grasps, placement, the branch
    look: Track | None = None  # joints of the right arm before all that, for a camera that has to be aimed, rad
    astray: Track | None = None  # the same, with some wrong moves first
    wrong: int = 0  # control steps of those
    stay: int = 0  # control steps near the end of the look, on a slow first piece of the way back
    back: int = 0  # control steps from there to where the tracks begin

    def retimed(self, late: int, delay: float) -> "Script":
        """All of it `late` steps later, and `delay` times as long from the cue to the branch."""

        def when(step: int) -> int:
            shared = min(max(step - self.cue_step, 0), self.branch_step - self.cue_step)
            return step + round((delay - 1) * shared) + (late if step > 0 else 0)

        return replace(
            self,
            left=self.left.retimed(when),
            right=self.right.retimed(when),
            base=self.base.retimed(when),
            cue_step=when(self.cue_step),
            branch_step=when(self.branch_step),
            calm=tuple((when(first), when(last)) for first, last in self.calm),
        )


@cache
def _robot_model() -> mujoco.MjModel:
    spec = mujoco.MjSpec()
    add_robot(spec, mobile=False)
    return spec.compile()


class HandIK:
    """Joint angles of both arms that bring the hands to poses in the base frame."""

    def __init__(self) -> None:
        model = _robot_model()
        self.index = RobotIndex(model, mobile=False)
        self.configuration = mink.Configuration(model)
        self.tasks = [
            mink.FrameTask(f"{side}_grip", "site", position_cost=1.0, orientation_cost=0.1, lm_damping=1e-4)
            for side in ("left", "right")
        ]
        self.posture = mink.PostureTask(model, cost=1e-3)
        self.limits = [mink.ConfigurationLimit(model)]
        qpos = model.qpos0.copy()
        for side in (0, 1):
            qpos[self.index.arm_qpos[side]] = HOME
        self.configuration.update(qpos)
        self.posture.set_target(qpos)

    def solve(
        self, positions: np.ndarray, orientations: tuple[np.ndarray, np.ndarray], iterations: int = 3
    ) -> np.ndarray:
        """Positions (2, 3) in m and quaternions -> joints (2, 6) in rad, continuing from the last solution."""
        for task, position, quaternion in zip(self.tasks, positions, orientations, strict=True):
            task.set_target(mink.SE3.from_rotation_and_translation(mink.SO3(wxyz=quaternion), position))
        for _ in range(iterations):
            velocity = mink.solve_ik(
                self.configuration, [*self.tasks, self.posture], IK_DT, "daqp", damping=1e-6, limits=self.limits
            )
            self.configuration.integrate_inplace(velocity, IK_DT)
        return self.configuration.q[self.index.arm_qpos]


class ScriptedExpert:
    """Follows a `Script`; the base by feedback on its pose, the hands by absolute joint targets.

    Disturbances: now and then smooth pushes are added to what is executed, not to the label, so that
    demonstrations show the way back. And a look goes astray first, at times: `ExpertAction.astray` marks its wrong
    moves. All of it is drawn from the episode's seed, not from the cue.
    """

    def __init__(self, env: "DelayedEvidenceEnv", disturbance: float) -> None:
        self.env, self.disturbance = env, disturbance
        self.script = env.task.script(env.layout, env.cue).retimed(env.late_steps, env.delay)
        self.rng = np.random.default_rng(env.expert_seed)
        self.ik = HandIK()
        self.push, self.push_target = np.zeros(17), np.zeros(17)
        self.ik.solve(self._positions(0), self.script.orientation, iterations=40)
        self.look, self.offset, self.wrong = self.script.look, 0, 0
        if disturbance > 0 and self.script.astray is not None and self.rng.random() < STRAYS:
            self.look, self.wrong = self.script.astray, self.script.wrong
        if self.look is not None:
            seen, home = self.look.values[-1], self.ik.configuration.q[self.ik.index.arm_qpos[1]]
            if self.script.stay:
                self.look.through(self.look.steps[-1] + self.script.stay, *(seen + SLOWLY * (home - seen)))
            self.offset = self.look.steps[-1] + self.script.back
            self.look.to(self.offset, *home)

    def _positions(self, step: float) -> np.ndarray:
        return np.stack([self.script.left.at(step)[:3], self.script.right.at(step)[:3]])

    def start_joints(self) -> np.ndarray:
        """Joints (2, 6) of the first keyframe."""
        joints = self.ik.configuration.q[self.ik.index.arm_qpos].copy()
        if self.look is not None:
            joints[1] = self.look.at(0)
        return joints

    def action(self) -> ExpertAction:
        step = self.env.steps + 1 - self.offset  # where to be at the end of this control step
        label = np.zeros(17)
        joints = self.ik.solve(self._positions(max(step, 0)), self.script.orientation).copy()
        if self.look is not None and step < 0:
            joints[1] = self.look.at(step + self.offset)
        step = max(step, 0)
        for side, track in enumerate((self.script.left, self.script.right)):
            label[3 + 7 * side : 9 + 7 * side] = joints[side]
            label[9 + 7 * side] = track.at(step)[3]
        if self.env.task.mobile:
            dt = self.env.control_dt
            pose = self.env.robot.base_pose(self.env.data)
            error = self.script.base.at(step) - pose
            feed_forward = (self.script.base.at(step) - self.script.base.at(max(step - 1, 0))) / dt
            x, y, rate = feed_forward + 5.0 * (error - feed_forward * dt)
            cos, sin = np.cos(pose[2]), np.sin(pose[2])
            label[:3] = cos * x + sin * y, -sin * x + cos * y, rate
        label = np.clip(label, ACTION_LOW, ACTION_HIGH)
        executed = np.clip(label + self._disturb(), ACTION_LOW, ACTION_HIGH)
        return ExpertAction(label.astype(np.float32), executed.astype(np.float32), self.env.steps < self.wrong)

    def _disturb(self) -> np.ndarray:
        """A smooth random push on joints and base; none on the grippers or in calm windows."""
        scale = np.concatenate([[0.4, 0.4, 0.3] if self.env.task.mobile else [0, 0, 0], 2 * [*([0.08] * 6), 0.0]])
        if self.rng.random() < 0.08:
            self.push_target = self.rng.normal(0, self.disturbance, 17) * scale
        calm = any(first <= self.env.steps - self.offset <= last for first, last in self.script.calm)
        self.push_target *= 0.0 if calm else 0.85
        self.push += 0.35 * (self.push_target - self.push)
        return self.push
