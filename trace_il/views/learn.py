"""Supervised training of the agent: distilled records, or the transitions of length one and two of the base agent."""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from envs.view_planning.tasks import Place

from .agent import ChoiceBatch, PathBatch, ViewAgent
from .batch import choices, from_records, mirrored, mirrored_choices
from .distill import CHOICE_KINDS, TARGETS, Record

Batch = tuple[PathBatch] | tuple[PathBatch, ChoiceBatch]
LEFT_WEIGHT, LEFT_UNIT = 0.1, 5.0  # of the moves that are left: weight of the error, and moves
WHERE_WEIGHT = 1.0  # of the error of where the goal is
VALIDATED = 4  # batches


def mean(values: Tensor, asked: Tensor) -> Tensor:
    """Of those that are asked for; 0 where none is. (A device is not waited for, as it would be to pick them out.)"""
    return (values * asked).sum() / asked.sum().clamp_min(1)


def path_loss(agent: ViewAgent, batch: PathBatch) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of what is best, and the errors of the moves that are left and of where the goal is."""
    hidden, where, belief = agent(batch)
    logits = agent.decide(hidden, batch.closed)
    label = batch.label * ~agent.shut(batch.closed)  # what it leaves alone is not asked for
    label = label / label.sum(-1, keepdim=True).clamp_min(1e-6)
    asked, known = label.sum(-1) > 0, batch.left >= 0
    move = mean(-(label * logits.log_softmax(-1)).sum(-1), asked)
    error = functools.partial(nn.functional.smooth_l1_loss, reduction="none")
    off = mean(error(agent.moves_left(hidden).squeeze(-1), batch.left / LEFT_UNIT), known)
    alone = mean(error(where, batch.where).sum(-1), known & batch.seen)
    away = mean(error(belief, batch.where).sum(-1), known)
    right = torch.take_along_dim(label, logits.argmax(-1, keepdim=True), -1).squeeze(-1) > 0
    figures = {"move": move.detach(), "left": off.detach(), "where": alone.detach(), "belief": away.detach()}
    figures["move_accuracy"] = mean(right.float(), asked)
    return move + LEFT_WEIGHT * off + WHERE_WEIGHT * (alone + away), figures


def choice_loss(agent: ViewAgent, batch: ChoiceBatch) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of P2V and V2P; every option is asked for once, since all options lead somewhere."""
    p2v, v2p = agent.scores(batch)
    count, options = batch.end.shape
    own = torch.arange(options, device=p2v.device).expand(count, -1)
    loss = nn.functional.cross_entropy(p2v, own) + nn.functional.cross_entropy(v2p.transpose(1, 2), own)
    rows = torch.arange(count, device=p2v.device)
    right = {
        "p2v": p2v[rows, :, batch.answer].argmax(-1) == batch.answer,
        "v2p": v2p[rows, batch.answer].argmax(-1) == batch.answer,
    }
    return loss, {name: value.float().mean() for name, value in right.items()}


