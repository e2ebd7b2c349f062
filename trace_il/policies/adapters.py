"""Adapters: the only place that knows both a memory's readout and a policy (TRACE section 4)."""

import torch
from torch import Tensor, nn

from ..memory.base import Readout


class RegressionAdapter(nn.Module):
    """Readout -> attention tokens for an action-chunking decoder.

    One token a slot, W_M m_k, and one summary token from [z, g, Dg]; the same vector also shifts the
    decoder's queries, zero-initialised, so that the policy starts as one whose queries know no past.

    Args:
        slots, slot_width: K and d of the memory.
        address_dim: width of [g, Dg].
        width: width of the policy's tokens.
    """

    def __init__(self, slots: int, slot_width: int, address_dim: int, width: int) -> None:
        super().__init__()
        self.slot_token = nn.Linear(slot_width, width)
        self.slot_identity = nn.Parameter(0.02 * torch.randn(slots, width))
        self.summary_token = nn.Linear(slot_width + address_dim, width)
        self.shift = nn.Linear(slot_width + address_dim, width)
        nn.init.zeros_(self.shift.weight)
        nn.init.zeros_(self.shift.bias)

    def forward(self, readout: Readout) -> Tensor:
        """Readout (B, ...) -> tokens (B, K + 1, width)."""
        slots = self.slot_token(readout.slots) + self.slot_identity
        summary = self.summary_token(torch.cat([readout.summary, readout.address], dim=-1))
        return torch.cat([slots, summary.unsqueeze(-2)], dim=-2)

    def query_shift(self, readout: Readout) -> Tensor:
        """Readout (B, ...) -> what is added to each decoder query, (B, width)."""
        return self.shift(torch.cat([readout.summary, readout.address], dim=-1))
