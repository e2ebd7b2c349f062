"""Whole episodes, padded into batches.

control step   0  1  2  3  4  5  6  7  8        tick_every = 3, T = 9, N = 3, H = 4
states         s  s  s  s  s  s  s  s  s        (B, T, D)
images         i        i        i              (B, N, C, H, W, 3)
targets at 6                     a  a  a  -     (B, N, H, A), is_pad marks what lies behind the end

Where a demonstration goes astray, for the sake of the way back, the targets of a tick end: what the expert does in a
place that only a mistake leads to is no advice to where there has been none.

An episode can be begun `offset` < tick_every steps late, so that training sees every control step at a tick. Where
demonstrations go by the clock, their ticks would otherwise see the same few moments of a motion for ever, and an agent
that is a step ahead of them or behind would be in places that it has never seen.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from .cache import FrameCache
from .lerobot import ASTRAY
from .reader import DatasetReader


@dataclass
class EpisodeBatch:
    """B whole episodes, padded to the longest."""

    images: Tensor  # uint8 (B, N, C, H, W, 3) at ticks
    states: Tensor  # float32 (B, T, D) at control steps, the last one repeated behind the end
    actions: Tensor  # float32 (B, N, H, A), physical units
    is_pad: Tensor  # bool (B, N, H): behind the end, or from an action on that is not to be imitated
    valid: Tensor  # bool (B, N): False on padded ticks
    cue: Tensor  # int64 (B,), -1 where the dataset has none; diagnostics only
    phase: Tensor  # int64 (B, N), -1 where the dataset has none; diagnostics only
    scene: Tensor  # int64 (B,): episodes that show one scene with different cues share it

    def to(self, device: torch.device) -> "EpisodeBatch":
        return EpisodeBatch(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})

    def pin_memory(self) -> "EpisodeBatch":
        return EpisodeBatch(**{f.name: getattr(self, f.name).pin_memory() for f in fields(self)})


class EpisodeDataset:
    """Batches of episodes by their numbers."""

    def __init__(
        self, dataset: DatasetReader, cache: FrameCache, tick_every: int, chunk: int, together: int = 1
    ) -> None:
        self.dataset, self.cache, self.tick_every, self.chunk = dataset, cache, tick_every, chunk
        self.together = together  # so many consecutive episodes show one scene

    def batch(self, numbers: list[int], offsets: list[int] | None = None, images: bool = True) -> EpisodeBatch:
        """Episodes `numbers`, each from control step `offsets[i]` on (default 0), padded to the longest of them.

        Args:
            images: False: those of no tick, for what does not look at them.
        """
        data, every = self.dataset, self.tick_every
        lengths = [int(data.lengths[number]) for number in numbers]
        offsets = offsets or [0] * len(numbers)
        offsets = [min(offset, length - 1) for offset, length in zip(offsets, lengths, strict=True)]
        steps = max(length - offset for length, offset in zip(lengths, offsets, strict=True))
        ticks = -(-steps // every)
        first = self.cache.episode(numbers[0])
        pictures = np.zeros((len(numbers), ticks if images else 0, *first.shape[1:]), np.uint8)
        states = np.zeros((len(numbers), steps, data.states[0].shape[1]), np.float32)
        actions = np.zeros((len(numbers), ticks, self.chunk, data.actions[0].shape[1]), np.float32)
        is_pad = np.ones((len(numbers), ticks, self.chunk), bool)
        valid = np.zeros((len(numbers), ticks), bool)
        phase = np.full((len(numbers), ticks), -1, np.int64)
        cue = np.full(len(numbers), -1, np.int64)
        for row, (number, offset) in enumerate(zip(numbers, offsets, strict=True)):
            length = lengths[row] - offset
            if images:
                frames = self.cache.episode(number)[offset::every]
                pictures[row, : len(frames)] = frames
                pictures[row, len(frames) :] = frames[-1]  # not black: padding passes through the batch norm too
            states[row, :length] = data.states[number][offset:]
            states[row, length:] = data.states[number][-1]
            window = np.arange(0, length, every)[:, None] + np.arange(self.chunk)
            actions[row, : len(window)] = data.actions[number][offset:][np.minimum(window, length - 1)]
            is_pad[row, : len(window)] = window >= length
            valid[row, : len(window)] = True
            if ASTRAY in data.labels:
                wrong = data.labels[ASTRAY][number][offset:][np.minimum(window, length - 1)]
                is_pad[row, : len(window)] |= np.maximum.accumulate(wrong, axis=1) > 0
            if "phase" in data.labels:
                phase[row, : len(window)] = data.labels["phase"][number][offset::every]
            if "cue" in data.labels:
                cue[row] = data.labels["cue"][number][0]
        arrays = (pictures, states, actions, is_pad, valid, cue, phase, np.array(numbers) // self.together)
        return EpisodeBatch(*(torch.from_numpy(array) for array in arrays))
