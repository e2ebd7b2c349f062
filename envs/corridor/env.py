"""The small fast one: a point robot, walls, a camera, a lamp that tells which door to take much later.

    start ---- lamp ------------- shared corridor ------------- hall [door 0]
                                                                     [door 1] ...

A coloured lamp on the left wall is lit for a few frames at a random early time; its colour names the
door. Distractor lamps (square, on the right wall) light up in cue colours later. Motion and pictures
are identical for every cue outside the frames in which the lamp is lit, until the robot chooses.
"""

from typing import Any

import gymnasium
import numpy as np

from ..base import DelayedEvidenceBase, Expert, ExpertAction, Phase

COLORS = np.array([[230, 40, 40], [40, 90, 240], [40, 200, 60], [240, 200, 30]], dtype=np.uint8)  # one a cue value
SPEED = 0.04  # m a control step at full command
RADIUS = 0.06  # of the robot, m
HALF_WIDTH = 0.3  # of the corridor, m
HALL = 0.5  # length of the hall, m
ROOM = 0.3  # depth of the rooms behind the doors, m
VIEW = 0.6  # half the side of the camera's field of view, m
LAMP_X = 0.3  # m
LAMP_STEPS = 4  # frames for which a lamp is lit


class CorridorEnv(DelayedEvidenceBase):
    """Corridor with delayed evidence.

    Args:
        cue_values: number of doors and lamp colours, 2 or 4.
        delay: control steps between lamp and hall for the expert, >= 10.
        distractors: number of distractor lamps.
        image_size: side of the camera image in pixels, 32 to 64.
        camera_period: control steps between camera frames; in between the last frame is repeated.
    Raises:
        ValueError: an argument is out of range.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    state_names = ("x", "y")
    action_names = ("vx", "vy")
    state_units = ("m", "m")
    action_units = ("0.4 m/s", "0.4 m/s")  # SPEED at full command, 10 Hz

    def __init__(
        self,
        cue_values: int = 2,
        delay: int = 60,
        distractors: int = 1,
        image_size: int = 32,
        camera_period: int = 1,
        render_mode: str | None = None,
    ) -> None:
        if cue_values not in (2, 4):
            raise ValueError(f"cue_values must be 2 or 4, got {cue_values}")
        if delay < 10:
            raise ValueError(f"delay must be at least 10 control steps, got {delay}")
        if not 32 <= image_size <= 64:
            raise ValueError(f"image_size must be in 32..64, got {image_size}")
        if camera_period < 1:
            raise ValueError(f"camera_period must be at least 1, got {camera_period}")
        self.cue_values, self.delay, self.distractors = cue_values, delay, distractors
        self.image_size, self.camera_period, self.render_mode = image_size, camera_period, render_mode
        self.length = LAMP_X + delay * SPEED  # where the hall begins
        self.doors = (np.arange(cue_values) - (cue_values - 1) / 2) * 0.5  # y of each door
        self.hall_half = float(self.doors[-1]) + 0.25
        self.horizon = delay + 60
        self.task_description = "go through the door whose colour the lamp showed"
        self.action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        self.observation_space = gymnasium.spaces.Dict(
            {
                "pixels": gymnasium.spaces.Dict(
                    {"top": gymnasium.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)}
                ),
                "agent_pos": gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32),
            }
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        rng = self.np_random
        self.position = np.array([rng.uniform(-0.25, -0.15), rng.uniform(-0.1, 0.1)])
        self.lamp_on = int(rng.integers(2, 12))
        self.distractor_x = rng.uniform(LAMP_X + 0.5, max(self.length - 0.5, LAMP_X + 0.6), self.distractors)
        self.distractor_on = rng.integers(20, max(self.delay, 21), self.distractors)
        self.distractor_color = rng.integers(self.cue_values, size=self.distractors)
        self.floor = rng.uniform(90, 150, 3)
        self.wall = rng.uniform(20, 70, 3)
        self.expert_seed = int(rng.integers(2**31))
        self.cue = self._draw_cue(options)
        self.steps, self.branch_correct, self.in_hall = 0, -1, False
        self.frame = self._render_frame()
        return self._observation(), self._info()

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (2,) or not np.isfinite(action).all():
            raise ValueError(f"action must be 2 finite numbers, got {action}")
        move = np.clip(action, -1, 1) * SPEED
        for axis in (0, 1):  # slide along walls
            target = self.position.copy()
            target[axis] += move[axis]
            if self._free(target):
                self.position = target
        self.steps += 1
        if self.steps % self.camera_period == 0:
            self.frame = self._render_frame()
        self.in_hall = self.in_hall or self.position[0] >= self.length
        if self.position[0] > self.length + HALL + RADIUS:  # behind a door
            door = int(np.abs(self.doors - self.position[1]).argmin())
            self.branch_correct = int(door == self.cue)
        done = self.branch_correct >= 0
        info = self._info()
        return self._observation(), float(info["is_success"]), done, not done and self.steps >= self.horizon, info

    def render(self) -> np.ndarray:
        return self.frame

    def make_expert(self, disturbance: float = 0.0) -> Expert:
        return CorridorExpert(self, disturbance)

    def _free(self, position: np.ndarray) -> bool:
        x, y = position
        if x < -0.4 + RADIUS:
            return False
        if x <= self.length + RADIUS and abs(y) <= HALF_WIDTH - RADIUS:
            return True
        if self.length + RADIUS <= x <= self.length + HALL - RADIUS and abs(y) <= self.hall_half - RADIUS:
            return True
        in_room = self.length + HALL - 2 * RADIUS <= x <= self.length + HALL + ROOM - RADIUS
        return bool(in_room and (np.abs(self.doors - y) <= 0.18 - RADIUS).any())

    def _lit(self, start: int) -> bool:
        return start <= self.steps < start + LAMP_STEPS

    def _render_frame(self) -> np.ndarray:
        """Top view around the robot, x to the right and y up, uint8 (H, W, 3)."""
        offset = (np.arange(self.image_size) + 0.5) / self.image_size * 2 * VIEW - VIEW
        x = self.position[0] + offset[None, :]
        y = self.position[1] - offset[:, None]
        hall_end = self.length + HALL
        free = (np.abs(y) <= HALF_WIDTH) & (x >= -0.4) & (x <= self.length)
        free |= (np.abs(y) <= self.hall_half) & (x >= self.length) & (x <= hall_end)
        for door in self.doors:
            free |= (np.abs(y - door) <= 0.18) & (x >= hall_end) & (x <= hall_end + ROOM)
        checker = ((np.floor(x / 0.2) + np.floor(y / 0.2)) % 2)[..., None] * 14
        image = np.where(free[..., None], self.floor + checker, self.wall)
        for start, color, near, square in self._lamps():
            shape = np.maximum(abs(x - near), abs(y + HALF_WIDTH)) if square else np.hypot(x - near, y - HALF_WIDTH)
            image = np.where((shape <= 0.11)[..., None], COLORS[color] if self._lit(start) else 128, image)
        image = np.where((np.hypot(x - self.position[0], y - self.position[1]) <= RADIUS)[..., None], 255, image)
        return image.astype(np.uint8)

    def _lamps(self) -> list[tuple[int, int, float, bool]]:
        lamps = [(self.lamp_on, self.cue, LAMP_X, False)]
        for on, color, x in zip(self.distractor_on, self.distractor_color, self.distractor_x, strict=True):
            lamps.append((int(on), int(color), float(x), True))
        return lamps

    def _observation(self) -> dict[str, Any]:
        return {"pixels": {"top": self.frame.copy()}, "agent_pos": self.position.astype(np.float32)}

    def _info(self) -> dict[str, Any]:
        success = self.branch_correct == 1
        stage = int(self.in_hall) + int(success)
        phase = Phase.BRANCH if self.in_hall else Phase.SHARED
        if not self.in_hall and self.steps < self.lamp_on + LAMP_STEPS:
            phase = Phase.CUE if self._lit(self.lamp_on) else Phase.BEFORE_CUE
        return {
            "stage": stage,
            "progress": stage / 2,
            "is_success": success,
            "branch_correct": self.branch_correct,
            "phase": int(phase),
            "cue": self.cue,
        }


class CorridorExpert:
    """Follows the centre line, then heads for the door of the cue; lateral pushes are recovered from."""

    def __init__(self, env: CorridorEnv, disturbance: float) -> None:
        self.env, self.disturbance = env, disturbance
        self.rng = np.random.default_rng(env.expert_seed)
        self.push = np.zeros(2)

    def action(self) -> ExpertAction:
        env = self.env
        _, y = env.position
        if not env.in_hall:
            label = np.array([1.0, np.clip(-y / (6 * SPEED), -1, 1)])
        else:
            door = env.doors[env.cue]
            ahead = 1.0 if abs(door - y) < 0.1 else 0.4
            label = np.array([ahead, np.clip((door - y) / SPEED, -1, 1)])
        if self.rng.random() < 0.05:
            self.push = self.rng.normal(0, 0.3 * self.disturbance, 2)
        self.push *= 0.8
        return ExpertAction(label.astype(np.float32), np.clip(label + self.push, -1, 1).astype(np.float32))
