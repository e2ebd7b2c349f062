"""Structured configuration. Every key is declared here; an unknown one is an error.

`configs/` holds the Hydra groups; `configs/suited/<env>.yaml` sets what suits that environment elsewhere, and
`configs/suited_policy/<policy>_<env>.yaml` what suits one policy in it.
"""

from dataclasses import dataclass, field, fields
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .env_config import ENVS, EnvConfig, env_schema
from .errors import UserError

RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK")  # by which launchers number the processes of a run


@dataclass
class MemoryConfig:
    name: str = MISSING
    width: int = 64  # d, width of a slot


@dataclass
class TraceConfig(MemoryConfig):
    name: str = "trace"
    slots: int = 4  # K
    routed: bool = True  # false: every tick is written to all slots alike
    mean_read: bool = False  # read the mean of the slots, without attention
    tau: float = 1.0  # temperature of the routing
    identity_scale: float = 1.0  # lambda_eta
    gate_bias: float = -3.5  # initial write gate, in logits
    gate_span: float = 0.0  # > 0: a gate for every channel, biases spread over gate_bias +- gate_span
    balance_weight: float = 0.3  # L_bal: all slots are used
    entropy_weight: float = 0.01  # L_ent: each tick goes to few of them
    consistency_weight: float = 0.0  # L_cons


@dataclass
class GRUConfig(MemoryConfig):
    name: str = "gru"
    width: int = 128


@dataclass
class TransformerMemoryConfig(MemoryConfig):
    name: str = "transformer"
    slots: int = 16  # entries of the window
    heads: int = 4
    stride: int = 4  # ticks from one entry to the next


@dataclass
class LRUMemoryConfig(MemoryConfig):
    name: str = "lru"
    slots: int = 8
    usage_decay: float = 0.95


@dataclass
class RetrievalConfig(MemoryConfig):
    name: str = "retrieval"  # offline: it keeps demonstrations at deployment
    slots: int = 4  # entries retrieved at a tick
    demonstrations: int = 64  # in the bank
    entries: int = 32  # of each demonstration
    ahead: int = 8  # ticks from an entry to what came next


@dataclass
class NoMemoryConfig(MemoryConfig):
    name: str = "none"
    address: bool = False  # let the signature pass: "signature only"


@dataclass
class PolicyConfig:
    name: str = MISSING
    chunk: int = 40  # H, actions predicted at a tick
    width: int = 128  # of tokens


@dataclass
class ACTConfig(PolicyConfig):
    name: str = "act"
    heads: int = 4
    encoder_layers: int = 1
    decoder_layers: int = 2
    feedforward: int = 256
    dropout: float = 0.0
    actions_per_query: int = 10
    latent_dim: int = 0  # of the CVAE; 0: none
    kl_weight: float = 10.0
    absolute_weight: float = 0.3  # of the absolute error, beside the squared one


@dataclass
class DiffusionConfig(PolicyConfig):
    name: str = "diffusion"
    heads: int = 4
    layers: int = 3
    feedforward: int = 256
    actions_per_token: int = 5
    diffusion_steps: int = 100
    sampling_steps: int = 8
    temperature: float = 0.0  # of the noise that sampling begins with


@dataclass
class EncoderConfig:
    content_dim: int = 64  # width of v_t and of p_t
    channels: list[int] = field(default_factory=lambda: [16, 48])  # of the stages
    blocks: int = 1  # of a stage
    stem: str = "patch"  # patch, resnet
    spatial_channels: int = 8


@dataclass
class AgentConfig:
    tick_every: int = 5  # control steps between memory ticks
    depth: int = 3  # signature depth p
    address_width: int = 32  # width of g and of Dg
    delta: bool = True  # whether the address has Dg
    log_signature: bool = False  # in place of the signature
    address_dropout: float = 0.2  # against recognising an episode by its own path
    path_noise: float = 0.05  # the same; in standard deviations of the state
    scan_budget: int = 0  # ticks that training scans before a target, the first and the last ones; 0: all of them
    # Patterns of action names that are predicted relative to the present state, such as "*_elbow".
    relative: list[str] = field(default_factory=list)


@dataclass
class DemonstrationsConfig:
    root: str | None = None  # a LeRobotDataset v3; null: collected under data/ with the environment's expert
    episodes: int = 250
    seed: int = 0  # of the first demonstration
    disturbance: float = 1.0  # of the demonstrations; 0: none


@dataclass
class DataConfig(DemonstrationsConfig):
    holdout: float = 0.1  # share of episodes held out
    batch_size: int = 2  # episodes a step and process
    num_workers: int = 0  # loader processes


@dataclass
class FitConfig:
    """How anything is trained."""

    epochs: int = 36
    steps_per_epoch: int = 50
    learning_rate: float = 1e-3
    gradient_clip: float = 1.0
    ema: float = 0.98  # decay of averaged weights, which are evaluated; 0: none
    accelerator: str = "auto"  # auto, cpu, gpu
    devices: int = 1
    num_nodes: int = 1
    precision: str = "auto"  # auto: 32-true on a CPU, bf16-mixed on a GPU
    threads: int = 0  # CPU threads of a process; 0: one a core, shared among the devices of a machine


