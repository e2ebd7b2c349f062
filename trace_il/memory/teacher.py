"""Attention teacher: a training-only second readout that breaks the circle of delayed evidence.

Early in training the encoder does not show the cue because the memory does not keep it, and the memory
does not keep it because the encoder does not show it. A causal attention over the past ticks of the
same episode needs no keeping: its gradient reaches the encoder at the tick of the cue at once. The
policy head is trained on both readouts with the same imitation loss and the same encoder; the teacher
sees the past only, needs no label, and is not part of the deployed policy.
"""

import math

import torch
from torch import Tensor, nn

from .base import Evidence, Readout


class AttentionTeacher(nn.Module):
    """Causal attention over past evidence with one head for each slot of the memory it teaches.

    Args:
        content_dim, address_dim: widths of the evidence.
        slots, width: shape (K, d) of the readout of the memory that is taught.
    """

    def __init__(self, content_dim: int, address_dim: int, slots: int, width: int) -> None:
        super().__init__()
        self.slots, self.width = slots, width
        self.query = nn.Linear(content_dim + address_dim, slots * width)
        self.key = nn.Linear(content_dim + address_dim, slots * width)
        self.value = nn.Linear(content_dim, slots * width)
        self.summary = nn.Linear(slots * width, width)

    def forward(self, evidence: Evidence, address: Tensor) -> Readout:
        """Evidence (B, N, ...) -> readout (B, N, ...) over ticks <= n. `address` is what the policy may see."""
        inputs = torch.cat([evidence.content, evidence.address], dim=-1)

        def heads(x: Tensor) -> Tensor:  # (B, N, K d) -> (B, K, N, d)
            return x.unflatten(-1, (self.slots, self.width)).transpose(1, 2)

        attended = nn.functional.scaled_dot_product_attention(
            heads(self.query(inputs)), heads(self.key(inputs)), heads(self.value(evidence.content)), is_causal=True
        )
        slots = attended.transpose(1, 2)  # (B, N, K, d)
        summary = self.summary(slots.flatten(-2)) / math.sqrt(self.slots)
        uniform = torch.full_like(slots[..., 0], 1 / self.slots)
        return Readout(slots, summary, address, uniform, uniform, uniform, summary)
