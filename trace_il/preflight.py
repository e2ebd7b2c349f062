"""What a run is checked for before any long work: that its agent can be built, and that its dataset fits."""

from pathlib import Path

import numpy as np

from .agent import AgentSpec
from .build import build_agent, relative_actions
from .checkpoint import warm_start
from .config import TrainConfig
from .data.demonstrations import shown_seeds
from .data.reader import DatasetReader
from .env_config import RecordedConfig, env_options
from .environment import camera_sizes, channel_names, check_channels, check_even, control_hz, make_env
from .errors import UserError

CLIPPED = 0.1  # share of a dataset's actions outside the environment's limits from which on they are refused


def check_environment(config: TrainConfig, dataset: DatasetReader) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Compare dataset and environment; the action limits of the environment.

    Raises:
        UserError: they do not fit.
    """
    env = make_env(config.env.id, env_options(config.env))
    sizes = camera_sizes(env)
    for camera, size in dataset.cameras.items():
        if sizes.get(camera) != size:
            raise UserError(
                f"the dataset's camera {camera!r} is {size}, the environment's {sizes.get(camera)}; make them equal"
            )
    for kind, names in (("state", dataset.state_names), ("action", dataset.action_names)):
        check_channels(env, kind, names, "the dataset")
    declared = env.metadata.get("render_fps")
    if declared is not None and abs(declared - dataset.fps) > 0.01 * declared:
        raise UserError(
            f"the dataset was recorded at {dataset.fps:g} Hz, the environment runs at {declared:g}; make them equal"
        )
    low, high = env.action_space.low, env.action_space.high  # type: ignore[attr-defined]
    env.close()
    actions, slack = np.concatenate(dataset.actions), 0.01 * np.nan_to_num(high - low, posinf=0.0)
    outside = ((actions < low - slack) | (actions > high + slack)).any(1).mean()
    if outside > CLIPPED:
        raise UserError(
            f"{100 * outside:.0f} % of the actions in {dataset.root} lie outside the environment's limits, {low} to "
            f"{high}; the policy would never take them. Are both in the same units?"
        )
    return tuple(float(v) for v in low), tuple(float(v) for v in high)


def check_buildable(config: TrainConfig) -> None:
    """Build the agent once for the environment as it is, before any long work.

    Raises:
        UserError: a value that the agent's parts refuse, or a dataset that is not there or is of something else.
    """
    make_env(config.env.id, env_options(config.env, collecting=True)).close()
    env = make_env(config.env.id, env_options(config.env))
    sizes, states, actions = camera_sizes(env), channel_names(env, "state"), channel_names(env, "action")
    hz = control_hz(env)
    if config.data.root is not None:
        recorded = DatasetReader(Path(config.data.root))  # may have names of its own, and fewer cameras
        sizes, states, actions = recorded.cameras, recorded.state_names, recorded.action_names
        hz = recorded.fps
    if not sizes:
        raise UserError(f"{config.data.root} has no cameras; a policy needs at least one")
    if len(set(sizes.values())) != 1:
        raise UserError(f"cameras need one image size, they have {sizes}; give them the same")
    check_even(sizes)
    if config.data.root is not None:
        check_environment(config, recorded)
        shown, first = shown_seeds(config), config.evaluation.seed
        apart = shown.stop <= first or first + config.evaluation.episodes <= shown.start
        if not (apart or isinstance(config.env, RecordedConfig)):
            raise UserError(
                f"evaluation.seed={first} would judge scenes that {config.data.root} shows (seeds {shown.start} to "
                f"{shown.stop - 1}); keep them apart"
            )
    limits = (0.0,) * len(actions)
    spec = AgentSpec(
        tuple(sizes), next(iter(sizes.values())), states, actions, limits, limits, hz,
        config.agent.tick_every, config.agent.depth, relative_actions(config.agent.relative, states, actions),
    )  # fmt: skip
    env.close()
    try:
        agent = build_agent(config, spec)
    except (ValueError, AssertionError, RuntimeError, ZeroDivisionError) as error:
        raise UserError(
            f"cannot build the agent: {error or type(error).__name__}; check policy, memory, encoder and agent"
        ) from error
    if config.trainer.init is not None and (config.overwrite or not begun(config)):
        warm_start(agent, Path(config.trainer.init))
    if config.trainer.views is not None:
        from .views.pretext import source

        source(config)


def begun(config: TrainConfig) -> bool:
    """Whether there is a checkpoint of the run; it then needs no others to go on."""
    return (Path(config.runs) / config.name / "checkpoints/last.ckpt").exists()
