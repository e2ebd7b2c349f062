"""Checks of a whole configuration, before any long work."""

from itertools import combinations
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from envs.view_planning.env import BUDGET
from sims.dataset import seeds_of
from sims.state import VERSION

from .config import ACTConfig, CollectConfig, RunConfig, TrainConfig
from .env_config import RecordedConfig
from .errors import UserError
from .parallel import connect
from .sim_config import VALIDATION_SEED, SimulatorRunConfig, SoftBodiesConfig
from .views.config import ViewPlanningConfig, ViewRunConfig

PRECISIONS = ("auto", "32-true", "16-mixed", "bf16-mixed")


def require(condition: bool, message: str) -> None:
    """Raise a UserError unless the condition holds."""
    if not condition:
        raise UserError(message)


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    require(value in choices, f"{name}={value!r}; expected {', '.join(choices[:-1])} or {choices[-1]}")


def validate_run(config: RunConfig) -> None:
    """What holds for every run."""
    trainer = config.trainer
    require(
        bool(config.name) and not set(config.name) & set("/\\ ") and config.name not in (".", ".."),
        f"name={config.name!r} must be a plain folder name",
    )
    _one_of("trainer.accelerator", trainer.accelerator, ("auto", "cpu", "gpu"))
    _one_of("trainer.precision", trainer.precision, PRECISIONS)
    _one_of("wandb", config.wandb, ("auto", "offline", "online", "off"))
    if config.wandb == "online":
        from .trainer import wandb_logged_in

        require(wandb_logged_in(), "wandb=online needs an account: wandb login, or WANDB_API_KEY; or wandb=offline")
    require(0 <= config.seed < 2**32, f"seed={config.seed} must lie in [0, 2^32)")
    found = torch.cuda.device_count()
    if trainer.accelerator == "gpu":
        require(found > 0, "trainer.accelerator=gpu was asked for, but torch sees no GPU; use trainer.accelerator=auto")
    if trainer.accelerator == "gpu" or (trainer.accelerator == "auto" and found > 0):
        require(trainer.devices <= found, f"trainer.devices={trainer.devices}, but torch sees {found} GPUs")
    sweep = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    require(
        not sweep or trainer.devices * trainer.num_nodes == 1, "-m runs one process a run; start each run of several"
    )
    for name in ("epochs", "steps_per_epoch", "devices", "num_nodes"):
        require(getattr(trainer, name) >= 1, f"trainer.{name}={getattr(trainer, name)} must be at least 1")
    require(trainer.learning_rate > 0, f"trainer.learning_rate={trainer.learning_rate} must be > 0")
    for name, value in (("trainer.threads", trainer.threads), ("parallel.workers", config.parallel.workers)):
        require(value >= 0, f"{name}={value} must not be negative")
    require(0 <= trainer.ema < 1, f"trainer.ema={trainer.ema} must lie in [0, 1)")


