"""A recorded dataset as an environment, for robots of which there is no simulator: whatever is done, what was recorded
comes next. It tells a policy's channels, rate and limits, and what it would have done; it judges nothing."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from .reader import DatasetReader


class ReplayEnv(gymnasium.Env):
    """Plays the episodes of a LeRobotDataset v3; seed s the s-th from behind, since the last ones are held out.

    Actions are limited to what was ever done in the dataset, channel by channel.

    Args:
        root: of the dataset.
    Raises:
        ValueError: no root.
        UserError: no whole dataset there.
    """

    def __init__(self, root: str | None = None, render_mode: str | None = None) -> None:
        if root is None:
            raise ValueError("env=recorded needs data.root=..., a LeRobotDataset v3")
        self.dataset, self.render_mode = DatasetReader(Path(root)), render_mode
        self.metadata = {"render_modes": [], "render_fps": self.dataset.fps}
        self.state_names, self.action_names = self.dataset.state_names, self.dataset.action_names
        actions = np.concatenate(self.dataset.actions)
        self.action_space = gymnasium.spaces.Box(actions.min(0), actions.max(0), dtype=np.float32)
        cameras: dict[str, gymnasium.Space] = {
            camera: gymnasium.spaces.Box(0, 255, (*size, 3), np.uint8) for camera, size in self.dataset.cameras.items()
        }
        self.observation_space = gymnasium.spaces.Dict(
            {
                "pixels": gymnasium.spaces.Dict(cameras),
                "agent_pos": gymnasium.spaces.Box(-np.inf, np.inf, (len(self.state_names),), np.float32),
            }
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        count = len(self.dataset)
        self.number, self.steps = count - 1 - (seed or 0) % count, 0
        self.frames = {camera: self.dataset.frames(self.number, camera) for camera in self.dataset.cameras}
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self._observation(), 0.0, False, self.steps >= self.dataset.lengths[self.number], {}

    def _observation(self) -> dict[str, Any]:
        now = min(self.steps, int(self.dataset.lengths[self.number]) - 1)
        pixels = {camera: frames[now] for camera, frames in self.frames.items()}
        return {"pixels": pixels, "agent_pos": self.dataset.states[self.number][now]}


gymnasium.register("Recorded-v0", entry_point="trace_il.data.replay:ReplayEnv")
