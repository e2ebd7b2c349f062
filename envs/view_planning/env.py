"""Gymnasium environment of interactive view planning: move a camera until it sees what the target's picture shows."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from .lattice import MOVES, Move, arrived, breadth_first, descend, differences, difficulty
from .tasks import Distances, Place

BUDGET = 20  # moves of an episode: ten turns of two
DEFAULT_ROOMS = {"train": 16, "dev": 4, "test": 8}


class ViewPlanningEnv(gymnasium.Env):
    """An action is a `Move`; the episode ends with STOP, or with a move after the 20 that are allowed. A blocked move
    stays where it is, counts, and is told.

    Observation: `pixels` with the pictures `view` and `goal`, `agent_pos` (6,): x, y, z in m, roll, pitch, yaw in
    degrees, in the frame of the room, and `blocked`: whether the last move was. The reward is 1 for a STOP within
    0.5 m and 30 degrees of the target. `info` holds `is_success`, `node`, `start`, `goal`, `difficulty`, `distance`
    (m), `angle` (degrees) and `scene`. `reset(options={"scene": i, "start": node, "goal": node})` fixes the task.

    Args:
        split: "train", "dev" or "test"; they have no room in common.
        rooms: of the split; 0: 16, 4 and 8.
        image_size: side of the pictures, 16 to 640 pixels.
        pieces: fewest and most pieces of furniture.
        moves: fewest and most moves between start and target.
        folder: where rendered views are kept; None: in memory.
        render_mode: "rgb_array": `render()` returns view and target side by side, 240 x 480.
    Raises:
        ValueError: an argument is out of range.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}
    task_description = "move the camera until its view is the target's, then stop"
    state_names = ("x", "y", "z", "roll", "pitch", "yaw")
    state_units = ("m", "m", "m", "degrees", "degrees", "degrees")
    horizon = BUDGET

    def __init__(
        self, split: str = "train", rooms: int = 0, image_size: int = 64, pieces: tuple[int, int] = (8, 20),
        moves: tuple[int, int] = Distances.moves, folder: str | None = None, render_mode: str | None = None,
    ) -> None:  # fmt: skip
        if not 16 <= image_size <= 640:
            raise ValueError(f"image_size must be in 16..640, got {image_size}")
        if rooms < 0:
            raise ValueError(f"rooms must not be negative, got {rooms}")
        if not 1 <= moves[0] <= moves[1] <= BUDGET:
            raise ValueError(f"moves must be (fewest, most) in 1..{BUDGET}, got {moves}")
        self.split, self.image_size, self.render_mode = split, image_size, render_mode
        self.pieces, self.distances = (pieces[0], pieces[1]), Distances((moves[0], moves[1]))
        self.folder = None if folder is None else Path(folder)
        self.places: dict[int, Place] = {}
        self.place_of(0)
        self.rooms = rooms or DEFAULT_ROOMS[split]
        self.action_space = gymnasium.spaces.Discrete(MOVES + 1)
        image = gymnasium.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
        self.observation_space = gymnasium.spaces.Dict(
            {
                "pixels": gymnasium.spaces.Dict({"view": image, "goal": image}),
                "agent_pos": gymnasium.spaces.Box(-np.inf, np.inf, (6,), np.float32),
                "blocked": gymnasium.spaces.Discrete(2),
            }
        )

    def place_of(self, scene: int) -> Place:
        """The room of an index, made when it is first asked for."""
        if scene not in self.places:
            self.places[scene] = Place(self.split, scene, self.image_size, self.pieces, self.folder)
        return self.places[scene]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        options = options or {}
        self.scene = int(options.get("scene", self.np_random.integers(self.rooms)))
        if not 0 <= self.scene < self.rooms:
            raise ValueError(f"scene must be in 0..{self.rooms - 1}, got {self.scene}")
        self.place = self.place_of(self.scene)
        episode = self.place.episode(self.np_random, self.distances)
        self.start, self.goal = int(options.get("start", episode.start)), int(options.get("goal", episode.goal))
        for node in (self.start, self.goal):
            self.place.room.check(node)
        fewest = int(breadth_first(self.place.table, self.start)[self.goal])
        if not 0 <= fewest <= BUDGET:
            far = "there is no way" if fewest < 0 else f"it is {fewest} moves away, {BUDGET} are allowed"
            raise ValueError(f"target {self.goal} cannot be reached from {self.start}: {far}; choose another")
        if not self.place.telling(self.goal):
            raise ValueError(f"the view of target {self.goal} is of one colour and shows nothing; choose another")
        self.moves: list[int] = []
        self.node, self.blocked, self.over, self.success = self.start, False, False, False
        return self._observation(), self._info()

    def step(self, action: int) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        if not 0 <= int(action) <= MOVES:
            raise ValueError(f"action must be in 0..{MOVES} (a Move), got {action}")
        if self.over:
            raise ValueError("the episode is over; call reset first")
        truncated, self.blocked = False, False
        if action == Move.STOP:
            self.over = True
            self.success = bool(arrived(self.place.metric[self.node], self.place.metric[self.goal]))
        elif len(self.moves) == BUDGET:
            self.over = truncated = True
        else:
            after = int(self.place.table[self.node, int(action)])
            self.blocked, self.node = after == self.node, after
            self.moves.append(int(action))
        return self._observation(), float(self.success), self.over and not truncated, truncated, self._info()

    def expert(self) -> Move:
        """A shortest way to where it counts as arrived, then STOP."""
        way = descend(self.place.table, self.place.moves_left(self.goal), self.node)
        return Move(way[0]) if way else Move.STOP

    def render(self) -> np.ndarray:
        pair = np.concatenate([self.place.views(np.array(node)) for node in (self.node, self.goal)], axis=1)
        repeat = max(1, 240 // self.image_size)
        return pair.repeat(repeat, 0).repeat(repeat, 1)

    def close(self) -> None:
        for place in self.places.values():
            place.views.close()

    def _observation(self) -> dict[str, Any]:
        pictures = {"view": self.place.views(np.array(self.node)), "goal": self.place.views(np.array(self.goal))}
        pose = self.place.metric[self.node].astype(np.float32)
        return {"pixels": pictures, "agent_pos": pose, "blocked": int(self.blocked)}

    def _info(self) -> dict[str, Any]:
        here, there = self.place.metric[self.node], self.place.metric[self.goal]
        apart, angle = differences(here, there)
        return {
            "is_success": self.success, "node": self.node, "start": self.start, "goal": self.goal,
            "difficulty": float(difficulty(self.place.metric[self.start], there)), "distance": float(apart),
            "angle": float(angle), "scene": self.scene,
        }  # fmt: skip
