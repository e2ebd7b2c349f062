"""The agent: encoder + signature address + memory + policy + statistics, and the online controller around it.

`Agent` is stateless: it scans whole episodes for training and makes single ticks online from the same
parts. `Controller` holds the state of one running episode behind `reset` / `observe` / `act` / `step`; it
is TorchScript-compatible and is what evaluation runs and `export.py` writes.

    control step   0   1   2   3   4   5   6   ...        here tick_every = 3
    signature      x   x   x   x   x   x   x              streams at every control step
    memory tick    x           x           x              encodes images, writes, reads
    new chunk      x           x           x              executed until the next tick
"""

import json
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from . import signature as sig
from .encoders import Encoder
from .memory.base import Evidence, Memory, Readout, mlp
from .normalize import Standardizer
from .policies.base import Policy


@dataclass(frozen=True)
class AgentSpec:
    """What the agent is connected to; stored in every checkpoint and export."""

    cameras: tuple[str, ...]
    image_size: tuple[int, int]  # height, width in pixels
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    action_low: tuple[float, ...]  # limits in the action's own units, applied to every command
    action_high: tuple[float, ...]
    control_hz: float
    tick_every: int  # control steps between memory ticks
    depth: int  # signature depth p
    relative: tuple[bool, ...]  # actions predicted relative to the state channel of the same name

    @property
    def state_dim(self) -> int:
        return len(self.state_names)

    @property
    def action_dim(self) -> int:
        return len(self.action_names)


class SignatureAddress(nn.Module):
    """q_t = [g_t, Dg_t] with g = phi_g(standardised xi), Dg = phi_delta(standardised delta) (TRACE section 2).

    Args:
        channels, depth: of the signature.
        width: width of g and of Dg.
        dropout: probability of dropping an address coordinate in training, against recognising an episode
            by the fingerprint of its own path.
        delta: whether the address has Dg.
        log: use the log-signature, at Lyndon words, in place of the signature.
    """

    positions: Tensor

    def __init__(self, channels: int, depth: int, width: int, dropout: float, delta: bool = True, log: bool = False):
        super().__init__()
        self.channels, self.depth, self.log, self.delta = channels, depth, log, delta
        positions = torch.tensor(sig.lyndon_positions(channels, depth) if log else [0])
        self.register_buffer("positions", positions, persistent=False)
        dim = len(positions) if log else sig.signature_dim(channels, depth)
        self.dim, self.address_dim = dim, 2 * width if delta else width
        self.standardize_signature = Standardizer(dim, limit=5.0)
        self.standardize_delta = Standardizer(dim, limit=5.0)
        self.phi_g = mlp(dim, width, width)
        self.phi_delta = mlp(dim, width, width) if delta else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def features(self, xi: Tensor) -> Tensor:
        """Signature (..., S) -> what is standardised and embedded, (..., dim)."""
        if not self.log:
            return xi
        return sig.log_signature(xi, self.channels, self.depth).index_select(-1, self.positions)

    def forward(self, xi: Tensor, previous: Tensor) -> Tensor:
        """Signatures (..., S) at a tick and at the one before -> address (..., address_dim)."""
        now = self.features(xi)
        g = self.phi_g(self.standardize_signature(now))
        if self.delta:
            dg = self.phi_delta(self.standardize_delta(now - self.features(previous)))
            g = torch.cat([g, dg], dim=-1)
        return self.dropout(g)


