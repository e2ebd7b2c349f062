"""What a memory does, looked at from outside: changed paths, a probe of the cue. For the viewer and the experiments."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from . import signature as sig
from .agent import Agent
from .checkpoint import load_recall
from .files import replacing
from .memory.base import Evidence, Readout
from .memory.trace import TraceMemory
from .rollout import Rollout

PROBE = "probe.pt"  # in the folder of a run, written by experiments/diagnostics
cosine = nn.functional.cosine_similarity


class Change(NamedTuple):
    """Another path in place of an episode's own, for the signature only."""

    path: Tensor  # (T', D), standardised
    at: Tensor  # (N',) point of the path at each tick
    frames: Tensor  # (N',) tick of the episode that saw what is seen there

    def nearest(self, ticks: int) -> Tensor:
        """The tick (N,) of the path at which each of the episode's `ticks` would be."""
        return (self.frames.unsqueeze(1) - torch.arange(ticks)).abs().argmin(0)


def pass_through(agent: Agent, images: Tensor, states: Tensor, change: Change | None = None) -> tuple[Readout, Tensor]:
    """Readout (N, ...) and standardised chunks (N, H, A) of one whole episode.

    Args:
        images: uint8 (1, N, C, H, W, 3) at the ticks.
        states: (1, T, D) at every control step, physical units.
        change: the path that the memory is to believe in; N is then the number of its ticks.
    """
    features, evidence = agent.gather(images, states)
    if change is not None:
        xi = sig.prefix_signature(change.path, agent.depth)[change.at].unsqueeze(0)
        previous = torch.cat([xi[:, :1], xi[:, :-1]], dim=1)
        evidence = Evidence(evidence.content[:, change.frames], agent.address(xi, previous))
        features = features[change.frames]
    readout = agent.memory.scan(evidence)
    flat = Readout(*(part.flatten(0, 1) for part in readout))
    return Readout(*(part[0] for part in readout)), agent.policy.act(features, flat)


def sample(path: Tensor, where: Tensor) -> Tensor:
    """Points of a path (T, D) at fractional steps `where`, by linear interpolation."""
    low = where.floor().long().clamp(0, len(path) - 1)
    high = (low + 1).clamp_max(len(path) - 1)
    return torch.lerp(path[low], path[high], (where - low).unsqueeze(-1))


