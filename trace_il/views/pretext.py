"""Distilled views teach the encoder of a policy: from two pictures, how the camera moved between them.

    difference   where the second view is, as seen from the first
    inverse      which move led from the one to the other, where they are one move apart

Both are asked of the convolutions that all cameras of a policy share, before it sees a demonstration; the pictures are
compared as the view planner does. The pairs are views along the records of a run of planning by views.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from envs.view_planning.lattice import MOVES, path_nodes

from ..checkpoint import PRETRAINED, AtomicCheckpointIO, describe, read_checkpoint
from ..config import TrainConfig, options, to_plain
from ..encoders import Encoder
from ..errors import UserError
from ..options import read_view_run, run_kind
from ..trainer import fit_or_continue, make_trainer
from .agent import PLACES, POSE_FEATURES, Comparison
from .batch import OTHER_SIDE, SIDES, Gallery, pose_features
from .config import ViewRunConfig
from .distill import CHOICE_KINDS, Record
from .learn import Fitting, RecordData, Sorted, mean
from .pipeline import rooms
from .storage import load_records

BATCH = 128  # pairs
NEXT = 0.5  # share of pairs that are one move apart
WIDTH = 128  # of the heads


class PairBatch(NamedTuple):
    """B pairs of views. Images are given once, however often they are seen."""

    images: Tensor  # uint8 (U, S, S, 3)
    pair: Tensor  # (B, 2) indices into images
    where: Tensor  # (B, POSE_FEATURES), the second as seen from the first
    move: Tensor  # (B,) the move between them; -1: they are not one move apart


class Pretext(Fitting):
    """Fits the trunk of an encoder.

    Args:
        encoder: of a policy; the rest of it stays as it is.
        learning_rate, steps: as of `Fitting`.
    """

    def __init__(self, encoder: Encoder, learning_rate: float, steps: int) -> None:
        super().__init__(learning_rate, steps)
        self.trunk = encoder.trunk
        self.pool = nn.AdaptiveAvgPool2d(PLACES)
        self.compare = Comparison(encoder.channels, WIDTH)
        self.where, self.move = nn.Linear(WIDTH, POSE_FEATURES), nn.Linear(WIDTH, MOVES)

    def loss(self, batch: PairBatch) -> tuple[Tensor, dict[str, Tensor]]:
        maps = self.pool(self.trunk(batch.images.permute(0, 3, 1, 2).float() / 127.5 - 1.0))
        hidden = nn.functional.silu(self.compare(*maps[batch.pair].unbind(1)))
        where, logits, asked = self.where(hidden), self.move(hidden), batch.move >= 0
        difference = nn.functional.smooth_l1_loss(where, batch.where)
        inverse = nn.functional.cross_entropy(logits, batch.move, ignore_index=-1)
        right = mean((logits.argmax(1) == batch.move).float(), asked)
        figures = {"difference": difference.detach(), "inverse": inverse.detach(), "inverse_accuracy": right}
        return difference + inverse, figures


class PairData(RecordData):
    """Pairs of views along records; as of `RecordData`, whose `batch_size` counts pairs here."""

    def batch(self, own: Sorted, rng: np.random.Generator) -> Any:
        gallery, rows = Gallery(own.places), []
        chosen = rng.integers(len(own.paths), size=self.batch_size)
        for number, record in enumerate(own.paths[index] for index in chosen):
            table, metric = own.places[record.scene].table, own.places[record.scene].metric
            nodes = path_nodes(table, record.start, record.moves)
            apart = 1 if number < NEXT * self.batch_size else int(rng.integers(1, len(nodes)))
            first = int(rng.integers(len(nodes) - apart))
            here, there = nodes[first], nodes[first + apart]
            told = apart == 1 and here != there  # a blocked move shows nothing
            move = record.moves[first] if told else -1
            rows.append((gallery(record.scene, [here, there]), pose_features(metric[there], metric[here]), move))
        pair, where, move = (np.stack(part) for part in zip(*rows, strict=True))
        return PairBatch(
            gallery.images(), torch.from_numpy(pair), torch.from_numpy(where).float(), torch.from_numpy(move)
        )

    def varied(self, batch: Any, rng: np.random.Generator) -> Any:
        """The same in a room of other colours, or seen in a mirror."""
        batch = batch._replace(images=batch.images[..., torch.from_numpy(rng.permutation(3))])
        if rng.random() < 0.5:
            return batch
        move = torch.where(batch.move < 0, batch.move, OTHER_SIDE[batch.move.clamp_min(0)])
        return batch._replace(images=batch.images.flip(2), where=batch.where * SIDES, move=move)


def source(config: TrainConfig) -> tuple[ViewRunConfig, list[Record]]:
    """The configuration of the run `trainer.views`, and the paths among the records of its last iteration.

    Raises:
        UserError: it is not a run of planning by views, or its records are of fewer than two rooms.
    """
    folder = Path(str(config.trainer.views))
    if run_kind(str(folder)) != "view planner":
        raise UserError(f"trainer.views={folder} is not a run of planning by views, as view=graph_distillation makes")
    views, _ = read_view_run(str(folder))
    records = load_records(folder / f"iteration_{views.view.iterations}/records.json")
    paths = [record for record in records if record.kind not in CHOICE_KINDS and record.moves]
    if len({record.scene for record in paths}) < 2:
        raise UserError(f"trainer.views={folder} has records of fewer than two rooms; explore more of them")
    return views, paths


def pretrain(config: TrainConfig, folder: Path, console: Console) -> None:
    """Train the trunk of an encoder, or continue, and write it to `folder`; the last room validates.

    Raises:
        UserError: as of `source`.
    """
    if (folder / PRETRAINED).exists():
        return
    views, records = source(config)
    last = max(record.scene for record in records)
    places = rooms(views, "train", last + 1)
    kept, held = ([one for one in records if (one.scene == last) == out] for out in (False, True))
    trainer = replace(config.trainer, epochs=config.trainer.view_epochs, devices=1, num_nodes=1)
    size = views.env.image_size
    torch.manual_seed(config.seed)
    encoder = Encoder(1, (size, size), 1, config.policy.width, **options(config.encoder))
    module = Pretext(encoder, trainer.learning_rate, trainer.epochs * trainer.steps_per_epoch)
    data = PairData(places, kept, (places, held), BATCH, trainer.steps_per_epoch, config.seed)
    where = folder / "pretraining"
    where.mkdir(parents=True, exist_ok=True)
    run_id = json.loads((folder / "run.json").read_text())["id"]
    about = describe(to_plain(config))
    lightning = make_trainer(replace(config, trainer=trainer), where, f"{run_id}-views", about, "val/loss", [])
    fit_or_continue(lightning, module, data, where, console)
    weights = read_checkpoint(where / "checkpoints/last.ckpt")["state_dict"]  # the averaged ones, where there are any
    kept_weights = {name: value for name, value in weights.items() if name.startswith("trunk.")}
    AtomicCheckpointIO().save_checkpoint({"trace_il": about, "state_dict": kept_weights}, folder / PRETRAINED)
