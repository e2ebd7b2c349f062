"""TRACE: slots addressed by the signature of the executed path (arXiv 2606.14551, section 3).

With evidence e_t, address q_t = [g_t, Dg_t] and slots m_k (zero at the start of an episode):

    rho_t   = phi_rho(q_t)
    mbar_k  = m_{t-1,k} + lambda_eta eta_k                 eta_k: fixed sinusoidal slot identity
    omega   = softmax_k( Wq rho_t . Wk mbar_k / (tau sqrt(d)) )                        routing
    u_t     = phi_w(e_t, q_t)
    m~_k    = tanh(phi_m(mbar_k, u_t, rho_t))                                          candidate
    beta_k  = omega_k sigmoid(phi_beta(mbar_k, u_t, rho_t))                            write strength
    m_{t,k} = (1 - beta_k) m_{t-1,k} + beta_k m~_k
    u^r_t   = phi_r(e_t, rho_t)
    alpha   = softmax_k( u^r_t . Wk^r (m_{t,k} + lambda_eta eta_k) / sqrt(d) )         read weights
    z_t     = sum_k alpha_k Wv^r m_{t,k}                                               summary

Two choices are ours. lambda_eta > 0: without an identity the slots, which start equal and share all
weights, stay equal for ever. And the last bias of phi_beta starts at `gate_bias` << 0, so that a slot
keeps most of its content over a whole episode until training teaches it to write.
"""

import math

import torch
from torch import Tensor, nn

from .base import Evidence, Memory, Readout, mlp


def slot_identity(slots: int, width: int) -> Tensor:
    """Fixed sinusoidal identities eta, (K, d), one distinct row a slot."""
    position = torch.arange(1, slots + 1, dtype=torch.float32).unsqueeze(1)
    half = (width + 1) // 2
    frequency = torch.exp(-math.log(64.0) * torch.arange(half, dtype=torch.float32) / max(half - 1, 1))
    angle = position * frequency * math.pi / 2
    return torch.cat([angle.sin(), angle.cos()], dim=1)[:, :width].contiguous()


