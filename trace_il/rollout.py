"""Closed-loop rollouts: the same loop for evaluation, recordings and exported policies."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from envs.base import Phase

from .agent import Controller
from .checkpoint import load_agent
from .environment import MAX_STEPS, camera_sizes, check_channels, make_env, stack_cameras
from .errors import UserError
from .parallel import parallel_map
from .signature import split_levels


@dataclass(frozen=True)
class RolloutSpec:
    """What is rolled out where. A policy is a checkpoint or an exported TorchScript file."""

    policy: str  # path of a .ckpt or .ts file
    env_id: str
    env_options: dict[str, Any]
    clear_memory: bool = False


@dataclass
class Recording:
    """All that happened in one rollout; arrays have one row a control step, or one a tick."""

    info: list[dict[str, Any]] = field(default_factory=list)
    images: list[np.ndarray] = field(default_factory=list)  # (C, H, W, 3) uint8 a step
    states: list[np.ndarray] = field(default_factory=list)  # (D,)
    actions: list[np.ndarray] = field(default_factory=list)  # (A,)
    scene: list[list[dict[str, Any]]] = field(default_factory=list)  # geometry for the 3D view
    signature: list[np.ndarray] = field(default_factory=list)  # norm of each level
    ticks: list[int] = field(default_factory=list)  # control steps of the ticks
    chunks: list[np.ndarray] = field(default_factory=list)  # (H, A) a tick
    routing: list[np.ndarray] = field(default_factory=list)  # (K,) a tick
    write_strength: list[np.ndarray] = field(default_factory=list)  # (K,) a tick
    read_weights: list[np.ndarray] = field(default_factory=list)  # (K,) a tick
    slots: list[np.ndarray] = field(default_factory=list)  # (K, d) a tick
    address: list[np.ndarray] = field(default_factory=list)  # (Q,) a tick
    curves: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)  # of an analysis; name -> line -> (N,)
    remembered: np.ndarray | None = None  # uint8 (N, K, C, h, w, 3), what each slot holds


@dataclass
class Rollout:
    """Outcome of one episode."""

    seed: int
    cue: int
    steps: int
    progress: float
    success: bool
    branch_correct: int | None  # -1: the branch was not reached; None: there is none to take
    policy_ms: list[float]  # of each control step
    phases: list[int]  # of each control step, -1 where the environment has none
    cue_step: int  # control step at which the evidence is seen first; -1: never
    ood: bool = False  # whether it ended since a simulator left the range that it knows
    recording: Recording | None = None


def load_controller(path: str, clear_memory: bool = False) -> Any:
    """A controller on the CPU from a checkpoint (.ckpt) or an exported policy (.ts); torch then has one thread.

    Raises:
        UserError: the file is missing, damaged or of another version.
    """
    if not Path(path).is_file():
        raise UserError(f"no policy at {path}; give a run folder with a checkpoint, or an exported .ts file")
    torch.set_num_threads(1)  # one robot's products are small, and threads that wait for a busy core stall them
    if path.endswith(".ts"):
        try:
            module = torch.jit.load(path, map_location="cpu").eval()
        except RuntimeError as error:
            raise UserError(
                f"{path} is not an exported policy ({str(error).splitlines()[0]}); export it again"
            ) from error
        if not hasattr(module, "metadata_json"):
            raise UserError(f"{path} is TorchScript, but not a policy exported by export.py")
        module.clear_memory = clear_memory
        return module
    return Controller(load_agent(Path(path)), clear_memory)


def check_compatible(controller: Any, env: Any, what: str) -> None:
    """Raise a UserError when cameras, image size, state or action channels do not fit."""
    spec = policy_spec(controller)
    sizes = camera_sizes(env)
    for camera in spec["cameras"]:
        if camera not in sizes:
            raise UserError(f"{what} expects camera {camera!r}; the environment has {sorted(sizes)}")
        if sizes[camera] != tuple(spec["image_size"]):
            raise UserError(
                f"{what} expects {spec['image_size'][0]} x {spec['image_size'][1]} images, camera {camera!r} gives "
                f"{sizes[camera][0]} x {sizes[camera][1]}; set env.image_size={spec['image_size'][0]}"
            )
    for kind in ("state", "action"):
        check_channels(env, kind, tuple(spec[f"{kind}_names"]), what)


def policy_spec(controller: Any) -> dict[str, Any]:
    """Cameras, sizes and channel names of a controller or an exported policy."""
    return json.loads(controller.metadata_json())


def _level_norms(xi: torch.Tensor, channels: int, depth: int) -> np.ndarray:
    return np.array([float(level.norm()) for level in split_levels(xi[0], channels, depth)])


@torch.inference_mode()
def rollout(controller: Any, env: Any, seed: int, record: bool = False, cue: int | None = None) -> Rollout:
    """Run one episode.

    Args:
        controller: `Controller` or exported policy.
        env: an environment that fits it.
        seed: of the environment's reset.
        record: keep everything for the viewer.
        cue: fixes the cue, in environments that have one.
    """
    spec = policy_spec(controller)
    cameras = tuple(spec["cameras"])
    options = None if cue is None else {"cue": cue}
    try:
        observation, info = env.reset(seed=seed, options=options)
    except ValueError as error:
        raise UserError(f"cannot reset the environment with seed={seed}, cue={cue}: {error}") from error
    controller.reset(1)
    recording = Recording() if record else None
    policy_ms: list[float] = []
    phases: list[int] = []
    step, cue_step, done = 0, -1, False
    images = np.zeros(0)
    while not done:
        is_tick = step % spec["tick_every"] == 0
        if is_tick or record:
            images = stack_cameras(observation, cameras)
        state = observation["agent_pos"].astype(np.float32)
        begin = time.perf_counter()
        try:
            action = controller.step(torch.from_numpy(images)[None], torch.from_numpy(state)[None])[0].numpy()
        except (ValueError, torch.jit.Error) as error:  # the latter of an exported file
            reason = str(error).strip().splitlines()[-1]
            raise UserError(f"the policy stopped at step {step} of seed {seed}: {reason}") from error
        policy_ms.append(1e3 * (time.perf_counter() - begin))
        phases.append(int(info.get("phase", -1)))
        if cue_step < 0 and info.get("cue_seen", phases[-1] == Phase.CUE):
            cue_step = step
        if recording is not None:
            recording.info.append(dict(info))
            recording.images.append(images)
            recording.states.append(state)
            recording.actions.append(action)
            if hasattr(env.unwrapped, "scene_geometry"):
                recording.scene.append(env.unwrapped.scene_geometry())
            recording.signature.append(_level_norms(controller.xi, len(spec["state_names"]), spec["depth"]))
            if is_tick:
                readout = controller.readout
                recording.ticks.append(step)
                recording.chunks.append(controller.chunk[0].numpy().copy())
                for name in ("routing", "write_strength", "read_weights", "slots", "address"):
                    getattr(recording, name).append(getattr(readout, name)[0].numpy().copy())
        observation, _, terminated, truncated, info = env.step(action)
        done = terminated or truncated
        step += 1
        if step == MAX_STEPS and not done:
            raise UserError(
                f"the episode of seed {seed} did not end within {MAX_STEPS} steps; give the environment a time limit"
            )
    success = bool(info.get("is_success", False))
    branches = "branch_correct" in info and getattr(env.unwrapped, "cue_values", 2) > 1
    return Rollout(
        seed,
        int(info.get("cue", -1)),
        step,
        float(info.get("progress", success)),
        success,
        int(info["branch_correct"]) if branches else None,
        policy_ms,
        phases,
        cue_step,
        bool(info.get("ood", False)),
        recording,
    )


_loaded: dict[Any, tuple[Any, Any]] = {}  # policy and environment of this process


def rollout_seed(spec: RolloutSpec, seed: int) -> Rollout:
    """`rollout` from a picklable description; policy and environment are kept between calls."""
    # The modification time is part of the key: a checkpoint is evaluated again while it is being trained.
    key = (spec.policy, Path(spec.policy).stat().st_mtime_ns, spec.clear_memory, spec.env_id, repr(spec.env_options))
    if key not in _loaded:
        _loaded.clear()
        controller = load_controller(spec.policy, spec.clear_memory)
        options = dict(spec.env_options)
        env = make_env(spec.env_id, options)
        if hasattr(env.unwrapped, "camera_period"):  # frames that nobody looks at cost most
            env.unwrapped.camera_period = policy_spec(controller)["tick_every"]
        check_compatible(controller, env, spec.policy)
        _loaded[key] = (controller, env)
    controller, env = _loaded[key]
    return rollout(controller, env, seed)


def evaluate(spec: RolloutSpec, seeds: range, workers: int = 0, ray_address: str | None = None) -> Iterator[Rollout]:
    """Rollouts on `seeds`, in their order, over processes."""
    yield from parallel_map(partial(rollout_seed, spec), seeds, workers, ray_address)
