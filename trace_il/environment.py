"""Making environments from their configuration, and reading off what an agent must know of them."""

import importlib
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import load_env_creator

import envs  # noqa: F401  (registers the environments)

from .errors import UserError

MAX_STEPS = 20_000  # of an episode


class OneCamera(gymnasium.ObservationWrapper):
    """{"pixels": image} -> {"pixels": {"image": image}}: LeRobot's name of an only camera is observation.image."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        assert isinstance(env.observation_space, gymnasium.spaces.Dict)
        cameras = gymnasium.spaces.Dict({"image": env.observation_space["pixels"]})
        self.observation_space = gymnasium.spaces.Dict({**env.observation_space.spaces, "pixels": cameras})

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        return {**observation, "pixels": {"image": observation["pixels"]}}


def make_env(env_id: str, options: dict[str, Any], **more: Any) -> gymnasium.Env:
    """`gymnasium.make` with the environment's configuration.

    Raises:
        UserError: unknown environment, an option it does not accept, or observations of another shape.
    """
    try:
        env = gymnasium.make(env_id, disable_env_checker=True, **options, **more)
    except (gymnasium.error.Error, TypeError, ValueError, ModuleNotFoundError) as error:
        raise UserError(f"cannot make environment {env_id!r} with {options}: {error}") from error
    space = env.observation_space
    if isinstance(space, gymnasium.spaces.Dict) and isinstance(space.get("pixels"), gymnasium.spaces.Box):
        env = OneCamera(env)
        space = env.observation_space
    pixels = space.get("pixels") if isinstance(space, gymnasium.spaces.Dict) else None
    if not (
        isinstance(space, gymnasium.spaces.Dict)
        and isinstance(pixels, gymnasium.spaces.Dict)
        and isinstance(space.get("agent_pos"), gymnasium.spaces.Box)
        and isinstance(env.action_space, gymnasium.spaces.Box)
    ):
        raise UserError(
            f"{env_id!r} must give observations {{'pixels': {{camera: image}} or image, 'agent_pos': vector}} and "
            f"take a vector as action; it gives {space} and takes {env.action_space}"
        )
    for name, image in pixels.items():
        if image.dtype != np.uint8 or image.shape is None or image.shape[2:] != (3,):
            raise UserError(f"{env_id!r} must give uint8 images (H, W, 3); camera {name!r} gives {image}")
    return env


def demonstrations_version(env_id: str, options: dict[str, Any]) -> int:
    """The version that an environment gives its demonstrations, by a static method of that name of its class; 1 of
    environments without one.

    Raises:
        UserError: unknown environment.
    """
    module, _, name = env_id.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        entry = gymnasium.spec(name).entry_point
    except (gymnasium.error.Error, ModuleNotFoundError) as error:
        raise UserError(f"unknown environment {env_id!r}: {error}") from error
    creator = load_env_creator(entry) if isinstance(entry, str) else entry
    tell = getattr(creator, "demonstrations_version", None)
    return 1 if tell is None else int(tell(options))


def control_hz(env: gymnasium.Env) -> float:
    return float(env.metadata.get("render_fps", 20))


def camera_sizes(env: gymnasium.Env) -> dict[str, tuple[int, int]]:
    """Camera name -> (height, width)."""
    assert isinstance(env.observation_space, gymnasium.spaces.Dict)
    pixels = env.observation_space["pixels"]
    assert isinstance(pixels, gymnasium.spaces.Dict)
    return {name: (space.shape[0], space.shape[1]) for name, space in pixels.spaces.items() if space.shape}


def check_even(sizes: dict[str, tuple[int, int]]) -> None:
    """Raise a UserError where pictures could not be stored as video."""
    odd = {camera: size for camera, size in sizes.items() if size[0] % 2 or size[1] % 2}
    if odd:
        raise UserError(f"videos need even image sizes, the cameras have {odd}; change env.image_size")


def channel_names(env: gymnasium.Env, kind: str) -> tuple[str, ...]:
    """Names of the state ("state") or action ("action") channels; numbered where the environment has none."""
    names = getattr(env.unwrapped, f"{kind}_names", None)
    if names is None:
        assert isinstance(env.observation_space, gymnasium.spaces.Dict)
        space = env.action_space if kind == "action" else env.observation_space["agent_pos"]
        assert space.shape is not None
        names = [f"{kind}_{i}" for i in range(space.shape[0])]
    return tuple(names)


def check_channels(env: gymnasium.Env, kind: str, names: tuple[str, ...], what: str) -> None:
    """Raise a UserError unless `what` (a policy or dataset) has the environment's state or action channels.

    Names are compared where the environment declares them, else their number.
    """
    expected = channel_names(env, kind)
    declared = getattr(env.unwrapped, f"{kind}_names", None) is not None
    if len(names) != len(expected) or (declared and tuple(names) != expected):
        raise UserError(f"{what} has {kind} channels {list(names)}, the environment {list(expected)}")


def stack_cameras(observation: dict[str, Any], cameras: tuple[str, ...]) -> np.ndarray:
    """Images of one observation in the order of `cameras`, (C, H, W, 3) uint8."""
    return np.stack([observation["pixels"][camera] for camera in cameras])
