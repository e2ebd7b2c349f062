"""Structured configuration of planning by views: train.py env=view_planning view=... As ../config.py for policies."""

from dataclasses import asdict, dataclass, field
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..config import FitConfig, RunConfig
from ..env_config import EnvConfig
from ..errors import UserError


@dataclass
class ViewPlanningConfig(EnvConfig):
    """Rooms and targets; see envs/view_planning."""

    id: str = "ViewPlanning-v0"
    rooms: int = 16  # for training
    dev_rooms: int = 4
    test_rooms: int = 8
    image_size: int = 64  # pixels
    pieces: list[int] = field(default_factory=lambda: [8, 20])  # of furniture, fewest and most
    moves: list[int] = field(default_factory=lambda: [2, 8])  # to a target, fewest and most


@dataclass
class ViewConfig:
    """One way to learn from exploration; configs/view has them by name."""

    name: str = MISSING
    iterations: int = 3  # of exploring and learning; 0: the base agent
    explore: str = "policy"  # policy, random: who moves the camera
    reinforcement: str = "grpo"  # grpo, ppo, none: how the policy changes while it explores
    learn: str = "graph"  # graph, hindsight, success, none: what supervised training is made of
    rollouts: int = 256  # of a room and iteration
    rounds: int = 4  # of reinforcement into which they are split
    last_rounds: int = 24  # as large, of reinforcement after the last iteration
    group: int = 8  # tries of a task, for grpo
    reverse: bool = True  # edges of the graph count backwards too
    walk: bool = False  # random walks of the graph in place of shortest ways
    persistent: bool = True  # the graph keeps what earlier iterations found
    longest: int = 8  # moves of a path
    longest_choice: int = 6  # moves of a path in a multiple-choice record of a graph; others have at most two
    records: int = 24000  # distilled in an iteration
    pose: bool = True  # the agent knows its pose since the start
    revisit: bool = False  # it may go back to where it has been
    init: str | None = None  # agent.pt of a base agent, in place of a new one


@dataclass
class ViewTrainerConfig(FitConfig):
    epochs: int = 30  # of supervised training, in each iteration
    steps_per_epoch: int = 100
    learning_rate: float = 2e-3
    rl_learning_rate: float = 1e-4
    batch_size: int = 64  # paths a step and process; a quarter as many choices
    base_epochs: int = 2  # of the base agent


@dataclass
class ViewEvaluationConfig:
    episodes: int = 500  # on test rooms
    items: int = 400  # multiple-choice questions of each kind
    seed: int = 8_000_000
    recording: bool = True  # a recording for the viewer and a picture of one episode


@dataclass
class ViewRunConfig(RunConfig):
    view: ViewConfig = MISSING
    env: ViewPlanningConfig = MISSING
    trainer: ViewTrainerConfig = field(default_factory=ViewTrainerConfig)
    evaluation: ViewEvaluationConfig = field(default_factory=ViewEvaluationConfig)


def from_plain(plain: dict[str, Any]) -> ViewRunConfig:
    """The inverse of `config.to_plain`.

    Raises:
        UserError: written by a version with other keys, or not a run of view planning.
    """
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(ViewRunConfig(
            view=ViewConfig(), env=ViewPlanningConfig())), plain))  # fmt: skip
    except (OmegaConfBaseException, KeyError, TypeError) as error:
        message = (str(error).splitlines() or ["no view planning"])[0]
        raise UserError(f"the stored configuration is not of view planning of this version ({message})") from error
    assert isinstance(config, ViewRunConfig)
    return config


def env_arguments(config: ViewPlanningConfig) -> dict[str, Any]:
    """What rooms depend on."""
    return {key: value for key, value in asdict(config).items() if key in ("image_size", "pieces")}
