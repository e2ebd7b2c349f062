"""Score a policy in closed loop.

python evaluate.py run=runs/NAME                 the last checkpoint of a run
python evaluate.py policy=runs/NAME/policy.ts    an exported file
    checkpoint=best             the one with the least error on held-out demonstrations
    episodes=50 seed=8000000    how many, and the seed of the first
    cleared=true                the memory is cleared at each tick
    env=NAME env.KEY=VALUE      in another environment, or in the same with other settings
    videos=2                    of the first episodes
    workers=2                   processes (0: one a core); ray_address=auto: on a Ray cluster
    out=FOLDER                  for the results, by default beside the policy

Prints a table and writes evaluation.json (and videos); the names tell what was changed.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from trace_il.cli import asked_for_help, guarded
from trace_il.config import EvaluationConfig
from trace_il.errors import UserError
from trace_il.options import override_env, parse, read_run
from trace_il.parallel import connect

KEYS = ("checkpoint", "seed", "episodes")  # that names of results tell, where they are not the usual ones


@dataclass
class EvaluateOptions:
    run: str | None = None  # run folder
    policy: str | None = None  # exported .ts file, instead of run
    checkpoint: str = "last"  # of the run: last, best
    env: str | None = None  # another environment, one of trace_il.env_config.ENVS
    episodes: int = 50
    seed: int = EvaluationConfig.seed  # of the first episode
    cleared: bool = False  # clear the memory at each tick
    videos: int = 0
    workers: int = 0  # processes; 0: one a core
    ray_address: str | None = None
    out: str | None = None  # folder for results


def main() -> None:
    if asked_for_help(__doc__):
        return
    env_words = [word for word in sys.argv[1:] if word.startswith("env.")]
    options = parse(EvaluateOptions, [word for word in sys.argv[1:] if not word.startswith("env.")], "env.KEY=, ")
    if (options.run is None) == (options.policy is None):
        raise UserError("give either run=runs/NAME or policy=FILE.ts")
    if options.policy is not None and not options.policy.endswith(".ts"):
        raise UserError(f"policy={options.policy} must be an exported .ts file; give run=runs/NAME for a checkpoint")
    if options.policy is not None and options.checkpoint != "last":
        raise UserError(f"checkpoint={options.checkpoint} is for run=runs/NAME; a policy is one checkpoint, exported")
    if options.episodes < 1:
        raise UserError(f"episodes={options.episodes} must be at least 1")
    if options.seed < 0:
        raise UserError(f"seed={options.seed} must not be negative")
    if options.workers < 0 or not 0 <= options.videos <= options.episodes:
        raise UserError(f"workers={options.workers} must be >= 0 and videos={options.videos} in 0..episodes")
    if options.ray_address is not None:
        connect(options.ray_address)
    from rich.console import Console
    from rich.progress import track

    from trace_il.data.demonstrations import shown_seeds
    from trace_il.env_config import RecordedConfig, env_of, env_options
    from trace_il.environment import make_env
    from trace_il.files import atomic_write
    from trace_il.pictures import save_video
    from trace_il.rollout import RolloutSpec, check_compatible, evaluate, load_controller, policy_spec, rollout
    from trace_il.scores import provenance, score, score_table

    if options.run is not None:
        config, folder = read_run(options.run, options.env, env_words)
        env, policy = config.env, str(folder / f"checkpoints/{options.checkpoint}.ckpt")
        shown = shown_seeds(config)
        if options.seed < shown.stop and shown.start < options.seed + options.episodes:
            print(f"note: demonstrations of this run may show these scenes (seeds {shown.start} to {shown.stop - 1})")
        controller = load_controller(policy, options.cleared)
    else:
        policy, folder = str(options.policy), Path(str(options.policy)).parent
        controller = load_controller(policy, options.cleared)
        about = policy_spec(controller)
        env = override_env(env_of(about["env_id"], about["env_options"]), options.env, env_words)
    if isinstance(env, RecordedConfig):
        raise UserError(f"{policy} was trained on a recorded dataset alone, which plays on whatever a policy does")
    out = Path(options.out) if options.out else folder
    # Scores under other conditions stand beside the usual ones.
    others = [f"env={options.env}"] if options.env else []
    others += ["exported"] if options.policy else []
    others += ["cleared"] if options.cleared else []
    usual = EvaluateOptions()
    others += [f"{k}={getattr(options, k)}" for k in KEYS if getattr(options, k) != getattr(usual, k)]
    label = "_".join(["evaluation", *others, *env_words])
    label = "".join(c if c.isalnum() or c in "._-" else "_" for c in label)
    probe = make_env(env.id, env_options(env))
    check_compatible(controller, probe, policy)
    console = Console()
    spec = RolloutSpec(policy, env.id, env_options(env), options.cleared)
    seeds = range(options.seed, options.seed + options.episodes)
    jobs = evaluate(spec, seeds, options.workers, options.ray_address)
    rollouts = list(track(jobs, "rollouts", total=len(seeds), console=console, transient=True))
    name = "memory cleared" if options.cleared else "policy"
    result = score(rollouts)
    console.print(score_table({name: result}, policy))
    for seed in seeds[: options.videos]:
        shown = rollout(controller, probe, seed, record=True)
        save_video(out / f"videos{label.removeprefix('evaluation')}/seed_{seed}.mp4", shown, policy_spec(controller))
    rows = [
        {
            "seed": r.seed,
            "cue": r.cue,
            "steps": r.steps,
            "progress": r.progress,
            "success": r.success,
            "branch_correct": r.branch_correct,
        }
        for r in rollouts
    ]
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"{label}.json"
    about = {"policy": policy, "env_id": env.id, "env_options": env_options(env), "cleared": options.cleared}
    atomic_write(
        file, json.dumps({**provenance(list(seeds)), **about, "score": result, "rows": rows}, indent=2).encode()
    )
    console.print(f"written to {file}")


if __name__ == "__main__":
    guarded(main)
