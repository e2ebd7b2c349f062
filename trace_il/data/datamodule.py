"""LightningDataModule over whole episodes. The order of the data is a function of (seed, epoch) alone."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
from torch.utils.data import DataLoader, Dataset

from ..errors import UserError
from .cache import FrameCache
from .episodes import EpisodeBatch, EpisodeDataset
from .reader import DatasetReader


class _Batches(Dataset):
    """A map-style view: item i is a whole batch, so that nothing but the index needs to be remembered."""

    def __init__(self, episodes: EpisodeDataset, order: list[list[tuple[int, int]]]) -> None:
        self.episodes, self.order = episodes, order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> EpisodeBatch:
        numbers, offsets = zip(*self.order[index], strict=True)
        return self.episodes.batch(list(numbers), list(offsets))


class EpisodeDataModule(pl.LightningDataModule):
    """Train and held-out episodes of one dataset.

    Args:
        root: folder of a LeRobotDataset v3.
        tick_every, chunk: of the agent.
        episodes: use the first that many (0: all).
        holdout: share of them, from the end, that is held out.
        batch_size: episodes a batch and process.
        steps_per_epoch: optimiser steps an epoch.
        seed: of the order.
        num_workers: loader processes; 0 loads in the main process, which is right for small images.
        together: so many consecutive episodes show one scene with different cues; they stay together in the
            order and so mostly in a batch, whose mean then says nothing about the cue, and are held out together.
        progress: wraps an iterable while the frame cache is built.
    Raises:
        UserError: fewer than two episodes.
    """

    def __init__(
        self,
        root: Path,
        tick_every: int,
        chunk: int,
        episodes: int = 0,
        holdout: float = 0.1,
        batch_size: int = 8,
        steps_per_epoch: int = 50,
        seed: int = 0,
        num_workers: int = 0,
        together: int = 1,
        progress: Callable[[range], Iterable[int]] = lambda numbers: numbers,
    ) -> None:
        super().__init__()
        self.dataset = DatasetReader(root)
        available = len(self.dataset)
        if episodes > available:
            raise UserError(f"{root} has {available} episodes, data.episodes={episodes} were asked for; collect more")
        count = episodes or available
        if count < 2:
            raise UserError(f"{root} has {count} episodes; at least 2 are needed, one of them is held out")
        held_out = min(max(1, round(holdout * count)), count - 1)
        first = (count - held_out) // together * together or count - held_out  # whole scenes, if there are two of them
        self.train_numbers, self.held_out_numbers = list(range(first)), list(range(first, count))
        self.episodes = EpisodeDataset(
            self.dataset, FrameCache(self.dataset, count, progress), tick_every, chunk, together
        )
        self.batch_size, self.steps_per_epoch = batch_size, steps_per_epoch
        self.seed, self.num_workers, self.together = seed, num_workers, together
        digest = hashlib.sha256()
        for states, actions in zip(self.dataset.states[:count], self.dataset.actions[:count], strict=True):
            digest.update(states.tobytes() + actions.tobytes())
        self.content = digest.hexdigest()

    def state_dict(self) -> dict[str, Any]:
        """How many episodes, and a digest of what was done in them."""
        return {"episodes": len(self.train_numbers) + len(self.held_out_numbers), "content": self.content}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        before, now = state_dict["episodes"], self.state_dict()["episodes"]
        if before != now:
            raise UserError(
                f"this run was begun with {before} episodes and {self.dataset.root} now has {now}; put it back "
                "to go on, or begin again with overwrite=true or another name"
            )
        if state_dict.get("content", self.content) != self.content:
            raise UserError(
                f"{self.dataset.root} has other episodes than this run was begun with; put those back to go on, or "
                "begin again with overwrite=true or another name"
            )

    def train_order(self, epoch: int, rank: int = 0, world: int = 1) -> list[list[tuple[int, int]]]:
        """(episode, offset) of each batch of an epoch: consecutive slices of an endless stream of permutations.

        The offset, 0 to tick_every - 1 control steps, is where the episode is begun; it is one for a whole scene. Of
        `world` processes each has neighbours, so that none is shown one cue only.
        """
        per_step = self.batch_size * world
        first = epoch * self.steps_per_epoch * per_step
        stream = list(self._stream(first, self.steps_per_epoch * per_step))
        steps = [stream[i : i + per_step] for i in range(0, len(stream), per_step)]
        return [step[rank * self.batch_size : (rank + 1) * self.batch_size] for step in steps]

    def _stream(self, first: int, count: int) -> Iterator[tuple[int, int]]:
        size = len(self.train_numbers)
        scenes = [self.train_numbers[i : i + self.together] for i in range(0, size, self.together)]
        for position in range(first, first + count):
            if position == first or position % size == 0:
                rng = np.random.default_rng([self.seed, position // size])
                order = rng.permutation(len(scenes))
                offsets = rng.integers(self.episodes.tick_every, size=len(scenes)).tolist()
                items = [(number, offsets[scene]) for scene in order for number in scenes[scene]]
            yield items[position % size]

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        # `current_epoch` is stale when a resumed run asks for the first time.
        epoch: int = self.trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]
        return self._loader(self.train_order(epoch, self.trainer.global_rank, self.trainer.world_size))

    def val_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        world, numbers = self.trainer.world_size, list(self.held_out_numbers)
        numbers += (numbers * world)[: -len(numbers) % world]  # every process validates as many batches
        numbers = numbers[self.trainer.global_rank :: world]
        items = [(number, 0) for number in numbers]
        return self._loader([items[i : i + self.batch_size] for i in range(0, len(items), self.batch_size)])

    def _loader(self, order: list[list[tuple[int, int]]]) -> DataLoader:
        return DataLoader(
            _Batches(self.episodes, order),
            batch_size=None,
            num_workers=self.num_workers,
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
        )
