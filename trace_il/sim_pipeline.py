"""The job of a simulator: trajectories of the ground truth -> training -> rollouts on fresh scenes -> summary."""

import hashlib
import json
import time
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress, track

from sims.build import Recipe, save
from sims.dataset import Trajectory, generate, load
from sims.dataset import describe as describe_scene
from sims.flex import FlexSimulator, SimulationError
from sims.learn import SimulatorModule, TrajectoryDataModule
from sims.metrics import rollout_scores, summarise
from sims.model import LearnedModel, Range, predict
from sims.scenes import SceneSettings, random_scene
from sims.state import VERSION

from .checkpoint import describe, read_checkpoint
from .config import to_plain
from .errors import UserError
from .files import atomic_write
from .parallel import core_count, parallel_map
from .run_folder import is_main_process, open_run, phase, read_about
from .scores import provenance, simulator_table
from .sim_config import VALIDATION_SEED, SimulatorRunConfig, from_plain, scene_settings
from .trainer import fit_or_continue, make_trainer
from .validate import validate_simulator


def recipe(config: SimulatorRunConfig) -> Recipe:
    """Which model a configuration asks for.

    Raises:
        UserError: a value that the model refuses.
    """
    options = {f.name: getattr(config.sim, f.name) for f in fields(config.sim) if f.name != "name"}
    out = Recipe(config.sim.name, config.env.dim, options)
    try:
        out.build()
    except (ValueError, RuntimeError, ZeroDivisionError) as error:
        raise UserError(f"cannot build the simulator: {error}; check sim and env") from error
    return out


def dataset(
    settings: SceneSettings, count: int, frames: int, seed: int, workers: int = 0, console: Console | None = None
) -> list[Trajectory]:
    """Trajectories of the ground truth; what is missing is simulated, with a progress bar.

    Raises:
        UserError: scenes that cannot be simulated, a worker was killed, or a file is damaged.
    """
    root = dataset_root(settings, count, frames, seed)
    if not (root / "complete.json").exists():
        with Progress(console=console, transient=True) as bar:
            job = bar.add_task(f"trajectories -> {root}", total=count)
            try:
                for present in generate(root, settings, count, frames, seed, partial(parallel_map, workers=workers)):
                    bar.update(job, completed=present)
            except (ValueError, SimulationError) as error:
                raise UserError(str(error)) from error
    try:
        return load(root)
    except ValueError as error:
        raise UserError(str(error)) from error


def dataset_root(settings: SceneSettings, count: int, frames: int, seed: int) -> Path:
    """Where such trajectories are."""
    asked = json.dumps([VERSION, asdict(settings), count, frames, seed])
    digest = hashlib.sha256(asked.encode()).hexdigest()[:8]
    return Path("data") / f"soft_bodies_{settings.dim}d-{settings.world}-{digest}"


def judge(model: LearnedModel, scenes: list[Trajectory], console: Console, batch: int = 8) -> dict[str, Any]:
    """Scores of rollouts from the first state of each scene to its end."""
    scores, seconds = [], 0.0
    batches = [scenes[i : i + batch] for i in range(0, len(scenes), batch)]
    for own in track(batches, "rollouts", console=console, transient=True):
        begin = time.perf_counter()
        results = predict(model, own, min(trajectory.frames for trajectory in own))
        seconds += time.perf_counter() - begin
        scores += [rollout_scores(truth, result) for truth, result in zip(own, results, strict=True)]
    frames = sum(trajectory.frames for trajectory in scenes)
    return {**summarise(scores), "ms_per_scene_frame": 1e3 * seconds / frames}


