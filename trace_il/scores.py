"""Rollouts -> scores with intervals, tables and results files."""

import datetime
import json
import math
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .files import atomic_write
from .rollout import Rollout


def wilson_interval(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927); (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    p, n = successes / trials, trials
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap_error(values: np.ndarray, draws: int = 2000) -> float:
    """Bootstrap standard error of the mean; seeded."""
    if len(values) < 2:
        return 0.0
    rng = np.random.default_rng(0)
    return float(values[rng.integers(len(values), size=(draws, len(values)))].mean(1).std())


def score(rollouts: list[Rollout]) -> dict[str, Any]:
    """Stage progress (%), branch accuracy, success and latency of a set of rollouts.

    Branch accuracy counts a rollout that does not reach the branch as wrong; `branch_accuracy_reached`
    is over those that do. Where there is no branch to take, all of these are None. `ood` is the share of rollouts that
    ended since a simulator left the range that it knows, `cue_found` of those that see the evidence, `cue_steps` the
    control step at which each first does, -1 where it never does. `each_branch` is 1 for a correct branch, 0 for a
    wrong one and -1 for none, `each_progress` in %: by episode, so that policies can be compared on the same scenes.
    """
    n = len(rollouts)
    branches = any(r.branch_correct is not None for r in rollouts)
    correct = sum(r.branch_correct == 1 for r in rollouts)
    reached = sum(r.branch_correct in (0, 1) for r in rollouts)
    success = sum(r.success for r in rollouts)
    progress = np.array([100 * r.progress for r in rollouts])
    latency = np.concatenate([r.policy_ms[1:] for r in rollouts if len(r.policy_ms) > 1] or [[0.0]])
    return {
        "episodes": n,
        "progress": float(progress.mean()),
        "progress_error": bootstrap_error(progress),
        "branch_accuracy": correct / n if branches else None,
        "branch_interval": list(wilson_interval(correct, n)) if branches else None,
        "branch_reached": reached / n if branches else None,
        "branch_accuracy_reached": correct / reached if reached else None,
        "success": success / n,
        "success_interval": list(wilson_interval(success, n)),
        "policy_ms_p50": float(np.percentile(latency, 50)),
        "policy_ms_p95": float(np.percentile(latency, 95)),
        "ood": sum(r.ood for r in rollouts) / n,
        "cue_found": sum(r.cue_step >= 0 for r in rollouts) / n,
        "cue_steps": [r.cue_step for r in rollouts],
        "each_branch": [r.branch_correct for r in rollouts],
        "each_progress": [round(float(value), 3) for value in progress],
    }


def score_table(scores: dict[str, dict[str, Any]], title: str) -> Any:
    """A rich table, one row a policy."""
    from rich.table import Table

    table = Table(title=title)
    for column in ("policy", "episodes", "progress %", "branch accuracy", "reached", "success", "ms p50/p95"):
        table.add_column(column, justify="left" if column == "policy" else "right")

    def proportion(value: float | None, interval: list[float] | None) -> str:
        if value is None or interval is None:
            return "-"
        return f"{100 * value:.0f} % [{100 * interval[0]:.0f}, {100 * interval[1]:.0f}]"

    for name, s in scores.items():
        table.add_row(
            name,
            str(s["episodes"]),
            f"{s['progress']:.1f} ± {s['progress_error']:.1f}",
            proportion(s["branch_accuracy"], s["branch_interval"]),
            "-" if s["branch_reached"] is None else f"{100 * s['branch_reached']:.0f} %",
            proportion(s["success"], s["success_interval"]),
            f"{s['policy_ms_p50']:.2f} / {s['policy_ms_p95']:.2f}",
        )
    return table


def simulator_table(scores: dict[str, dict[str, Any]], title: str) -> Any:
    """A rich table, one row a simulator."""
    from rich.table import Table

    table = Table(title=title)
    columns = ("simulator", "scenes", "MSE", "median", "last frame", "diverged", "gap mm", "impact", "training, core s")
    for column in columns:
        table.add_column(column, justify="left" if column == "simulator" else "right", overflow="fold")
    for name, s in scores.items():
        contact = [s.get(key) for key in ("gap_error", "impact_frames_median")]
        table.add_row(
            name,
            str(s["scenes"]),
            f"{s['mse']:.2e}",
            f"{s['mse_median']:.2e}",
            f"{s['mse_last']:.2e}",
            f"{100 * s['diverged']:.0f} %",
            "-" if contact[0] is None else f"{1e3 * contact[0]:.1f}",
            "-" if contact[1] is None else f"{contact[1]:.1f}",
            f"{s.get('cpu_seconds', 0.0):.0f}",
        )
    return table


def view_table(scores: dict[str, dict[str, Any]], title: str) -> Any:
    """A rich table, one row a view planner or iteration."""
    from rich.table import Table

    table = Table(title=title)
    for column in ("agent", "episodes", "success", "short", "long", "SPL", "STOP right", "P2V", "V2P"):
        table.add_column(column, justify="left" if column == "agent" else "right", overflow="fold")
    for name, s in scores.items():
        low, high = s["success_interval"]
        shares = [s.get(key) for key in ("success_short", "success_long", "spl", "stop_precision", "p2v", "v2p")]
        own = f"{100 * s['success']:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"
        table.add_row(name, str(s["episodes"]), own, *("-" if v is None else f"{100 * v:.0f} %" for v in shares))
    return table


def hardware() -> str:
    """The machine in words."""
    import torch

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = models[0] if models else cpu
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return f"{cores} cores of {cpu}" + "".join(f", {gpu}" for gpu in gpus)


def commit() -> str:
    """Commit of the checkout, with "+changes" when files differ from it; "unknown" outside of one.

    Results files do not count: an experiment rewrites them while it runs.
    """
    here = Path(__file__).resolve().parent
    changes = ["git", "status", "--porcelain", "-uno", "--", ":(top)", ":(top,exclude)experiments/*/results/*"]
    try:
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, cwd=here
        ).stdout.strip()
        dirty = subprocess.run(changes, capture_output=True, text=True, check=True, cwd=here).stdout
    except (subprocess.CalledProcessError, FileNotFoundError):
        return "unknown"
    return head + ("+changes" if dirty.strip() else "")


def provenance(seeds: list[int]) -> dict[str, Any]:
    """What stands above the rows of a results file."""
    return {
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "commit": commit(),
        "date": datetime.date.today().isoformat(),
        "hardware": hardware(),
        "seeds": seeds,
    }


def write_results(path: Path, seeds: list[int], rows: list[dict[str, Any]], key: Sequence[str] = ()) -> None:
    """A results file: a list of measurements, each with its provenance and flat rows; written atomically.

    Args:
        path: of the file. Rows of earlier measurements that it holds stay unless they were measured again.
        seeds: of this measurement.
        rows: all of this measurement so far.
        key: columns that tell one thing that was measured from another; none: the file is written anew.
    """

    def own(row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(row.get(column) for column in key)

    again, kept = {own(row) for row in rows}, []
    for old in json.loads(path.read_text()) if key and path.exists() else []:
        if stay := [row for row in old["rows"] if own(row) not in again]:
            kept.append({**old, "rows": stay})
    text = json.dumps([*kept, {**provenance(seeds), "rows": rows}], indent=2)
    text = re.sub(r"\[[^\[\]{}\"]*\]", lambda numbers: " ".join(numbers[0].split()), text)  # a line for each list
    atomic_write(path, text.encode())
