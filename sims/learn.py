"""Training of learned simulators: windows of trajectories, unrolled for longer and longer, judged by whole rollouts."""

import math
import time
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .dataset import FRAME, Trajectory, transformed
from .metrics import LOST, has_diverged, squared_errors
from .model import LearnedModel, Window, predict
from .scenes import random_rotation

POSITION_WEIGHT = 2e3  # of a squared position error in m^2, beside a squared velocity error in (m/s)^2
WARMUP = 20  # steps
VALIDATED = 12  # scenes at a time


class _Windows(Dataset):
    """Item i is the batch of step i of an epoch, a function of (seed, epoch, i, rank) alone."""

    def __init__(self, owner: "TrajectoryDataModule", epoch: int, rank: int) -> None:
        self.owner, self.epoch, self.rank = owner, epoch, rank

    def __len__(self) -> int:
        return self.owner.steps_per_epoch

    def __getitem__(self, index: int) -> Window:
        owner = self.owner
        rng = np.random.default_rng([owner.seed, self.epoch, index, self.rank])
        frames = owner.frames(self.epoch)
        chosen = [owner.train[i] for i in rng.integers(len(owner.train), size=owner.batch_size)]
        starts = [int(rng.integers(trajectory.frames - frames + 1)) for trajectory in chosen]
        if owner.turn:
            shift = np.zeros(owner.model.dim)
            chosen = [transformed(own, random_rotation(owner.model.dim, rng), shift) for own in chosen]
        return owner.model.window(chosen, starts, frames).to(torch.float32)


class TrajectoryDataModule(pl.LightningDataModule):
    """Windows for training and whole trajectories for validation.

    Args:
        model: what the windows are for.
        train, validation: trajectories.
        batch_size: scenes a step and process.
        steps_per_epoch, epochs: of training.
        unroll: frames of a window; each number holds for an equal share of the epochs.
        seed: of the choice of windows.
        num_workers: loader processes; 0: the main process.
        turn: show every scene under a random rotation.
    """

    def __init__(
        self, model: LearnedModel, train: Sequence[Trajectory], validation: Sequence[Trajectory], batch_size: int,
        steps_per_epoch: int, epochs: int, unroll: Sequence[int], seed: int, num_workers: int = 0, turn: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.model, self.train, self.validation, self.batch_size = model, train, validation, batch_size
        self.steps_per_epoch, self.epochs, self.unroll = steps_per_epoch, epochs, list(unroll)
        self.seed, self.num_workers, self.turn = seed, num_workers, turn

    def frames(self, epoch: int) -> int:
        """Frames of a window in an epoch."""
        return self.unroll[min(len(self.unroll) * epoch // self.epochs, len(self.unroll) - 1)]

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        # `current_epoch` is stale when a resumed run asks for the first time.
        epoch: int = self.trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]
        windows = self.windows(epoch, self.trainer.global_rank)
        return DataLoader(windows, batch_size=None, num_workers=self.num_workers)

    def windows(self, epoch: int, rank: int = 0) -> Dataset:
        """The batches of an epoch, by step."""
        return _Windows(self, epoch, rank)

    def val_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        own = list(self.validation)[self.trainer.global_rank :: self.trainer.world_size]
        batches = [own[i : i + VALIDATED] for i in range(0, len(own), VALIDATED)]
        return DataLoader(batches, batch_size=None, collate_fn=list)  # type: ignore[arg-type]


class SimulatorModule(pl.LightningModule):
    """Fits a simulator to windows by Adam with a cosine schedule.

    Args:
        model: the simulator.
        learning_rate: at the beginning, after a warm-up; it falls to a thousandth.
        noise: standard deviation of the velocities that a window begins with, m/s. Past velocities take part in a
            random walk that ends there, and positions move along (Sanchez-Gonzalez et al. 2020, appendix B).
        steps: of the whole training.
        seed: the randomness of an optimiser step is a function of (seed, step, rank).
    """

    def __init__(self, model: LearnedModel, learning_rate: float, noise: float, steps: int, seed: int) -> None:
        super().__init__()
        self.model, self.learning_rate, self.noise = model, learning_rate, noise
        self.steps, self.seed = steps, seed
        # Spent in training so far, also before the run was interrupted, and of that on this process's cores.
        self.seconds, self.cpu_seconds = 0.0, 0.0

    def loss(self, window: Window) -> Tensor:
        """Squared velocity error plus weighted squared position error, (m/s)^2, a mean over frames and variables."""
        p, v, past = window.positions[0], window.velocities[0], window.past
        moved = torch.zeros_like(p)
        weight = self.model.weights(window.statics).unsqueeze(-1)
        if self.noise > 0 and self.training:
            steps = torch.randn(len(past) + 1, *v.shape, device=v.device) * weight
            walk = steps.cumsum(0) * (self.noise / math.sqrt(len(steps)))
            moved = FRAME * walk.sum(0)
            p, v, past = p + moved, v + walk[-1], past + walk[:-1]
        frames = len(window.speeds)
        pushers = (window.place, window.speeds)
        places, speeds = self.model.rollout(p, v, window.statics, pushers, frames, FRAME, past)
        place = (places[1:] - window.positions[1:] - moved).square()
        speed = (speeds[1:] - window.velocities[1:]).square()
        return ((POSITION_WEIGHT * place + speed) * weight).sum() / (frames * weight.sum())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["seconds"] = self.seconds, self.cpu_seconds

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.seconds, self.cpu_seconds = checkpoint["seconds"]

    def on_train_epoch_start(self) -> None:
        self._clocks = time.perf_counter(), time.process_time()

    def on_train_batch_end(self, outputs: Any, batch: Window, batch_idx: int) -> None:
        now = time.perf_counter(), time.process_time()
        self.seconds += now[0] - self._clocks[0]
        self.cpu_seconds += now[1] - self._clocks[1]
        self._clocks = now

    def on_train_batch_start(self, batch: Window, batch_idx: int) -> None:
        torch.manual_seed((self.seed * 1_000_003 + self.global_step) * 1009 + self.global_rank)

    def training_step(self, batch: Window, batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/frames", float(len(batch.speeds)))
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        # An unrolled rollout can diverge; such a step changes nothing, and is counted.
        gradients = [parameter.grad for parameter in self.parameters() if parameter.grad is not None]
        finite = bool(torch.isfinite(torch.stack([gradient.sum() for gradient in gradients]).sum()))
        if not finite:
            optimizer.zero_grad()  # without gradients Adam leaves the weights alone
        self.log("train/skipped", float(not finite))

    def validation_step(self, batch: list[Trajectory], batch_idx: int) -> None:
        frames = min(trajectory.frames for trajectory in batch)
        results = predict(self.model, batch, frames)
        pairs = [(truth, result.positions) for truth, result in zip(batch, results, strict=True)]
        errors = [squared_errors(truth, positions)[1:].mean() for truth, positions in pairs]
        wild = [has_diverged(truth, positions) for truth, positions in pairs]
        # A mean that one wild rollout does not swallow; how many there are is logged beside it.
        mean = float(np.mean([min(error, LOST) if error == error else LOST for error in errors]))
        size = len(batch) * self.trainer.world_size  # whose mean over processes Lightning rounds down
        self.log("val/rollout_mse", mean, prog_bar=True, batch_size=size, sync_dist=True)
        self.log("val/diverged", float(np.mean(wild)), batch_size=size, sync_dist=True)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.learning_rate)

        def factor(step: int) -> float:
            fall = 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps)))
            return min(1.0, (step + 1) / WARMUP) * (1e-3 + (1 - 1e-3) * fall)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch.to(device) if isinstance(batch, Window) else batch
