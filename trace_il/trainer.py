"""The Lightning trainer of a run: callbacks, loggers, exact resume."""

import copy
import csv
import io
import logging
import netrc
import os
import time
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, RichProgressBar, WeightAveraging
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from torch.optim.swa_utils import get_ema_multi_avg_fn

from .agent import Controller
from .checkpoint import AtomicCheckpointIO, read_checkpoint
from .config import FitConfig, RunConfig, to_plain
from .environment import make_env
from .files import atomic_write
from .learn import ImitationModule
from .rollout import rollout
from .scores import score


class ExponentialAverage(WeightAveraging):
    """Exponential moving average of the weights; validation, checkpoints and deployment use it."""

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=False, multi_avg_fn=get_ema_multi_avg_fn(decay))

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._device = trainer.strategy.root_device  # Lightning takes the module's, before it has been moved there
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None:  # this number is looked at in every step: not on a GPU, then
            self._average_model.n_averaged = torch.zeros_like(self._average_model.n_averaged, device="cpu")

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # A resumed run that was already finished never reaches `on_train_end`, which would do this.
        if self._average_model is not None and trainer.state.status != "interrupted":
            self._copy_average_to_current(pl_module)


class AboutCheckpoint(pl.Callback):
    """Writes into every checkpoint what it is: format, version, configuration, agent spec."""

    def __init__(self, about: dict[str, Any]) -> None:
        self.about = about

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["trace_il"] = self.about


class ClosedLoop(pl.Callback):
    """Every few epochs, a few closed-loop rollouts on seeds that the final evaluation does not use."""

    EPISODES, SEED_OFFSET = 10, 500_000

    def __init__(self, every: int, env_id: str, env_options: dict[str, Any], seed: int) -> None:
        self.every, self.env_id, self.env_options, self.seed = every, env_id, env_options, seed
        self.env: Any = None

    @rank_zero_only
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, ImitationModule)
        if trainer.sanity_checking or (trainer.current_epoch + 1) % self.every:
            return
        if self.env is None:
            self.env = make_env(self.env_id, self.env_options)
        # A copy: moving the parameters themselves would disturb the optimiser and autograd.
        controller = Controller(copy.deepcopy(pl_module.agent).cpu())
        first = self.seed + self.SEED_OFFSET
        result = score([rollout(controller, self.env, seed) for seed in range(first, first + self.EPISODES)])
        for name in ("progress", "branch_accuracy", "success"):
            if result[name] is not None:
                pl_module.log(f"closed_loop/{name}", result[name], rank_zero_only=True)


class StopAtBranchAccuracy(EarlyStopping):
    """Stops once the held-out branch accuracy is at least `threshold`; also when continued after that."""

    def __init__(self, threshold: float, epochs: int) -> None:
        # The metric is a float32, and Lightning compares with ">".
        super().__init__(
            "val/branch_accuracy", mode="max", patience=epochs, stopping_threshold=threshold - 1e-6, check_finite=False
        )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or self.stopping_reason is EarlyStoppingReason.STOPPING_THRESHOLD


class _AppendWriter(ExperimentWriter):
    """Continues an existing metrics.csv instead of deleting it."""

    def _check_log_dir_exists(self) -> None:
        if self._fs.isfile(self.metrics_file_path):
            with self._fs.open(self.metrics_file_path, "r", newline="") as file:
                self.metrics_keys = list(next(csv.reader(file), []))


def trim_metrics(path: Path, checkpoint: Path) -> None:
    """Drop rows that a killed run logged after its last checkpoint, which the continued run logs again, and rows that
    it did not write to their end."""
    if not checkpoint.exists():  # it begins anew, perhaps with other settings
        path.unlink(missing_ok=True)
    if not path.exists():
        return
    step = read_checkpoint(checkpoint)["global_step"]
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    header = rows[0] if rows else []
    if "step" not in header:
        path.unlink()
        return
    column = header.index("step")
    kept = [row for row in rows[1:] if len(row) == len(header) and int(row[column]) < step]
    if len(kept) < len(rows) - 1:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([header, *kept])
        atomic_write(path, text.getvalue().encode())


class AppendCSVLogger(CSVLogger):
    """`<folder>/metrics.csv`, continued when a run is resumed."""

    @property
    def log_dir(self) -> str:
        return str(self.save_dir)

    @property
    def experiment(self) -> Any:
        if self._experiment is None:
            os.makedirs(self.log_dir, exist_ok=True)
            self._experiment = _AppendWriter(log_dir=self.log_dir)
        return self._experiment


