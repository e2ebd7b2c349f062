"""Gymnasium environment of the delayed-evidence tasks."""

from typing import Any

import gymnasium
import mujoco
import numpy as np

from ..base import DelayedEvidenceBase, Expert, Phase, new_renderer
from .expert import ScriptedExpert
from .robot import ACTION_HIGH, ACTION_LOW, CAMERAS, CHANNELS, FINGER_OPEN, UNITS, RobotIndex, add_robot
from .scene import DISTRACTORS, Factors, add_decoys, add_distractors, new_spec, randomise_looks
from .tasks import TASKS, Progress, Task
from .viewpoints import LOOKS

BROKEN = (mujoco.mjtWarning.mjWARN_BADQPOS, mujoco.mjtWarning.mjWARN_BADQVEL, mujoco.mjtWarning.mjWARN_BADQACC)
DECOYS_WITHIN, DECOY_STEPS = 100, 20  # control steps: latest coming after the cue, at delay 1, and staying
SEGMENTED = 128  # px, side of the pictures in which it is counted how much of a thing is seen


class DelayedEvidenceEnv(DelayedEvidenceBase):
    """A bimanual mobile manipulator with three cameras, at 20 Hz.

    Should the physics diverge, the episode is truncated and `info["ood"]` says so.

    Args:
        task: one of `tasks.TASKS`, or a task itself.
        image_size: side of the camera images in pixels, 16 to 640.
        cue_values: number of cue values, 2 to the task's `max_cue_values`.
        delay: the expert takes so many times as long from cue to branch, 1 to 4; a policy sets its own pace.
        late: the expert begins slower, so that the cue leaves view up to so many control steps later, at random.
        decoys: number of things in the look of the cue that stand around for a second between cue and branch.
        look: how the expert of an active task finds the cue, one of `viewpoints.LOOKS`: "graph" (shortest ways of the
            view graph of random walks), "oracle", "hindsight", "random", "sweep", "fixed" (not at all).
        factors: which share of poses, lights, textures and distractors is drawn: "all", "train" or "held_out".
        camera_period: control steps between camera frames; in between the last frame is repeated.
        render_mode: "rgb_array": `render()` returns a 480 x 640 view of the scene.
    Raises:
        ValueError: an argument is out of range.
        RenderingError: no offscreen OpenGL context can be made.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}
    state_names = CHANNELS
    action_names = CHANNELS
    state_units = UNITS
    action_units = UNITS
    substeps = 10
    control_dt = 0.05

    def __init__(
        self,
        task: str | Task = "medicine",
        image_size: int = 64,
        cue_values: int = 2,
        delay: float = 1.0,
        late: int = 0,
        decoys: int = 0,
        look: str = "oracle",
        factors: str = "all",
        camera_period: int = 1,
        render_mode: str | None = None,
    ) -> None:
        if isinstance(task, str) and task not in TASKS:
            raise ValueError(f"unknown task {task!r}; known tasks are {sorted(TASKS)}")
        if not 16 <= image_size <= 640:
            raise ValueError(f"image_size must be in 16..640, got {image_size}")
        if camera_period < 1:
            raise ValueError(f"camera_period must be at least 1, got {camera_period}")
        if not 1 <= delay <= 4:
            raise ValueError(f"delay must be in 1..4, got {delay}")
        if late < 0 or decoys < 0:
            raise ValueError(f"late and decoys must not be negative, got {late} and {decoys}")
        if factors not in Factors.SHARES:
            raise ValueError(f"factors must be one of {Factors.SHARES}, got {factors!r}")
        if look not in LOOKS:
            raise ValueError(f"look must be one of {', '.join(LOOKS)}, got {look!r}")
        self.task = TASKS[task](cue_values) if isinstance(task, str) else task
        if late and self.task.goes_astray:
            raise ValueError(f"late={late} delays what {self.task.name} has not: its cue leaves view when it was found")
        self.task.look, self.goes_astray = look, self.task.goes_astray
        self.delay, self.late, self.factors = delay, late, factors
        self.image_size, self.camera_period, self.render_mode = image_size, camera_period, render_mode
        self.cue_values, self.horizon = self.task.cue_values, round(self.task.horizon * delay) + late
        self.task_description = self.task.description
        spec = new_spec((image_size, image_size))
        add_robot(spec, self.task.mobile)
        self.task.build(spec)
        add_distractors(spec)
        add_decoys(spec, decoys, self.task.decoy_half)
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)
        self.robot = RobotIndex(self.model, self.task.mobile)
        self.renderers: dict[tuple[int, int, bool], mujoco.Renderer] = {}  # by size and whether they segment
        self.task.share_in_view = self.share_in_view
        low, high = ACTION_LOW.copy(), ACTION_HIGH.copy()
        if not self.task.mobile:
            low[:3], high[:3] = 0, 0
        self.action_low, self.action_high = low, high
        self.action_space = gymnasium.spaces.Box(low, high, dtype=np.float32)
        image = gymnasium.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self.observation_space = gymnasium.spaces.Dict(
            {
                "pixels": gymnasium.spaces.Dict(dict.fromkeys(CAMERAS, image)),
                "agent_pos": gymnasium.spaces.Box(-np.inf, np.inf, (17,), np.float32),
            }
        )

    @staticmethod
    def demonstrations_version(options: dict[str, Any]) -> int:
        """Raised whenever the same seeds give other demonstrations, so that old ones are not used again."""
        task = TASKS.get(options.get("task", ""))
        seen = bool(task and task.decoys_ahead and options.get("decoys"))  # in the first version, no camera saw them
        return task.version + seen if task else 1

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        rng = self.np_random
        mujoco.mj_resetData(self.model, self.data)
        factors = Factors(rng, self.factors)
        self.layout = self.task.randomise(self.model, self.data, factors)
        places = self.task.distractor_places()
        randomise_looks(self.model, self.data, factors, list(self.task.tables), places)
        self.expert_seed = int(rng.integers(2**31))
        self.cue = self._draw_cue(options)
        self.late_steps = int(rng.integers(self.late + 1))
        decoy_places = self.task.decoy_places()
        self.decoys = []  # when each comes, in control steps after the cue, and where
        for number in range(self.model.nmocap - DISTRACTORS):
            decoy, colors = self.model.geom(f"decoy_{number}"), self.task.decoy_colors
            decoy.rgba = (*colors[rng.integers(len(colors))][:3], 0)
            place = factors.uniform(*decoy_places[rng.integers(len(decoy_places))])
            self.decoys.append((int(rng.integers(round(DECOYS_WITHIN * self.delay))), place))
        self.task.apply_cue(self.model, self.data, self.layout, self.cue)
        self.steps, self.cue_over_at, self.ood_reason = 0, 0, ""
        base = self.layout.get("base", np.zeros(3))
        self.robot.place(self.data, base, self.start_joints(), FINGER_OPEN)
        self.put_up()
        self.progress = Progress(self.task, self.cue)
        self.task.check(self.model, self.data, self.layout, self.progress)
        self.frames = self._render_cameras()
        return self._observation(), self._info()

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (17,) or not np.isfinite(action).all():
            raise ValueError(f"action must be 17 finite numbers, got {action}")
        self.robot.command(self.data, np.clip(action, self.action_low, self.action_high))
        self.ood_reason = self.advance()
        self.steps += 1
        if not self.ood_reason:  # what comes of such a state does not count
            self.task.check(self.model, self.data, self.layout, self.progress)
        self._show_decoys()
        if self.steps % self.camera_period == 0:
            self.frames = self._render_cameras()
        info = self._info()
        terminated = self.progress.over and not self.ood_reason
        truncated = not terminated and (self.steps >= self.horizon or bool(self.ood_reason))
        return self._observation(), float(self.progress.success), terminated, truncated, info

    def put_up(self) -> None:
        """Everything that follows from where things are, at the start of an episode."""
        mujoco.mj_forward(self.model, self.data)

    def advance(self) -> str:
        """The physics of a control step; in words, how it left the range in which it is valid."""
        mujoco.mj_step(self.model, self.data, self.substeps)
        mujoco.mj_forward(self.model, self.data)
        # The engine begins anew after these.
        return ", ".join(kind.name for kind in BROKEN if self.data.warning[int(kind)].number)

    def render(self) -> np.ndarray:
        camera = mujoco.MjvCamera()
        camera.lookat[:] = (*(self.robot.base_pose(self.data)[:2] + (0.45, 0)), 0.5)
        camera.distance, camera.azimuth, camera.elevation = 1.9, 140, -35
        return self._render(480, 640, camera)

    def close(self) -> None:
        for renderer in self.renderers.values():
            renderer.close()
        self.renderers.clear()

    def share_in_view(self, data: mujoco.MjData, camera: str, geom: str) -> float:
        """Share of a camera's picture that a geom fills, in a segmentation of one size, whatever the pictures have."""
        renderer = self._renderer(SEGMENTED, SEGMENTED, segmenting=True)
        renderer.update_scene(data, camera)
        wanted = self.model.geom(geom).id, int(mujoco.mjtObj.mjOBJ_GEOM)
        return float((renderer.render() == wanted).all(-1).mean())

    def make_expert(self, disturbance: float = 0.0) -> Expert:
        return ScriptedExpert(self, disturbance)

    def start_joints(self) -> np.ndarray:
        """Joints (2, 6) at the start of an episode, rad."""
        return ScriptedExpert(self, 0.0).start_joints()

    def scene_geometry(self) -> list[dict[str, Any]]:
        kinds = {
            mujoco.mjtGeom.mjGEOM_BOX: "box",
            mujoco.mjtGeom.mjGEOM_SPHERE: "sphere",
            mujoco.mjtGeom.mjGEOM_CAPSULE: "capsule",
            mujoco.mjtGeom.mjGEOM_CYLINDER: "cylinder",
        }
        shapes = []
        for number in range(self.model.ngeom):
            kind = kinds.get(mujoco.mjtGeom(self.model.geom_type[number]))
            if kind is None:  # the floor
                continue
            quaternion = np.zeros(4)
            mujoco.mju_mat2Quat(quaternion, self.data.geom_xmat[number])
            shapes.append(
                {
                    "name": self.model.geom(number).name
                    or f"{self.model.body(self.model.geom_bodyid[number]).name}_{number}",
                    "kind": kind,
                    "size": self.model.geom_size[number].copy(),
                    "rgba": self.model.geom_rgba[number].copy(),
                    "position": self.data.geom_xpos[number].copy(),
                    "quaternion": quaternion,
                }
            )
        model = self.model
        for number in range(model.nflex):  # cloth: its triangles; solids: those of their surface
            first, count = model.flex_vertadr[number], model.flex_vertnum[number]
            start, triangles, corners = model.flex_elemdataadr[number], model.flex_elemnum[number], model.flex_elem
            if model.flex_dim[number] == 3:
                start, triangles = model.flex_shelldataadr[number], model.flex_shellnum[number]
                corners = model.flex_shell
            shapes.append(
                {
                    "name": f"soft_{number}",
                    "kind": "mesh",
                    "rgba": model.flex_rgba[number].copy(),
                    "vertices": self.data.flexvert_xpos[first : first + count].copy(),
                    "faces": corners[start : start + 3 * triangles].reshape(-1, 3).copy(),
                }
            )
        return shapes

    def _show_decoys(self) -> None:
        if not self.progress.cue_over:
            self.cue_over_at = self.steps
        since = self.steps - self.cue_over_at
        for number, (start, place) in enumerate(self.decoys):
            shown = self.progress.cue_over and start <= since < start + DECOY_STEPS
            self.model.geom(f"decoy_{number}").rgba[3] = float(shown)
            if self.progress.cue_over and since == start:
                ahead = [*self.robot.base_pose(self.data)[:2], 0] if self.task.decoys_ahead else np.zeros(3)
                self.data.mocap_pos[self.model.body(f"decoy_{number}").mocapid[0]] = place + ahead
                mujoco.mj_kinematics(self.model, self.data)

    def _renderer(self, height: int, width: int, segmenting: bool = False) -> mujoco.Renderer:
        key = height, width, segmenting
        if key not in self.renderers:
            self.renderers[key] = new_renderer(self.model, height, width)
            if segmenting:
                self.renderers[key].enable_segmentation_rendering()
        return self.renderers[key]

    def _render(self, height: int, width: int, camera: str | mujoco.MjvCamera) -> np.ndarray:
        renderer = self._renderer(height, width)
        renderer.update_scene(self.data, camera)
        return renderer.render()

    def _render_cameras(self) -> dict[str, np.ndarray]:
        return {name: self._render(self.image_size, self.image_size, name) for name in CAMERAS}

    def _observation(self) -> dict[str, Any]:
        pixels = {name: frame.copy() for name, frame in self.frames.items()}
        return {"pixels": pixels, "agent_pos": self.robot.state(self.data)}

    def _info(self) -> dict[str, Any]:
        progress = self.progress
        phase = Phase.BEFORE_CUE
        if progress.at_branch:
            phase = Phase.BRANCH
        elif progress.cue_over:
            phase = Phase.SHARED
        elif progress.cue_seen or progress.glimpsed:
            phase = Phase.CUE
        return {
            "stage": progress.stage,
            "progress": progress.fraction(),
            "is_success": progress.success,
            "branch_correct": -1 if progress.choice < 0 else int(progress.choice == self.cue),
            "phase": int(phase),
            "cue_seen": progress.cue_seen,
            "ood": bool(self.ood_reason),
            "ood_reason": self.ood_reason,
            "cue": self.cue,
        }