@dataclass
class TrainerConfig(FitConfig):
    weight_decay: float = 1e-4
    warmup_steps: int = 30
    # px by which pictures are moved at most, at random, each way, in the second half of training
    shift: int = 2  # those that the memory sees
    policy_shift: int = 0  # those that the policy sees: for few demonstrations, where no pixel counts
    # Share of training after which L_ent begins. Two bits in one episode are not found with sharp routing; but a single
    # one that was found without it may be lost again in the second half of a short training.
    sharpen_after: float = 0.0
    clear_share: float = 0.125  # share of ticks trained once more with the memory cleared before
    teacher: str = "attention"  # attention, none: a second readout, in training only
    distillation: float = 0.0  # weight of the distance between the memory's summary and the teacher's
    residual: float = 0.0  # share by which targets are weighted with the error of the policy without a past, 0 to 1
    recall: float = 0.0  # weight of redrawing from the memory what was seen before
    init: str | None = None  # checkpoint whose agent training begins with, of a run with the same agent
    views: str | None = None  # run of planning by views, on whose records the encoder is trained before all else
    view_epochs: int = 12  # of that
    # Held-out branch accuracy at which training stops, to measure how soon that is (a policy to be used wants the
    # second half of training, too); 0: it goes on.
    stop_at: float = 0.0
    closed_loop_every: int = 0  # epochs between closed-loop evaluations during training; 0: none


@dataclass
class EvaluationConfig:
    episodes: int = 50  # closed-loop rollouts on fresh seeds
    seed: int = 8_000_000  # of the first
    cleared: bool = True  # also with the memory cleared at each tick
    videos: int = 2
    recording: bool = True  # a recording for the viewer, a video and a strip of the first rollout
    export: bool = True  # TorchScript file


@dataclass
class ParallelConfig:
    workers: int = 0  # processes for collection and evaluation; 0: one a core
    ray_address: str | None = None  # a Ray cluster to spread them over


@dataclass
class RunConfig:
    """What every run of train.py has."""

    trainer: FitConfig = field(default_factory=FitConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    wandb: str = "auto"  # auto: online when logged in, else offline; offline, online, off
    seed: int = 0
    name: str = MISSING  # the run folder is <runs>/<name>
    runs: str = "runs"
    overwrite: bool = False  # delete a run of the same name first
    debug: bool = False  # stack traces


@dataclass
class TrainConfig(RunConfig):
    env: EnvConfig = MISSING
    memory: MemoryConfig = MISSING
    policy: PolicyConfig = MISSING
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    data: DataConfig = field(default_factory=DataConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


@dataclass
class CollectConfig:
    env: EnvConfig = MISSING
    data: DemonstrationsConfig = field(default_factory=DemonstrationsConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    debug: bool = False


MEMORY_CONFIGS = {
    "trace": TraceConfig,
    "gru": GRUConfig,
    "transformer": TransformerMemoryConfig,
    "lru": LRUMemoryConfig,
    "retrieval": RetrievalConfig,
    "none": NoMemoryConfig,
}
POLICY_CONFIGS = {"act": ACTConfig, "diffusion": DiffusionConfig}


def register() -> None:
    """Register the schemas with Hydra."""
    from .sim_config import SIMS, SimulatorRunConfig, SoftBodiesConfig
    from .views.config import ViewConfig, ViewPlanningConfig, ViewRunConfig

    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainConfig)
    store.store(name="simulator_schema", node=SimulatorRunConfig)
    store.store(name="views_schema", node=ViewRunConfig)
    store.store(name="collect_schema", node=CollectConfig)
    groups: dict[str, dict[str, Any]] = {
        "env_schema": {**ENVS, "soft_bodies": SoftBodiesConfig, "view_planning": ViewPlanningConfig},
        "view_schema": {"view": ViewConfig},
        "memory": MEMORY_CONFIGS,
    }
    for group, options in {**groups, "policy": POLICY_CONFIGS, "sim_schema": SIMS}.items():
        for name, node in options.items():
            store.store(group=group, name=name, node=node, package=group.removesuffix("_schema"))


def options(config: MemoryConfig | PolicyConfig | EncoderConfig) -> dict[str, Any]:
    """Constructor arguments: all fields but the name."""
    out = {f.name: getattr(config, f.name) for f in fields(config) if f.name != "name"}
    return {key: tuple(value) if isinstance(value, list) else value for key, value in out.items()}


def to_plain(config: Any) -> dict[str, Any]:
    """A nested dict of plain Python values, for checkpoints and YAML."""
    plain = OmegaConf.to_container(OmegaConf.structured(config), resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def from_plain(plain: dict[str, Any]) -> TrainConfig:
    """The inverse of `to_plain` for a whole training configuration; options that came later have their defaults.

    Raises:
        UserError: written by a version with other keys.
    """
    try:
        schema = OmegaConf.structured(TrainConfig)
        schema.env = OmegaConf.structured(env_schema(plain["env"]["id"]))
        schema.memory = OmegaConf.structured(MEMORY_CONFIGS[plain["memory"]["name"]])
        schema.policy = OmegaConf.structured(POLICY_CONFIGS[plain["policy"]["name"]])
        config = OmegaConf.to_object(OmegaConf.merge(schema, plain))
    except (OmegaConfBaseException, KeyError, TypeError) as error:
        message = str(error).splitlines()[0]
        raise UserError(f"the stored configuration does not fit this version ({message}); train again") from error
    assert isinstance(config, TrainConfig)
    return config
