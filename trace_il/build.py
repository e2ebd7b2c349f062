"""Configuration and environment -> agent; statistics of the train split."""

import torch

from .agent import Agent, AgentSpec, SignatureAddress
from .config import TrainConfig, options
from .data.datamodule import EpisodeDataModule
from .encoders import Encoder
from .errors import UserError
from .memory import MEMORIES
from .policies import POLICIES
from .signature import signature_dim


def agent_spec(
    config: TrainConfig, data: EpisodeDataModule, low: tuple[float, ...], high: tuple[float, ...]
) -> AgentSpec:
    """What the agent is connected to, from the dataset and the environment's action limits."""
    dataset = data.dataset
    if len(low) != len(dataset.action_names):
        raise UserError(
            f"the dataset's actions have {len(dataset.action_names)} channels, the environment's {len(low)}"
        )
    sizes = set(dataset.cameras.values())
    if len(sizes) != 1:
        raise UserError(
            f"all cameras must have one image size, the dataset has {dataset.cameras}; resize them to one size"
        )
    return AgentSpec(
        cameras=tuple(dataset.cameras),
        image_size=sizes.pop(),
        state_names=dataset.state_names,
        action_names=dataset.action_names,
        action_low=low,
        action_high=high,
        control_hz=dataset.fps,
        tick_every=config.agent.tick_every,
        depth=config.agent.depth,
    )


def build_agent(config: TrainConfig, spec: AgentSpec) -> Agent:
    """An agent with fresh weights; seeded by the global random state."""
    dim = signature_dim(spec.state_dim, spec.depth)
    encoder = Encoder(
        len(spec.cameras), spec.image_size, spec.state_dim, config.policy.width, **options(config.encoder)
    )
    address = SignatureAddress(dim, config.agent.address_width, config.agent.address_dropout)
    address_dim = 2 * config.agent.address_width
    memory = MEMORIES[config.memory.name](2 * config.encoder.content_dim, address_dim, **options(config.memory))
    policy = POLICIES[config.policy.name](
        action_dim=spec.action_dim,
        slots=memory.slots,
        slot_width=memory.width,
        address_dim=address_dim,
        **options(config.policy),
    )
    return Agent(spec, encoder, address, memory, policy, config.agent.path_noise)


@torch.no_grad()
def fit_statistics(agent: Agent, data: EpisodeDataModule) -> None:
    """Standardisation of state, action, signature and signature change, from the train episodes alone."""
    numbers = data.train_numbers
    for standardizer, arrays in (
        (agent.standardize_state, data.dataset.states),
        (agent.standardize_action, data.dataset.actions),
    ):
        values = torch.cat([torch.from_numpy(arrays[n]) for n in numbers]).double()
        standardizer.fit(values.mean(0).float(), values.std(0, correction=0).float())
    agent.eval()
    count = 0
    dim = signature_dim(agent.spec.state_dim, agent.spec.depth)
    sums = [torch.zeros(dim, dtype=torch.float64) for _ in range(4)]
    for n in numbers:
        xi, delta = agent.signatures(torch.from_numpy(data.dataset.states[n]).unsqueeze(0))
        count += xi.shape[1]
        for index, values in enumerate((xi, delta)):
            sums[2 * index] += values[0].double().sum(0)
            sums[2 * index + 1] += values[0].double().square().sum(0)
    for index, standardizer in enumerate((agent.address.standardize_signature, agent.address.standardize_delta)):
        mean = sums[2 * index] / count
        std = (sums[2 * index + 1] / count - mean.square()).clamp_min(0).sqrt()
        standardizer.fit(mean.float(), std.float())
    agent.train()
