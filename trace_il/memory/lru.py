"""External memory with least-recently-used writes: the content-addressed baseline.

Santoro et al. 2016, "Meta-learning with memory-augmented neural networks", section 3.2, where the controller is
a two-layer map of the evidence:

    u_t     = phi(e_t, q_t);  k_t = W_k u_t;  a_t = W_a u_t;  gate = sigmoid(w_g u_t)
    w^w_t   = gate w^r_{t-1} + (1 - gate) onehot(argmin usage_{t-1})
    m_t     = m_{t-1} with the least used slot erased, in the share in which it is written, plus w^w_t a_t
    w^r_t   = softmax(beta cos(k_t, m_t))
    usage_t = gamma usage_{t-1} + w^r_t + w^w_t
    z_t     = sum_k w^r_{t,k} m_{t,k}
"""

import torch
from torch import Tensor, nn

from .base import Evidence, Memory, Readout, mlp


class LRUMemory(Memory):
    """Slots written where they were used least recently, and read by content.

    The state holds slots, usage and the last read weights side by side: (B, K, d + 2).

    Args:
        usage_decay: gamma.
    """

    def __init__(
        self, content_dim: int, address_dim: int, slots: int = 8, width: int = 64, usage_decay: float = 0.95
    ) -> None:
        super().__init__(content_dim, address_dim, slots, width)
        if not 0 < usage_decay < 1:
            raise ValueError(f"usage_decay must lie between 0 and 1, got {usage_decay}")
        self.usage_decay = usage_decay
        self.controller = mlp(content_dim + address_dim, width, width)
        self.key = nn.Linear(width, width)
        self.write = nn.Linear(width, width)
        self.gate = nn.Linear(width, 1)
        self.sharpness = nn.Linear(width, 1)

    def init_state(self, reference: Tensor) -> Tensor:
        return reference.new_zeros([reference.shape[0], self.slots, self.width + 2])

    def _update(
        self, state: Tensor, key: Tensor, write: Tensor, gate: Tensor, sharpness: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One tick: state -> state, summary (B, d), read weights and write weights (B, K)."""
        slots, usage, read = state[..., :-2], state[..., -2], state[..., -1]
        least = nn.functional.one_hot(usage.argmin(-1), self.slots).to(state.dtype)
        weights = gate * read + (1 - gate) * least
        erased = ((1 - gate) * least).unsqueeze(-1)
        slots = (1 - erased) * slots + weights.unsqueeze(-1) * write.unsqueeze(1)
        similarity = nn.functional.cosine_similarity(slots, key.unsqueeze(1), dim=-1, eps=1e-6)
        read = torch.softmax(sharpness * similarity, dim=-1)
        usage = self.usage_decay * usage + read + weights
        state = torch.cat([slots, usage.unsqueeze(-1), read.unsqueeze(-1)], dim=-1)
        return state, (read.unsqueeze(-1) * slots).sum(1), read, weights

    def _prepare(self, evidence: Evidence) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        u = self.controller(torch.cat([evidence.content, evidence.address], dim=-1)).float()
        sharpness = 1 + nn.functional.softplus(self.sharpness(u))
        return u, self.key(u), self.write(u), torch.sigmoid(self.gate(u)), sharpness

    def step(self, state: Tensor, evidence: Evidence) -> tuple[Tensor, Readout]:
        u, key, write, gate, sharpness = self._prepare(evidence)
        state, summary, read, weights = self._update(state, key, write, gate, sharpness)
        routing = weights / weights.sum(-1, keepdim=True).clamp_min(1e-6)
        return state, Readout(state[..., :-2], summary, evidence.address, read, routing, weights, u)

    def scan(self, evidence: Evidence) -> Readout:
        u, key, write, gate, sharpness = self._prepare(evidence)
        state = self.init_state(u[:, 0])
        states: list[Tensor] = []
        summaries: list[Tensor] = []
        reads: list[Tensor] = []
        writes: list[Tensor] = []
        for t in range(u.shape[1]):
            state, summary, read, weights = self._update(state, key[:, t], write[:, t], gate[:, t], sharpness[:, t])
            states.append(state[..., :-2])
            summaries.append(summary)
            reads.append(read)
            writes.append(weights)
        strength = torch.stack(writes, 1)
        routing = strength / strength.sum(-1, keepdim=True).clamp_min(1e-6)
        return Readout(
            torch.stack(states, 1),
            torch.stack(summaries, 1),
            evidence.address,
            torch.stack(reads, 1),
            routing,
            strength,
            u,
        )
