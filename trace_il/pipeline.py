"""The main job: demonstrations -> training -> closed-loop evaluation -> recording, export, summary."""

import json
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress, track

from .agent import Agent, AgentSpec
from .build import agent_spec, build_agent, fit_statistics, relative_actions
from .checkpoint import PRETRAINED, describe, load_trunk, warm_start
from .config import CollectConfig, TrainConfig, to_plain
from .data.collect import CollectSpec, collect
from .data.datamodule import EpisodeDataModule
from .data.lerobot import read_info
from .data.reader import DatasetReader
from .env_config import env_label, env_options
from .environment import camera_sizes, channel_names, check_channels, check_even, control_hz, make_env
from .errors import UserError
from .files import atomic_write, only_writer
from .learn import BranchTemplates, ImitationModule
from .memory.recall import RecallHead
from .memory.teacher import AttentionTeacher
from .parallel import core_count
from .rollout import RolloutSpec, evaluate
from .run_folder import first_difference, is_main_process, open_run, phase, read_about
from .scores import provenance, score, score_table
from .trainer import ClosedLoop, StopAtBranchAccuracy, fit_or_continue, make_trainer
from .validate import validate

TRAINING = "training.json"  # in a run folder: what its training was, once it is over
CLIPPED = 0.1  # share of a dataset's actions outside the environment's limits from which on they are refused
SCORES = "scores.json"  # in a run folder: the scores of its evaluation, once that is over


def wait_for_main_process(config: TrainConfig, folder: Path) -> Path:
    """In the other processes: wait until the run folder and the demonstrations are there."""
    root, _ = dataset_root(config)
    info = root / "meta/info.json"
    print(f"waiting for the first process, which collects demonstrations in {root} if they are missing", flush=True)
    ready = [folder / "run.json", info, *([folder / PRETRAINED] if config.trainer.views is not None else [])]
    while not all(path.exists() for path in ready) or _missing(config, root):
        time.sleep(1)
    return root


def dataset_root(config: TrainConfig | CollectConfig) -> tuple[Path, CollectSpec]:
    """Where the demonstrations of a configuration are, and what they consist of."""
    options = env_options(config.env, collecting=True)
    spec = CollectSpec(config.env.id, options, config.data.seed, config.data.disturbance)
    if config.data.root is not None:
        return Path(config.data.root), spec
    return Path("data") / f"{env_label(config.env.id, options.get('task'))}-{spec.digest()}", spec


def collect_missing(config: TrainConfig | CollectConfig, console: Console) -> Path:
    """Collect the demonstrations that are not there yet, with a progress bar. A recorded dataset is used as it is.

    Raises:
        UserError: `data.root` holds demonstrations of something else.
    """
    root, spec = dataset_root(config)
    _check_identity(config, root, spec)
    if _missing(config, root):
        note = f"another process collects demonstrations in {root}; waiting for it"
        with only_writer(root, lambda: console.print(note)), Progress(console=console, transient=True) as bar:
            if missing := _missing(config, root):  # nobody else has collected them meanwhile
                wanted, parallel = config.data.episodes, config.parallel
                job = bar.add_task(f"demonstrations -> {root}", total=wanted, completed=wanted - missing)
                for present in collect(root, spec, wanted, parallel.workers, parallel.ray_address):
                    bar.update(job, completed=present)
                console.print(f"collected {missing} demonstrations in {root}")
    return root


def _missing(config: TrainConfig | CollectConfig, root: Path) -> int:
    """How many demonstrations are to be collected; none into a dataset that somebody recorded."""
    here = read_info(root)["total_episodes"] if (root / "meta/info.json").exists() else 0
    own = here == 0 or (root / "meta/trace_il.json").exists()
    return max(0, config.data.episodes - here) if own else 0


