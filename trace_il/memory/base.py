"""What every memory takes and gives.

Shapes: B batch, N ticks, K slots, E content width, Q address width, d slot width. `step` works on one
tick (B, ...), `scan` on whole episodes (B, N, ...); `scan` must equal repeated `step` (a shared test
checks it for every memory).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Evidence(NamedTuple):
    """What one tick (or, with an N axis, an episode) offers the memory."""

    content: Tensor  # e_t = [v_t, p_t], (B, [N,] E): what is seen and felt now
    address: Tensor  # q_t = [g_t, Dg_t], (B, [N,] Q): where on the executed path


class Readout(NamedTuple):
    """What a policy may know of the past, H_t = (M_t, z_t, g_t, Dg_t), and how it came about."""

    slots: Tensor  # M_t, (B, [N,] K, d)
    summary: Tensor  # z_t, (B, [N,] d)
    address: Tensor  # [g_t, Dg_t], (B, [N,] Q)
    read_weights: Tensor  # alpha, (B, [N,] K), sums to 1 over K
    routing: Tensor  # omega, (B, [N,] K), sums to 1 over K
    write_strength: Tensor  # beta, (B, [N,] K), in [0, 1]
    write_content: Tensor  # u_t, (B, [N,] d)


class Memory(nn.Module):
    """Abstract memory of fixed size. The state is one tensor (B, K, d), zeros at the start of an episode.

    Args:
        content_dim: E.
        address_dim: Q.
        slots: K.
        width: d.
    """

    demonstrations: int = 0  # training episodes that the memory keeps at deployment; see `keep`
    slots_stay: bool = True  # whether a slot is what it was before but for what is written; else they move on

    def __init__(self, content_dim: int, address_dim: int, slots: int, width: int) -> None:
        super().__init__()
        if slots < 1 or width < 1:
            raise ValueError(f"a memory needs at least one slot of width one, got slots={slots}, width={width}")
        self.content_dim = content_dim
        self.address_dim = address_dim
        self.slots = slots
        self.width = width
        self.uses_address = True  # False: the signature is not computed, and the address is zero

    def init_state(self, reference: Tensor) -> Tensor:
        """State before the first tick, (B, K, d), on the device and of the dtype of `reference` (B, ...)."""
        return reference.new_zeros([reference.shape[0], self.slots, self.width])

    def step(self, state: Tensor, evidence: Evidence) -> tuple[Tensor, Readout]:
        """One tick: state (B, K, d) and evidence (B, ...) -> next state and readout (B, ...)."""
        raise NotImplementedError

    def scan(self, evidence: Evidence) -> Readout:
        """A whole episode from an empty memory: evidence (B, N, ...) -> readout (B, N, ...)."""
        raise NotImplementedError

    @torch.jit.unused
    def keep(self, place: int, scene: int, evidence: Evidence) -> None:
        """Store a training episode at `place` < `demonstrations`: evidence of the whole episode, (N, ...)."""
        raise NotImplementedError

    @torch.jit.unused
    def leave_out(self, scenes: Tensor) -> None:
        """Scenes (B,) of the next scan or step in training, not to be found in what was kept. Default: nothing is."""

    def auxiliary_losses(self, readout: Readout, valid: Tensor) -> dict[str, Tensor]:
        """Losses on the memory alone. `valid` (B, N) is False on padded ticks. Default: none."""
        return {}


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """The two-layer GELU map used throughout the paper."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))