def fit(
    config: SimulatorRunConfig, folder: Path, own: Recipe, console: Console
) -> tuple[LearnedModel, Range, dict[str, Any]]:
    """Train, or continue; the model of the best validation error, the range of its data, counts and speeds."""
    torch.set_num_threads(config.trainer.threads or max(1, core_count() // config.trainer.devices))
    torch.manual_seed(config.seed)
    model = own.build()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    report: dict[str, Any] = {"parameters": parameters}
    settings, data, trainer = scene_settings(config.env), config.data, config.trainer
    train = dataset(settings, data.trajectories, data.frames, data.seed)
    if not parameters:
        return model.eval(), Range.of(train), report
    validation = dataset(settings, data.validation, data.frames, VALIDATION_SEED + data.seed)
    steps = trainer.epochs * trainer.steps_per_epoch
    module = SimulatorModule(model, trainer.learning_rate, trainer.noise, steps, config.seed)
    windows = TrajectoryDataModule(
        model, train, validation, data.batch_size, trainer.steps_per_epoch, trainer.epochs, trainer.unroll,
        config.seed, data.num_workers, trainer.turn,
    )  # fmt: skip
    run_id = json.loads((folder / "run.json").read_text())["id"]
    about = describe(to_plain(config))
    lightning = make_trainer(config, folder, run_id, about, "val/rollout_mse", [])
    fit_or_continue(lightning, module, windows, folder, console)
    best = read_checkpoint(folder / "checkpoints/best.ckpt")
    weights = {k.removeprefix("model."): v for k, v in best["state_dict"].items() if k.startswith("model.")}
    model.load_state_dict(weights)
    report |= {
        "optimiser_steps": lightning.global_step,
        "best_step": best["global_step"],
        "fit_seconds": module.seconds,
        "cpu_seconds": module.cpu_seconds,
    }
    return model.cpu().eval(), Range.of(train), report


def simulator_job(config: SimulatorRunConfig) -> Path:
    """All phases of a run; returns the path of its summary.json. A finished run is reported, not repeated."""
    validate_simulator(config)
    own = recipe(config)
    settings, evaluation = scene_settings(config.env), config.evaluation
    try:
        fullest = replace(settings, bodies=(settings.bodies[1], settings.bodies[1]))
        random_scene(settings, config.data.seed)
        scene = random_scene(fullest, config.data.seed)
        start = FlexSimulator().reset(scene)
        predict(own.build().eval(), [describe_scene(scene, [start], 0)], 1)
    except ValueError as error:
        raise UserError(f"env and sim: {error}") from error
    console = Console(quiet=not is_main_process())
    folder, summary = open_run(config, from_plain)
    path = folder / "summary.json"
    if summary is not None:
        console.print(f"{folder} is finished; overwrite=true makes it again, name=... makes another")
        console.print(simulator_table(summary["scores"], config.name))
        return path
    wanted = [
        (config.data.trajectories, config.data.seed),
        (config.data.validation, VALIDATION_SEED + config.data.seed),
        (evaluation.scenes, evaluation.seed),
    ]
    with phase(folder, "trajectories"):
        for count, seed in wanted:
            if is_main_process():
                dataset(settings, count, config.data.frames, seed, config.parallel.workers, console)
            while not (dataset_root(settings, count, config.data.frames, seed) / "complete.json").exists():
                time.sleep(1)
        while not (folder / "run.json").exists():
            time.sleep(1)
    with phase(folder, "training"):
        model, seen, training = fit(config, folder, own, console)
    if not is_main_process():
        return path
    save(folder / "simulator.pt", own, model, seen)
    with phase(folder, "evaluation"):
        scenes = dataset(settings, evaluation.scenes, config.data.frames, evaluation.seed)
        scores = {"trained": {**judge(model, scenes, console), "cpu_seconds": training.get("cpu_seconds", 0.0)}}
    summary = {**provenance([config.seed]), "name": config.name, "scores": scores, "training": training}
    if evaluation.recording:
        from .sim_viewer import record_simulator

        with phase(folder, "recording"):
            summary["recording"] = record_simulator(model, scenes[0], folder)
    summary |= read_about(folder)
    atomic_write(path, json.dumps(summary, indent=2).encode())
    console.print(simulator_table(scores, config.name))
    console.print("seconds: " + ", ".join(f"{phase} {value:.0f}" for phase, value in summary["seconds"].items()))
    console.print(f"written to {folder}")
    return path