class Agent(nn.Module):
    """All learned parts and statistics of one policy."""

    action_low: Tensor
    action_high: Tensor
    reference: Tensor  # (D, A), 1 where an action is relative to a state channel

    def __init__(
        self,
        spec: AgentSpec,
        encoder: Encoder,
        address: SignatureAddress,
        memory: Memory,
        policy: Policy,
        path_noise: float = 0.0,
        scan_budget: int = 0,
    ) -> None:
        super().__init__()
        if scan_budget == 1 or scan_budget < 0:
            raise ValueError(f"scan_budget must be 0 (all ticks) or at least 2, got {scan_budget}")
        self.spec = spec
        self.depth, self.tick_every = spec.depth, spec.tick_every
        self.path_noise, self.scan_budget = path_noise, scan_budget
        self.encoder, self.address, self.memory, self.policy = encoder, address, memory, policy
        self.standardize_state = Standardizer(spec.state_dim, limit=10.0)
        self.standardize_action = Standardizer(policy.chunk, spec.action_dim)  # a statistic each step of the chunk
        pairs = [
            [float(r and s == a) for a, r in zip(spec.action_names, spec.relative, strict=True)]
            for s in spec.state_names
        ]
        self.register_buffer("reference", torch.tensor(pairs), persistent=False)
        self.register_buffer("action_low", torch.tensor(spec.action_low))
        self.register_buffer("action_high", torch.tensor(spec.action_high))

    @torch.jit.unused
    def signatures(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Signatures at every memory tick of whole episodes, and at the tick before.

        Args:
            states: (B, T, D) at every control step, physical units.
        Returns:
            xi and previous xi, (B, N, S) with N = ceil(T / tick_every); at the first tick they are equal.
        """
        path = self.standardize_state(states)
        if self.training and self.path_noise > 0:
            path = path + self.path_noise * torch.randn_like(path) * self.standardize_state.mask
        with torch.autocast(path.device.type, enabled=False):  # a sum over an episode needs all digits
            xi = sig.prefix_signature(path, self.depth, self.tick_every)
        return xi, torch.cat([xi[:, :1], xi[:, :-1]], dim=1)

    @torch.jit.unused
    def encode(self, images: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        """Features and contents of whole episodes, arguments as of `gather`, with (B, N) flattened into their batch."""
        now = self.standardize_state(states[:, :: self.tick_every])
        return self.encoder(images.flatten(0, 1), now.flatten(0, 1))

    @torch.jit.unused
    def gather(self, images: Tensor, states: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Evidence]:
        """Features and evidence of whole episodes; each image is encoded once.

        Args:
            images: uint8 (B, N, C, H, W, 3) at the ticks.
            states: (B, T, D) at every control step, physical units.
            seen: images that the memory sees, where they are others than those of the policy.
        Returns:
            features with (B, N) flattened into their batch, evidence (B, N, ...).
        """
        batch, ticks = images.shape[:2]
        features, content = self.encode(images, states)
        if seen is not None:
            content = self.encode(seen, states)[1]
        content = content.unflatten(0, (batch, ticks))
        if not self.memory.uses_address:
            return features, Evidence(content, content.new_zeros(batch, ticks, self.memory.address_dim))
        with torch.no_grad():
            xi, previous = self.signatures(states)
        return features, Evidence(content, self.address(xi, previous))

    @torch.jit.unused
    def scan(self, images: Tensor, states: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Evidence, Readout]:
        """`gather`, and the memory's readout (B, N, ...) of the same episodes.

        With a scan budget L, training scans for each target only the first tick and the last L - 1, as the paper
        does, while deployment writes at every tick: an ablation.
        """
        features, evidence = self.gather(images, states, seen)
        if not (self.training and self.scan_budget):
            return features, evidence, self.memory.scan(evidence)
        batch, ticks = evidence.content.shape[:2]
        index, last = windows(ticks, self.scan_budget, images.device)
        readout = self.memory.scan(Evidence(*(part[:, index].flatten(0, 1) for part in evidence)))
        rows = torch.arange(batch * ticks, device=images.device)
        return (
            features,
            evidence,
            Readout(*(part[rows, last.repeat(batch)].unflatten(0, (batch, ticks)) for part in readout)),
        )

    @torch.jit.unused
    def cleared(self, content: Tensor) -> Readout:
        """Readout of ticks whose slots and signature were cleared just before: content (B, E) -> (B, ...)."""
        start = content.new_zeros(content.shape[0], sig.signature_dim(self.spec.state_dim, self.depth))
        state = self.memory.init_state(content.float())
        return self.memory.step(state, Evidence(content, self.address_of(start, start)))[1]

    def address_of(self, xi: Tensor, previous: Tensor) -> Tensor:
        """Address (B, Q) of signatures at a tick and at the one before; zero where the memory has no use for it."""
        if self.memory.uses_address:
            return self.address(xi, previous)
        return xi.new_zeros([xi.shape[0], self.memory.address_dim])

    def tick(
        self, images: Tensor, state: Tensor, xi: Tensor, previous: Tensor, slots: Tensor
    ) -> tuple[Tensor, Tensor, Readout]:
        """One online memory tick: images (B, C, H, W, 3), standardised state (B, D), signature, slots."""
        features, content = self.encoder(images, state)
        slots, readout = self.memory.step(slots, Evidence(content, self.address_of(xi, previous)))
        return features, slots, readout

    @torch.jit.unused
    def targets(self, actions: Tensor, states: Tensor) -> Tensor:
        """What the policy is to predict: actions (..., H, A) and the states (..., D) at their ticks, physical units."""
        with torch.autocast(states.device.type, enabled=False):  # bfloat16 tells angles apart by milliradians only
            return self.standardize_action(actions - (states @ self.reference).unsqueeze(-2))

    def plan(self, features: Tensor, readout: Readout, state: Tensor) -> Tensor:
        """Action chunk (B, H, A) in physical units, within the action limits; `state` (B, D), physical units."""
        chunk = self.standardize_action.inverse(self.policy.act(features, readout))
        chunk = chunk + (state @ self.reference).unsqueeze(-2)
        return torch.minimum(torch.maximum(chunk, self.action_low), self.action_high)


def windows(ticks: int, budget: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ticks scanned for each target tick: the first, then the last budget - 1; shorter ones end in repeats.

    Returns:
        index (N, L) of the ticks in order, and (N,) where in it the target's own tick is.
    """
    now = torch.arange(ticks, device=device).unsqueeze(1)
    place = torch.arange(min(budget, ticks), device=device)
    tail = (now - budget + 1).clamp_min(0) + place
    index = torch.where(place == 0, place, tail).minimum(now)
    return index, now[:, 0].clamp_max(budget - 1)


class Controller(nn.Module):
    """One running episode of an agent: the only stateful part, scriptable, batch B of parallel robots.

    Args:
        agent: a trained agent; it is put into evaluation mode.
        clear_memory: clear slots and signature before every tick. The control that costs no training:
            the same policy, without a past.
    """

    readout: Readout

    def __init__(self, agent: Agent, clear_memory: bool = False) -> None:
        super().__init__()
        self.agent = agent.eval()
        self.clear_memory = clear_memory
        self.tick_every, self.depth = agent.spec.tick_every, agent.spec.depth
        self.state_dim, self.cameras = agent.spec.state_dim, len(agent.spec.cameras)
        self.height, self.width = agent.spec.image_size
        self.signature_dim = sig.signature_dim(self.state_dim, self.depth)
        self.tokens, self.token_width = self.cameras + 1, agent.encoder.width
        # What an exported file tells of itself; `export.py` adds statistics, units and timings.
        self.metadata = json.dumps(asdict(agent.spec))
        self.reset(1)

    @torch.jit.export
    def metadata_json(self) -> str:
        """Cameras, sizes, channel names, limits and rates, as JSON."""
        return self.metadata

    @torch.jit.export
    def reset(self, batch: int = 1) -> None:
        """Begin new episodes in all B robots: empty memory, signature of one point, no plan."""
        reference = self.agent.action_low.new_zeros([batch, 1])
        self.slots = self.agent.memory.init_state(reference)
        self.xi = reference.new_zeros([batch, self.signature_dim])
        self.xi_at_tick = self.xi
        self.previous = reference.new_zeros([batch, self.state_dim])
        self.steps = 0  # control steps observed in this episode
        self.plan_age = 0  # steps since the tick, and so into its chunk
        self.planned = False  # whether the chunk is that of the last tick
        self.chunk = reference.new_zeros([batch, 1, 1])
        self.features = reference.new_zeros([batch, self.tokens, self.token_width])
        self.state_at_tick = self.previous
        self.readout = self._blank_readout(reference)

    def _blank_readout(self, reference: Tensor) -> Readout:
        zero = reference.new_zeros([reference.shape[0], self.agent.memory.slots])
        summary = reference.new_zeros([reference.shape[0], self.agent.memory.width])
        address = reference.new_zeros([reference.shape[0], self.agent.memory.address_dim])
        return Readout(self.slots, summary, address, zero, zero, zero, summary)

    @torch.jit.export
    def observe(self, images: Tensor, state: Tensor) -> None:
        """Take in one control step without acting.

        Args:
            images: uint8 RGB, (B, C, H, W, 3), cameras in the order of the spec. Read at ticks only.
            state: (B, D), physical units.
        """
        if state.dim() != 2 or state.shape[1] != self.state_dim:
            raise ValueError(f"state must have shape (B, {self.state_dim}), got {state.shape}")
        if not bool(torch.isfinite(state).all()):
            raise ValueError("the robot state is not finite")
        if state.shape[0] != self.previous.shape[0]:
            raise ValueError(f"reset({self.previous.shape[0]}) was called, but {state.shape[0]} states came")
        if state.dtype != torch.float32:
            raise ValueError(f"the robot state must be float32, got {state.dtype}")
        is_tick = self.steps % self.tick_every == 0
        if is_tick:
            expected = torch.Size([state.shape[0], self.cameras, self.height, self.width, 3])
            if images.shape != expected:
                raise ValueError(f"images must have shape {expected}, got {images.shape}")
            if images.dtype != torch.uint8:
                raise ValueError(f"images must be uint8 in 0..255, got {images.dtype}")
        # All checks come before the first change: what was refused has not been taken in.
        path = self.agent.standardize_state(state)
        if self.steps == 0 or (self.clear_memory and is_tick):
            self.slots = self.agent.memory.init_state(path)
            self.xi = path.new_zeros([path.shape[0], self.signature_dim])  # on the device the robot's data is on
            self.xi_at_tick = self.xi
        elif self.agent.memory.uses_address:
            self.xi = sig.update(self.xi, path - self.previous, self.depth)
        self.previous = path
        self.plan_age += 1
        if is_tick:
            self.features, self.slots, self.readout = self.agent.tick(
                images, path, self.xi, self.xi_at_tick, self.slots
            )
            self.xi_at_tick, self.state_at_tick = self.xi, state
            self.plan_age, self.planned = 0, False
        self.steps += 1

    @torch.jit.export
    def act(self) -> Tensor:
        """Action (B, A) for the step observed last. Plans the chunk of a tick when it is first asked for."""
        if self.steps == 0:
            raise ValueError("act() needs an observation: call observe() or step() first")
        if not self.planned:
            self.chunk = self.agent.plan(self.features, self.readout, self.state_at_tick)
            if not bool(torch.isfinite(self.chunk).all()):
                raise ValueError("the policy's actions are not finite; train it again")
            self.planned = True
        return self.chunk[:, self.plan_age]

    @torch.jit.export
    def step(self, images: Tensor, state: Tensor) -> Tensor:
        """observe, then act: (B, A)."""
        self.observe(images, state)
        return self.act()
