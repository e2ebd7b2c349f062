"""Checks of a whole configuration, before any long work."""

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from .config import ACTConfig, TrainConfig
from .errors import UserError


def validate(config: TrainConfig) -> None:
    """Checks that cross fields or need the machine; all before any long work.

    Raises:
        UserError: names the value and the way out.
    """

    def require(condition: bool, message: str) -> None:
        if not condition:
            raise UserError(message)

    trainer, data = config.trainer, config.data
    require(
        bool(config.name) and not set(config.name) & set("/\\ ") and config.name not in (".", ".."),
        f"name={config.name!r} must be a plain folder name",
    )
    require(
        trainer.accelerator in ("auto", "cpu", "gpu"),
        f"trainer.accelerator={trainer.accelerator!r}; expected auto, cpu or gpu",
    )
    found = torch.cuda.device_count()
    if trainer.accelerator == "gpu":
        require(found > 0, "trainer.accelerator=gpu was asked for, but torch sees no GPU; use trainer.accelerator=auto")
    if trainer.accelerator == "gpu" or (trainer.accelerator == "auto" and found > 0):
        require(trainer.devices <= found, f"trainer.devices={trainer.devices}, but torch sees {found} GPUs")
    sweep = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    require(
        not sweep or trainer.devices * trainer.num_nodes == 1, "-m runs one process a run; start each run of several"
    )
    require(
        trainer.teacher in ("attention", "none"), f"trainer.teacher={trainer.teacher!r}; expected attention or none"
    )
    require(
        config.wandb in ("auto", "offline", "online", "off"),
        f"wandb={config.wandb!r}; expected auto, offline, online or off",
    )
    for name, value in (
        ("trainer.epochs", trainer.epochs),
        ("trainer.steps_per_epoch", trainer.steps_per_epoch),
        ("trainer.devices", trainer.devices),
        ("data.batch_size", data.batch_size),
        ("agent.tick_every", config.agent.tick_every),
        ("policy.chunk", config.policy.chunk),
    ):
        require(value >= 1, f"{name}={value} must be at least 1")
    for name, value in (
        ("data.num_workers", data.num_workers), ("parallel.workers", config.parallel.workers),
        ("evaluation.episodes", config.evaluation.episodes), ("evaluation.videos", config.evaluation.videos),
        ("trainer.threads", trainer.threads),
    ):  # fmt: skip
        require(value >= 0, f"{name}={value} must not be negative")
    require(
        trainer.precision in ("auto", "32-true", "16-mixed", "bf16-mixed"),
        f"trainer.precision={trainer.precision!r}; expected auto, 32-true, 16-mixed or bf16-mixed",
    )
    require(data.root is not None or data.episodes >= 2, f"data.episodes={data.episodes} must be at least 2")
    require(0 < data.holdout < 1, f"data.holdout={data.holdout} must lie between 0 and 1")
    require(0 <= trainer.ema < 1, f"trainer.ema={trainer.ema} must lie in [0, 1)")
    require(0 <= trainer.clear_share <= 1, f"trainer.clear_share={trainer.clear_share} must lie in [0, 1]")
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
