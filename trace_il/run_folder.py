"""The folder of a run: made once, finished once, and never continued with another configuration.

Its run.json tells the run's `id`, the `commits` at which processes worked on it, and their `seconds` in each phase.
"""

import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import yaml

from .config import RANKS, RunConfig, from_plain, to_plain
from .errors import UserError
from .files import atomic_write, open_lock
from .scores import commit

# Changing these does not change what is trained: a run may be continued with other values.
FREE_KEYS = {"evaluation", "parallel", "wandb", "runs", "overwrite", "debug"}
FREE_TRAINER_KEYS = {"threads", "closed_loop_every"}
_held: dict[Path, IO[str]] = {}  # locks of this process, until it ends


def is_main_process() -> bool:
    """Whether this is the first process of a run over several; the others only train."""
    return all(int(os.environ.get(name, 0)) == 0 for name in RANKS)


def open_run(
    config: RunConfig, load: Callable[[dict[str, Any]], RunConfig] = from_plain
) -> tuple[Path, dict[str, Any] | None]:
    """The run folder and, if it is finished, its summary.

    Args:
        load: makes a configuration of the stored one.
    Raises:
        UserError: a run of that name was made with another configuration.
    """
    folder = Path(config.runs) / config.name
    if not is_main_process():
        done = folder / "summary.json"
        return folder, json.loads(done.read_text()) if done.exists() else None
    _hold(folder)
    if config.overwrite and folder.exists():
        if not (folder / "run.json").exists():
            raise UserError(f"overwrite=true would delete {folder}, which is not a run folder; delete it yourself")
        if max(int(os.environ.get(name, 1)) for name in ("WORLD_SIZE", "SLURM_NTASKS")) > 1:
            raise UserError(
                f"overwrite=true cannot delete {folder}: other processes of this run may read it; delete it yourself"
            )
        if needed := _inside(folder, to_plain(config)):
            raise UserError(
                f"overwrite=true would delete {folder}, and {needed} with it; copy that elsewhere, or give another name"
            )
        shutil.rmtree(folder)
    path, plain = folder / "config.yaml", to_plain(config)
    if path.exists():
        stored = yaml.safe_load(path.read_text())
        before, now = _what_is_trained(to_plain(load(stored))), _what_is_trained(plain)
        for key in sorted(now):
            if before.get(key) != now[key] and _has_work(folder):
                difference = first_difference(key, before.get(key), now[key])
                raise UserError(
                    f"{folder} was made with {difference}; give another name=..., or overwrite=true to delete it"
                )
        if (folder / "summary.json").exists():
            return folder, json.loads((folder / "summary.json").read_text())
    atomic_write(path, yaml.safe_dump(plain, sort_keys=False).encode())
    about = {"commits": [], "seconds": {}} | read_about(folder)
    if "id" not in about or not _has_work(folder):  # what failed before its first checkpoint is no part of this run
        about["id"] = uuid.uuid4().hex[:12]
    if commit() not in about["commits"]:
        about["commits"].append(commit())
    _write_about(folder, about)
    return folder, None


def read_about(folder: Path) -> dict[str, Any]:
    """What run.json of a run folder tells; empty where there is none yet."""
    path = folder / "run.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _write_about(folder: Path, about: dict[str, Any]) -> None:
    atomic_write(folder / "run.json", json.dumps(about, indent=2).encode())


@contextmanager
def phase(folder: Path, name: str) -> Iterator[None]:
    """Count the seconds of a block as those of a phase of a run, also where it fails or is interrupted.

    What a process was killed in is not counted, nor what others than the first of several do.
    """
    begin = time.perf_counter()
    try:
        yield
    finally:
        if is_main_process():
            about = read_about(folder)
            about["seconds"][name] = round(about["seconds"].get(name, 0.0) + time.perf_counter() - begin, 1)
            _write_about(folder, about)


def _inside(folder: Path, values: Any, name: str = "") -> str | None:
    """The first "KEY=PATH" of a configuration whose file or folder lies in a run's folder."""
    if isinstance(values, dict):
        parts = (_inside(folder, value, f"{name}.{key}".removeprefix(".")) for key, value in values.items())
        return next((part for part in parts if part), None)
    if isinstance(values, str) and Path(values).exists() and folder.resolve() in Path(values).resolve().parents:
        return f"{name}={values}"
    return None


def _hold(folder: Path) -> None:
    """Keep other processes from this run for as long as this one lives. Raises UserError where one has it."""
    path = folder.absolute()
    if path in _held:
        return
    file, ours = open_lock(folder)
    if not ours:
        file.close()
        raise UserError(f"another process is at work on {folder}; wait for it, or give another name=...")
    _held[path] = file


def _what_is_trained(plain: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in plain.items() if key not in FREE_KEYS}
    trainer = kept.get("trainer") or {}
    return kept | {"trainer": {key: value for key, value in trainer.items() if key not in FREE_TRAINER_KEYS}}


def _has_work(folder: Path) -> bool:
    """Whether anything was made in a run folder; where its first check failed another configuration may take it."""
    return (
        any(next(folder.rglob(f"*.{ending}"), None) for ending in ("ckpt", "pt")) or (folder / "summary.json").exists()
    )


def first_difference(path: str, stored: Any, asked: Any) -> str:
    """Of two values, or of two nested dictionaries, names first: "PATH=STORED, not ASKED"."""
    if isinstance(stored, dict) and isinstance(asked, dict):
        for key in sorted(set(stored) | set(asked), key=lambda key: (key != "name", key)):
            if stored.get(key) != asked.get(key):
                return first_difference(f"{path}.{key}", stored.get(key), asked.get(key))
    return f"{path}={stored}, not {asked}"
