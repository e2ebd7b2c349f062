"""LightningModule: one scan of each episode, every tick a target."""

import math
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from envs.base import Phase

from .agent import Agent
from .build import fill_bank, fit_content_norm
from .config import TrainerConfig
from .data.datamodule import EpisodeDataModule
from .data.episodes import EpisodeBatch
from .errors import UserError
from .memory.base import Readout
from .memory.none import NoMemory
from .memory.recall import RecallHead
from .memory.teacher import AttentionTeacher

SETTLED = 0.5  # share of the steps after which contents are standardised as at deployment
COOL_DOWN = 0.3  # share of the steps over which the learning rate falls to zero
SETTLED_RATE = 0.2  # of the memory's learning rate, from then on
ALIKE = 0.17  # gap between mean chunks, relative to the largest, below which they mean the same choice
RESIDUAL_LIMIT = 10.0  # largest weight of a target, relative to the mean


def flatten_ticks(readout: Readout) -> Readout:
    """(B, N, ...) -> (B N, ...)."""
    return Readout(*(part.flatten(0, 1) for part in readout))


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Sum of weighted values over the sum of the weights: padding, with weight zero, counts for nothing."""
    return (values * weights).sum() / weights.sum().clamp_min(1e-6)


def shifted(images: Tensor, most: int) -> Tensor:
    """Pictures moved by up to `most` px each way at random, edges repeated (Yarats et al. 2021), each camera's alike in
    the whole batch: that is a scene or a few with every cue, and nothing but the cue should tell its episodes apart.

    Args:
        images: (B, N, C, H, W, 3).
    """
    out = torch.empty_like(images)
    for camera in range(images.shape[2]):
        moved = images[:, :, camera]
        for axis, by in zip((2, 3), torch.randint(-most, most + 1, (2,)).tolist(), strict=True):
            size = moved.shape[axis]
            kept = moved.narrow(axis, max(by, 0), size - abs(by))
            edge = moved.narrow(axis, size - 1 if by > 0 else 0, 1).repeat_interleave(abs(by), axis)
            moved = torch.cat([kept, edge] if by > 0 else [edge, kept], axis)
        out[:, :, camera] = moved
    return out


class BranchTemplates:
    """Decides from predicted chunks for which cue they act, by the nearest mean expert chunk.

    Only one tick of each branch is judged: the first, counted from two before the beginning of the branch, at
    which the mean chunks of the cues differ by half of what they ever do. There the chunk looks past
    the branch while the observation does not show the choice yet. Cues whose mean chunks hardly differ there ask
    for the same choice, as at the first of two branches.
    """

    BEFORE, AFTER = 2, 6  # ticks around the beginning of a branch that are considered

    def __init__(self, agent: Agent, data: EpisodeDataModule) -> None:
        chunks: dict[int, list[Tensor]] = {}
        labels = data.dataset.labels
        for number in data.train_numbers if "cue" in labels and "phase" in labels else []:
            batch = data.episodes.batch([number], images=False)
            targets = agent.targets(batch.actions[0], batch.states[0, :: agent.tick_every]).flatten(1)
            starts = [tick - self.BEFORE for tick in branch_ticks(batch.phase[0])]
            windows = [targets[s : s + self.BEFORE + self.AFTER] for s in starts if s >= 0]
            if windows and all(len(window) == self.BEFORE + self.AFTER for window in windows):
                chunks.setdefault(int(batch.cue[0]), []).append(torch.stack(windows))  # (branches, ticks, H A)
        counts = {len(windows) for members in chunks.values() for windows in members}
        self.usable = len(chunks) >= 2 and len(counts) == 1
        if self.usable:
            self.cues = sorted(chunks)
            means = torch.stack([torch.stack(chunks[cue]).mean(0) for cue in self.cues])
            gaps = (means.unsqueeze(0) - means.unsqueeze(1)).abs().mean(-1)  # (cues, cues, branches, ticks)
            largest = gaps.amax((0, 1))
            self.offsets = [int((gap >= 0.5 * gap.max()).nonzero()[0]) for gap in largest]
            at = list(enumerate(self.offsets))
            self.means = torch.stack([means[:, branch, tick] for branch, tick in at])  # (branches, cues, H A)
            # With one branch every cue asks for a choice of its own.
            limit = ALIKE if len(at) > 1 else 0.0
            self.alike = torch.stack([gaps[..., b, t] <= limit * gaps[..., b, t].max() for b, t in at])

    def decide(self, chunks: Tensor, phase: Tensor) -> list[int] | None:
        """For which cue (an index into `cues`) an episode acts at each branch; None where it cannot be judged.

        Args:
            chunks: predicted standardised chunks (N, H, A).
            phase: (N,).
        """
        ticks = [tick - self.BEFORE for tick in branch_ticks(phase)]
        ticks = [tick + offset for tick, offset in zip(ticks, self.offsets, strict=False)]
        if len(ticks) != len(self.offsets) or min(ticks) < 0 or max(ticks) >= len(chunks):
            return None
        distance = (self.means.to(chunks) - chunks[ticks].flatten(1).unsqueeze(1)).square().sum(-1)
        return distance.argmin(1).tolist()

    def correct(self, chunks: Tensor, batch: EpisodeBatch) -> tuple[int, int]:
        """Predicted standardised chunks (B, N, H, A) -> episodes judged right at every branch, episodes judged."""
        right = judged = 0
        for row in range(len(chunks)):
            decided = self.decide(chunks[row], batch.phase[row])
            if decided is None or int(batch.cue[row]) not in self.cues:
                continue
            own = self.cues.index(int(batch.cue[row]))
            right += all(bool(self.alike[b, own, nearest]) for b, nearest in enumerate(decided))
            judged += 1
        return right, judged


def branch_ticks(phase: Tensor) -> list[int]:
    """Ticks at which a branch begins."""
    return ((phase[1:] == Phase.BRANCH) & (phase[:-1] != Phase.BRANCH)).nonzero()[:, 0].add(1).tolist()


class ImitationModule(pl.LightningModule):
    """Behaviour cloning of whole episodes through a memory.

    Args:
        agent: the agent, statistics already fitted.
        teacher: a second readout for training, or None.
        recall: the head of the recall objective, or None.
        templates: judges held-out branch decisions.
        settings: AdamW with linear warm-up, a constant rate, and a linear decay to zero over the last part: a cue is
            found late, and must still find a rate. `clear_share` of each batch's ticks are trained once more, at
            that weight, with the memory cleared before: the policy then can act without a past, and clearing it is
            a fair control. With `residual`, targets count by the error of that policy without a past, relative to
            its mean: it is large where the cue decides. `distillation` pulls the memory's summary to the teacher's.
        seed: the randomness of an optimiser step is a function of (seed, step, rank), so that a resumed
            run repeats it.
    """

    def __init__(
        self,
        agent: Agent,
        teacher: AttentionTeacher | None,
        recall: RecallHead | None,
        templates: BranchTemplates,
        settings: TrainerConfig,
        seed: int,
    ) -> None:
        super().__init__()
        self.agent, self.teacher, self.recall, self.templates = agent, teacher, recall, templates
        self.settings, self.seed = settings, seed
        self.max_steps = settings.epochs * settings.steps_per_epoch
        self.images_encoded = 0  # padding included
        self.targets_trained: int | Tensor = 0  # ticks that have a target

    def losses(self, batch: EpisodeBatch, seen: Tensor | None = None) -> tuple[dict[str, Tensor], Tensor]:
        """All losses by name, to be summed, and the predicted chunks (B, N, H, A), standardised.

        Args:
            seen: images that the memory sees, where they are others than those of the policy.
        """
        ticks = batch.valid.shape[1]
        each = batch.scene.repeat_interleave(ticks)  # of every tick
        self.agent.memory.leave_out(each if self.training and self.agent.scan_budget else batch.scene)
        features, evidence, readout = self.agent.scan(batch.images, batch.states, seen)
        target = self.agent.targets(batch.actions, batch.states[:, :: self.agent.tick_every]).flatten(0, 1)
        is_pad = batch.is_pad.flatten(0, 1)
        readouts = [flatten_ticks(readout)]
        if self.teacher is not None:
            readouts.append(flatten_ticks(self.teacher(evidence, readout.address)))
        errors, extra, chunks = self.agent.policy.loss(features, readouts, target, is_pad)
        keep = (~is_pad).to(target.dtype)
        losses, weight, settings = dict(extra), keep, self.settings
        share = 1.0 if settings.residual > 0 else settings.clear_share
        if self.training and int(share * len(features)):
            some = torch.randperm(len(features), device=features.device)[: int(share * len(features))]
            self.agent.memory.leave_out(each[some])
            alone = [self.agent.cleared(evidence.content.flatten(0, 1)[some])]
            without = self.agent.policy.loss(features[some], alone, target[some], is_pad[some]).errors[0]
            losses["cleared"] = settings.clear_share * weighted_mean(without, keep[some])
            if settings.residual > 0:
                relative = without.detach() / weighted_mean(without.detach(), keep[some])
                relative = torch.empty_like(keep).index_copy(0, some, relative.clamp_max(RESIDUAL_LIMIT))
                weight = keep * (1 + settings.residual * (relative - 1))
        losses["imitation"] = weighted_mean(errors[0], weight)
        if self.teacher is not None:
            losses["teacher"] = weighted_mean(errors[1], weight)
            if settings.distillation > 0:
                distance = (readouts[0].summary - readouts[1].summary.detach()).square().mean(-1)
                losses["distillation"] = settings.distillation * weighted_mean(distance, batch.valid.flatten().float())
        if self.recall is not None and self.training:
            losses["recall"] = settings.recall * self.recall.loss(readout, evidence, batch.images, batch.valid)
        losses |= self.agent.memory.auxiliary_losses(readout, batch.valid)
        if self.current_epoch < settings.sharpen_after * settings.epochs:
            losses.pop("entropy", None)
        return losses, chunks.unflatten(0, batch.valid.shape)

    @property
    def settled(self) -> bool:
        """Whether the statistics of contents stay what they are.

        A batch is a scene or a few, with every cue. Standardised by it a cue stands out, and is found soon; but what
        tells the scene from others is taken out, which deployment, that sees one tick at a time, cannot do. So the
        second half of training uses the statistics that deployment uses. And the pictures that the memory sees are
        moved (`shifted`) then: a cue that is a few pixels from where demonstrations had it must be seen too, but is
        not found so. The policy sees them as they are: from them it knows to a pixel where a hand has to go.
        """
        return self.current_epoch >= SETTLED * self.settings.epochs

    def on_train_epoch_start(self) -> None:
        if self.current_epoch == math.ceil(SETTLED * self.settings.epochs):
            fit_content_norm(self.agent, self.trainer.datamodule)  # type: ignore[attr-defined]
        self._fill_bank()

    def on_validation_epoch_start(self) -> None:
        if not self.settled:
            # With the averaged weights, so it is saved with them.
            fit_content_norm(self.agent, self.trainer.datamodule)  # type: ignore[attr-defined]
        self._fill_bank()

    def _fill_bank(self) -> None:
        if self.agent.memory.demonstrations:
            fill_bank(self.agent, self.trainer.datamodule)  # type: ignore[attr-defined]

    def on_train_batch_start(self, batch: EpisodeBatch, batch_idx: int) -> None:
        self.agent.encoder.content_norm.train(not self.settled)
        torch.manual_seed((self.seed * 1_000_003 + self.global_step) * 1009 + self.global_rank)

    def training_step(self, batch: EpisodeBatch, batch_idx: int) -> Tensor:
        seen, settings = None, self.settings
        if self.settled and settings.shift and not isinstance(self.agent.memory, NoMemory):
            seen = shifted(batch.images, settings.shift)
        if self.settled and settings.policy_shift:
            batch = replace(batch, images=shifted(batch.images, settings.policy_shift))
        losses, _ = self.losses(batch, seen)
        times = 1 if seen is None else 2
        self.images_encoded += times * batch.images.shape[0] * batch.images.shape[1] * batch.images.shape[2]
        self.targets_trained = self.targets_trained + batch.valid.sum()  # no host synchronisation
        loss = torch.stack(list(losses.values())).sum()
        # Not in the progress bar, which would wait for a GPU at every step.
        self.log_dict({"train/loss": loss, **{f"train/{name}": value for name, value in losses.items()}})
        return loss

    def validation_step(self, batch: EpisodeBatch, batch_idx: int) -> None:
        losses, chunks = self.losses(batch)
        size = len(batch.images)
        target = self.agent.targets(batch.actions, batch.states[:, :: self.agent.tick_every])
        distance = (chunks - target).abs().mean(-1)
        error = weighted_mean(distance, (~batch.is_pad).to(distance.dtype))
        if self.trainer.strategy.reduce_boolean_decision(not bool(torch.isfinite(error)), all=False):
            raise UserError(
                f"training has diverged: the error after step {self.global_step} is not finite; lower "
                f"trainer.learning_rate={self.settings.learning_rate} or trainer.gradient_clip"
            )
        self.log("val/action_error", error, prog_bar=True, batch_size=size, sync_dist=True)
        self.log_dict({f"val/{name}": value for name, value in losses.items()}, batch_size=size, sync_dist=True)
        if self.templates.usable:
            right, judged = self.templates.correct(chunks, batch)
            # Logged in every process and batch, or distributed validation would wait for ever.
            accuracy = right / max(judged, 1)
            # Lightning rounds the mean of the batch sizes of all processes down; that of these is their sum.
            judged *= self.trainer.world_size
            self.log("val/branch_accuracy", accuracy, prog_bar=True, batch_size=judged, sync_dist=True)

    def configure_optimizers(self) -> Any:
        settings = self.settings
        # Once the memory keeps the cue, its gradients are a hundred times smaller than the policy's, and noise. Adam
        # would scale them up again until the memory drifts away and forgets; AMSGrad (Reddi et al. 2018) keeps the
        # scale of the gradients that taught it.
        memory = [*self.agent.memory.parameters(), *self.agent.address.parameters()]
        known = {id(parameter) for parameter in memory}
        groups: list[dict[str, Any]] = [
            {"params": [parameter for parameter in self.parameters() if id(parameter) not in known]},
            {"params": memory, "amsgrad": True},
        ]
        optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay)

        def factor(step: int) -> float:
            warm = min(1.0, (step + 1) / max(1, settings.warmup_steps))
            return warm * max(0.0, min(1.0, (1 - step / self.max_steps) / COOL_DOWN))

        def memory_factor(step: int) -> float:
            late = step // settings.steps_per_epoch >= SETTLED * settings.epochs
            # Contents change when the second half begins (`settled`). At the full rate a memory that has found the cue
            # is thrown off by it, and may not find it again.
            return factor(step) * (SETTLED_RATE if late else 1.0)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, [factor, memory_factor])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def transfer_batch_to_device(self, batch: EpisodeBatch, device: torch.device, dataloader_idx: int) -> EpisodeBatch:
        return batch.to(device)
