"""Reinforcement learning of the agent with a sparse reward: 1 for a STOP at the target.

    PPO     clipped ratio, generalised advantages of a learned value               Schulman et al. 2017, eq. 7 and 11
    GRPO    the same ratio, advantage (r - mean) / std over G tries of a task      Shao et al. 2024, section 4.1
            tasks whose tries all ended alike say nothing and are left out (the variance filter)

An epoch is: collect with the weights as they are, then a few passes over it. Every trajectory is written to a file.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from envs.view_planning.tasks import Distances, Episode, Place

from .agent import PathBatch, ViewAgent
from .batch import from_trajectories
from .explore import episodes, run, sampled
from .graph import Trajectory, save_trajectories

CLIP, ENTROPY, VALUE_WEIGHT = 0.2, 0.01, 0.5
GAMMA, LAMBDA = 0.99, 0.95
PASSES = 2  # over the rollouts of an epoch


class Experience(NamedTuple):
    """A batch of trajectories with what PPO and GRPO need; (B, T)."""

    paths: PathBatch
    log_probability: Tensor  # of what was done, by the policy that did it
    advantage: Tensor
    outcome: Tensor  # what the value should have been


@torch.no_grad()
def assess(agent: ViewAgent, paths: PathBatch) -> tuple[Tensor, Tensor]:
    """Log-probabilities of what was done and values, (B, T)."""
    hidden = agent(paths).hidden
    return log_probability(agent, hidden, paths)[0], agent.value(hidden).squeeze(-1)


def log_probability(agent: ViewAgent, hidden: Tensor, paths: PathBatch) -> tuple[Tensor, Tensor]:
    """Log-probability of what was done (labels: one-hot, zeros where nothing was) and entropy, (B, T)."""
    policy = agent.decide(hidden, paths.closed).log_softmax(-1)
    return (policy * paths.label).sum(-1), -(policy.exp() * policy).sum(-1)


def advantages(rewards: np.ndarray, values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Generalised advantages (B, T) of episodes whose reward (B,) comes with their last action."""
    out = np.zeros_like(values)
    for row, (reward, length) in enumerate(zip(rewards, lengths, strict=True)):
        running = 0.0
        for step in range(length - 1, -1, -1):
            last = step == length - 1
            delta = (reward if last else GAMMA * values[row, step + 1]) - values[row, step]
            running = delta + (0.0 if last else GAMMA * LAMBDA * running)
            out[row, step] = running
    return out


def informative(rewards: np.ndarray, group: int) -> np.ndarray:
    """Whether the tries of a task ended differently, for every try (B,); tries of a task stand together."""
    return np.repeat(rewards.reshape(-1, group).std(1) > 0, group)


