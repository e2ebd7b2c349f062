"""The right arm of the delayed-evidence robot pushes a soft block over a table, in 3D.

The block is a MuJoCo flex with quadratic elements; it lies on the table under gravity and friction. Its centre and its
angle are those of its points seen from above.
"""

import mujoco
import numpy as np

from ..base import ExpertAction
from ..delayed_evidence.env import DelayedEvidenceEnv
from ..delayed_evidence.expert import DOWN, HandIK
from ..delayed_evidence.robot import ACTION_HIGH, ACTION_LOW
from ..delayed_evidence.scene import Factors, add_box
from ..delayed_evidence.tasks import Layout, Progress, Task
from .expert import GoalPose, PushExpert, reach, turned, turned_by, unit

TABLE = 0.40  # height of the table top, m
SIZE = np.array([0.10, 0.07, 0.05])  # of the block, m
GRIP = TABLE + 0.030  # height of the hand while it pushes, m
MIDDLE = np.array([0.40, -0.17])  # of the part of the table that is used
LOW, HIGH = MIDDLE - (0.20, 0.24), MIDDLE + (0.20, 0.24)  # where the hand may go
COUNTS = (6, 5, 4)  # points of the block along its sides
AXES = [np.linspace(-side / 2, side / 2, count) for side, count in zip(SIZE, COUNTS, strict=True)]
REST = np.stack(np.meshgrid(*AXES, indexing="ij"), axis=-1).reshape(-1, 3)[:, :2]  # its points at rest, from above
BLOCK = f"""
<mujoco><worldbody><body name="body">
  <flexcomp name="flex" type="grid" dim="3" dof="quadratic" count="{" ".join(map(str, COUNTS))}"
    spacing="{" ".join(f"{side / (count - 1):.9g}" for side, count in zip(SIZE, COUNTS, strict=True))}" mass="0.25"
    radius="0.002" rgba="0.55 0.55 0.58 1">
    <elasticity young="4e3" poisson="0.3" damping="1e-2"/>
    <contact selfcollide="none" condim="3" friction="0.5" solref="0.01 1" priority="1"/>
  </flexcomp>
</body></worldbody></mujoco>"""


class PushBlock(Task):
    """A task without a cue: the block must be pushed onto the mark."""

    name = "push"
    description = "push the soft block onto the mark with the right hand"
    mobile = False
    max_cue_values = 1
    horizon = 400
    stages = (("push", "on_the_mark"),)
    visual_only = False
    tables = ("table",)
    decoy_half = (0.02, 0.02, 0.02)
    near, aligned = 0.02, 0.25  # m, rad

    def __init__(self) -> None:
        super().__init__(cue_values=1)

    def build(self, spec: mujoco.MjSpec) -> None:
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_DISCRETE  # the others cannot step stiff elements at 5 ms
        world = spec.worldbody
        add_box(world, "table", (0.30, 0.55, 0.02), (0.47, 0, TABLE - 0.02), (1, 1, 1, 1), material="table_0")
        mark = (SIZE[0] / 2, SIZE[1] / 2, 0.0005)
        add_box(world, "goal", mark, (*MIDDLE, TABLE + 0.0006), (0.3, 0.75, 0.4, 1), solid=False)
        spec.attach(mujoco.MjSpec.from_string(BLOCK), prefix="block_", frame=world.add_frame())

    def distractor_places(self) -> np.ndarray:
        return np.array([[[0.64, 0.1, TABLE + 0.03], [0.74, 0.5, TABLE + 0.03]]])

    def randomise(self, model: mujoco.MjModel, data: mujoco.MjData, factors: Factors) -> Layout:
        heading = factors.uniform(-np.pi, np.pi)
        way = factors.uniform(0.10, 0.14) * np.array([np.cos(heading), np.sin(heading)])
        middle = MIDDLE + factors.uniform(-0.015, 0.015, 2)
        goal, place = middle + way / 2, middle - way / 2
        goal_angle = float(factors.uniform(-np.pi, np.pi))
        angle = goal_angle + float(factors.uniform(-0.4, 0.4))
        hand = place + 0.13 * turned(-unit(way), float(factors.uniform(-1.2, 1.2)))
        body, mark = model.body("block_body"), model.geom("goal")
        body.pos[:] = *place, TABLE + SIZE[2] / 2 + 0.003
        body.quat[:] = np.cos(angle / 2), 0, 0, np.sin(angle / 2)
        mark.pos[:2] = goal
        mark.quat[:] = np.cos(goal_angle / 2), 0, 0, np.sin(goal_angle / 2)
        model.flex_rgba[0, :3] = factors.uniform((0.6, 0.3, 0.2), (0.9, 0.5, 0.5))  # never the mark's green
        self.goal = GoalPose(goal, goal_angle, offset=0.025)
        return {"hand": hand}

    def apply_cue(self, model: mujoco.MjModel, data: mujoco.MjData, layout: Layout, cue: int) -> None:
        pass  # there is none

    def pose(self, data: mujoco.MjData) -> tuple[np.ndarray, np.ndarray, float]:
        """Centre (2,) of the block, its points around it (P, 2), m, and its angle, rad."""
        points = data.flexvert_xpos[:, :2]
        centre = points.mean(0)
        shares = np.full(len(points), 1 / len(points))
        return centre, points - centre, turned_by(points - centre, REST, shares)

    def check(self, model: mujoco.MjModel, data: mujoco.MjData, layout: Layout, progress: Progress) -> None:
        centre, _, angle = self.pose(data)
        distance, missing = self.goal.errors(centre, angle)
        progress.reach("on_the_mark", distance < self.near and abs(missing) < self.aligned)
        progress.over = progress.success or bool(data.flexvert_xpos[:, 2].max() < TABLE)  # or fallen down


