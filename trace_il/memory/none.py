"""No memory: a constant readout, so that the policy acts on the current observation alone."""

import torch
from torch import Tensor

from .base import Evidence, Memory, Readout


class NoMemory(Memory):
    """Gives zeros for slots and summary; `address` lets the signature's address pass, which else is not computed."""

    blank: Tensor

    def __init__(self, content_dim: int, address_dim: int, width: int = 64, address: bool = False) -> None:
        super().__init__(content_dim, address_dim, slots=1, width=width)
        self.uses_address = address
        self.register_buffer("blank", torch.zeros(width), persistent=False)

    def step(self, state: Tensor, evidence: Evidence) -> tuple[Tensor, Readout]:
        return state, self._empty(evidence)

    def scan(self, evidence: Evidence) -> Readout:
        return self._empty(evidence)

    def _empty(self, evidence: Evidence) -> Readout:
        summary = torch.zeros_like(evidence.content[..., :1]) + self.blank
        ones = torch.ones_like(summary[..., :1])
        zeros = torch.zeros_like(ones)
        address = evidence.address if self.uses_address else torch.zeros_like(evidence.address)
        return Readout(summary.unsqueeze(-2), summary, address, ones, ones, zeros, summary)
