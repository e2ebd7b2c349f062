"""Shared by the command-line programs: one-line errors, exit codes, the comparison after a sweep."""

import dataclasses
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from envs.base import RenderingError
from sims.state import SimulationError

from .config import RANKS, register
from .env_config import env_label
from .errors import UserError

KEYS = "the keys there are: trace_il/config.py, env_config.py, sim_config.py, views/config.py; --cfg job prints them"


def one_line(error: BaseException) -> str:
    """First line of an error and of what caused it."""
    text = [line.strip() for line in str(error).strip().splitlines() if line.strip()] or [type(error).__name__]
    if isinstance(error, MissingConfigException):  # lists the options there are
        return " ".join(line for line in text if not line.startswith(("Config search", "provider=")))
    lines = [" ".join(text[: 2 if text[0].endswith(":") else 1])]
    cause = error.__cause__
    if cause is not None and str(cause).strip():
        detail = str(cause).strip().splitlines()[0]
        if detail not in lines[0]:
            lines.append(detail)
    if "not in" in lines[-1] and "Key" in lines[-1] and not isinstance(error, UserError):
        lines.append(KEYS)
    return "; ".join(lines)


def asked_for_help(about: str | None) -> bool:
    """Print what a program is for, where the command line asks for that."""
    asked = bool({"-h", "--help"} & set(sys.argv[1:]))
    if asked:
        print(about)
    return asked


def guarded(call: Callable[[], Any], resumable: bool = False, debug: bool = False) -> Any:
    """Run a program; errors of the user end it with one line on stderr and status 2.

    Args:
        resumable: the same command, interrupted, goes on.
        debug: show the stack trace instead, as TRACE_IL_DEBUG=1 does.
    """
    debug = debug or os.environ.get("TRACE_IL_DEBUG") == "1"
    try:
        return call()
    except KeyboardInterrupt:
        without = " without overwrite=true" if "overwrite=true" in (word.lower() for word in sys.argv) else ""
        again = f"; the same command{without} continues from the last checkpoint or episode" if resumable else ""
        print(f"interrupted{again}", file=sys.stderr)
        raise SystemExit(130) from None
    except (
        UserError,
        RenderingError,
        SimulationError,
        HydraException,
        OmegaConfBaseException,
        yaml.YAMLError,
        gymnasium.error.Error,
        OSError,
    ) as error:
        if debug:
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        # SystemExit, because Hydra reports any other exception in words of its own.
        raise SystemExit(2) from None


def run_program(task: Callable[[Any], Any], config_name: str, about: str | None) -> None:
    """Compose `configs/<config_name>.yaml` with the command line and run `task` on the resulting dataclass; or print
    what the program is `about`."""
    if asked_for_help(about):
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing
    failed: list[str] = []  # runs of a sweep
    configs = Path(__file__).resolve().parent.parent / "configs"

    @hydra.main(version_base=None, config_path=str(configs), config_name=config_name)
    def main(config: DictConfig) -> Any:
        try:
            return guarded(lambda: task(alone(checked(config))), resumable=True, debug=bool(config.get("debug")))
        except SystemExit as end:
            if end.code != 2 or HydraConfig.get().mode != RunMode.MULTIRUN:
                raise
            failed.append(" ".join(HydraConfig.get().overrides.task))  # the others of the sweep go on
            return None

    register()
    if {"-m", "--multirun"} & set(sys.argv):  # Hydra makes a mere warning of what its callbacks raise
        guarded(lambda: check_names(sys.argv[1:]))
    guarded(main, resumable=True)
    if failed:
        print(f"error: {len(failed)} of the runs failed: {'; '.join(failed)}", file=sys.stderr)
        raise SystemExit(2)


def checked(config: DictConfig) -> Any:
    """The dataclass behind a Hydra configuration; also refuses keys that were forced in with `+key=`.

    Raises:
        UserError: an unknown or missing key.
    """
    _refuse_extra(config, "")
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise UserError(f"missing value for {missing[0]!r}; give {missing[0]}=... on the command line")
    return OmegaConf.to_object(config)


def alone(config: Any) -> Any:
    """The configuration; a run of one process forgets the rank that a launcher gave it, before Lightning reads that:
    `srun -n 4` may start four runs."""
    trainer = getattr(config, "trainer", None)
    if trainer is not None and trainer.devices * trainer.num_nodes == 1:
        for name in (*RANKS, "WORLD_SIZE", "SLURM_NTASKS"):
            os.environ.pop(name, None)
    return config


def _refuse_extra(node: Any, path: str) -> None:
    if not isinstance(node, DictConfig) or node._is_none() or node._is_missing():
        return
    schema = OmegaConf.get_type(node)
    if schema is not None and dataclasses.is_dataclass(schema):
        extra = set(node.keys()) - {f.name for f in dataclasses.fields(schema)}
        if extra:
            raise UserError(f"unknown key {path + str(sorted(map(str, extra))[0])!r}; {KEYS}")
    for key in node:
        if not OmegaConf.is_missing(node, str(key)):
            _refuse_extra(node[key], f"{path}{key!s}.")


# Keys that the names of runs tell apart.
NAMING = {"env", "env.id", "env.task", "env.dim", "env.world", "memory", "policy", "sim", "view", "seed"}


def check_names(arguments: list[str]) -> None:
    """Raise a UserError where all runs of a sweep would have one name."""
    words = [word for word in arguments if "=" in word and not word.startswith("-")]
    overrides = OverridesParser.create().parse_overrides(words)
    swept = [override.key_or_group for override in overrides if override.is_sweep_override()]
    names = [word for word in words if word.startswith("name=")]
    alike = swept if names else [key for key in swept if key not in NAMING]
    if alike and "name" not in swept and not any("${" in name for name in names):
        raise UserError(f"the runs of a sweep over {alike[0]} would share one name; add name='NAME-${{{alike[0]}}}'")


def run_name(env: Any, policy: str, memory: str, seed: int) -> str:
    """Default name of a run: environment, task, policy if it is not ACT, memory, seed."""
    own = "" if policy == "act" else f"-{policy}"
    return f"{env_label(str(env.id), env.get('task'))}{own}-{memory}-{seed}"


def simulator_name(env: Any, sim: str, seed: int) -> str:
    """Default name of a simulator's run: scenes, model, seed."""
    world = "" if env.world == "free" else f"_{env.world}"
    return f"{env.id}_{env.dim}d{world}-{sim}-{seed}"


def view_name(env: Any, view: str, seed: int) -> str:
    """Default name of a run of view planning."""
    return f"{env_label(str(env.id), None)}-{view}-{seed}"


OmegaConf.register_new_resolver("view_name", view_name, replace=True)
OmegaConf.register_new_resolver("trace_name", run_name, replace=True)
OmegaConf.register_new_resolver("simulator_name", simulator_name, replace=True)


class CompareRuns(Callback):
    """After `-m`: one table over all runs of the sweep."""

    def __init__(self) -> None:
        self.summaries: list[tuple[str, dict[str, Any]]] = []

    def on_job_end(self, config: DictConfig, job_return: Any, **kwargs: Any) -> None:
        if isinstance(job_return._return_value, str) and Path(job_return._return_value).exists():
            path = Path(job_return._return_value)
            self.summaries.append((path.parent.name, json.loads(path.read_text())))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from rich.console import Console

        from .scores import score_table, simulator_table, view_table

        if len(self.summaries) > 1:
            rows = {name: summary["scores"]["trained"] for name, summary in self.summaries if summary["scores"]}
            if not rows:
                return
            table = simulator_table if "sim" in config else view_table if "view" in config else score_table
            Console().print(table(rows, "comparison"))