def validate(config: TrainConfig) -> None:
    """Checks of a policy's run that cross fields or need the machine; all before any long work.

    Raises:
        UserError: names the value and the way out.
    """
    require(
        not isinstance(config.env, SoftBodiesConfig),
        "env=soft_bodies is for simulators, not policies; add sim=eqcollide",
    )
    require(
        not isinstance(config.env, ViewPlanningConfig),
        "env=view_planning is for view planners, not policies; add view=graph_distillation",
    )
    validate_run(config)
    trainer, data = config.trainer, config.data
    if isinstance(config.env, RecordedConfig):
        for name, count in (
            ("evaluation.episodes", config.evaluation.episodes),
            ("trainer.closed_loop_every", trainer.closed_loop_every),
        ):
            require(
                count == 0, f"{name}={count} needs an environment; env=recorded only plays what was recorded, set 0"
            )
    _one_of("trainer.teacher", trainer.teacher, ("attention", "none"))
    for name, value in (
        ("data.batch_size", data.batch_size),
        ("agent.tick_every", config.agent.tick_every),
        ("policy.chunk", config.policy.chunk),
    ):
        require(value >= 1, f"{name}={value} must be at least 1")
    numbers: tuple[tuple[str, float], ...] = (
        ("data.num_workers", data.num_workers), ("evaluation.episodes", config.evaluation.episodes),
        ("evaluation.videos", config.evaluation.videos), ("evaluation.seed", config.evaluation.seed),
        ("trainer.weight_decay", trainer.weight_decay),
        ("trainer.closed_loop_every", trainer.closed_loop_every), ("agent.path_noise", config.agent.path_noise),
        ("policy.kl_weight", getattr(config.policy, "kl_weight", 0)),
    )  # fmt: skip
    for name, number in numbers:
        require(number >= 0, f"{name}={number} must not be negative")
    require(
        len(config.encoder.channels) > 0 and config.encoder.content_dim >= 1,
        f"encoder.channels={config.encoder.channels} must not be empty and encoder.content_dim="
        f"{config.encoder.content_dim} at least 1",
    )
    validate_collection(config)
    first = config.evaluation.seed
    apart = data.seed + data.episodes <= first or first + config.evaluation.episodes <= data.seed
    require(
        data.root is not None or apart,
        f"evaluation.seed={config.evaluation.seed} would judge scenes that demonstrations show (data.seed={data.seed}, "
        f"data.episodes={data.episodes}); keep them apart",
    )
    require(data.episodes >= 2, f"data.episodes={data.episodes} must be at least 2")
    require(0 < data.holdout < 1, f"data.holdout={data.holdout} must lie between 0 and 1")
    for name, shift in (("shift", trainer.shift), ("policy_shift", trainer.policy_shift)):
        require(0 <= shift < 16, f"trainer.{name}={shift} must lie in 0..15 px; 0 leaves pictures in place")
    require(0 <= trainer.sharpen_after <= 1, f"trainer.sharpen_after={trainer.sharpen_after} must lie in [0, 1]")
    require(0 <= trainer.clear_share <= 1, f"trainer.clear_share={trainer.clear_share} must lie in [0, 1]")
    require(trainer.view_epochs >= 1, f"trainer.view_epochs={trainer.view_epochs} must be at least 1")
    require(
        trainer.views is None or trainer.init is None,
        f"trainer.init={trainer.init} would replace what trainer.views={trainer.views} teaches; give one of them",
    )
    require(0 <= trainer.stop_at <= 1, f"trainer.stop_at={trainer.stop_at} must lie in [0, 1]")
    require(0 <= trainer.residual <= 1, f"trainer.residual={trainer.residual} must lie in [0, 1]")
    plain = isinstance(config.policy, ACTConfig) and config.policy.latent_dim == 0 and trainer.clear_share > 0
    require(
        trainer.residual == 0 or plain,
        f"trainer.residual={trainer.residual} needs policy=act, policy.latent_dim=0 and trainer.clear_share > 0",
    )
    for name, weight in (("trainer.distillation", trainer.distillation), ("trainer.recall", trainer.recall)):
        require(weight >= 0, f"{name}={weight} must not be negative")
    require(
        trainer.distillation == 0 or trainer.teacher != "none", "trainer.distillation needs trainer.teacher=attention"
    )
    require(
        config.agent.scan_budget == 0 or config.memory.name != "retrieval",
        f"agent.scan_budget={config.agent.scan_budget} does not go with memory=retrieval; set it to 0",
    )
    require(1 <= config.agent.depth <= 4, f"agent.depth={config.agent.depth} must be in 1..4")
    require(
        config.policy.chunk >= config.agent.tick_every,
        f"policy.chunk={config.policy.chunk} is shorter than agent.tick_every={config.agent.tick_every}: "
        "actions would run out before the next tick",
    )


def validate_collection(config: TrainConfig | CollectConfig) -> None:
    """What holds where demonstrations are collected.

    Raises:
        UserError: names the value.
    """
    data = config.data
    numbers: tuple[tuple[str, float], ...] = (
        ("data.seed", data.seed), ("data.disturbance", data.disturbance), ("parallel.workers", config.parallel.workers),
    )  # fmt: skip
    for name, value in numbers:
        require(value >= 0, f"{name}={value} must not be negative")
    require(data.episodes >= 1, f"data.episodes={data.episodes} must be at least 1")
    if config.parallel.ray_address is not None:
        connect(config.parallel.ray_address)


