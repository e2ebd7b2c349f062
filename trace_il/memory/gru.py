"""A GRU over the same evidence: the recurrent baseline with one slot."""

import torch
from torch import Tensor, nn

from .base import Evidence, Memory, Readout


class GRUMemory(Memory):
    """Gated recurrent unit (Cho et al. 2014) on [content, address]; its hidden state is the only slot."""

    def __init__(self, content_dim: int, address_dim: int, width: int = 128) -> None:
        super().__init__(content_dim, address_dim, slots=1, width=width)
        self.gru = nn.GRU(content_dim + address_dim, width, batch_first=True)

    def step(self, state: Tensor, evidence: Evidence) -> tuple[Tensor, Readout]:
        inputs = torch.cat([evidence.content, evidence.address], dim=-1).unsqueeze(1)
        output, _ = self.gru(inputs, state.transpose(0, 1).contiguous())
        return output, self._readout(output.squeeze(1), evidence)

    def scan(self, evidence: Evidence) -> Readout:
        output, _ = self.gru(torch.cat([evidence.content, evidence.address], dim=-1))
        return self._readout(output, evidence)

    def _readout(self, hidden: Tensor, evidence: Evidence) -> Readout:
        ones = torch.ones_like(hidden[..., :1])
        return Readout(hidden.unsqueeze(-2), hidden, evidence.address, ones, ones, ones, hidden)
