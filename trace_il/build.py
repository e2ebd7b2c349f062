"""Configuration and environment -> agent; statistics of the train split."""

import fnmatch

import torch
from torch import Tensor

from .agent import Agent, AgentSpec, SignatureAddress
from .config import TrainConfig, options
from .data.datamodule import EpisodeDataModule
from .encoders import Encoder
from .errors import UserError
from .memory import MEMORIES, Evidence
from .normalize import Standardizer
from .policies import POLICIES

NORM_EPISODES = 32  # over which the statistics of the content are taken


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
        relative=relative_actions(config.agent.relative, dataset.state_names, dataset.action_names),
    )


def relative_actions(
    patterns: list[str], state_names: tuple[str, ...], action_names: tuple[str, ...]
) -> tuple[bool, ...]:
    """Which actions match one of `patterns`.

    Raises:
        UserError: a pattern matches no action, or an action that is no state.
    """
    for pattern in patterns:
        matches = fnmatch.filter(action_names, pattern)
        if not matches:
            raise UserError(f"agent.relative: {pattern!r} matches none of the actions {list(action_names)}")
        missing = set(matches) - set(state_names)
        if missing:
            raise UserError(f"agent.relative: {pattern!r} matches {sorted(missing)}, which the state does not have")
    return tuple(any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns) for name in action_names)


def build_agent(config: TrainConfig, spec: AgentSpec) -> Agent:
    """An agent with fresh weights; seeded by the global random state."""
    encoder = Encoder(
        len(spec.cameras), spec.image_size, spec.state_dim, config.policy.width, **options(config.encoder)
    )
    address = SignatureAddress(
        spec.state_dim, spec.depth, config.agent.address_width, config.agent.address_dropout, config.agent.delta,
        config.agent.log_signature,
    )  # fmt: skip
    memory = MEMORIES[config.memory.name](2 * config.encoder.content_dim, address.address_dim, **options(config.memory))
    policy = POLICIES[config.policy.name](
        action_dim=spec.action_dim,
        slots=memory.slots,
        slot_width=memory.width,
        address_dim=address.address_dim,
        **options(config.policy),
    )
    return Agent(spec, encoder, address, memory, policy, config.agent.path_noise, config.agent.scan_budget)


class RunningMoments:
    """Mean and standard deviation of arrays that come one after the other.

    Summed relative to the first value, so that a constant channel has a deviation of exactly zero.
    """

    def __init__(self, *shape: int) -> None:
        self.count, self.sum, self.square = torch.zeros(3, *shape, dtype=torch.float64)
        self.origin: Tensor | None = None

    def add(self, values: Tensor, keep: Tensor) -> None:
        """values (N, *shape); keep, broadcast to it, is False where a value does not count."""
        if self.origin is None:
            self.origin = values[0].double()
        keep = keep.expand_as(values)
        offset = torch.where(keep, values.double() - self.origin, 0.0)
        self.count += keep.sum(0)
        self.sum += offset.sum(0)
        self.square += offset.square().sum(0)

    def fit(self, standardizer: Standardizer) -> None:
        """Store what was gathered; at least one array was added."""
        assert self.origin is not None
        count = self.count.clamp_min(1)
        mean = self.sum / count
        deviation = (self.square / count - mean.square()).clamp_min(0).sqrt()
        standardizer.fit((self.origin + mean).float(), deviation.float())


@torch.no_grad()
def fit_statistics(agent: Agent, data: EpisodeDataModule) -> None:
    """Standardisation of state, action, signature and signature change, from the train episodes alone."""
    every, chunk, states, actions = agent.tick_every, agent.policy.chunk, data.dataset.states, data.dataset.actions
    moments, change = RunningMoments(agent.spec.state_dim), RunningMoments(chunk, agent.spec.action_dim)
    for n in data.train_numbers:
        state, action = torch.from_numpy(states[n]), torch.from_numpy(actions[n])
        moments.add(state, torch.tensor(True))
        window = torch.arange(0, len(action), every)[:, None] + torch.arange(chunk)
        targets = action[window.clamp_max(len(action) - 1)] - (state[::every] @ agent.reference).unsqueeze(-2)
        change.add(targets, (window < len(action)).unsqueeze(-1))
    moments.fit(agent.standardize_state)
    change.fit(agent.standardize_action)
    agent.eval()
    xis, deltas = RunningMoments(agent.address.dim), RunningMoments(agent.address.dim)
    for n in data.train_numbers:
        state = torch.from_numpy(data.dataset.states[n])
        now, before = (agent.address.features(xi[0]) for xi in agent.signatures(state.unsqueeze(0)))
        xis.add(now, torch.tensor(True))
        deltas.add(now - before, torch.tensor(True))
    xis.fit(agent.address.standardize_signature)
    deltas.fit(agent.address.standardize_delta)
    agent.train()


@torch.no_grad()
def fit_content_norm(agent: Agent, data: EpisodeDataModule) -> None:
    """The statistics that standardise the memory's content, for the agent's weights as they are, over some batches of
    train episodes, as training does it batch by batch in its first half.

    Running statistics belong to weights that change at every step. Averaged weights give contents whose mean differs
    by little, but a scene in which little changes has contents that differ by less (Izmailov et al. 2018, section 3.2).
    """
    norm, device, training = agent.encoder.content_norm, agent.action_low.device, agent.training
    momentum, norm.momentum = norm.momentum, None  # the mean over batches
    norm.reset_running_stats()
    agent.eval()
    norm.train()
    for items in data.train_order(0)[: -(-NORM_EPISODES // data.batch_size)]:
        numbers, offsets = zip(*items, strict=True)
        batch = data.episodes.batch(list(numbers), list(offsets)).to(device)
        agent.encode(batch.images, batch.states)
    norm.momentum = momentum
    agent.train(training)


@torch.no_grad()
def fill_bank(agent: Agent, data: EpisodeDataModule) -> None:
    """Give a memory that keeps demonstrations the train episodes as the agent sees them now, evenly chosen."""
    device, training = agent.action_low.device, agent.training
    agent.eval()
    count = min(agent.memory.demonstrations, len(data.train_numbers))
    for place in range(count):
        number = data.train_numbers[place * len(data.train_numbers) // count]
        batch = data.episodes.batch([number]).to(device)
        evidence = agent.gather(batch.images, batch.states)[1]
        agent.memory.keep(place, number // data.together, Evidence(evidence.content[0], evidence.address[0]))
    agent.train(training)
