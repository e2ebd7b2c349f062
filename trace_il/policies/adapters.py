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


class DiffusionAdapter(nn.Module):
    """Readout -> an addition to the global condition of a diffusion policy.

    [pool(M), z, g, Dg], slots pooled by the read weights alpha, through a two-layer map whose last layer starts at
    zero: at initialisation the policy is the one without a memory.

    Args:
        slot_width: d of the memory.
        address_dim: width of [g, Dg].
        width: width of the condition.
    """

    def __init__(self, slot_width: int, address_dim: int, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(2 * slot_width + address_dim, width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, readout: Readout) -> Tensor:
        """Readout (B, ...) -> (B, width)."""
        pooled = (readout.read_weights.unsqueeze(-1) * readout.slots).sum(-2)
        hidden = self.hidden(torch.cat([pooled, readout.summary, readout.address], dim=-1))
        return self.out(nn.functional.gelu(hidden))
