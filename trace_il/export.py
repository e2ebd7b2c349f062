"""Checkpoint -> TorchScript policy, with metadata, a parity report and a latency report.

The file needs torch alone. It is the scripted `Controller`:

    policy = torch.jit.load("policy.ts")
    policy.reset()                            # a new episode; reset(B) for B robots
    action = policy.step(images, state)       # every control step: uint8 (B, C, H, W, 3), (B, D) -> (B, A)
    policy.observe(images, state)             # the same without acting; act() then gives the action
    json.loads(policy.metadata_json())        # names, units, sizes, limits, rates, statistics, timings
"""

import copy
import json
import math
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .agent import Agent, Controller
from .config import TrainConfig
from .env_config import env_options
from .environment import make_env
from .errors import UserError
from .files import atomic_write, replacing
from .rollout import check_compatible, load_controller, rollout
from .scores import commit

TOLERANCE = 1e-5  # largest allowed difference between exported and eager policy on the CPU, relative above 1
WARM_UP = 20  # steps before latency is measured; the first calls compile
PARITY_SEED = 2_000_000
Frames = list[tuple[np.ndarray, np.ndarray]]


def script_controller(agent: Agent) -> Any:
    """The agent's controller in TorchScript, its weights copies that ask for no gradients: the memory of a robot's loop
    without `torch.no_grad()` would keep the whole episode for a backward pass."""
    agent = copy.deepcopy(agent).requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*non-constant submodule.*")
        return torch.jit.script(Controller(agent))


def metadata(agent: Agent, config: TrainConfig, units: dict[str, list[str]], checkpoint: str) -> dict[str, Any]:
    """All a robot engineer must know, next to the spec's own fields. A limit that there is not is null."""

    def statistics(standardizer: Any) -> dict[str, list[float]]:
        return {name: getattr(standardizer, name).tolist() for name in ("mean", "std", "mask")}

    about = json.loads(Controller(agent).metadata_json())
    for limit in ("action_low", "action_high"):
        about[limit] = [value if math.isfinite(value) else None for value in about[limit]]
    return about | {
        "format": 1,
        "run": config.name,
        "checkpoint": checkpoint,
        "commit": commit(),
        "torch": torch.__version__,
        "policy": config.policy.name,
        "memory": config.memory.name,
        "env_id": config.env.id,
        "env_options": env_options(config.env),
        "units": units,
        "image": "uint8 RGB, (B, C, H, W, 3), cameras in the order of `cameras`",
        "state": "float32 (B, D), channels in the order of `state_names`",
        "action": "float32 (B, A), channels in the order of `action_names`, within the limits",
        "statistics": {
            "state": statistics(agent.standardize_state),
            "action": statistics(agent.standardize_action),
            "signature": "buffers agent.address.standardize_signature.{mean,std,mask}",
            "delta": "buffers agent.address.standardize_delta.{mean,std,mask}",
        },
        "signature": "of the standardised state path from the first state (basepoint), updated every control step",
        "memory_tick": "control steps 0, tick_every, 2 tick_every, ...; images are read at ticks only",
        "explicit_state": [
            "slots",
            "xi",
            "xi_at_tick",
            "previous",
            "steps",
            "chunk",
            "plan_age",
            "planned",
            "state_at_tick",
            "features",
            "readout",
        ],
        "chunk": config.policy.chunk,
        "dtype": "float32",
        "warm_up_steps": WARM_UP,
    }


def record_inputs(controller: Controller, env: Any, seeds: list[int]) -> list[Frames]:
    """Camera frames and states of closed-loop rollouts, (C, H, W, 3) and (D,) a control step."""
    recordings = [rollout(controller, env, seed, record=True).recording for seed in seeds]
    return [list(zip(own.images, own.states, strict=True)) for own in recordings if own is not None]


@torch.inference_mode()
def compare(eager: Any, exported: Any, episodes: list[Frames]) -> dict[str, Any]:
    """Feed the same inputs to both; largest differences and the exported policy's latency."""
    errors = {"action": 0.0, "slots": 0.0, "signature": 0.0}
    milliseconds: list[float] = []
    for frames in episodes:
        eager.reset(1)
        exported.reset(1)
        for images, state in frames:
            inputs = torch.from_numpy(images)[None], torch.from_numpy(state)[None]
            expected = eager.step(*inputs)
            begin = time.perf_counter()
            action = exported.step(*inputs)
            milliseconds.append(1e3 * (time.perf_counter() - begin))
            for name, a, b in (
                ("action", action, expected),
                ("slots", exported.slots, eager.slots),
                ("signature", exported.xi, eager.xi),
            ):
                scale = max(1.0, float(b.abs().max()))  # actions have any unit, and signatures grow with the path
                errors[name] = max(errors[name], float((a - b).abs().max()) / scale)
    warm = np.array(milliseconds[WARM_UP:] or milliseconds)
    return {
        "max_error": errors,
        "steps": len(milliseconds),
        "episodes": len(episodes),
        "step_ms_p50": float(np.percentile(warm, 50)),
        "step_ms_p95": float(np.percentile(warm, 95)),
    }


def export_run(config: TrainConfig, folder: Path, checkpoint: str = "last") -> dict[str, Any]:
    """Write `<folder>/policy.ts` and `policy.json`; returns the parity and latency report.

    Raises:
        UserError: the exported policy differs from the eager one by more than the tolerance.
    """
    eager = load_controller(str(folder / f"checkpoints/{checkpoint}.ckpt"))
    agent = eager.agent
    env = make_env(config.env.id, env_options(config.env))
    check_compatible(eager, env, str(folder))
    units = {
        kind: list(getattr(env.unwrapped, f"{kind}_units", ["unknown"] * len(getattr(agent.spec, f"{kind}_names"))))
        for kind in ("state", "action")
    }
    exported = script_controller(agent)
    report = compare(eager, exported, record_inputs(eager, env, [PARITY_SEED, PARITY_SEED + 1]))
    env.close()
    if max(report["max_error"].values()) > TOLERANCE:
        raise UserError(f"the exported policy differs from the eager one: {report['max_error']}; not written")
    exported.metadata = json.dumps(metadata(agent, config, units, checkpoint) | {"parity_and_latency": report})
    exported.reset(1)
    path = folder / "policy.ts"
    with replacing(path) as temporary:
        exported.save(str(temporary), _extra_files={"metadata.json": exported.metadata})
    atomic_write(folder / "policy.json", json.dumps(json.loads(exported.metadata), indent=2).encode())
    return {"file": str(path), **report}
