"""Recall: a training-only objective that asks the memory for what was seen before (ours).

From the slots at a tick t, addressed with the signature of an earlier tick s, a small head redraws a thumbnail
of the pictures at s. It gives the memory a reason to keep what it saw before the policy has found out that it
needs it, and shows what a slot holds. It is not part of the deployed policy.
"""

import math

import torch
from torch import Tensor, nn

from .base import Evidence, Readout, mlp


def thumbnails(images: Tensor, size: int) -> Tensor:
    """uint8 (..., H, W, 3) -> float (..., size, size, 3) in [0, 1], by averaging."""
    lead, (height, width) = images.shape[:-3], images.shape[-3:-1]
    pixels = images.reshape(-1, height, width, 3).permute(0, 3, 1, 2).float() / 255
    small = nn.functional.adaptive_avg_pool2d(pixels, size)
    return small.permute(0, 2, 3, 1).reshape(*lead, size, size, 3)


class RecallHead(nn.Module):
    """Reads slots with the address of an earlier tick and draws what was seen then.

    Args:
        slots, width: K and d of the memory.
        address_dim: Q.
        cameras: C.
        size: side of a thumbnail in pixels.
        pairs: (t, s) drawn an episode and step.
    """

    def __init__(self, slots: int, width: int, address_dim: int, cameras: int, size: int = 8, pairs: int = 16) -> None:
        super().__init__()
        self.cameras, self.size, self.pairs = cameras, size, pairs
        self.query = mlp(address_dim, width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.identity = nn.Parameter(0.02 * torch.randn(slots, width))
        self.draw = mlp(2 * width, 2 * width, cameras * size * size * 3)

    def forward(self, slots: Tensor, address: Tensor) -> Tensor:
        """Slots (P, K, d) at t and address (P, Q) at s -> thumbnails (P, C, size, size, 3)."""
        query = self.query(address)
        logits = (self.key(slots + self.identity) @ query.unsqueeze(-1)).squeeze(-1)
        weights = torch.softmax(logits / math.sqrt(slots.shape[-1]), dim=-1)
        read = (weights.unsqueeze(-1) * slots).sum(-2)
        return self._draw(read, query)

    def _draw(self, read: Tensor, query: Tensor) -> Tensor:
        drawn = torch.sigmoid(self.draw(torch.cat([read, query], dim=-1)))
        return drawn.unflatten(-1, (self.cameras, self.size, self.size, 3))

    def remembered(self, slots: Tensor, address: Tensor, strength: Tensor) -> Tensor:
        """What each slot holds at each tick of one episode, drawn from that slot alone.

        A slot is asked with the address of the tick of which most is left in it.

        Args:
            slots: (N, K, d).
            address: (N, Q).
            strength: write strength beta, (N, K).
        Returns:
            thumbnails (N, K, C, size, size, 3).
        """
        left = torch.zeros(len(slots), slots.shape[1], device=slots.device)  # share of each tick that is left
        asked = []
        for tick in range(len(slots)):
            left = left * (1 - strength[tick])
            left[tick] = strength[tick]
            asked.append(left.argmax(0))
        return self._draw(slots, self.query(address)[torch.stack(asked)])

    def loss(self, readout: Readout, evidence: Evidence, images: Tensor, valid: Tensor) -> Tensor:
        """Mean squared error of thumbnails recalled at random valid ticks t of random ticks s <= t.

        Args:
            readout, evidence: of whole episodes, (B, N, ...).
            images: uint8 (B, N, C, H, W, 3).
            valid: (B, N), False on padding.
        """
        rows = torch.arange(len(valid), device=valid.device).repeat_interleave(self.pairs)
        later = (torch.rand(len(rows), device=valid.device) * valid.sum(1)[rows]).long()
        earlier = (torch.rand(len(rows), device=valid.device) * (later + 1)).long()
        recalled = self(readout.slots[rows, later], evidence.address[rows, earlier])
        return (recalled - thumbnails(images[rows, earlier], self.size)).square().mean()
