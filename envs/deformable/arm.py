"""The right arm of the delayed-evidence robot pushes a soft block over a table, in 3D.

The robot is MuJoCo's, the block a simulator's (`backend`): the ground truth, MuJoCo flex, or a learned one. The hand
holds a ball, which pushes the block and is not held up by it; the block lies on the table under gravity and slides with
drag. Its centre and its angle are those of its points seen from above. Cameras see the same mesh, placed by the state.
"""

from typing import Any

import mujoco
import numpy as np

from sims.scenes import PUSHER_RADIUS, TABLE_GRAVITY
from sims.shapes import Mesh, grid, make_mesh
from sims.state import CONTACT_RADIUS, VERSION, Body, Pusher, Scene, Wall

from ..base import ExpertAction
from ..delayed_evidence.env import DelayedEvidenceEnv
from ..delayed_evidence.expert import DOWN, HandIK
from ..delayed_evidence.robot import ACTION_HIGH, ACTION_LOW
from ..delayed_evidence.scene import Factors, add_box
from ..delayed_evidence.tasks import Layout, Progress, Task
from .env import DRAG, YOUNG
from .expert import REVISION, GoalPose, PushExpert, reach, turned, turned_by, unit
from .world import SoftWorld

TABLE = 0.40  # height of the table top, m
TABLE_HALF, TABLE_MIDDLE = np.array([0.30, 0.55]), np.array([0.47, 0.0])  # m
SIZE = np.array([0.12, 0.085, 0.085])  # of the block, m
GRIP = TABLE + SIZE[2] / 2  # height of the hand while it pushes, m
MIDDLE = np.array([0.40, -0.17])  # of the part of the table that is used
LOW, HIGH = MIDDLE - (0.21, 0.25), MIDDLE + (0.21, 0.25)  # where the hand may go
CELLS = (3, 2, 2)  # of the block along its sides


def block() -> Mesh:
    """The block at rest."""
    points, elements = grid(CELLS)
    return make_mesh(points * SIZE / 2, elements)


