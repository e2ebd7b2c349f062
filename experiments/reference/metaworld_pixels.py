"""MetaWorld (Yu et al. 2019) with one camera: Gymnasium id "metaworld_pixels:MetaWorldPixels-v0", with its expert."""

import os
from typing import Any

os.environ.setdefault("MUJOCO_GL", "egl")  # before mujoco is imported

import gymnasium
import mujoco
import numpy as np
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.policies import ENV_POLICY_MAP

from envs.base import ExpertAction

AFTER = 10  # steps that an episode goes on after success


class MetaWorldExpert:
    """MetaWorld's scripted policy. Its noise is executed and not imitated, so that ways back are shown."""

    def __init__(self, env: "MetaWorldPixels", disturbance: float) -> None:
        self.env, self.policy = env, ENV_POLICY_MAP[env.task]()
        self.noise, self.rng = 0.3 * disturbance, np.random.default_rng(env.expert_seed)

    def action(self) -> ExpertAction:
        label = np.clip(self.policy.get_action(self.env.full), -1, 1).astype(np.float32)
        noise = self.noise * self.rng.normal(size=4) * (1, 1, 1, 0)
        return ExpertAction(label, np.clip(label + noise, -1, 1).astype(np.float32))


class MetaWorldPixels(gymnasium.Env):
    """One MetaWorld task: the hand's position and opening (4,), one picture, the object and goal drawn by the seed."""

    metadata = {"render_fps": 80, "render_modes": []}

    def __init__(self, task: str = "drawer-open-v3", image_size: int = 64, horizon: int = 200) -> None:
        self.env = ALL_V3_ENVIRONMENTS[task]()
        self.env._set_task_called, self.env._partially_observable = True, False
        del self.env.sawyer_observation_space  # made for a hidden goal, and cached
        self.env._freeze_rand_vec, self.env.seeded_rand_vec = False, True
        self.env.model.cam("corner2").pos[:] = 0.75, 0.075, 0.7  # nearer, as usual for pictures of this size
        self.renderer = mujoco.Renderer(self.env.model, image_size, image_size)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self.renderer.scene.flags[flag] = False  # many times slower without a GPU
        self.task, self.horizon, self.task_description = task, horizon, task
        self.observation_space = gymnasium.spaces.Dict(
            {
                "pixels": gymnasium.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8),
                "agent_pos": gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32),
            }
        )
        self.action_space = gymnasium.spaces.Box(-1, 1, (4,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        super().reset(seed=seed)
        self.env.seed(int(self.np_random.integers(2**31)))
        self.expert_seed = int(self.np_random.integers(2**31))
        self.full, _ = self.env.reset()
        self.steps, self.since_success = 0, -1
        return self._look(), {"is_success": False}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        self.full, reward, _, _, info = self.env.step(np.asarray(action, np.float32))
        self.steps += 1
        if self.since_success >= 0 or info["success"] > 0:
            self.since_success += 1
        success = self.since_success >= 0
        return (
            self._look(),
            float(reward),
            self.since_success >= AFTER,
            self.steps >= self.horizon,
            {"is_success": success},
        )

    def _look(self) -> dict[str, np.ndarray]:
        self.renderer.update_scene(self.env.data, "corner2")
        picture = self.renderer.render()[::-1].copy()  # this camera hangs upside down
        return {"pixels": picture, "agent_pos": self.full[:4].astype(np.float32)}

    def make_expert(self, disturbance: float = 0.0) -> MetaWorldExpert:
        return MetaWorldExpert(self, disturbance)

    def close(self) -> None:
        self.renderer.close()
        self.env.close()


gymnasium.register("MetaWorldPixels-v0", entry_point=MetaWorldPixels, disable_env_checker=True)
