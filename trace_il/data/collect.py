"""Expert demonstrations -> LeRobotDataset v3, in parallel, resumable at any episode."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from ..environment import (
    MAX_STEPS,
    camera_sizes,
    channel_names,
    check_even,
    control_hz,
    demonstrations_version,
    make_env,
)
from ..errors import UserError
from ..files import atomic_write
from ..parallel import parallel_map
from .lerobot import ASTRAY, DatasetSpec, DatasetWriter, EncodedEpisode, read_info
from .statistics import image_statistics
from .video import encode_video

ANNOTATIONS = ("cue", "phase", "stage")
RETRIES = 10
RETRY_STRIDE = 10_000_019  # seeds of retries lie far from those of other episodes and of evaluations


@dataclass(frozen=True)
class CollectSpec:
    """What decides the content of a dataset of demonstrations, apart from its length."""

    env_id: str
    env_options: dict[str, Any]
    seed: int = 0
    disturbance: float = 1.0

    @property
    def identity(self) -> dict[str, Any]:
        """All of it, with the content of files that the environment reads, such as a learned simulator, and the version
        of demonstrations that have changed since their first."""
        options = self.env_options
        paths = {key: Path(value) for key, value in options.items() if isinstance(value, str)}
        files = {k: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for k, path in paths.items() if path.is_file()}
        identity = {"env_id": self.env_id, "env_options": options, "seed": self.seed, "disturbance": self.disturbance}
        version = demonstrations_version(self.env_id, options)
        return identity | ({"files": files} if files else {}) | ({"version": version} if version > 1 else {})

    def digest(self) -> str:
        text = json.dumps(list(self.identity.values()), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


_envs: dict[str, Any] = {}  # one environment a process: building one costs more than resetting it


def _environment(spec: CollectSpec) -> Any:
    key = spec.digest()
    if key not in _envs:
        _envs[key] = make_env(spec.env_id, spec.env_options)
    return _envs[key]


def annotations(env: gymnasium.Env) -> tuple[str, ...]:
    """What each step of its demonstrations is annotated with."""
    return (*ANNOTATIONS, ASTRAY) if getattr(env.unwrapped, "goes_astray", False) else ANNOTATIONS


def demonstrate(spec: CollectSpec, scene: int) -> list[EncodedEpisode]:
    """Episodes of a scene, one with every cue value.

    Demonstrations are counterbalanced: consecutive episodes show the same scene, start and disturbances with
    every cue value. Nothing but the evidence then tells which way an episode went, and a memory cannot
    learn the demonstrations by heart from the fingerprint of their scenes and paths. Where the expert fails with one
    cue, all of them are shown in another scene.

    Raises:
        UserError: the expert failed RETRIES times in a row.
    """
    env = _environment(spec)
    cues, why = getattr(env.unwrapped, "cue_values", 1), ""
    for attempt in range(RETRIES):
        seed = spec.seed + scene + attempt * RETRY_STRIDE
        episodes: list[EncodedEpisode] = []
        while len(episodes) < cues and isinstance(episode := _attempt(env, spec, seed, len(episodes)), EncodedEpisode):
            episodes.append(episode)
        if len(episodes) == cues:
            return episodes
        why = f" ({episode})" if episode else ""
    raise UserError(f"the expert of {spec.env_id!r} failed {RETRIES} times in a row, the last time at seed {seed}{why}")


def _attempt(env: gymnasium.Env, spec: CollectSpec, seed: int, cue: int) -> EncodedEpisode | str:
    """One episode; where the expert failed, why, if the environment says so."""
    observation, info = env.reset(seed=seed, options={"cue": cue})
    expert = env.unwrapped.make_expert(spec.disturbance)  # type: ignore[attr-defined]
    states: list[np.ndarray] = []
    actions: list[np.ndarray] = []
    frames: dict[str, list[np.ndarray]] = {camera: [] for camera in observation["pixels"]}
    labels: dict[str, list[int]] = {name: [] for name in annotations(env)}
    done = False
    while not done:
        if len(states) == MAX_STEPS:
            raise UserError(f"an episode of {spec.env_id!r} did not end within {MAX_STEPS} steps; give it a time limit")
        states.append(observation["agent_pos"])
        for camera, image in observation["pixels"].items():
            frames[camera].append(image)
        action = expert.action()
        for name in labels:
            labels[name].append(int(action.astray) if name == ASTRAY else info.get(name, -1))
        actions.append(action.label)
        observation, _, terminated, truncated, info = env.step(action.executed)
        done = terminated or truncated
    if not info.get("is_success", False):
        return str(info.get("ood_reason", ""))
    pictures = {camera: np.stack(images) for camera, images in frames.items()}
    return EncodedEpisode(
        np.stack(states),
        np.stack(actions),
        {camera: encode_video(images, control_hz(env)) for camera, images in pictures.items()},
        {camera: image_statistics(images) for camera, images in pictures.items()},
        {name: np.array(values, dtype=np.int64) for name, values in labels.items()},
        getattr(env.unwrapped, "task_description", spec.env_id),
    )


def read_record(root: Path) -> dict[str, Any]:
    """What a dataset was collected with.

    Raises:
        UserError: its record is damaged.
    """
    path = root / "meta/trace_il.json"
    try:
        return dict(json.loads(path.read_text())["collected_with"])
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error!r}); delete {root}, and it is collected again") from error


def collect(
    root: Path, spec: CollectSpec, episodes: int, workers: int = 0, ray_address: str | None = None
) -> Iterator[int]:
    """Extend the dataset at `root` to `episodes` episodes; yields the number present after each.

    Raises:
        UserError: `root` holds another dataset, or the environment has no expert.
    """
    record = root / "meta/trace_il.json"
    identity = spec.identity
    if record.exists():
        if (present := read_record(root)) != identity:
            raise UserError(f"{root} was collected with {present}, not {identity}; choose another data.root")
    elif (root / "meta/info.json").exists():
        raise UserError(
            f"{root} was not collected here: {read_info(root)['total_episodes']} recorded episodes; change data.root"
        )
    env = make_env(spec.env_id, spec.env_options)
    if not hasattr(env.unwrapped, "make_expert"):
        raise UserError(
            f"no dataset at {root}, and {spec.env_id!r} has no expert (make_expert); give data.root a recorded "
            "LeRobotDataset v3"
        )
    shape = DatasetSpec(
        control_hz(env),
        camera_sizes(env),
        channel_names(env, "state"),
        channel_names(env, "action"),
        annotations(env),
        spec.env_id,
    )
    check_even(shape.cameras)
    cues = getattr(env.unwrapped, "cue_values", 1)
    env.close()
    writer = DatasetWriter(root, shape)
    atomic_write(record, json.dumps({"collected_with": identity}).encode())
    scenes = range(writer.episodes // cues, -(-episodes // cues))
    shown_scenes = parallel_map(partial(demonstrate, spec), scenes, workers, ray_address)
    for scene, shown in zip(scenes, shown_scenes, strict=True):
        for episode in shown[writer.episodes - scene * cues : episodes - scene * cues]:
            writer.append(episode)
            yield writer.episodes