def validate_simulator(config: SimulatorRunConfig) -> None:
    """The same of a simulator's run.

    Raises:
        UserError: names the value and the way out.
    """
    validate_run(config)
    trainer, data = config.trainer, config.data
    require(
        config.parallel.ray_address is None,
        f"parallel.ray_address={config.parallel.ray_address}: trajectories are made on this machine; leave it out",
    )
    require(
        trainer.precision == "32-true",
        f"trainer.precision={trainer.precision!r}: half precision is too coarse for contact; leave it at 32-true",
    )
    require(
        data.version == VERSION,
        f"data.version={data.version}: this version of the program makes trajectories of version {VERSION} alone",
    )
    for name, value in (("data.seed", data.seed), ("evaluation.seed", config.evaluation.seed)):
        require(value >= 0, f"{name}={value} must not be negative")
    for name in ("substeps", "layers", "width", "context"):
        require(getattr(config.sim, name, 1) >= 1, f"sim.{name}={getattr(config.sim, name, 1)} must be at least 1")
    require(
        getattr(config.sim, "radius", 0) >= 0, f"sim.radius={getattr(config.sim, 'radius', 0)} must not be negative"
    )
    require(
        data.validation >= trainer.devices * trainer.num_nodes,
        f"data.validation={data.validation} must be at least the number of processes",
    )
    require(config.env.dim in (2, 3), f"env.dim={config.env.dim} must be 2 or 3")
    require(len(config.env.bodies) == 2, f"env.bodies={config.env.bodies} must be the fewest and the most")
    require(len(config.env.young) == 2, f"env.young={config.env.young} must be the least and the largest")
    require(min(config.env.young) > 0, f"env.young={config.env.young} must be > 0")
    for name, value in (
        ("data.trajectories", data.trajectories), ("data.validation", data.validation), ("data.frames", data.frames),
        ("data.batch_size", data.batch_size), ("evaluation.scenes", config.evaluation.scenes),
    ):  # fmt: skip
        require(value >= 1, f"{name}={value} must be at least 1")
    scenes = {
        "training": seeds_of(data.trajectories, data.seed),
        "validation": seeds_of(data.validation, VALIDATION_SEED + data.seed),
        "evaluation": seeds_of(config.evaluation.scenes, config.evaluation.seed),
    }
    for (name, one), (other, two) in combinations(scenes.items(), 2):
        require(
            one.stop <= two.start or two.stop <= one.start,
            f"{name} and {other} would draw the same scenes (seeds {one.start} to {one.stop - 1} and {two.start} to "
            f"{two.stop - 1}); change data.seed or evaluation.seed",
        )
    require(data.num_workers >= 0, f"data.num_workers={data.num_workers} must not be negative")
    require(trainer.noise >= 0, f"trainer.noise={trainer.noise} must not be negative")
    require(
        len(trainer.unroll) > 0 and min(trainer.unroll) >= 1 and max(trainer.unroll) <= data.frames,
        f"trainer.unroll={trainer.unroll} must be numbers of frames from 1 to data.frames={data.frames}",
    )


def validate_views(config: ViewRunConfig) -> None:
    """The same for a run of view planning."""
    validate_run(config)
    view, env, trainer = config.view, config.env, config.trainer
    require(isinstance(env, ViewPlanningConfig), f"view={view.name} needs env=view_planning")
    _one_of("view.explore", view.explore, ("policy", "random"))
    _one_of("view.reinforcement", view.reinforcement, ("grpo", "ppo", "none"))
    _one_of("view.learn", view.learn, ("graph", "hindsight", "success", "none"))
    require(
        view.explore == "policy" or view.reinforcement == "none",
        "view.explore=random has no policy to change; use view.reinforcement=none",
    )
    at_least = {"view.iterations": (view.iterations, 0), "view.rounds": (view.rounds, 1), "view.group": (view.group, 2)}
    at_least |= {"view.rollouts": (view.rollouts, 1), "view.records": (view.records, 10)}
    at_least |= {"view.last_rounds": (view.last_rounds, 0)}
    require(trainer.rl_learning_rate > 0, f"trainer.rl_learning_rate={trainer.rl_learning_rate} must be > 0")
    at_least |= {
        "view.longest": (view.longest, 2),
        "view.longest_choice": (view.longest_choice, 1),
        "trainer.base_epochs": (trainer.base_epochs, 1),
    }
    at_least |= {"trainer.batch_size": (trainer.batch_size, 4), "evaluation.episodes": (config.evaluation.episodes, 1)}
    at_least |= {f"env.{name}": (getattr(env, name), 1) for name in ("rooms", "dev_rooms", "test_rooms")}
    at_least |= {"evaluation.items": (config.evaluation.items, 0)}
    for name, (value, least) in at_least.items():
        require(value >= least, f"{name}={value} must be at least {least}")
    require(view.init is None or Path(view.init).is_file(), f"view.init={view.init}: no agent at {view.init}")
    require(view.longest <= BUDGET, f"view.longest={view.longest} must be at most {BUDGET}, the moves of an episode")
    require(config.evaluation.seed >= 0, f"evaluation.seed={config.evaluation.seed} must not be negative")
    tries = view.rounds * (view.group if view.reinforcement == "grpo" else 1)
    require(
        view.reinforcement == "none" or view.rollouts % tries == 0,
        f"view.rollouts={view.rollouts} must be a multiple of {tries} (view.rounds, times view.group with grpo)",
    )
    require(
        len(env.moves) == 2 and 1 <= env.moves[0] <= env.moves[1] <= BUDGET,
        f"env.moves={env.moves} must be [fewest, most] in 1..{BUDGET}",
    )
    require(len(env.pieces) == 2, f"env.pieces={env.pieces} must be [fewest, most]")
    require(
        env.image_size % 8 == 0 and 32 <= env.image_size <= 256,
        f"env.image_size={env.image_size} must be a multiple of 8 in 32..256",
    )
    require(
        trainer.devices * trainer.num_nodes == 1,
        "view planning explores in one process; use trainer.devices=1 and trainer.num_nodes=1",
    )
