"""Success of the scripted experts on fresh seeds: python experiments/experts/run.py [--episodes 200] [--tasks ...]

Undisturbed and with the disturbances of the demonstrations; the soft ones in the ground truth, and with --simulator and
--arm-simulator runs/NAME/simulator.pt in these too. Writes results/experts.json, where rows of other tasks stay.
"""

import argparse
import sys
from functools import cache, partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from envs.delayed_evidence.tasks import TASKS  # noqa: E402
from trace_il.environment import make_env  # noqa: E402
from trace_il.parallel import parallel_map  # noqa: E402
from trace_il.scores import wilson_interval, write_results  # noqa: E402

ENVS: dict[str, tuple[str, dict[str, Any]]] = {
    "corridor": ("Corridor-v0", {}),
    **{task: ("DelayedEvidence-v0", {"task": task}) for task in TASKS},
}
for task, kind in TASKS.items():  # as many values of the cue as the task allows
    ENVS[f"{task}, {kind.max_cue_values} values"] = (
        "DelayedEvidence-v0",
        {"task": task, "cue_values": kind.max_cue_values},
    )
ENVS |= {name: (f"{name}-v0", {}) for name in ("PushSoft", "SortSoft", "PushSoftArm")}
FIRST_SEED = 3_000_000  # demonstrations and evaluations use others


@cache
def environment(env_id: str, options: tuple[tuple[str, Any], ...]) -> Any:
    """One environment a process; where it can, it renders nothing after the first frame."""
    env: Any = make_env(env_id, dict(options)).unwrapped
    if hasattr(env, "camera_period"):
        env.camera_period = 10_000
    return env


def episode(env_id: str, options: tuple[tuple[str, Any], ...], disturbance: float, seed: int) -> tuple[bool, int]:
    """Success and number of control steps."""
    env = environment(env_id, options)
    env.reset(seed=seed)
    expert = env.make_expert(disturbance)
    done, steps = False, 0
    while not done:
        _, _, terminated, truncated, info = env.step(expert.action().executed)
        done, steps = terminated or truncated, steps + 1
    return bool(info["is_success"]), steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--tasks", nargs="+", choices=list(ENVS), default=list(ENVS))
    parser.add_argument("--simulator", help="simulator.pt in 2D that knows pushers: env.world=mixed")
    parser.add_argument("--arm-simulator", help="simulator.pt in 3D that knows tables: env.world=table")
    options = parser.parse_args()
    seeds = range(FIRST_SEED, FIRST_SEED + options.episodes)
    rows = []
    chosen = {name: ENVS[name] for name in options.tasks}
    files = {"PushSoft": options.simulator, "SortSoft": options.simulator, "PushSoftArm": options.arm_simulator}
    for name, file in files.items():
        if file and name in chosen:
            chosen[f"{name}, learned"] = (chosen[name][0], {"backend": "learned", "simulator": file})
    for name, (env_id, more) in chosen.items():
        for disturbance in (0.0, 1.0):
            outcomes = list(parallel_map(partial(episode, env_id, tuple(more.items()), disturbance), seeds))
            successes = sum(success for success, _ in outcomes)
            row = {"task": name, "disturbance": disturbance, "episodes": len(seeds), "success": successes / len(seeds)}
            row["success_interval"] = list(wilson_interval(successes, len(seeds)))
            row |= {"steps_min": min(s for _, s in outcomes), "steps_max": max(s for _, s in outcomes)}
            rows.append(row)
            print(row, flush=True)
            write_results(HERE / "results/experts.json", [FIRST_SEED], rows, ("task", "disturbance"))


if __name__ == "__main__":
    main()