class Fitting(pl.LightningModule):
    """Supervised training by AdamW with a cosine schedule.

    Args:
        learning_rate: at the beginning, after a warm-up; it falls to a hundredth.
        steps: of the whole training.
    """

    WARMUP, FLOOR = 30, 0.01

    def __init__(self, learning_rate: float, steps: int) -> None:
        super().__init__()
        self.learning_rate, self.steps = learning_rate, steps

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Of a batch, and figures for the log."""
        raise NotImplementedError

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss, figures = self.loss(batch)
        self.log_dict({f"train/{name}": value for name, value in figures.items()}, batch_size=1)
        # In the progress bar where that waits for nothing.
        self.log("train/loss", loss, prog_bar=self.device.type == "cpu", batch_size=1)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        loss, figures = self.loss(batch)
        own = {f"val/{name}": value for name, value in figures.items()}
        self.log_dict(own | {"val/loss": loss}, batch_size=1, sync_dist=True)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.learning_rate, weight_decay=1e-4)

        def factor(step: int) -> float:
            fall = 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps)))
            return min(1.0, (step + 1) / self.WARMUP) * (self.FLOOR + (1 - self.FLOOR) * fall)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Distillation(Fitting):
    """Fits the agent, in any state, to records."""

    def __init__(self, agent: ViewAgent, learning_rate: float, steps: int) -> None:
        super().__init__(learning_rate, steps)
        self.agent = agent

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        loss, figures = path_loss(self.agent, batch[0])
        if len(batch) > 1:
            choice, more = choice_loss(self.agent, batch[1])
            loss, figures = loss + choice, figures | more
        return loss, figures


class _Batches(Dataset):
    """Item i is the batch of step i of an epoch, a function of (seed, epoch, i, rank) alone."""

    def __init__(self, owner: "RecordData", epoch: int, rank: int) -> None:
        self.owner, self.epoch, self.rank = owner, epoch, rank

    def __len__(self) -> int:
        return self.owner.steps_per_epoch

    def __getitem__(self, index: int) -> Any:
        rng = np.random.default_rng([self.owner.seed, self.epoch, index, self.rank])
        return self.owner.varied(self.owner.batch(self.owner.train, rng), rng)


class RecordData(pl.LightningDataModule):
    """Batches of records.

    Args:
        places: training rooms, by index.
        train: records.
        validation: rooms and records of others, for a number of the metrics; empty: none.
        batch_size: paths a step and process; with a quarter as many choices, where there are any.
        steps_per_epoch: of training.
        seed: of the choice of records.
    Raises:
        ValueError: there is no path among the records.
    """

    def __init__(
        self, places: Sequence[Place], train: Sequence[Record], validation: tuple[Sequence[Place], Sequence[Record]],
        batch_size: int, steps_per_epoch: int, seed: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.batch_size, self.steps_per_epoch, self.seed = batch_size, steps_per_epoch, seed
        self.train, self.validation = _sorted(places, train), _sorted(*validation)

    def batch(self, own: "Sorted", rng: np.random.Generator) -> Batch:
        """Records drawn at random, a few neighbours at a time: they often share their views."""
        first = rng.integers(-(-len(own.paths) // TARGETS), size=-(-self.batch_size // TARGETS)) * TARGETS
        some = [record for i in first for record in own.paths[i : i + TARGETS]]
        if not own.choices:
            return (from_records(own.places, some),)
        others = [own.choices[i] for i in rng.integers(len(own.choices), size=self.batch_size // 4)]
        return from_records(own.places, some), choices(own.places, others)

    def varied(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """The same in a room of other colours, or seen in a mirror: a few rooms must stand for all."""
        colors, mirror = torch.from_numpy(rng.permutation(3)), rng.random() < 0.5
        paths = batch[0]._replace(images=batch[0].images[..., colors])
        paths = mirrored(paths) if mirror else paths
        if len(batch) == 1:
            return (paths,)
        asked = batch[1]._replace(images=batch[1].images[..., colors])
        return paths, mirrored_choices(asked) if mirror else asked

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        # `current_epoch` is stale when a resumed run asks for the first time.
        epoch: int = self.trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]
        return DataLoader(_Batches(self, epoch, self.trainer.global_rank), batch_size=None)

    def val_dataloader(self) -> DataLoader:
        rng = np.random.default_rng(self.seed)
        batches = [self.batch(self.validation, rng) for _ in range(VALIDATED)]
        return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


class Sorted(NamedTuple):
    """Records by what they ask; paths that follow trajectories come first, the targets of a part together."""

    places: Sequence[Place]
    paths: list[Record]
    choices: list[Record]


def _sorted(places: Sequence[Place], records: Sequence[Record]) -> Sorted:
    choice = [record for record in records if record.kind in CHOICE_KINDS]
    path = sorted((one for one in records if one.kind not in CHOICE_KINDS), key=lambda one: not one.part)
    if not path:
        raise ValueError(f"there is no path among {len(records)} records; training needs some")
    return Sorted(places, path, choice)