class PushSoftArmEnv(DelayedEvidenceEnv):
    """Push the block onto the pose that is drawn on the table: within 2 cm and 0.25 rad.

    Robot, cameras, state and action are those of the delayed-evidence tasks.

    Args:
        image_size: side of the camera images in pixels, 16 to 640.
        factors: which share of poses, lights, textures and distractors is drawn: "all", "train" or "held_out".
        render_mode: "rgb_array": `render()` returns a 480 x 640 view of the scene.
    """

    task: PushBlock
    finger_radius = 0.02  # m, of both closed fingers
    pace = 0.009  # m in a control step
    widest = float(np.linalg.norm(SIZE[:2]) / 2)

    def __init__(self, image_size: int = 64, factors: str = "all", render_mode: str | None = None) -> None:
        super().__init__(PushBlock(), image_size, factors=factors, render_mode=render_mode)

    def make_expert(self, disturbance: float = 0.0) -> "ArmPushExpert":
        return ArmPushExpert(self, disturbance)

    def start_joints(self) -> np.ndarray:
        return hand_joints(HandIK(), self.layout["hand"], iterations=40)

    # What the expert must know.

    @property
    def finger(self) -> np.ndarray:
        return self.data.site("right_grip").xpos[:2].copy()

    @property
    def centre(self) -> np.ndarray:
        return self.task.pose(self.data)[0]

    def reach(self, direction: np.ndarray) -> float:
        return reach(self.task.pose(self.data)[1], direction, self.widest)

    def clip(self, target: np.ndarray) -> np.ndarray:
        return np.clip(target, LOW, HIGH)

    def push(self) -> tuple[np.ndarray, float, float]:
        centre, _, angle = self.task.pose(self.data)
        return self.task.goal.push(centre, angle)


def hand_joints(ik: HandIK, place: np.ndarray, iterations: int = 3) -> np.ndarray:
    """Joints (2, 6) in rad that bring the right hand over a place (2,) of the table; the left one stays aside."""
    positions = np.array([[0.20, 0.36, 0.72], [*place, GRIP]])
    return ik.solve(positions, (DOWN, DOWN), iterations)


class ArmPushExpert:
    """`PushExpert`, with the hand by inverse kinematics.

    Args:
        env: just reset.
        disturbance: scale of pushes of the hand that the expert then makes good.
    """

    def __init__(self, env: PushSoftArmEnv, disturbance: float = 0.0) -> None:
        self.plan = PushExpert(env, disturbance)
        self.ik = HandIK()
        hand_joints(self.ik, env.layout["hand"], iterations=40)

    def action(self) -> ExpertAction:
        wanted = self.plan.action()
        before = self.ik.configuration.q.copy()
        label = self._action(wanted.label)
        if np.array_equal(wanted.executed, wanted.label):
            return ExpertAction(label, label)
        self.ik.configuration.update(before)  # the next solution goes on from where the hand is sent
        return ExpertAction(label, self._action(wanted.executed))

    def _action(self, place: np.ndarray) -> np.ndarray:
        action = np.zeros(17)
        joints = hand_joints(self.ik, place)
        action[3:9], action[10:16] = joints
        return np.clip(action, ACTION_LOW, ACTION_HIGH).astype(np.float32)