class RolloutData(pl.LightningDataModule):
    """Rollouts of the agent in training, new in every epoch.

    Args:
        agent: the one in training.
        places: training rooms.
        each: tries a room and epoch.
        group: tries of a task, for GRPO; 1 for PPO.
        distances: of the targets.
        batch_size: trajectories a step.
        seed: of the tasks and of what is drawn.
        folder: where the trajectories of epoch e are kept, as epoch_<e>.npz.
    Raises:
        ValueError: `each` is no multiple of `group`.
    """

    def __init__(
        self, agent: ViewAgent, places: Sequence[Place], each: int, group: int, distances: Distances, batch_size: int,
        seed: int, folder: Path,
    ) -> None:  # fmt: skip
        super().__init__()
        if each % group:
            raise ValueError(f"tries a room must be a multiple of the group, got {each} and {group}")
        self.agent, self.places, self.each, self.group = agent, places, each, group
        self.distances, self.batch_size, self.seed, self.folder = distances, batch_size, seed, folder

    def tasks(self, epoch: int) -> list[Episode]:
        """Those of an epoch; tries of a task stand together."""
        drawn = episodes(self.places, self.each // self.group, self.seed * 1009 + epoch, self.distances)
        return [task for task in drawn for _ in range(self.group)]

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        epoch: int = self.trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]
        if epoch >= (self.trainer.max_epochs or 0):  # a finished training that is asked once more
            return DataLoader([])  # type: ignore[arg-type]
        rng = np.random.default_rng([self.seed, epoch])
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        found = run(self.agent, self.places, self.tasks(epoch), sampled(generator))
        save_trajectories(self.folder / f"epoch_{epoch}.npz", found)
        return DataLoader(list(self._batches(found, rng)), batch_size=None)  # type: ignore[arg-type]

    def _batches(self, found: list[Trajectory], rng: np.random.Generator) -> Iterator[Experience]:
        rewards = np.array([own.success for own in found], np.float32)
        grouped = np.zeros_like(rewards)
        if self.group > 1:
            tries = rewards.reshape(-1, self.group)
            grouped = ((tries - tries.mean(1, keepdims=True)) / (tries.std(1, keepdims=True) + 1e-6)).ravel()
            kept = np.flatnonzero(informative(rewards, self.group))
        else:
            kept = np.arange(len(found))
        if not len(kept):  # all tries of every task ended alike: only the entropy is left to learn from
            kept = np.arange(min(len(found), self.batch_size))
        device = self.agent.unseen.device
        for _ in range(PASSES):
            order = rng.permutation(kept)
            for first in range(0, len(order), self.batch_size):
                chosen = order[first : first + self.batch_size]
                yield self._experience([found[i] for i in chosen], rewards[chosen], grouped[chosen], device)

    def _experience(
        self, own: list[Trajectory], rewards: np.ndarray, grouped: np.ndarray, device: torch.device
    ) -> Experience:
        paths = from_trajectories(self.places, own)
        past, values = (part.cpu() for part in assess(self.agent, PathBatch(*(part.to(device) for part in paths))))
        lengths = np.array([len(one.moves) + one.stopped for one in own])
        there = paths.label.sum(-1)
        if self.group > 1:
            advantage = torch.from_numpy(grouped)[:, None] * there
            return Experience(paths, past, advantage, torch.from_numpy(rewards)[:, None] * there)
        gained = torch.from_numpy(advantages(rewards, values.numpy(), lengths)) * there
        return Experience(paths, past, gained, (gained + values) * there)


class Reinforcement(pl.LightningModule):
    """PPO, or GRPO with `group` > 1.

    Args:
        agent: in any state.
        learning_rate: of AdamW, constant.
        group: tries of a task.
    """

    def __init__(self, agent: ViewAgent, learning_rate: float, group: int) -> None:
        super().__init__()
        self.agent, self.learning_rate, self.group = agent, learning_rate, group

    def training_step(self, batch: Experience, batch_idx: int) -> Tensor:
        hidden = self.agent(batch.paths).hidden
        now, entropy = log_probability(self.agent, hidden, batch.paths)
        there = batch.paths.label.sum(-1)
        count = there.sum().clamp_min(1)
        gained = batch.advantage
        if self.group == 1:  # normalised over the batch
            mean = gained.sum() / count
            gained = (gained - mean) / (((gained - mean) * there).square().sum() / count).sqrt().clamp_min(1e-6)
        ratio = (now - batch.log_probability).exp()
        surrogate = torch.minimum(ratio * gained, ratio.clamp(1 - CLIP, 1 + CLIP) * gained)
        loss = -((surrogate + ENTROPY * entropy) * there).sum() / count
        if self.group == 1:
            off = (self.agent.value(hidden).squeeze(-1) - batch.outcome) * there
            loss = loss + VALUE_WEIGHT * off.square().sum() / count
        self.log("rl/loss", loss, prog_bar=self.device.type == "cpu", batch_size=1)
        self.log("rl/entropy", (entropy * there).sum() / count, batch_size=1)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.learning_rate, weight_decay=1e-4)