class TraceMemory(Memory):
    """Signature-routed slot memory.

    Args:
        content_dim, address_dim, slots, width: see `Memory`.
        routed: whether the address decides where a tick is written; otherwise omega = 1/K (ablation).
        mean_read: alpha = 1/K, no attention when reading (ablation).
        tau: temperature of the routing softmax.
        identity_scale: lambda_eta, must be > 0.
        gate_bias: initial bias of the write gate, in logits.
        gate_span: if positive, every channel has a gate of its own, and their biases are spread over
            gate_bias +- gate_span: some forget within ticks, some keep for an episode.
        balance_weight, entropy_weight, consistency_weight: weights of L_bal, L_ent, L_cons.
    Raises:
        ValueError: tau or identity_scale not positive, gate_span negative.
    """

    identity: Tensor

    def __init__(
        self,
        content_dim: int,
        address_dim: int,
        slots: int = 4,
        width: int = 64,
        routed: bool = True,
        mean_read: bool = False,
        tau: float = 1.0,
        identity_scale: float = 1.0,
        gate_bias: float = -3.5,
        gate_span: float = 0.0,
        balance_weight: float = 0.3,
        entropy_weight: float = 0.01,
        consistency_weight: float = 0.0,
    ) -> None:
        super().__init__(content_dim, address_dim, slots, width)
        if tau <= 0:
            raise ValueError(f"the routing temperature tau must be > 0, got {tau}")
        if identity_scale <= 0:
            raise ValueError(f"identity_scale must be > 0, got {identity_scale}: without it all slots stay identical")
        if gate_span < 0:
            raise ValueError(f"gate_span must not be negative, got {gate_span}")
        self.tau, self.routed, self.mean_read = tau, routed, mean_read
        self.loss_weights = {"balance": balance_weight, "entropy": entropy_weight, "consistency": consistency_weight}
        self.register_buffer("identity", identity_scale * slot_identity(slots, width))
        self.route = mlp(address_dim, width, width)  # phi_rho
        self.routing_query = nn.Linear(width, width, bias=False)  # Wq
        self.routing_key = nn.Linear(width, width, bias=False)  # Wk
        self.write = mlp(content_dim + address_dim, width, width)  # phi_w
        # phi_m and phi_beta are two-layer maps of [mbar_k, u, rho]. Their first layers are split by input,
        # so that the part that does not depend on the slots is computed for all ticks at once.
        self.candidate_slot = nn.Linear(width, width, bias=False)
        self.candidate_evidence = nn.Linear(2 * width, width)
        self.candidate_out = nn.Linear(width, width)
        self.gate_slot = nn.Linear(width, width, bias=False)
        self.gate_evidence = nn.Linear(2 * width, width)
        self.gate_out = nn.Linear(width, width if gate_span > 0 else 1)
        nn.init.zeros_(self.gate_out.weight)
        with torch.no_grad():
            self.gate_out.bias.copy_(gate_bias + gate_span * torch.linspace(-1, 1, self.gate_out.out_features))
        self.read = mlp(content_dim + width, width, width)  # phi_r
        self.read_key = nn.Linear(width, width, bias=False)  # Wk^r
        self.read_value = nn.Linear(width, width, bias=False)  # Wv^r

    def _prepare(self, evidence: Evidence) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """All that does not depend on the slots: routing query, candidate and gate inputs, u, u^r."""
        rho = self.route(evidence.address)
        u = self.write(torch.cat([evidence.content, evidence.address], dim=-1))
        u_rho = torch.cat([u, rho], dim=-1)
        query = self.routing_query(rho) / (self.tau * math.sqrt(self.width))
        read_query = self.read(torch.cat([evidence.content, rho], dim=-1)) / math.sqrt(self.width)
        return query, self.candidate_evidence(u_rho), self.gate_evidence(u_rho), u, read_query

    def _update(
        self, slots: Tensor, query: Tensor, candidate_in: Tensor, gate_in: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One write: slots (B, K, d) -> slots, routing (B, K), write strength (B, K)."""
        keyed = slots + self.identity
        logits = (self.routing_key(keyed) @ query.unsqueeze(-1)).squeeze(-1)
        routing = torch.softmax(logits, dim=-1) if self.routed else torch.full_like(logits, 1 / self.slots)
        hidden = torch.nn.functional.gelu(self.candidate_slot(keyed) + candidate_in.unsqueeze(1))
        candidate = torch.tanh(self.candidate_out(hidden))
        hidden = torch.nn.functional.gelu(self.gate_slot(keyed) + gate_in.unsqueeze(1))
        strength = routing.unsqueeze(-1) * torch.sigmoid(self.gate_out(hidden))  # (B, K, 1 or d)
        # Slots stay in float32 under automatic mixed precision: bfloat16 would lose small writes.
        strength = strength.to(slots.dtype)
        slots = torch.lerp(slots, candidate.to(slots.dtype), strength)
        return slots, routing, strength.mean(-1)

    def _read(self, slots: Tensor, read_query: Tensor) -> tuple[Tensor, Tensor]:
        """Slots (..., K, d) and query (..., d) -> summary (..., d), read weights (..., K)."""
        keys = self.read_key(slots + self.identity)
        logits = (keys @ read_query.unsqueeze(-1)).squeeze(-1)
        weights = torch.full_like(logits, 1 / self.slots) if self.mean_read else torch.softmax(logits, dim=-1)
        return (weights.unsqueeze(-2) @ self.read_value(slots)).squeeze(-2), weights

    def step(self, state: Tensor, evidence: Evidence) -> tuple[Tensor, Readout]:
        query, candidate_in, gate_in, u, read_query = self._prepare(evidence)
        slots, routing, strength = self._update(state, query, candidate_in, gate_in)
        summary, weights = self._read(slots, read_query)
        return slots, Readout(slots, summary, evidence.address, weights, routing, strength, u)

    def scan(self, evidence: Evidence) -> Readout:
        query, candidate_in, gate_in, u, read_query = self._prepare(evidence)
        state = self.init_state(evidence.content.float())
        slots: list[Tensor] = []
        routing: list[Tensor] = []
        strength: list[Tensor] = []
        for t in range(query.shape[1]):
            state, omega, beta = self._update(state, query[:, t], candidate_in[:, t], gate_in[:, t])
            slots.append(state)
            routing.append(omega)
            strength.append(beta)
        all_slots = torch.stack(slots, dim=1)
        summary, weights = self._read(all_slots, read_query)
        return Readout(
            all_slots, summary, evidence.address, weights, torch.stack(routing, 1), torch.stack(strength, 1), u
        )

    @torch.jit.unused
    def auxiliary_losses(self, readout: Readout, valid: Tensor) -> dict[str, Tensor]:
        """L_bal, L_ent and L_cons of the paper, each already multiplied by its weight; zero weights are left out."""
        weight = valid.to(readout.routing.dtype)
        weight = weight / weight.sum().clamp_min(1.0)  # (B, N), sums to 1

        def mean(values: Tensor) -> Tensor:  # over valid ticks; values (B, N, ...)
            return torch.einsum("bn,bn...->...", weight, values)

        losses: dict[str, Tensor] = {}
        if self.loss_weights["balance"] > 0:
            losses["balance"] = (mean(readout.routing) - 1 / self.slots).square().mean()
        if self.loss_weights["entropy"] > 0 and self.slots > 1:
            entropy = -(readout.routing * readout.routing.clamp_min(1e-9).log()).sum(-1)
            losses["entropy"] = mean(entropy) / math.log(self.slots)
        if self.loss_weights["consistency"] > 0:
            gap = readout.summary.tanh() - readout.write_content.tanh()
            losses["consistency"] = mean(gap.square().mean(-1))
        return {name: self.loss_weights[name] * value for name, value in losses.items()}