def shown(mesh: Mesh) -> str:
    """MJCF of a mesh that is only seen, as a flex whose points are put where they belong."""
    return f"""<mujoco><worldbody><body name="body">
      <flexcomp name="flex" type="direct" dim="3" mass="1" radius="0.001" rigid="true" rgba="0.55 0.55 0.58 1"
        point="{" ".join(f"{value:.9g}" for value in mesh.points.ravel())}"
        element="{" ".join(map(str, mesh.elements.ravel()))}"><contact contype="0" conaffinity="0"/></flexcomp>
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
        self.mesh = block()

    def build(self, spec: mujoco.MjSpec) -> None:
        world = spec.worldbody
        half, middle = (*TABLE_HALF, 0.02), (*TABLE_MIDDLE, TABLE - 0.02)
        add_box(world, "table", half, middle, (1, 1, 1, 1), material="table_0")
        mark = (SIZE[0] / 2, SIZE[1] / 2, 0.0005)
        add_box(world, "goal", mark, (*MIDDLE, TABLE + 0.0006), (0.3, 0.75, 0.4, 1), solid=False)
        spec.attach(mujoco.MjSpec.from_string(shown(self.mesh)), prefix="block_", frame=world.add_frame())
        grip = spec.site("right_grip")
        grip.parent.add_geom(
            name="ball", type=mujoco.mjtGeom.mjGEOM_SPHERE, size=(PUSHER_RADIUS, 0, 0), pos=grip.pos, mass=0.05,
            rgba=(0.15, 0.15, 0.17, 1), contype=0, conaffinity=0,
        )  # fmt: skip

    def distractor_places(self) -> np.ndarray:
        return np.array([[[0.64, 0.1, TABLE + 0.03], [0.74, 0.5, TABLE + 0.03]]])

    def randomise(self, model: mujoco.MjModel, data: mujoco.MjData, factors: Factors) -> Layout:
        heading = factors.uniform(-np.pi, np.pi)
        way = factors.uniform(0.09, 0.13) * np.array([np.cos(heading), np.sin(heading)])
        middle = MIDDLE + factors.uniform(-0.015, 0.015, 2)
        goal, place = middle + way / 2, middle - way / 2
        goal_angle = float(factors.uniform(-np.pi, np.pi))
        angle = goal_angle + float(factors.uniform(-0.4, 0.4))
        hand = place + 0.145 * turned(-unit(way), float(factors.uniform(-1.2, 1.2)))
        mark = model.geom("goal")
        mark.pos[:2] = goal
        mark.quat[:] = np.cos(goal_angle / 2), 0, 0, np.sin(goal_angle / 2)
        model.flex_rgba[0, :3] = factors.uniform((0.6, 0.3, 0.2), (0.9, 0.5, 0.5))  # never the mark's green
        self.goal = GoalPose(goal, goal_angle, offset=0.025)
        return {"hand": hand, "block": np.array([*place, angle])}

    def apply_cue(self, model: mujoco.MjModel, data: mujoco.MjData, layout: Layout, cue: int) -> None:
        pass  # there is none

    def pose(self, data: mujoco.MjData) -> tuple[np.ndarray, np.ndarray, float]:
        """Centre (2,) of the block, its points around it (P, 2), m, and its angle, rad."""
        points, shares = data.flexvert_xpos[:, :2], self.mesh.shares
        centre = shares @ points
        return centre, points - centre, turned_by(points - centre, self.mesh.points[:, :2], shares)

    def check(self, model: mujoco.MjModel, data: mujoco.MjData, layout: Layout, progress: Progress) -> None:
        centre, _, angle = self.pose(data)
        distance, missing = self.goal.errors(centre, angle)
        progress.reach("on_the_mark", distance < self.near and abs(missing) < self.aligned)
        progress.over = progress.success or bool((np.abs(centre - TABLE_MIDDLE) > TABLE_HALF).any())  # or off it


class PushSoftArmEnv(DelayedEvidenceEnv):
    """Push the block onto the pose that is drawn on the table: within 2 cm and 0.25 rad.

    Robot, cameras, state and action are those of the delayed-evidence tasks.

    Args:
        backend, simulator, on_ood: of the block; see `SoftWorld`.
        image_size: side of the camera images in pixels, 16 to 640.
        factors: which share of poses, lights, textures and distractors is drawn: "all", "train" or "held_out".
        render_mode: "rgb_array": `render()` returns a 480 x 640 view of the scene.
    """

    task: PushBlock
    finger_radius = PUSHER_RADIUS
    pace = 0.009  # m in a control step
    widest = float(np.linalg.norm(SIZE[:2]) / 2)

    def __init__(
        self, backend: str = "mujoco", simulator: str | None = None, image_size: int = 64, on_ood: str = "truncate",
        factors: str = "all", render_mode: str | None = None,
    ) -> None:  # fmt: skip
        self.world = SoftWorld(3, backend, simulator, on_ood)
        super().__init__(PushBlock(), image_size, factors=factors, render_mode=render_mode)

    @staticmethod
    def demonstrations_version(options: dict[str, Any]) -> int:
        """Raised whenever the same seeds give other demonstrations."""
        return 10 * VERSION + REVISION

    def put_up(self) -> None:
        super().put_up()
        *place, angle = self.layout["block"]
        turn = np.eye(3)
        turn[:2, :2] = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        height = TABLE + SIZE[2] / 2 + CONTACT_RADIUS + 1e-4
        body = Body(self.task.mesh, np.array([*place, height]), turn, np.zeros(3), np.zeros(3), YOUNG)
        ball = Pusher(PUSHER_RADIUS, self.grip, np.zeros(3))
        table = Wall(np.array([0.0, 0, 1]), TABLE)
        self.world.reset(Scene((body,), (ball,), (table,), np.array([0, 0, TABLE_GRAVITY]), DRAG))
        self.data.flexvert_xpos[:] = self.world.body

    def advance(self) -> str:
        reason = super().advance()
        if not reason:
            reason = self.world.step((self.grip - self.world.pusher) / self.control_dt, self.control_dt)
            self.data.flexvert_xpos[:] = self.world.body
        return reason

    def make_expert(self, disturbance: float = 0.0) -> "ArmPushExpert":
        return ArmPushExpert(self, disturbance)

    def start_joints(self) -> np.ndarray:
        return hand_joints(HandIK(), self.layout["hand"], iterations=40)

    # What the expert must know.

    @property
    def grip(self) -> np.ndarray:
        """Where the ball is, (3,), m."""
        return self.data.site("right_grip").xpos.copy()

    @property
    def finger(self) -> np.ndarray:
        return self.grip[:2]

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
