"""What the experiments share: many runs of train.py, a few at a time, and rows of their scores.

Finished runs are not repeated and interrupted ones continue, since train.py does so; rows are written as they come.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parent.parent
Item = TypeVar("Item")
Row = dict[str, Any]
TASKS = ("tool", "book", "laundry", "cable", "medicine")
HARD = ("env.delay=2", "env.decoys=1")
TWO_BITS = {
    f"two bits{name}": (
        "env=corridor",
        "env.branches=2",
        "env.distractors=0",
        f"env.delay={delay}",
        "data.episodes=320",
        "trainer.sharpen_after=0.5",
    )
    for name, delay in (("", 30), (", longer", 60))
}
SETTINGS: dict[str, tuple[str, ...]] = {
    **{task: ("env=delayed_evidence", f"env.task={task}") for task in TASKS},
    **{f"{task}, hard": ("env=delayed_evidence", f"env.task={task}", *HARD) for task in ("medicine", "book")},
    **TWO_BITS,
}
MEMORIES = ("trace", "none", "gru", "transformer", "lru", "retrieval")
ABLATIONS: dict[str, tuple[str, ...]] = {
    "trace": (),
    "signature only": ("memory=none", "memory.address=true"),
    "none": ("memory=none",),
    "unrouted slots": ("memory.routed=false",),
    "no delta": ("agent.delta=false",),
    "mean readout": ("memory.mean_read=true",),
    "no auxiliary losses": ("memory.balance_weight=0", "memory.entropy_weight=0"),
    "log-signature": ("agent.log_signature=true",),
    **{f"depth {p}": (f"agent.depth={p}",) for p in (1, 2, 4)},
    **{f"K = {k}": (f"memory.slots={k}",) for k in (1, 2, 6, 8)},
    # A lamp is lit for 4 steps: with a tick every 8 no memory can be right in more than 52.5 % of episodes.
    **{f"tick every {n}": (f"agent.tick_every={n}",) for n in (1, 4, 8)},
    "scan budget 16": ("agent.scan_budget=16",),
    "no teacher": ("trainer.teacher=none",),
}
# What a window of past ticks must span to hold the cue; the default is shorter than these episodes, or too coarse.
WINDOWS = {
    "two bits": ("memory.stride=1", "memory.slots=64"),
    "two bits, longer": ("memory.stride=2", "memory.slots=64"),
    "medicine, hard": ("memory.slots=32",),
    "book, hard": ("memory.slots=32",),
}
FEW = "data.episodes=25"
VIEWS = "view_planning-graph_distillation-0"  # the run that `python train.py view=graph_distillation` makes
PRETRAINING: dict[str, tuple[str, ...]] = {
    "trace, 25 demonstrations": (FEW,),
    "trace, 25 demonstrations, after views": (FEW, f"trainer.views=runs/{VIEWS}"),
}


@dataclass(frozen=True)
class Case:
    """One run: a setting, a policy, a memory or a variant of TRACE, a seed."""

    setting: str
    policy: str
    memory: str
    seed: int

    @property
    def name(self) -> str:
        if self.setting in TASKS and self.policy == "act" and self.memory in MEMORIES:
            return f"delayed_evidence-{self.setting}-{self.memory}-{self.seed}"  # as train.py calls it
        words = f"{self.setting}-{self.policy}-{self.memory}-{self.seed}"
        return "".join(c if c.isalnum() or c == "-" else "_" for c in words)

    @property
    def overrides(self) -> list[str]:
        arm = (ABLATIONS | PRETRAINING).get(self.memory, (f"memory={self.memory}",))
        more = [f"policy={self.policy}", f"seed={self.seed}", "evaluation.recording=false", "evaluation.export=false"]
        more += ["evaluation.episodes=200"] if self.setting in TWO_BITS else []
        window = WINDOWS.get(self.setting, ()) if self.memory == "transformer" else ()
        return [*SETTINGS[self.setting], *more, f"evaluation.cleared={self.memory == 'trace'}", *arm, *window]


def grouped(rows: list[Any], key: Callable[[Any], Hashable]) -> dict[Any, list[Any]]:
    """Rows by `key`, in the order in which keys come first."""
    out: dict[Any, list[Any]] = {}
    for row in rows:
        out.setdefault(key(row), []).append(row)
    return out


def markdown(header: list[str], lines: list[list[str]]) -> str:
    """A table."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *lines))


def program(*words: str) -> None:
    """Run one of the programs, shown on the terminal."""
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True)


def collect(overrides: Sequence[str]) -> None:
    """The demonstrations of a run with these overrides, on all cores; the run then finds them."""
    program("collect.py", *(word for word in overrides if word.startswith(("env", "+env", "data"))))


def train(name: str, overrides: Sequence[str], jobs: int) -> Row:
    """Train the run `name`, unless it is finished; returns its summary. What it prints goes to runs/<name>.log.

    With more than one job at a time, each has one thread.
    """
    share = [f"trainer.threads={1 if jobs > 1 else 0}", f"parallel.workers={1 if jobs > 1 else 0}"]
    log = ROOT / "runs" / f"{name}.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("w") as file:
        command = [sys.executable, "train.py", *overrides, *share, f"name={name}", "wandb=off"]
        code = subprocess.run(command, cwd=ROOT, stdout=file, stderr=file).returncode
    if code:
        raise SystemExit(f"error: run {name} ended with status {code}; see {log}")
    return json.loads((ROOT / "runs" / name / "summary.json").read_text())


def score_rows(labels: Row, memory: str, summary: Row) -> list[Row]:
    """A row for each arm of a run's closed-loop evaluation: as trained, and with the memory cleared."""
    rows = []
    for arm, score in summary["scores"].items():
        row = {**labels, "memory": memory if arm == "trained" else f"{memory}, {arm}", **score}
        row |= {f"seconds_{phase}": value for phase, value in summary["seconds"].items()}
        rows.append({**row, "trained_at": ", ".join(summary["commits"])})
    return rows


def in_parallel(
    items: Sequence[Item], jobs: int, do: Callable[[Item], list[Row]], write: Callable[[dict[Item, list[Row]]], None]
) -> None:
    """`do` every item, `jobs` at a time; after each, `write` gets the rows there are, in the order of the items."""
    rows: dict[Item, list[Row]] = {}
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(do, item): item for item in items}
        try:
            for number, future in enumerate(as_completed(futures), 1):
                rows[futures[future]] = future.result()
                print(f"finished {number} of {len(items)}: {futures[future]}", flush=True)
                write({item: rows[item] for item in items if item in rows})
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
