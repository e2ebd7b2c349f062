"""The small fast one: a point robot, walls, a camera, a lamp that tells which door to take much later.

    start ---- lamp ------------- shared corridor ------------- hall [door 0]
                                                                     [door 1] ...

A coloured lamp on the left wall is lit for a few frames at a random early time; its colour names the
door. Distractor lamps (square, on the right wall) light up in cue colours later. Motion and pictures
are identical for every cue outside the frames in which the lamp is lit, until the robot chooses.

With more branches more lamps follow the first, and behind the doors of a hall the ways join again: the second lamp's
colour names the door of a second hall, a second corridor later, and so on. A memory must keep all of them.
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
DOOR_HALF = 0.18  # half the width of a door and its room, m
VIEW = 0.6  # half the side of the camera's field of view, m
LAMP_X = 0.3  # m
LAMP_GAP = 0.4  # m between lamps
LONGEST = 5000  # control steps of a delay
LAMP_STEPS = 4  # frames for which a lamp is lit
MOST_BRANCHES = 4


class CorridorEnv(DelayedEvidenceBase):
    """Corridor with delayed evidence.

    Args:
        cue_values: number of doors and lamp colours, 2 or 4.
        delay: control steps between the first lamp and the first hall for the expert, >= 10, and >= 12 branches - 9, so
            that all lamps are out by then; later corridors are as long.
        branches: lamps and halls, 1 to 4; the cue of an episode counts all combinations of their colours.
        distractors: number of distractor lamps in the first corridor, each lit for a moment somewhere and some time,
            so that the longer it is the fewer of them are seen: two of three at a delay of 60, one of four at 120.
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
        branches: int = 1,
        distractors: int = 1,
        image_size: int = 32,
        camera_period: int = 1,
        render_mode: str | None = None,
    ) -> None:
        if cue_values not in (2, 4):
            raise ValueError(f"cue_values must be 2 or 4, got {cue_values}")
        if not 1 <= branches <= MOST_BRANCHES:
            raise ValueError(f"branches must be in 1..{MOST_BRANCHES}, got {branches}")
        shortest = max(10, 12 * branches - 9)  # all lamps are out before the hall
        if not shortest <= delay <= LONGEST:
            raise ValueError(f"delay must be in {shortest}..{LONGEST} control steps, got {delay}")
        if distractors < 0:
            raise ValueError(f"distractors must not be negative, got {distractors}")
        if not 32 <= image_size <= 64:
            raise ValueError(f"image_size must be in 32..64, got {image_size}")
        if camera_period < 1:
            raise ValueError(f"camera_period must be at least 1, got {camera_period}")
        self.colors, self.cue_values = cue_values, cue_values**branches
        self.delay, self.branches, self.distractors = delay, branches, distractors
        self.image_size, self.camera_period, self.render_mode = image_size, camera_period, render_mode
        self.doors = (np.arange(cue_values) - (cue_values - 1) / 2) * 0.5  # y of each door
        self.horizon = branches * (delay + 60)
        self._build()
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

    def _build(self) -> None:
        """Free areas (x0, x1, y0, y1), and the parts of them that the robot's centre can be in."""
        wide = float(self.doors[-1]) + 0.25  # half the width of a hall
        self.halls: list[float] = []  # x where each begins
        self.areas: list[tuple[float, float, float, float]] = []
        self.reach: list[tuple[float, float, float, float]] = []
        begin, back = -0.4, RADIUS  # of a corridor, and how near to that the robot gets
        for branch in range(self.branches):
            end = (LAMP_X if branch == 0 else begin) + self.delay * SPEED
            behind = end + HALL
            last = branch == self.branches - 1
            self.halls.append(end)
            self.areas += [(begin, end, -HALF_WIDTH, HALF_WIDTH), (end, behind, -wide, wide)]
            narrow = HALF_WIDTH - RADIUS
            self.reach.append((begin + back, end + RADIUS, -narrow, narrow))
            self.reach.append((end + RADIUS, behind - RADIUS, RADIUS - wide, wide - RADIUS))
            for y in self.doors:
                self.areas.append((behind, behind + ROOM, y - DOOR_HALF, y + DOOR_HALF))
                out = behind + ROOM + (-RADIUS if last else 2 * RADIUS)
                self.reach.append((behind - 2 * RADIUS, out, y - DOOR_HALF + RADIUS, y + DOOR_HALF - RADIUS))
            if not last:  # where the ways join
                join = behind + ROOM
                begin, back = join + HALL, -2 * RADIUS
                self.areas.append((join, begin, -wide, wide))
                self.reach.append((join + RADIUS, begin - RADIUS, RADIUS - wide, wide - RADIUS))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        rng = self.np_random
        self.position = np.array([rng.uniform(-0.25, -0.15), rng.uniform(-0.1, 0.1)])
        self.lamps_on = [int(rng.integers(2, 12))]
        self.distractor_x = rng.uniform(LAMP_X + 0.5, max(self.halls[0] - 0.5, LAMP_X + 0.6), self.distractors)
        self.distractor_on = rng.integers(20, max(self.delay, 21), self.distractors)
        self.distractor_color = rng.integers(self.colors, size=self.distractors)
        self.floor = rng.uniform(90, 150, 3)
        self.wall = rng.uniform(20, 70, 3)
        self.expert_seed = int(rng.integers(2**31))
        self.cue = self._draw_cue(options)
        for number in range(1, self.branches):
            self.lamps_on.append(self.lamps_on[number - 1] + int(rng.integers(8, 13)))
        self.answers = list(np.unravel_index(self.cue, [self.colors] * self.branches))  # the door of each hall
        self.steps, self.branch_correct, self.halls_reached = 0, -1, 0
        self.chosen: list[int] = []  # doors gone through
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
        number = self.hall
        if self.position[0] >= self.halls[number]:
            self.halls_reached = number + 1
        if self.position[0] > self.halls[number] + HALL + RADIUS:  # behind a door
            self.chosen.append(int(np.abs(self.doors - self.position[1]).argmin()))
            if self.chosen != self.answers[: len(self.chosen)]:
                self.branch_correct = 0  # also when it never comes to the next one
            elif len(self.chosen) == self.branches:
                self.branch_correct = 1
        done = len(self.chosen) == self.branches
        info = self._info()
        return self._observation(), float(info["is_success"]), done, not done and self.steps >= self.horizon, info

    def render(self) -> np.ndarray:
        return self.frame

    def make_expert(self, disturbance: float = 0.0) -> Expert:
        return CorridorExpert(self, disturbance)

    def _free(self, position: np.ndarray) -> bool:
        x, y = position
        return any(x0 <= x <= x1 and y0 <= y <= y1 for x0, x1, y0, y1 in self.reach)

    @property
    def hall(self) -> int:
        """Number of the hall that comes next or that the robot is in."""
        return min(len(self.chosen), self.branches - 1)

    @property
    def in_hall(self) -> bool:
        return self.halls_reached > self.hall

    def _lit(self, start: int) -> bool:
        return start <= self.steps < start + LAMP_STEPS

    def _render_frame(self) -> np.ndarray:
        """Top view around the robot, x to the right and y up, uint8 (H, W, 3)."""
        offset = (np.arange(self.image_size) + 0.5) / self.image_size * 2 * VIEW - VIEW
        x = self.position[0] + offset[None, :]
        y = self.position[1] - offset[:, None]
        free = np.zeros(np.broadcast_shapes(x.shape, y.shape), bool)
        for x0, x1, y0, y1 in self.areas:
            free |= (x0 <= x) & (x <= x1) & (y0 <= y) & (y <= y1)
        checker = ((np.floor(x / 0.2) + np.floor(y / 0.2)) % 2)[..., None] * 14
        image = np.where(free[..., None], self.floor + checker, self.wall)
        for start, color, near, square in self._lamps():
            shape = np.maximum(abs(x - near), abs(y + HALF_WIDTH)) if square else np.hypot(x - near, y - HALF_WIDTH)
            image = np.where((shape <= 0.11)[..., None], COLORS[color] if self._lit(start) else 128, image)
        image = np.where((np.hypot(x - self.position[0], y - self.position[1]) <= RADIUS)[..., None], 255, image)
        return image.astype(np.uint8)

    def _lamps(self) -> list[tuple[int, int, float, bool]]:
        lamps = [
            (on, int(answer), LAMP_X + number * LAMP_GAP, False)
            for number, (on, answer) in enumerate(zip(self.lamps_on, self.answers, strict=True))
        ]
        for on, color, x in zip(self.distractor_on, self.distractor_color, self.distractor_x, strict=True):
            lamps.append((int(on), int(color), float(x), True))
        return lamps

    def _observation(self) -> dict[str, Any]:
        return {"pixels": {"top": self.frame.copy()}, "agent_pos": self.position.astype(np.float32)}

    def _info(self) -> dict[str, Any]:
        stage = 0
        for number in range(self.branches):  # a hall is reached, then its right door is gone through
            stage += int(self.halls_reached > number)
            if len(self.chosen) <= number or self.chosen[number] != self.answers[number]:
                break
            stage += 1
        phase = Phase.BRANCH if self.in_hall else Phase.SHARED
        if self.steps < self.lamps_on[-1] + LAMP_STEPS:
            phase = Phase.BEFORE_CUE if self.steps < self.lamps_on[0] else Phase.CUE
        return {
            "stage": stage,
            "progress": stage / (2 * self.branches),
            "is_success": self.branch_correct == 1,
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
        x, y = env.position
        if env.chosen and x < env.halls[len(env.chosen) - 1] + HALL + ROOM:
            label = np.array([1.0, np.clip((env.doors[env.chosen[-1]] - y) / SPEED, -1, 1)])
        elif not env.in_hall:
            label = np.array([1.0, np.clip(-y / (6 * SPEED), -1, 1)])
        else:
            door = env.doors[env.answers[env.hall]]
            ahead = 1.0 if abs(door - y) < 0.1 else 0.4
            label = np.array([ahead, np.clip((door - y) / SPEED, -1, 1)])
        if self.rng.random() < 0.05:
            self.push = self.rng.normal(0, 0.3 * self.disturbance, 2)
        self.push *= 0.8
        return ExpertAction(label.astype(np.float32), np.clip(label + self.push, -1, 1).astype(np.float32))