def _check_identity(config: TrainConfig | CollectConfig, root: Path, spec: CollectSpec) -> None:
    """Demonstrations that were collected before must be of this environment; for collect.py, of this seed too."""
    record = root / "meta/trace_il.json"
    if config.data.root is None or not record.exists():
        return
    found, asked = json.loads(record.read_text())["collected_with"], spec.identity
    free = {"seed", "disturbance"} if isinstance(config, TrainConfig) else set()
    for key in sorted((set(found) | set(asked)) - free):
        if found.get(key) != asked.get(key):
            difference = first_difference(key, found.get(key), asked.get(key))
            raise UserError(
                f"data.root={root} was collected with {difference}; set that, or choose another data.root "
                "(evaluate.py judges a policy under other env.KEY=...)"
            )


def episode_count(config: TrainConfig, root: Path) -> int:
    """How many episodes a run uses: `data.episodes`, but no more than a recorded dataset has."""
    own = (root / "meta/trace_il.json").exists()
    return config.data.episodes if own else min(config.data.episodes, read_info(root)["total_episodes"])


def episodes_per_scene(root: Path, config: TrainConfig) -> int:
    """How many consecutive episodes of a dataset show one scene: as many as there are cues, if collected here."""
    if not (root / "meta/trace_il.json").exists():
        return 1
    env = make_env(config.env.id, env_options(config.env))
    env.close()
    return int(getattr(env.unwrapped, "cue_values", 1))