def wandb_logged_in() -> bool:
    """Whether wandb has credentials, found out without a prompt or a network."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).netloc
    candidates = [os.environ.get("NETRC"), "~/.netrc", "~/_netrc"]
    path = next((p for p in (os.path.expanduser(c) for c in candidates if c) if os.path.exists(p)), None)
    if path is None:
        return False
    try:
        entry = netrc.netrc(path).authenticators(host)
    except (OSError, netrc.NetrcParseError):
        return False
    return bool(entry and entry[2])


def loggers(config: RunConfig, folder: Path, run_id: str) -> list[Logger]:
    """Always a CSV; wandb offline unless the user is logged in or says otherwise."""
    out: list[Logger] = [AppendCSVLogger(folder, name="")]
    if config.wandb != "off":
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        offline = config.wandb == "offline" or (config.wandb == "auto" and not wandb_logged_in())
        settings = wandb.Settings(silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True)
        logger = WandbLogger(
            project="trace-il", name=config.name, save_dir=folder, id=run_id, offline=offline, resume="allow",
            log_model=False, settings=settings, config=to_plain(config),
        )  # fmt: skip
        logger._wandb_init.pop("anonymous", None)  # Lightning sets it, and wandb warns of it
        out.append(logger)
    return out


def quiet() -> None:
    """Silence messages of Lightning that tell a user of this program nothing."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        r".*does not have many workers.*",
        r".*exists and is not empty.*",
        r".*isinstance\(treespec, LeafSpec\).*",
        r".*is smaller than the logging interval.*",
        r".*GPU available but not used.*",
        r".*enable_nested_tensor.*",
        r".*overridden `transfer_batch_to_device`.*",
    ):
        warnings.filterwarnings("ignore", message=message)


def on_gpu(trainer: FitConfig) -> bool:
    """Whether a run computes on a GPU."""
    return trainer.accelerator == "gpu" or (trainer.accelerator == "auto" and torch.cuda.is_available())


def make_trainer(
    config: RunConfig, folder: Path, run_id: str, about: dict[str, Any], monitor: str, callbacks: list[pl.Callback]
) -> pl.Trainer:
    """The trainer of a run.

    Args:
        about: what checkpoints say of themselves.
        monitor: the metric that the best checkpoint has least of.
        callbacks: further ones; they see the averaged weights when validation ends.
    """
    quiet()
    trim_metrics(folder / "metrics.csv", folder / "checkpoints/last.ckpt")
    trainer = config.trainer
    gpu = on_gpu(trainer)
    precision: Any = trainer.precision
    if precision == "auto":
        precision = "bf16-mixed" if gpu else "32-true"
    checkpoints: dict[str, Any] = {
        "dirpath": folder / "checkpoints",
        "auto_insert_metric_name": False,
        "enable_version_counter": False,
    }
    # The average puts the raw weights back when validation ends.
    average = [ExponentialAverage(trainer.ema)] if trainer.ema > 0 else []
    several = trainer.devices * trainer.num_nodes > 1
    return pl.Trainer(
        accelerator="gpu" if gpu else "cpu",
        devices=trainer.devices,
        num_nodes=trainer.num_nodes,
        # Without a memory or a teacher some weights get no gradient.
        strategy="ddp_find_unused_parameters_true" if several else "auto",
        precision=precision,
        max_epochs=trainer.epochs,
        limit_train_batches=trainer.steps_per_epoch,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        gradient_clip_val=trainer.gradient_clip or None,
        log_every_n_steps=10,
        logger=loggers(config, folder, run_id),
        callbacks=[
            AboutCheckpoint(about),
            *callbacks,
            *average,
            ModelCheckpoint(filename="best", monitor=monitor, mode="min", **checkpoints),
            # A callback of its own: with a monitor, `last` would only be written when the metric improves.
            ModelCheckpoint(filename="last", monitor=None, save_on_train_epoch_end=True, **checkpoints),
            RichProgressBar(leave=False),
        ],
        plugins=[AtomicCheckpointIO()],
        enable_model_summary=False,
        default_root_dir=folder,
    )


def fit_or_continue(
    trainer: pl.Trainer, module: pl.LightningModule, data: pl.LightningDataModule, folder: Path, console: Console
) -> float:
    """Train to the end, from the last checkpoint if there is one; the seconds it took."""
    last = folder / "checkpoints/last.ckpt"
    if last.exists():
        console.print(f"continuing {folder} from {last}")
    begin = time.perf_counter()
    try:
        trainer.fit(module, datamodule=data, ckpt_path=str(last) if last.exists() else None, weights_only=True)
    except SystemExit as stop:  # what Lightning makes of Ctrl-C
        raise KeyboardInterrupt from stop
    finally:
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.finish()  # what this process trains next is a run of its own
    for logger in trainer.loggers:
        logger.finalize("success")
    return time.perf_counter() - begin
