"""Structured configuration of simulators: train.py sim=... env=soft_bodies_2d. As config.py for policies."""

from dataclasses import asdict, dataclass, field
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sims.scenes import SceneSettings
from sims.state import VERSION

from .config import FitConfig, RunConfig
from .env_config import EnvConfig
from .errors import UserError

VALIDATION_SEED = 5_000_000  # of the first validation scene, beyond those of training
BEFORE = 3  # version of the trajectories of runs that do not tell theirs


@dataclass
class SoftBodiesConfig(EnvConfig):
    """Scenes that are drawn at random; see sims/scenes.py."""

    id: str = "soft_bodies"
    dim: int = 2  # 2 or 3
    world: str = "free"  # free, box (gravity, floor and walls), pusher, mixed, table (a pusher and a floor)
    bodies: list[int] = field(default_factory=lambda: [2, 3])  # fewest and most
    kinds: list[str] = field(default_factory=list)  # shapes; empty: all that training uses
    speed: float = 0.5  # largest at the start, m/s
    young: list[float] = field(default_factory=lambda: [4e4, 8e4])  # Young's modulus, Pa, from and to
    spacing: float = 0.0  # between the points of a body, m; 0: the usual one


@dataclass
class SimConfig:
    name: str = MISSING


@dataclass
class ControlPointConfig(SimConfig):
    control_points: int = 16  # K, of a body
    width: int = 48  # of the networks
    context: int = 16  # of a control point
    radius: float = 0.0  # up to which surfaces feel each other, m; 0: the usual one
    substeps: int = 4  # of a frame
    collide: bool = True  # false: no forces between soft bodies
    integrator: str = "euler"  # euler (semi-implicit), rk4, dopri5 (adaptive)


@dataclass
class GraphConfig(SimConfig):
    width: int = 64  # of nodes, edges and hidden layers
    layers: int = 6  # of message passing


@dataclass
class SimDataConfig:
    trajectories: int = 256
    validation: int = 24  # trajectories beside them
    frames: int = 49  # of a trajectory, 0.01 s each
    seed: int = 0  # of the first scene
    batch_size: int = 8  # scenes a step and process
    num_workers: int = 0  # loader processes
    version: int = VERSION  # of the generator of trajectories; not to be changed: it tells old runs from new ones


@dataclass
class SimTrainerConfig(FitConfig):
    epochs: int = 12
    steps_per_epoch: int = 100
    learning_rate: float = 3e-3
    ema: float = 0.0
    precision: str = "32-true"
    unroll: list[int] = field(default_factory=lambda: [4, 8, 16])  # frames of a window, an equal share of epochs each
    noise: float = 0.0  # of the velocities that a window begins with, m/s
    turn: bool = False  # show every scene under a random rotation


@dataclass
class SimEvaluationConfig:
    scenes: int = 32
    seed: int = 8_000_000  # of the first
    recording: bool = True  # a recording for the viewer and a video of the first


@dataclass
class SimulatorRunConfig(RunConfig):
    sim: SimConfig = MISSING
    env: SoftBodiesConfig = MISSING
    data: SimDataConfig = field(default_factory=SimDataConfig)
    trainer: SimTrainerConfig = field(default_factory=SimTrainerConfig)
    evaluation: SimEvaluationConfig = field(default_factory=SimEvaluationConfig)


SIMS: dict[str, SimConfig] = {
    **{name: ControlPointConfig(name) for name in ("eqcollide", "twin", "first_order")},
    **{name: GraphConfig(name) for name in ("gns", "meshgraphnets", "egnn", "segno")},
    **{name: SimConfig(name) for name in ("constant_velocity", "ballistic")},
}


def scene_settings(config: SoftBodiesConfig) -> SceneSettings:
    """What scenes are drawn from."""
    plain: dict[str, Any] = {
        key: tuple(v) if isinstance(v, list) else v for key, v in asdict(config).items() if key != "id"
    }
    return SceneSettings(**plain)


def from_plain(plain: dict[str, Any]) -> SimulatorRunConfig:
    """The inverse of `config.to_plain`.

    Raises:
        UserError: written by a version with other keys, or not the configuration of a simulator.
    """
    try:
        plain = plain | {"data": {"version": BEFORE} | plain["data"]}
        schema = OmegaConf.structured(SimulatorRunConfig)
        schema.sim = OmegaConf.structured(SIMS[plain["sim"]["name"]])
        schema.env = OmegaConf.structured(SoftBodiesConfig)
        config = OmegaConf.to_object(OmegaConf.merge(schema, plain))
    except (OmegaConfBaseException, KeyError, TypeError) as error:
        message = (str(error).splitlines() or ["no simulator"])[0]
        raise UserError(f"the stored configuration is not of a simulator of this version ({message})") from error
    assert isinstance(config, SimulatorRunConfig)
    return config
