"""The main job: demonstrations -> training -> closed-loop evaluation -> recording, export, summary."""

import json
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from .agent import Agent
from .build import agent_spec, build_agent, fit_statistics
from .checkpoint import PRETRAINED, describe, load_trunk, warm_start
from .config import TrainConfig, to_plain
from .data.datamodule import EpisodeDataModule
from .data.demonstrations import collect_missing, dataset_root, episode_count, episodes_per_scene, missing
from .env_config import env_options
from .errors import UserError
from .files import atomic_write
from .learn import BranchTemplates, ImitationModule
from .memory.recall import RecallHead
from .memory.teacher import AttentionTeacher
from .parallel import core_count
from .preflight import begun, check_buildable, check_environment
from .rollout import RolloutSpec, evaluate
from .run_folder import is_main_process, open_run, phase, read_about
from .scores import provenance, score, score_table
from .trainer import ClosedLoop, StopAtBranchAccuracy, fit_or_continue, make_trainer
from .validate import validate

TRAINING = "training.json"  # in a run folder: what its training was, once it is over
SCORES = "scores.json"  # in a run folder: the scores of its evaluation, once that is over


def wait_for_main_process(config: TrainConfig, folder: Path) -> Path:
    """In the other processes: wait until the run folder and the demonstrations are there."""
    root, _ = dataset_root(config)
    info = root / "meta/info.json"
    print(f"waiting for the first process, which collects demonstrations in {root} if they are missing", flush=True)
    ready = [folder / "run.json", info, *([folder / PRETRAINED] if config.trainer.views is not None else [])]
    while not all(path.exists() for path in ready) or missing(config, root):
        time.sleep(1)
    return root


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
    torch.set_num_threads(config.trainer.threads or max(1, core_count() // config.trainer.devices))
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
        if is_main_process():
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
    console = Console(quiet=not is_main_process())
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
