"""What PushSoft and SortSoft share: a finger pushes a soft body over a table, seen from above and from the finger.

The finger is kinematic, the body slides with drag. `backend` says what moves the body: the ground truth (MuJoCo flex)
or a learned simulator from a file; spaces, seeds, pictures and expert are the same.
"""

from typing import Any

import gymnasium
import numpy as np

from sims.scenes import PUSHER_RADIUS
from sims.shapes import Mesh
from sims.state import VERSION, Body, Pusher, Scene

from ..base import DelayedEvidenceBase, Expert, Phase
from .expert import REVISION, PushExpert, reach, turned_by
from .render import VIEWS, PlaneRenderer
from .world import SoftWorld

DRAG = 8.0  # 1/s
YOUNG = 6e4  # Pa
LIMIT = np.array([0.42, 0.32])  # m, how far from the middle the finger may go
FASTEST = 0.3  # m/s, of the finger


class SoftEnv(DelayedEvidenceBase):
    """Base of both tasks, at 20 Hz. An action is where the finger should be a step later, (2,), m.

    Args:
        backend: "mujoco" or "learned".
        simulator: file of a learned simulator, `simulator.pt` of a run; with backend "learned".
        image_size: side of the camera image in pixels, 16 to 640.
        on_ood: what happens when the body leaves the range that the simulator has learned (or the ground truth
            diverges): "truncate" ends the episode, "error" raises. `info["ood"]` says so either way.
        render_mode: "rgb_array": `render()` returns a 480 x 480 view.
    Raises:
        ValueError: an argument is out of range, or the file is not a simulator of two dimensions.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}
    state_names = action_names = ("finger_x", "finger_y")
    state_units = action_units = ("m", "m")
    control_dt = 0.05
    finger_radius = PUSHER_RADIUS
    cue_values = 1
    stages = 1

    @staticmethod
    def demonstrations_version(options: dict[str, Any]) -> int:
        """Raised whenever the same seeds give other demonstrations."""
        return 10 * VERSION + REVISION

    def __init__(
        self, backend: str = "mujoco", simulator: str | None = None, image_size: int = 64, on_ood: str = "truncate",
        render_mode: str | None = None,
    ) -> None:  # fmt: skip
        if not 16 <= image_size <= 640:
            raise ValueError(f"image_size must be in 16..640, got {image_size}")
        self.world = SoftWorld(2, backend, simulator, on_ood)
        self.image_size, self.render_mode = image_size, render_mode
        self.mesh = self.make_mesh()
        self.renderer = PlaneRenderer(self.mesh, self.finger_radius, self.marks())
        self.widest = float(np.linalg.norm(self.mesh.points, axis=1).max())
        self.action_low, self.action_high = -LIMIT, LIMIT
        self.action_space = gymnasium.spaces.Box(-LIMIT.astype(np.float32), LIMIT.astype(np.float32))
        image = gymnasium.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self.observation_space = gymnasium.spaces.Dict(
            {
                "pixels": gymnasium.spaces.Dict({name: image for name in VIEWS}),
                "agent_pos": gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32),
            }
        )

    # What a task adds.

    def make_mesh(self) -> Mesh:
        """The soft body."""
        raise NotImplementedError

    def marks(self) -> list[dict[str, Any]]:
        """What lies on the table; see `PlaneRenderer`."""
        raise NotImplementedError

    def randomise(self) -> tuple[np.ndarray, float, np.ndarray]:
        """Place and angle of the body and place of the finger at the start."""
        raise NotImplementedError

    def push(self) -> tuple[np.ndarray, float, float] | None:
        """How the expert should push the body now: direction, distance that is left, and by how much the contact
        should be to the left of the middle; None: not at all."""
        raise NotImplementedError

    def towards(self, goal: np.ndarray) -> tuple[np.ndarray, float, float]:
        """A push through the middle."""
        way = goal - self.centre
        distance = float(np.linalg.norm(way))
        return way / max(distance, 1e-9), distance, 0.0

    def check(self) -> None:
        """Update stage, choice, phase and whether the episode is over."""
        raise NotImplementedError

    # What they share.

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self.stage, self.branch_correct, self.over, self.success, self.ood_reason = 0, -1, False, False, ""
        self.phase, self.steps = Phase.BEFORE_CUE, 0
        place, angle, finger = self.randomise()
        self.expert_seed = int(self.np_random.integers(2**31))
        self.cue = self._draw_cue(options)
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        body = Body(self.mesh, place, rotation, np.zeros(2), np.zeros(1), YOUNG)
        pusher = Pusher(self.finger_radius, finger, np.zeros(2))
        self.world.reset(Scene((body,), (pusher,), (), np.zeros(2), DRAG))
        self.check()
        return self._observation(), self._info()

    def clip(self, target: np.ndarray) -> np.ndarray:
        """The place within reach that is nearest to a target."""
        return np.clip(target, self.action_low, self.action_high)

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (2,) or not np.isfinite(action).all():
            raise ValueError(f"action must be 2 finite numbers, got {action}")
        velocity = (self.clip(action) - self.finger) / self.control_dt
        velocity *= min(1.0, FASTEST / max(float(np.linalg.norm(velocity)), 1e-9))
        self.ood_reason = self.world.step(velocity, self.control_dt)
        self.steps += 1
        if not self.ood_reason:  # what comes of such a state does not count
            self.check()
        terminated = self.over
        truncated = not terminated and (self.steps >= self.horizon or bool(self.ood_reason))
        return self._observation(), float(self.success), terminated, truncated, self._info()

    def render(self) -> np.ndarray:
        self._show()
        return self.renderer.picture(480)

    def close(self) -> None:
        self.renderer.close()

    def make_expert(self, disturbance: float = 0.0) -> Expert:
        return PushExpert(self, disturbance)

    @property
    def pace(self) -> float:
        """How far the expert moves the finger in a step, m."""
        return 0.18 * self.control_dt

    @property
    def finger(self) -> np.ndarray:
        return self.world.pusher

    @property
    def centre(self) -> np.ndarray:
        return self.mesh.shares @ self.world.body

    @property
    def angle(self) -> float:
        """By which the body is turned, rad."""
        return turned_by(self._around(), self.mesh.points, self.mesh.shares)

    def reach(self, direction: np.ndarray) -> float:
        """From the centre to the edge of the body, m."""
        return reach(self._around(), direction, self.widest)

    def _around(self) -> np.ndarray:
        """Points of the body from its centre, (P, 2)."""
        return self.world.body - self.centre

    def scene_geometry(self) -> list[dict[str, Any]]:
        soft = self.world.body
        vertices = np.concatenate([soft, np.full((len(soft), 1), 0.02)], axis=1)
        body = {"name": "soft", "kind": "mesh", "rgba": np.array([0.55, 0.55, 0.58, 1]), "vertices": vertices}
        finger = {
            "name": "finger", "kind": "cylinder", "size": np.array([self.finger_radius, 0.03, 0]),
            "rgba": np.array([0.15, 0.15, 0.15, 1]), "position": np.array([*self.finger, 0.03]),
            "quaternion": np.array([1.0, 0, 0, 0]),
        }  # fmt: skip
        return [{**body, "faces": self.mesh.elements.copy()}, finger]

    def _show(self) -> None:
        self.renderer.place(self.world.body, self.finger)

    def _observation(self) -> dict[str, Any]:
        self._show()
        return {
            "pixels": {name: self.renderer.picture(self.image_size, name) for name in VIEWS},
            "agent_pos": self.finger.astype(np.float32),
        }

    def _info(self) -> dict[str, Any]:
        return {
            "stage": self.stage, "progress": self.stage / self.stages, "is_success": self.success,
            "branch_correct": self.branch_correct, "phase": int(self.phase), "cue": self.cue,
            "ood": bool(self.ood_reason), "ood_reason": self.ood_reason,
        }  # fmt: skip