def transforms(path: Tensor, ticks: Tensor, mask: Tensor, rng: np.random.Generator) -> dict[str, Change]:
    """Changed paths (TRACE, diagnostics), by name.

    A robot that takes half as long again ticks half as often again, so resampling and jitter change where ticks fall,
    how much of the path lies between them, and how often slots are written.

    Args:
        path: (T, D), standardised.
        ticks: (N,), control steps, evenly spaced.
        mask: (D,), 0 where a channel is constant.
        rng: of the jitter and of the offset.
    """
    length, every, own = len(path), int(ticks[1] - ticks[0]), torch.arange(len(ticks))

    def timed(where: Tensor) -> Change:
        """The path at fractional steps `where`, with its own ticks."""
        at = torch.arange(0, len(where), every)
        return Change(sample(path, where), at, (where[at] / every).round().long().clamp_max(len(ticks) - 1))

    knots = np.arange(0, length + 20, 20)
    speed = np.interp(np.arange(length - 1), knots, rng.uniform(0.5, 1.5, len(knots)))
    passed = np.concatenate([[0], np.cumsum(speed)])
    warp = torch.from_numpy(passed * (length - 1) / passed[-1]).float()  # the point of the old path at each new step
    kept = torch.arange(0, length, 4)
    offset = torch.from_numpy(rng.normal(0, 0.5, path.shape[1])).float() * mask
    return {
        "time resampling": timed(torch.linspace(0, length - 1, round(1.5 * length))),
        "speed jitter": timed(warp),
        "state offset": Change(path + offset, ticks, own),
        "sparse sampling": Change(path[kept], ticks // 4, own),
        "order reversal": Change(path.flip(0), ticks, own),
    }


def route_similarity(agent: Agent, images: Tensor, states: Tensor) -> dict[str, Tensor]:
    """Cosine (N,) of the routing at each tick of one episode with that of each changed path where it sees the same, by
    name."""
    own, _ = pass_through(agent, images, states)
    path, ticks = agent.standardize_state(states[0]), torch.arange(images.shape[1]) * agent.tick_every
    changed = transforms(path, ticks, agent.standardize_state.mask, np.random.default_rng(0))
    out = {}
    for name, change in changed.items():
        other = pass_through(agent, images, states, change)[0]
        out[name] = cosine(other.routing[change.nearest(images.shape[1])], own.routing, dim=-1)
    return out


@dataclass(frozen=True)
class LinearProbe:
    """A linear map from standardised inputs (F,) to classes."""

    mean: Tensor  # (F,)
    deviation: Tensor  # (F,)
    weight: Tensor  # (F + 1, classes), the last row is the bias

    @classmethod
    @torch.enable_grad()
    def fit(cls, inputs: Tensor, labels: Tensor) -> "LinearProbe":
        """Logistic regression with a small ridge, by L-BFGS: inputs (B, F), labels (B,)."""
        probe = cls(inputs.mean(0), inputs.std(0).clamp_min(1e-6), torch.zeros(1))
        weight = torch.zeros(inputs.shape[1] + 1, int(labels.max()) + 1, requires_grad=True)
        optimiser = torch.optim.LBFGS([weight], max_iter=100, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimiser.zero_grad()
            logits = cls(probe.mean, probe.deviation, weight)(inputs)
            loss = nn.functional.cross_entropy(logits, labels) + 0.01 * weight[:-1].square().sum()
            loss.backward()
            return loss

        optimiser.step(closure)
        return cls(probe.mean, probe.deviation, weight.detach())

    def __call__(self, inputs: Tensor) -> Tensor:
        """Logits (B, classes) of inputs (B, F)."""
        return ((inputs - self.mean) / self.deviation) @ self.weight[:-1] + self.weight[-1]

    def save(self, path: Path) -> None:
        with replacing(path) as temporary:
            torch.save(vars(self), temporary)

    @classmethod
    def load(cls, path: Path) -> "LinearProbe":
        return cls(**torch.load(path, weights_only=True))


@torch.inference_mode()
def analyse(agent: Agent, folder: Path, result: Rollout, edited: bool = False) -> None:
    """Add to a recording what the memory of the run in `folder` did.

    How a TRACE memory would have routed on changed paths; the cue that the run's linear probe reads from the slots,
    if experiments/diagnostics fitted one; and what each slot remembers, if the run was trained with recall. Routes are
    those of an untouched memory, so they are left out where the memory was `edited`.
    """
    data = result.recording
    assert data is not None
    slots = torch.from_numpy(np.stack(data.slots))
    if isinstance(agent.memory, TraceMemory) and not edited and len(data.ticks) > 1:
        images = torch.from_numpy(np.stack([data.images[step] for step in data.ticks])).unsqueeze(0)
        alike = route_similarity(agent, images, torch.from_numpy(np.stack(data.states)).unsqueeze(0))
        data.curves["route_similarity"] = {name: values.numpy() for name, values in alike.items()}
    if (folder / PROBE).exists():
        chances = LinearProbe.load(folder / PROBE)(slots.flatten(1)).softmax(-1).numpy()
        data.curves["probe"] = {f"cue {cue} in the slots": chances[:, cue] for cue in range(chances.shape[1])}
    head = load_recall(folder / "checkpoints/last.ckpt", agent)
    if head is not None and agent.memory.slots_stay:
        address, strength = (torch.from_numpy(np.stack(part)) for part in (data.address, data.write_strength))
        data.remembered = (255 * head.remembered(slots, address, strength)).to(torch.uint8).numpy()