def check_environment(config: TrainConfig, dataset: DatasetReader) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Compare dataset and environment; the action limits of the environment.

    Raises:
        UserError: they do not fit.
    """
    env = make_env(config.env.id, env_options(config.env))
    sizes = camera_sizes(env)
    for camera, size in dataset.cameras.items():
        if sizes.get(camera) != size:
            raise UserError(
                f"the dataset's camera {camera!r} is {size}, the environment's {sizes.get(camera)}; make them equal"
            )
    for kind, names in (("state", dataset.state_names), ("action", dataset.action_names)):
        check_channels(env, kind, names, "the dataset")
    declared = env.metadata.get("render_fps")
    if declared is not None and abs(declared - dataset.fps) > 0.01 * declared:
        raise UserError(
            f"the dataset was recorded at {dataset.fps:g} Hz, the environment runs at {declared:g}; make them equal"
        )
    low, high = env.action_space.low, env.action_space.high  # type: ignore[attr-defined]
    env.close()
    actions, slack = np.concatenate(dataset.actions), 0.01 * np.nan_to_num(high - low, posinf=0.0)
    outside = ((actions < low - slack) | (actions > high + slack)).any(1).mean()
    if outside > CLIPPED:
        raise UserError(
            f"{100 * outside:.0f} % of the actions in {dataset.root} lie outside the environment's limits, {low} to "
            f"{high}; the policy would never take them. Are both in the same units?"
        )
    return tuple(float(v) for v in low), tuple(float(v) for v in high)


def check_buildable(config: TrainConfig) -> None:
    """Build the agent once for the environment as it is, before any long work.

    Raises:
        UserError: a value that the agent's parts refuse, or a dataset that is not there or is of something else.
    """
    make_env(config.env.id, env_options(config.env, collecting=True)).close()
    env = make_env(config.env.id, env_options(config.env))
    sizes, states, actions = camera_sizes(env), channel_names(env, "state"), channel_names(env, "action")
    hz = control_hz(env)
    if config.data.root is not None:
        recorded = DatasetReader(Path(config.data.root))  # may have names of its own, and fewer cameras
        sizes, states, actions = recorded.cameras, recorded.state_names, recorded.action_names
        hz = recorded.fps
    if not sizes:
        raise UserError(f"{config.data.root} has no cameras; a policy needs at least one")
    check_even(sizes)
    if config.data.root is not None:
        check_environment(config, recorded)
    limits = (0.0,) * len(actions)
    spec = AgentSpec(
        tuple(sizes), next(iter(sizes.values())), states, actions, limits, limits, hz,
        config.agent.tick_every, config.agent.depth, relative_actions(config.agent.relative, states, actions),
    )  # fmt: skip
    env.close()
    try:
        agent = build_agent(config, spec)
    except (ValueError, AssertionError, RuntimeError, ZeroDivisionError) as error:
        raise UserError(
            f"cannot build the agent: {error or type(error).__name__}; check policy, memory, encoder and agent"
        ) from error
    if config.trainer.init is not None and (config.overwrite or not begun(config)):
        warm_start(agent, Path(config.trainer.init))
    if config.trainer.views is not None:
        from .views.pretext import source

        source(config)


def begun(config: TrainConfig) -> bool:
    """Whether there is a checkpoint of the run; it then needs no others to go on."""
    return (Path(config.runs) / config.name / "checkpoints/last.ckpt").exists()


def make_module(
    config: TrainConfig, data: EpisodeDataModule, limits: tuple[tuple[float, ...], tuple[float, ...]]
) -> ImitationModule:
    """The learner with fresh seeded weights and fitted statistics."""
    torch.manual_seed(config.seed)
    agent: Agent = build_agent(config, agent_spec(config, data, *limits))
    fit_statistics(agent, data)
    if config.trainer.init is not None and not begun(config):
        warm_start(agent, Path(config.trainer.init))
    memory = agent.memory
    teacher = None
    if config.trainer.teacher == "attention":
        teacher = AttentionTeacher(memory.content_dim, memory.address_dim, memory.slots, memory.width)
    recall = None
    if config.trainer.recall > 0:
        recall = RecallHead(memory.slots, memory.width, memory.address_dim, len(agent.spec.cameras))
    return ImitationModule(agent, teacher, recall, BranchTemplates(agent, data), config.trainer, config.seed)


def fit(config: TrainConfig, folder: Path, root: Path, console: Console) -> dict[str, Any]:
    """Train, or continue, until the last epoch; returns counts and speeds."""
    torch.set_num_threads(config.trainer.threads or core_count())
    data = EpisodeDataModule(
        root, config.agent.tick_every, config.policy.chunk, episode_count(config, root),
        config.data.holdout, config.data.batch_size, config.trainer.steps_per_epoch, config.seed,
        config.data.num_workers, episodes_per_scene(root, config),
        lambda numbers: track(numbers, "frame cache", console=console, transient=True),
    )  # fmt: skip
    unused = len(data.dataset) - len(data.train_numbers) - len(data.held_out_numbers)
    if config.data.root is not None and unused:
        console.print(f"{root}: {unused} of {len(data.dataset)} episodes are not used; data.episodes=... takes more")
    limits = check_environment(config, data.dataset)
    module = make_module(config, data, limits)
    if config.trainer.views is not None:
        load_trunk(folder / PRETRAINED, module.agent.encoder)
    run_id = json.loads((folder / "run.json").read_text())["id"]
    callbacks: list[pl.Callback] = []
    if config.trainer.closed_loop_every > 0:
        every, seed = config.trainer.closed_loop_every, config.evaluation.seed
        callbacks.append(ClosedLoop(every, config.env.id, env_options(config.env), seed))
    if config.trainer.stop_at > 0:
        if not module.templates.usable:
            raise UserError(
                f"trainer.stop_at={config.trainer.stop_at} needs demonstrations with a cue and a branch; set 0"
            )
        callbacks.append(StopAtBranchAccuracy(config.trainer.stop_at, config.trainer.epochs))
    about = describe(to_plain(config), module.agent.spec)
    trainer = make_trainer(config, folder, run_id, about, "val/action_error", callbacks)
    seconds = fit_or_continue(trainer, module, data, folder, console)
    agent = module.agent
    parts: dict[str, Any] = {name: getattr(agent, name) for name in ("encoder", "memory", "policy")}
    parts |= {"address": agent.address} if agent.memory.uses_address else {}
    parts |= {"teacher, in training alone": module.teacher} if module.teacher is not None else {}
    report: dict[str, Any] = {
        "optimiser_steps": trainer.global_step,
        "parameters": {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()},
        "held_out": {
            k.removeprefix("val/"): float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")
        },
        "train_episodes": len(data.train_numbers),
    }
    targets, told = float(module.targets_trained), folder / TRAINING
    if targets:
        report["images_encoded_per_sample"] = module.images_encoded / targets
        report["samples_per_second"] = targets * trainer.world_size / seconds
        atomic_write(told, json.dumps(report).encode())
    elif told.exists():  # training had been finished before
        report = json.loads(told.read_text())
    return report


def evaluate_run(config: TrainConfig, folder: Path, console: Console) -> dict[str, dict[str, Any]]:
    """Closed-loop scores of the trained policy and of the same policy with its memory cleared at each tick."""
    scores: dict[str, dict[str, Any]] = {}
    evaluation = config.evaluation
    seeds = range(evaluation.seed, evaluation.seed + evaluation.episodes)
    arms = {"trained": False} | ({"memory cleared": True} if evaluation.cleared else {})
    for name, cleared in arms.items():
        spec = RolloutSpec(str(folder / "checkpoints/last.ckpt"), config.env.id, env_options(config.env), cleared)
        jobs = evaluate(spec, seeds, config.parallel.workers, config.parallel.ray_address)
        rollouts = list(track(jobs, f"rollouts, {name}", total=len(seeds), console=console, transient=True))
        scores[name] = score(rollouts)
    return scores


def evaluated(config: TrainConfig, folder: Path, console: Console) -> dict[str, dict[str, Any]]:
    """`evaluate_run`, kept in the run, so that what comes after it may fail and be repeated alone."""
    path, how = folder / SCORES, {key: getattr(config.evaluation, key) for key in ("episodes", "seed", "cleared")}
    if path.exists():
        kept = json.loads(path.read_text())
        if kept["how"] == how and kept["env"] == to_plain(config)["env"]:
            return kept["scores"]
    scores = evaluate_run(config, folder, console)
    kept = {"how": how, "env": to_plain(config)["env"], "scores": scores}
    atomic_write(path, json.dumps(kept, default=_plain).encode())
    return scores


def main_job(config: TrainConfig) -> Path:
    """All phases of a run; returns the path of its summary.json. A finished run is reported, not repeated."""
    validate(config)
    check_buildable(config)
    console = Console()
    folder, summary = open_run(config)
    path = folder / "summary.json"
    if summary is not None:
        console.print(
            f"{folder} is finished; evaluate.py and export.py do those parts again, name=... makes another run, "
            "overwrite=true deletes this one and makes it again"
        )
        if summary["scores"]:
            console.print(score_table(summary["scores"], config.name))
        return path
    with phase(folder, "demonstrations"):
        root = collect_missing(config, console) if is_main_process() else wait_for_main_process(config, folder)
    if config.trainer.views is not None and is_main_process():
        from .views.pretext import pretrain

        with phase(folder, "pretraining"):
            pretrain(config, folder, console)
    with phase(folder, "training"):
        training = fit(config, folder, root, console)
    if not is_main_process():
        return path
    with phase(folder, "evaluation"):
        scores = evaluated(config, folder, console) if config.evaluation.episodes else {}
    summary = {
        **provenance([config.seed]),
        "name": config.name,
        "scores": scores,
        "training": training,
        "dataset": str(root),
    }
    if config.evaluation.recording:
        from .viewer import record_run

        with phase(folder, "recording"):
            summary["recording"] = record_run(config, folder)
    if config.evaluation.export:
        from .export import export_run

        with phase(folder, "export"):
            summary["export"] = export_run(config, folder)
    summary |= read_about(folder)
    atomic_write(path, json.dumps(summary, indent=2, default=_plain).encode())
    report(console, config, summary)
    return path


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"cannot write {type(value).__name__} to JSON")


def report(console: Console, config: TrainConfig, summary: dict[str, Any]) -> None:
    """What the user sees at the end."""
    if summary["scores"]:
        console.print(score_table(summary["scores"], config.name))
    training = summary["training"]
    error = training["held_out"].get("action_error")
    if not summary["scores"] and error is not None:
        console.print(f"not judged in an environment; error of the actions of held-out demonstrations: {error:.3f} std")
    if "samples_per_second" in training:
        console.print(
            f"{training['images_encoded_per_sample']:.1f} images encoded a training sample, "
            f"{training['samples_per_second']:.0f} samples/s"
        )
    console.print("seconds: " + ", ".join(f"{phase} {value:.0f}" for phase, value in summary["seconds"].items()))
    console.print(f"written to {Path(config.runs) / config.name}")
