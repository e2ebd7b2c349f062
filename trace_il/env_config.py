"""Structured configuration of environments: env=... of train.py, collect.py and evaluate.py."""

from dataclasses import asdict, dataclass, field
from typing import Any

from omegaconf import MISSING

from .errors import UserError


@dataclass
class EnvConfig:
    id: str = MISSING  # Gymnasium id


@dataclass
class CorridorConfig(EnvConfig):
    id: str = "Corridor-v0"
    cue_values: int = 2  # doors and lamp colours, 2 or 4
    delay: int = 60  # control steps between lamp and hall
    branches: int = 1  # lamps and halls, 1 to 4
    distractors: int = 1  # lamps that mean nothing
    image_size: int = 32  # pixels


@dataclass
class DelayedEvidenceConfig(EnvConfig):
    id: str = "DelayedEvidence-v0"
    task: str = "medicine"  # tool, book, laundry, cable, medicine, medicine_active, tool_active
    image_size: int = 64  # pixels
    cue_values: int = 2  # 2 to 4, as the task allows
    delay: float = 1.0  # the expert takes so many times as long from cue to branch
    late: int = 0  # control steps by which the expert's cue leaves view later at most, at random
    decoys: int = 0  # things in the look of the cue that come later and mean nothing
    look: str = "graph"  # how demonstrations of an active task find the cue: envs/delayed_evidence/viewpoints.py
    factors: str = "all"  # poses, lights, textures, distractors: all of them, train or held_out


@dataclass
class PushSoftConfig(EnvConfig):
    id: str = "PushSoft-v0"
    backend: str = "mujoco"  # in which demonstrations are collected: mujoco, learned
    judged_in: str = "mujoco"  # in which policies are evaluated and shown
    simulator: str | None = None  # simulator.pt of a simulator's run, for learned
    on_ood: str = "truncate"  # truncate, error: when a simulator leaves the range that it has learned
    image_size: int = 64  # pixels


@dataclass
class SortSoftConfig(PushSoftConfig):
    id: str = "SortSoft-v0"
    delay: float = 1.0  # the expert takes so many times as long from the lamp to the fork


@dataclass
class PushSoftArmConfig(PushSoftConfig):
    id: str = "PushSoftArm-v0"
    factors: str = "all"  # poses, lights, textures, distractors: all of them, train or held_out


@dataclass
class GymConfig(EnvConfig):
    """Any Gymnasium environment with `pixels` and `agent_pos`; needs a recorded dataset in data.root, or an expert.

    As in `gymnasium.make`, id "package:name" imports the package first.
    """

    options: dict[str, Any] = field(default_factory=dict)  # for gymnasium.make: +env.options.KEY=VALUE


@dataclass
class RecordedConfig(EnvConfig):
    """A recorded dataset and no environment: nothing is judged, the recording shows what the policy would have done."""

    id: str = "trace_il.data.replay:Recorded-v0"
    root: str | None = None  # is data.root


ENVS = {
    "corridor": CorridorConfig,
    "delayed_evidence": DelayedEvidenceConfig,
    "push_soft": PushSoftConfig,
    "sort_soft": SortSoftConfig,
    "push_soft_arm": PushSoftArmConfig,
    "gym": GymConfig,
    "recorded": RecordedConfig,
}


def env_schema(env_id: str) -> type[EnvConfig]:
    """Which configuration an environment has: one of its own, or that of any installed one."""
    own = (schema for schema in ENVS.values() if schema is not GymConfig and schema().id == env_id)
    return next(own, GymConfig)


def env_of(env_id: str, options: dict[str, Any]) -> EnvConfig:
    """The configuration of an environment that an exported policy names, with its options.

    Raises:
        UserError: options that this version does not know.
    """
    schema = env_schema(env_id)
    if schema is GymConfig:
        return GymConfig(id=env_id, options=options)
    own = {"judged_in": options["backend"]} if issubclass(schema, PushSoftConfig) else {}
    try:
        return schema(**options, **own)
    except TypeError as error:
        raise UserError(
            f"the policy's environment {env_id!r} is of another version: {error}; export it again"
        ) from error


def env_label(env_id: str, task: str | None) -> str:
    """Short name of an environment for runs and datasets: "DelayedEvidence-v0", "book" -> "delayed_evidence-book"."""
    name = env_id.split(":")[-1].split("/")[-1].split("-v")[0]
    name = "".join("_" + c.lower() if c.isupper() else c for c in name).strip("_")
    return f"{name}-{task}" if task else name


def env_options(config: EnvConfig, collecting: bool = False) -> dict[str, Any]:
    """The arguments of `gymnasium.make` apart from the id, to evaluate policies or to collect demonstrations."""
    if isinstance(config, GymConfig):
        return dict(config.options)
    options = {key: value for key, value in asdict(config).items() if key != "id"}
    if isinstance(config, DelayedEvidenceConfig):
        active = config.task.endswith("_active")
        if not active and config.look != DelayedEvidenceConfig.look:
            raise UserError(f"env.look={config.look}: env.task={config.task} has nothing to look for")
        if not (collecting and active):
            del options["look"]  # it is the expert's alone
    if isinstance(config, PushSoftConfig):
        judged_in = options.pop("judged_in")
        options["backend"] = config.backend if collecting else judged_in
        if options["backend"] == "mujoco":
            del options["simulator"]
    return options
