"""A window of past ticks that a causal transformer layer attends to: the history-context baseline.

    x_t  = W [e_t, q_t]                                    every `stride`-th tick enters the window, first in first out
    z_t  = x_t + feedforward(attention(x_t; window, x_t))  with a learned embedding of how long ago each entry was

What has left the window of `slots * stride` ticks is gone. The policy sees the window itself (as slots) and z_t.
"""

import math

import torch
from torch import Tensor, nn

from .base import Evidence, Memory, Readout


class TransformerMemory(Memory):
    """Sliding window of `slots` entries, one every `stride` ticks.

    The state holds the entries, oldest first, and one more row: the number of ticks seen.
    """

    slots_stay = False

    def __init__(
        self, content_dim: int, address_dim: int, slots: int = 16, width: int = 64, heads: int = 4, stride: int = 4
    ) -> None:
        super().__init__(content_dim, address_dim, slots, width)
        if width % heads:
            raise ValueError(f"width must be a multiple of heads, got {width} and {heads}")
        if stride < 1:
            raise ValueError(f"stride must be at least 1, got {stride}")
        self.heads, self.stride = heads, stride
        self.embed = nn.Linear(content_dim + address_dim, width)
        self.age = nn.Parameter(0.02 * torch.randn(slots + 1, width))  # of the entries, oldest first; then of x_t
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.feedforward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def init_state(self, reference: Tensor) -> Tensor:
        return reference.new_zeros([reference.shape[0], self.slots + 1, self.width])

    def _read(self, window: Tensor, filled: Tensor, now: Tensor) -> tuple[Tensor, Tensor]:
        """Window (..., K, d), which entries hold something (..., K), x_t (..., d) -> z_t (..., d), weights (..., K)."""
        entries = self.norm(torch.cat([window, now.unsqueeze(-2)], dim=-2)) + self.age
        size = self.width // self.heads
        query = self.query(entries[..., -1, :]).unflatten(-1, [self.heads, size])
        key = self.key(entries).unflatten(-1, [self.heads, size])
        logits = torch.einsum("...hd,...khd->...hk", query, key) / math.sqrt(size)
        usable = torch.cat([filled, torch.ones_like(filled[..., :1])], dim=-1)
        weights = torch.softmax(logits.masked_fill(~usable.unsqueeze(-2), -1e4), dim=-1)
        value = self.value(entries).unflatten(-1, [self.heads, size])
        hidden = now + torch.einsum("...hk,...khd->...hd", weights, value).flatten(-2)
        past = weights.mean(-2)[..., :-1]
        return hidden + self.feedforward(hidden), past / past.sum(-1, keepdim=True).clamp_min(1e-6)

    def step(self, state: Tensor, evidence: Evidence) -> tuple[Tensor, Readout]:
        now = self.embed(torch.cat([evidence.content, evidence.address], dim=-1)).to(state.dtype)
        window, seen = state[:, :-1], state[:, -1:, :1]
        enters = (seen.remainder(self.stride) == 0).to(state.dtype)
        window = enters * torch.cat([window[:, 1:], now.unsqueeze(1)], dim=1) + (1 - enters) * window
        entries = torch.div(seen[:, :, 0] + self.stride, self.stride, rounding_mode="floor")  # (B, 1)
        number = torch.arange(self.slots, device=state.device)
        filled = number.unsqueeze(0) >= self.slots - entries
        summary, weights = self._read(window, filled, now)
        written = torch.cat([torch.zeros_like(weights[:, 1:]), torch.ones_like(weights[:, :1])], dim=1)
        strength = written * enters[:, 0]
        next_state = torch.cat([window, (seen + 1).expand(-1, -1, self.width)], dim=1)
        return next_state, Readout(window, summary, evidence.address, weights, written, strength, now)

    def scan(self, evidence: Evidence) -> Readout:
        now = self.embed(torch.cat([evidence.content, evidence.address], dim=-1))
        ticks = torch.arange(now.shape[1], device=now.device)
        newest = ticks.div(self.stride, rounding_mode="floor")  # number of the newest entry at each tick
        number = newest.unsqueeze(1) + torch.arange(1 - self.slots, 1, device=now.device)  # (N, K)
        filled = number >= 0
        window = now[:, number.clamp_min(0) * self.stride] * filled.unsqueeze(-1)  # (B, N, K, d)
        filled = filled.expand(now.shape[0], -1, -1)
        summary, weights = self._read(window, filled, now)
        written = torch.cat([torch.zeros_like(weights[..., 1:]), torch.ones_like(weights[..., :1])], dim=-1)
        strength = written * (ticks.remainder(self.stride) == 0).to(now.dtype).unsqueeze(-1)
        return Readout(window, summary, evidence.address, weights, written, strength, now)
