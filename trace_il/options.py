"""`key=value` command lines of the programs that work on finished runs."""

from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from . import sim_config
from .config import TrainConfig, from_plain
from .env_config import ENVS
from .errors import UserError
from .sim_config import SimulatorRunConfig
from .views import config as view_config
from .views.config import ViewRunConfig

Options = TypeVar("Options")


def parse(schema: type[Options], arguments: list[str], others: str = "") -> Options:
    """`key=value` words -> an instance of the dataclass `schema`.

    Args:
        others: options that the program reads itself, named where there is an error.
    Raises:
        UserError: a word without "=", an unknown key or a value of the wrong type.
    """
    known = others + ", ".join(f"{f.name}=" for f in fields(schema))  # type: ignore[arg-type]
    for word in arguments:
        if "=" not in word:
            raise UserError(f"cannot read {word!r}; options are key=value: {known}")
    try:
        out = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.from_dotlist(arguments)))
    except OmegaConfBaseException as error:
        raise UserError(f"{str(error).splitlines()[0]}; options are {known}") from error
    assert isinstance(out, schema)
    return out


def read_run(folder: str, env: str | None = None, env_overrides: list[str] | None = None) -> tuple[TrainConfig, Path]:
    """The configuration of a run, its environment replaced or changed on request.

    Args:
        folder: of the run.
        env: another environment, one of `env_config.ENVS`.
        env_overrides: "env.key=value" words.
    Raises:
        UserError: no run there, unknown environment or key.
    """
    path = Path(folder) / "config.yaml"
    if not path.exists():
        raise UserError(f"no run at {folder}: config.yaml is missing; give run=runs/<name>")
    if run_kind(folder) != "policy":
        raise UserError(f"{folder} is the run of a {run_kind(folder)}; look at it with python view.py run={folder}")
    config = from_plain(yaml.safe_load(path.read_text()))
    config.env = override_env(config.env, env, env_overrides or [])
    return config, Path(folder)


def run_kind(folder: str) -> str:
    """What was trained in a run: "policy", "simulator" or "view planner"; "policy" also where there is no run."""
    path = Path(folder) / "config.yaml"
    keys = yaml.safe_load(path.read_text()) if path.exists() else {}
    return "simulator" if "sim" in keys else "view planner" if "view" in keys else "policy"


def read_simulator_run(folder: str) -> tuple[SimulatorRunConfig, Path]:
    """The configuration of a simulator's run."""
    return sim_config.from_plain(yaml.safe_load((Path(folder) / "config.yaml").read_text())), Path(folder)


def read_view_run(folder: str) -> tuple[ViewRunConfig, Path]:
    """The configuration of a view planner's run."""
    return view_config.from_plain(yaml.safe_load((Path(folder) / "config.yaml").read_text())), Path(folder)


def override_env(config: Any, env: str | None, overrides: list[str]) -> Any:
    """Another environment and other values of its keys."""
    if env is not None:
        if env not in ENVS:
            raise UserError(f"unknown env={env!r}; there are {', '.join(ENVS)}")
        config = ENVS[env]() if type(config) is not ENVS[env] else config
    words = [word.removeprefix("env.") for word in overrides]
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(config), OmegaConf.from_dotlist(words)))
    except OmegaConfBaseException as error:
        raise UserError(f"env: {str(error).splitlines()[0]}; the keys there are: trace_il/env_config.py") from error
