"""Retrieval of demonstrations: the prompt baseline. It keeps demonstrations at deployment, which the others do not.

At every tick the episodes of a bank of training demonstrations are compared with the present one by what was
seen so far and by the path:

    h_t   = mean of content e_1 .. e_t
    a     = softmax over the K most similar entries of  Wq [q_t, h_t] . Wk [q_j, h_j] / sqrt(d)
    m_k   = Wv [h_j, e_{j + ahead}]            entry j of rank k: what that demonstration had seen, and what came next
    z_t   = sum_k a_k m_k

The bank holds the evidence of demonstrations under the present encoder; the learner fills it again every epoch. In
training an episode does not find its own scene (`leave_out`), neither itself nor the same scene with another cue: at
deployment the scene is new.
"""

import math

import torch
from torch import Tensor, nn

from .base import Evidence, Memory, Readout


class RetrievalMemory(Memory):
    """Prompts from training demonstrations; slots are the entries retrieved.

    The state holds h_t and the number of ticks seen: (B, 1, E + 1).

    Args:
        slots: K, entries retrieved at a tick.
        demonstrations: episodes in the bank.
        entries: of each episode, evenly spaced.
        ahead: ticks from an entry to "what came next".
    """

    slots_stay = False

    bank_keys: Tensor  # (M, Q + E): address and h of each entry
    bank_values: Tensor  # (M, 2 E): h, and the content `ahead` ticks later
    bank_scene: Tensor  # (M,), -1 where the bank is not filled
    left_out: Tensor  # scenes that are not to be found, (B,) or none

    def __init__(
        self,
        content_dim: int,
        address_dim: int,
        slots: int = 4,
        width: int = 64,
        demonstrations: int = 64,
        entries: int = 32,
        ahead: int = 8,
    ) -> None:
        super().__init__(content_dim, address_dim, slots, width)
        if min(demonstrations, entries, ahead) < 1:
            raise ValueError(f"demonstrations, entries, ahead must be >= 1, got {demonstrations}, {entries}, {ahead}")
        if slots > demonstrations * entries:
            raise ValueError(f"slots must be at most demonstrations * entries, {demonstrations * entries}, got {slots}")
        self.demonstrations, self.entries, self.ahead = demonstrations, entries, ahead
        self.query = nn.Linear(address_dim + content_dim, width)
        self.key = nn.Linear(address_dim + content_dim, width)
        self.value = nn.Linear(2 * content_dim, width)
        size = demonstrations * entries
        self.register_buffer("bank_keys", torch.zeros(size, address_dim + content_dim))
        self.register_buffer("bank_values", torch.zeros(size, 2 * content_dim))
        self.register_buffer("bank_scene", torch.full((size,), -1))
        self.left_out = torch.zeros(0, dtype=torch.long)

    def init_state(self, reference: Tensor) -> Tensor:
        return reference.new_zeros([reference.shape[0], 1, self.content_dim + 1])

    @torch.jit.unused
    def keep(self, place: int, scene: int, evidence: Evidence) -> None:
        if place == 0:
            self.bank_scene.fill_(-1)
        ticks = evidence.content.shape[0]
        at = torch.linspace(0, ticks - 1, self.entries, device=evidence.content.device).round().long()
        count = torch.arange(1, ticks + 1, device=at.device).unsqueeze(-1)
        history = evidence.content.float().cumsum(0) / count
        rows = slice(place * self.entries, (place + 1) * self.entries)
        self.bank_keys[rows] = torch.cat([evidence.address, history], dim=-1)[at].float()
        later = (at + self.ahead).clamp_max(ticks - 1)
        self.bank_values[rows] = torch.cat([history[at], evidence.content[later]], dim=-1).float()
        self.bank_scene[rows] = scene

    @torch.jit.unused
    def leave_out(self, scenes: Tensor) -> None:
        self.left_out = scenes

    def _read(self, address: Tensor, history: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(B, [N,] Q), (B, [N,] E) -> slots, summary, weights, query."""
        hidden = self.bank_scene < 0
        if self.training and self.left_out.shape[0] > 0:
            if self.left_out.shape[0] != history.shape[0]:
                raise ValueError(f"{self.left_out.shape[0]} scenes were left out, but {history.shape[0]} episodes came")
            own = self.left_out.to(self.bank_scene.device).unsqueeze(-1) == self.bank_scene
            hidden = hidden | (own.unsqueeze(1) if history.dim() == 3 else own)
        if torch.jit.is_scripting():
            return self._nearest(address, history, hidden)
        # In bfloat16 the nearest of many entries would be a matter of rounding.
        with torch.autocast(history.device.type, enabled=False):
            return self._nearest(address.float(), history, hidden)

    def _nearest(self, address: Tensor, history: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        query = self.query(torch.cat([address, history], dim=-1))
        logits = query @ self.key(self.bank_keys).transpose(0, 1) / math.sqrt(self.width)
        best, index = logits.masked_fill(hidden, -1e4).topk(self.slots, dim=-1)
        slots = self.value(self.bank_values)[index]
        weights = torch.softmax(best, dim=-1)
        return slots, (weights.unsqueeze(-2) @ slots).squeeze(-2), weights, query

    def step(self, state: Tensor, evidence: Evidence) -> tuple[Tensor, Readout]:
        seen = state[:, 0, -1:] + 1
        history = state[:, 0, :-1] + (evidence.content - state[:, 0, :-1]) / seen
        slots, summary, weights, query = self._read(evidence.address, history)
        state = torch.cat([history, seen], dim=-1).unsqueeze(1)
        return state, Readout(slots, summary, evidence.address, weights, weights, torch.zeros_like(weights), query)

    def scan(self, evidence: Evidence) -> Readout:
        count = torch.arange(1, evidence.content.shape[1] + 1, device=evidence.content.device)
        history = evidence.content.float().cumsum(1) / count.unsqueeze(-1)
        slots, summary, weights, query = self._read(evidence.address, history)
        return Readout(slots, summary, evidence.address, weights, weights, torch.zeros_like(weights), query)
