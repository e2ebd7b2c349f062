"""What finds the cue sooner: python experiments/learning_sooner/run.py [--parts methods] [--jobs 2]

On the corridor: optimiser steps until 90 % of 100 held-out demonstrations are decided right at the branch, for every
method, for fewer demonstrations and for longer delays. A run ends when it is there, or after --steps. Finished runs are
not repeated, interrupted ones continue. Writes results/<part>.json; `python experiments/report.py learning_sooner`
makes tables and plots from them.
"""

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

from common import ROOT, Row, collect, in_parallel, train  # noqa: E402

from trace_il.scores import write_results  # noqa: E402

HELD_OUT, ENOUGH, EPOCH = 100, 0.9, 40  # demonstrations, branch accuracy, optimiser steps between validations
DEMONSTRATIONS, DELAY = 100, 60
WINDOW = ("memory.stride=1", "memory.slots=48")  # ticks of the transformer memory: from the lamp to the hall
METHODS = {
    "trace": [],
    "trace, no teacher": ["trainer.teacher=none"],
    "trace + distillation": ["trainer.distillation=0.3"],
    "trace + residual weights": ["trainer.residual=0.5"],
    "trace + spread gates": ["memory.gate_span=2.5"],
    "trace + recall": ["trainer.recall=1"],
    "trace + recall, no teacher": ["trainer.recall=1", "trainer.teacher=none"],
    "trace, no path noise": ["agent.path_noise=0"],
    "trace, no address dropout": ["agent.address_dropout=0"],
    "trace, address without noise": ["agent.path_noise=0", "agent.address_dropout=0"],
    "trace + curriculum": [],  # begins with the weights of a run at a quarter of the delay
    "gru": ["memory=gru"],
    "gru, no teacher": ["memory=gru", "trainer.teacher=none"],
    "transformer": ["memory=transformer", *WINDOW],
    "transformer, no teacher": ["memory=transformer", *WINDOW, "trainer.teacher=none"],
    "lru": ["memory=lru"],
    "lru, no teacher": ["memory=lru", "trainer.teacher=none"],
}
FEW = ("trace", "trace, no teacher", "gru")  # methods that demonstrations and delays are varied for, if none is named


@dataclass(frozen=True)
class Case:
    method: str
    seed: int
    demonstrations: int = DEMONSTRATIONS
    delay: int = DELAY

    @property
    def name(self) -> str:
        words = "".join(c if c.isalnum() else "_" for c in self.method)
        return f"sooner-{words}-{self.demonstrations}-{self.delay}-{self.seed}"

    @property
    def folder(self) -> Path:
        return ROOT / "runs" / self.name


def cases(part: str, seeds: list[int], methods: Sequence[str] | None = None) -> list[Case]:
    chosen = methods or (METHODS if part == "methods" else FEW)
    if part == "methods":
        return [Case(method, seed) for seed in seeds for method in chosen]
    if part == "demonstrations":
        return [Case(method, seed, n) for seed in seeds for n in (10, 25, 50, 100, 200) for method in chosen]
    return [Case(method, seed, delay=DELAY * k) for seed in seeds for k in (1, 2, 3, 4) for method in chosen]


def find(case: Case, steps: int, jobs: int) -> list[Row]:
    """Train, or continue, until the branch is decided right or the steps are used up."""
    extra = METHODS[case.method]
    if case.method == "trace + curriculum":
        first = Case("trace", case.seed, case.demonstrations, case.delay // 4)
        find(first, steps, jobs)
        extra = [f"trainer.init={first.folder / 'checkpoints/last.ckpt'}"]
    count = case.demonstrations + HELD_OUT
    shared = ["env=corridor", f"env.delay={case.delay}", f"data.episodes={count}", f"data.holdout={HELD_OUT / count}"]
    shared += [f"trainer.steps_per_epoch={EPOCH}", f"trainer.epochs={steps // EPOCH}", f"trainer.stop_at={ENOUGH}"]
    shared += [f"seed={case.seed}", "evaluation.recording=false", "evaluation.export=false", "evaluation.episodes=0"]
    train(case.name, [*shared, *extra], jobs)
    return [outcome(case)]


def outcome(case: Case) -> dict:
    """Steps to ENOUGH, None where it was not reached, of a finished run; a curriculum's first run counts as well."""
    before = 0
    if case.method == "trace + curriculum":
        before = outcome(Case("trace", case.seed, case.demonstrations, case.delay // 4))["trained"]
    with (case.folder / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("val/branch_accuracy")]
    curve = [(before + int(row["step"]) + 1, float(row["val/branch_accuracy"])) for row in rows]
    reached = next((step for step, accuracy in curve if accuracy >= ENOUGH - 1e-6), None)
    row = {"method": case.method, "seed": case.seed, "demonstrations": case.demonstrations, "delay": case.delay}
    row |= {"steps": reached, "best": max(accuracy for _, accuracy in curve), "trained": curve[-1][0]}
    return row | {"trained_at": ", ".join(json.loads((case.folder / "summary.json").read_text())["commits"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ["methods", "demonstrations", "delays"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), help=f"default: all, or {', '.join(FEW)}")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, of one thread each")
    parser.add_argument("--steps", type=int, default=2000, help="optimiser steps after which a run is given up")
    options = parser.parse_args()
    for delay in sorted({c.delay for part in options.parts for c in cases(part, [0])} | {DELAY // 4}):
        most = max(c.demonstrations for part in parts for c in cases(part, [0])) + HELD_OUT
        collect(["env=corridor", f"env.delay={delay}", f"data.episodes={most}"])
    for part in options.parts:

        def write(rows: dict[Case, list[Row]], part: str = part) -> None:
            lines = [row for own in rows.values() for row in own]
            key = ("method", "demonstrations", "delay", "seed")
            write_results(HERE / f"results/{part}.json", options.seeds, lines, key)

        def do(case: Case) -> list[Row]:
            return find(case, options.steps, options.jobs)

        in_parallel(cases(part, options.seeds, options.methods), options.jobs, do, write)


if __name__ == "__main__":
    main()
